"""What a report says of workloads without images: sequence lengths, and what a batch is counted in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepcost.report.load import Run
from stepcost.report.page.headline import four_figures
from stepcost.report.page.plots_lengths import memory_over_sequence_length
from stepcost.report.page.plots_memory import memory_over_batch_size
from stepcost.report.page.plots_steps import step_time_over_batch_size
from tests.report.handmade import answer, cell, memory, search

TOKENS: dict[str, Any] = {"image_size": None, "sequence_length": 128}
OWN: dict[str, Any] = {"image_size": None, "sequence_length": None}
STEPS = [
    memory("3a", "adam", 2, (10, 20, 30, 600, 630), **TOKENS),
    memory("3a", "adam", 4, (15, 25, 40, 600, 640), **TOKENS),
    memory("3a", "adam", 2, (18, 28, 50, 600, 650), **TOKENS | {"sequence_length": 1024}),
]


def run_of(*rows: dict[str, Any]) -> Run:
    """A run with these rows."""
    return Run(name="run1", path=Path("run1.json"), rows=rows, machine={"gpu_total_bytes": 80_000_000_000})


def test_memory_by_sequence_length_is_said_after_the_batch_sizes() -> None:
    """3a gives memory at each batch size, then at each length, and both in one table."""
    found = answer("3a", [*STEPS, search(largest_batch=30, **TOKENS)])
    for said in (
        "Process memory is 630.0 MB at batch 2 and 640.0 MB at batch 4 (net, Adam, 128 tokens, fp32, eager).",
        "Process memory is 630.0 MB at 128 tokens and 650.0 MB at 1,024 tokens (net, Adam, batch 2, fp32",
        "The largest batch that trained is 30",
    ):
        assert said in found.text
    assert "more configuration" not in found.text
    assert cell(found, "reserved", "batch 4") == "40.0"
    assert cell(found, "reserved", "1,024 tokens") == "50.0"


def test_other_configurations_are_still_counted() -> None:
    """A row that differs in more than its length is one more configuration, as without lengths."""
    other = memory("3a", "adam", 2, (1, 2, 3, 600, 603), **TOKENS, precision="bf16") | {"source": "measured"}
    assert "1 more configuration in the tables." in answer("3a", [*STEPS, other]).text


def test_one_length_is_not_compared() -> None:
    """Where one length was asked, nothing is said of lengths, and no plot of them is drawn."""
    found = answer("3a", STEPS[:2])
    assert "at 128 tokens" not in found.text
    assert found.table is not None
    assert found.table.columns[0] == "batch size"
    assert isinstance(memory_over_sequence_length(run_of(*STEPS[:2])), str)


def test_memory_over_sequence_length_is_drawn() -> None:
    """The plot says each figure at each length, at one batch size, and can be drawn."""
    plot = memory_over_sequence_length(run_of(*STEPS))
    assert not isinstance(plot, str)
    assert "128 tokens: tensors 10.0 MB, allocated 20.0 MB" in plot.description
    assert "1,024 tokens: tensors 18.0 MB" in plot.description
    assert "batch 2" in plot.caption
    assert plot.figure.axes[0].get_xlabel() == "sequence length, tokens"
    batches = memory_over_batch_size(run_of(*STEPS))
    assert not isinstance(batches, str)
    assert "batch 4" in batches.description
    assert "50.0" not in batches.description


@pytest.mark.parametrize(
    ("fields", "one", "an"),
    [
        ({"image_size": 32}, "image", "an image"),
        (TOKENS, "sequence", "a sequence"),
        (OWN, "example", "an example"),
    ],
)
def test_what_a_batch_is_counted_in(fields: dict[str, Any], one: str, an: str) -> None:
    """Rates, joules and bounds are of images, of sequences, or of the examples of one's own workload."""
    failed = search(smallest_batch_that_fails=1, **fields)
    assert answer("3a", [failed]).text.startswith(f"Not even one {one} trains")
    fast = search(largest_batch=8, largest_batch_at_full_speed=4, **fields)
    assert f"best {one}s per second is 4" in answer("3a", [fast]).text
    step = memory("4", "adam", 4, (1, 2), timed="engine step", stats={"median": 0.5}, energy_j=2.0, **fields)
    steps = answer("4", [step])
    assert f"500 mJ {an}" in steps.text
    assert steps.table is not None
    assert f"{one}s /s" in steps.table.columns
    timed = memory("3a", "adam", 4, (1, 2), timed="training step", stats={"median": 0.5}, **fields)
    plot = step_time_over_batch_size(run_of(timed))
    assert not isinstance(plot, str)
    assert f"8.00 {one}s per second" in plot.description
    notes = " ".join(figure.note for figure in four_figures(run_of(timed, step)))
    assert f"8 {one}s/s" in notes
    assert f"500 mJ {an}" in notes
