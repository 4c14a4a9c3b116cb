"""NeuSight's own steps on an H100: as its authors measured them, as it predicted them, and as they are here.

``python -m experiments.neusight CLONE`` takes a clone of github.com/sitar-lab/NeuSight, which holds what was
measured (torch 2.1, eager, fp32 without TF32: forward and backward of language models, gradients added to
those of the step before, no optimizer) and what it predicted. Nothing of it is run. Here the same is
predicted from the H100's table, in which none of these models is: the operators of forward, loss and
backward, with attention in single operators as there, and the bytes of adding gradients. Their seconds leave
out the loss's forward.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from experiments.arguments import parser_of
from experiments.step_times import Compared, summary
from stepcost.catalog.cards import CARDS
from stepcost.predicting.times.step_time import predict_parts, step_time
from stepcost.predicting.times.table import Step, TimesTable, table_of
from stepcost.predicting.times.traced import OPTIMIZER
from stepcost.request import Request
from stepcost.workload import workload_of

GPU = "h100-80gb"
DEVICE = "NVIDIA_H100_80GB_HBM3"
"""What NeuSight calls it."""
ADDED_BYTES = 12
"""For each parameter: two float32 are read, their sum is written."""


class Measured(NamedTuple):
    """A training step that NeuSight's authors measured on one GPU, and what NeuSight predicted."""

    name: str
    config: dict[str, Any]
    batch: int
    length: int
    step: Step
    neusight_s: float


def measured(clone: Path) -> Iterator[Measured]:
    """Yield each; raises ``OSError`` or ``ValueError`` for a folder that holds something else."""
    home = clone / "scripts" / "asplos"
    for label in sorted((home / "label" / DEVICE).glob("*-train-*.json")):
        predicted = home / "results" / "prediction" / DEVICE / "neusight" / label.name
        model, _, length, batch, *several = label.stem.split("-")
        if not several:
            step = Step(request={}, step_s=_seconds(label), entries=())
            config = json.loads((home / "data" / "DLmodel_configs" / f"{model}.json").read_text())
            name = f"{model} {batch} x {length}"
            yield Measured(name, config, int(batch), int(length), step, _seconds(predicted))


def _seconds(path: Path) -> float:
    return float(json.loads(path.read_text())["e2e_latency"]) / 1e3


def here(one: Measured, table: TimesTable) -> Compared:
    """Predict forward and backward from a card's table; raises ``ValueError`` in one line where it cannot."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps({**one.config, "attn_implementation": "eager"}))
        request = Request(
            model=str(path),
            optimizer="sgd",
            batch_size=one.batch,
            image_size=None,
            num_classes=None,
            sequence_length=one.length,
            engine="graph",
        )
        parts = [each for each in predict_parts(request, CARDS[GPU]) if each.module != OPTIMIZER]
        parameters = sum(each.numel() for each in workload_of(request).build_on_meta().parameters())
    found = step_time(parts, table)
    added_s = ADDED_BYTES * parameters / float(table.about["rates"]["copy_bytes_per_s"])
    held = found.low_s <= one.step.step_s - added_s <= found.high_s
    return Compared(one.step, found.step_s + added_s, held)


def main(arguments: list[str] | None = None) -> int:
    """Print each step and both summaries; return the exit status."""
    parser = parser_of("neusight", __doc__)
    parser.add_argument("clone", type=Path, help="a clone of NeuSight")
    options = parser.parse_args(arguments)
    table = table_of(CARDS[GPU])
    assert table is not None, "the package holds it"
    try:
        steps = list(measured(options.clone))
    except (OSError, ValueError) as error:
        parser.error(f"{options.clone} is no clone of NeuSight: {error}")
    if not steps:
        parser.error(f"{options.clone} is no clone of NeuSight: no step of an H100 is there")
    found: dict[str, list[Compared]] = {"NeuSight": [], "here": []}
    print("| step | measured ms | NeuSight % | here % |\n|---|---|---|---|")
    for one in steps:
        theirs = Compared(one.step, one.neusight_s)
        try:
            ours = here(one, table)
        except ValueError as error:
            sys.stderr.write(f"{one.name}: {error}\n")
            continue
        found["NeuSight"].append(theirs)
        found["here"].append(ours)
        errors = (f"{100 * each.error:+.1f}" for each in (theirs, ours))
        print(f"| {one.name} | {1e3 * one.step.step_s:.1f} | {' | '.join(errors)} |", flush=True)
    print("\n| predicted by | steps | median % | mean % | worst % | bias % | too fast % | held % |")
    print("|---|---|---|---|---|---|---|---|")
    for name, each in found.items():
        print(summary(name, each))
    return 0


if __name__ == "__main__":
    sys.exit(main())
