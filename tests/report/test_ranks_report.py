"""What reports say of several GPUs: rows with numbers worked out by hand."""

from pathlib import Path

import pytest

from stepcost.report.answers.ranks import AT_MOST
from stepcost.report.compare.matching import identity
from stepcost.report.first_lines import first_lines
from stepcost.report.load import Run
from stepcost.report.page.drawing import Plot
from stepcost.report.page.plots_ranks import memory_by_rank, step_time_over_gpus
from tests.report.handmade import NET, answer, cell

PARTS = (
    "parameter",
    "gradient",
    "optimizer_state",
    "parallel",
    "activation",
    "workspace",
    "slack",
    "context",
)


def held(*megabytes):
    """What one GPU holds: these MB in the parts of its ledger, and what follows from them."""
    ledger = {f"{part}_bytes": round(size * 1e6) for part, size in zip(PARTS, megabytes, strict=True)}
    process = sum(ledger.values())
    reserved = process - ledger["context_bytes"]
    return {
        **{name: ledger[name] for name in ("parameter_bytes", "optimizer_state_bytes", "context_bytes")},
        "gradient_bytes": ledger["parameter_bytes"],
        "peak_allocated_bytes": reserved - ledger["slack_bytes"],
        "peak_reserved_bytes": reserved,
        "process_bytes": process,
        "ledger": ledger | {"buffer_bytes": 0, "input_bytes": 0},
    }


def row(parallel, took_s, *ranks, **more):
    """A step shared so: its row has the figures of its first GPU, and two GPUs or one."""
    several = {"parallel": parallel, "gpus": len(ranks), "ranks": list(ranks)} if len(ranks) > 1 else {}
    return NET | ranks[0] | several | {
        "question": "6",
        "optimizer": "adam",
        "batch_size": 8,
        "fits": True,
        "timed": "training step",
        "stats": {"median": took_s},
    } | more  # fmt: skip


ALONE = row("none", 0.1, held(100, 0, 200, 0, 600, 50, 50, 500))
FULLEST = held(100, 0, 200, 100, 600, 50, 50, 800) | {"communicator_bytes": 300_000_000}
DDP = row("ddp", 0.125, FULLEST, held(100, 0, 200, 100, 600, 40, 50, 800))
HALF = held(50, 0, 100, 25, 600, 50, 75, 850)
FSDP = row("fsdp2", 0.2, HALF, HALF)
ROWS = [DDP, FSDP, ALONE]


def test_each_gpu_is_a_line_beside_one_gpu():
    """Each cell is that GPU's; what is of all of them together stands with each: time and rate."""
    found = answer("6", ROWS)
    assert [line[:2] for line in found.table.rows] == [
        ("none", "0"),
        ("ddp", "0"),
        ("ddp", "1"),
        ("fsdp2", "0 to 1"),  # alike
    ]
    expected = {
        ("none", "0", "process"): "1,500.0",
        ("none", "0", "of it NCCL"): "none",
        ("none", "0", "examples/s"): "80.0",
        ("ddp", "0", "buckets, gathered"): "100.0",
        ("ddp", "0", "of it NCCL"): "300.0",
        ("ddp", "1", "workspace"): "40.0",
        ("ddp", "1", "x one GPU"): "1.25",
        ("ddp", "1", "examples/s"): "128",
        ("fsdp2", "0 to 1", "parameters"): "50.0",
        ("fsdp2", "0 to 1", "gradients"): "50.0",
        ("fsdp2", "0 to 1", "step ms"): "200",
    }
    assert {key: cell(found, key[2], *key[:2]) for key in expected} == expected
    assert found.text == (
        "The fullest of 2 GPUs takes, of process memory: 1,500.0 MB on one GPU; fsdp2 1,750.0 MB, 116.7 % "
        "of that in 2.00 times the time and ddp 1,900.0 MB, 126.7 % of that in 1.25 times the time (net, "
        "Adam, batch 8, 16x16 images, fp32, eager, a batch for each)."
    )


def test_split_batch_and_communication_are_said():
    """Half of 8 on each of 2 GPUs takes 0.6 times the time; of 40 ms of NCCL 10 ms are not hidden."""
    split = DDP | {"batch_size": 4, "stats": {"median": 0.06}}
    shared = DDP | {"communication_s": 0.04, "exposed_communication_s": 0.01}
    found = answer("6", [split, shared, split | {"parallel": "fsdp2"}, FSDP, ALONE])
    assert found.text.endswith(
        "With the batch of one GPU split between them, a step takes so many times its time: "
        "ddp 0.600 and fsdp2 0.600."
    )
    assert (cell(found, "NCCL ms", "ddp", "0"), cell(found, "not hidden", "ddp", "0")) == ("40.0", "25.0 %")
    assert cell(found, "NCCL ms", "fsdp2", "0 to 1") == "not read"
    assert answer("6", [split, shared]).table.rows[0][:2] == ("ddp", "0")
    whole = answer("6", [split, shared])  # of the batch that is not split
    assert cell(whole, "examples/s", "ddp", "0") == "128"


def test_without_one_gpu_nothing_is_compared_with_it():
    """A run of one strategy alone says what its GPUs hold."""
    found = answer("6", [DDP])
    assert "of process memory: ddp 1,900.0 MB (net" in found.text
    assert "x one GPU" not in found.table.columns


@pytest.mark.parametrize(
    "rows", [[ALONE, DDP | {"fits": False, "ranks": []}], [DDP | {"fits": False}, ALONE]]
)
def test_out_of_memory_is_named(rows):
    """What did not fit is named, and has no figures."""
    none = dict.fromkeys(("process_bytes", "peak_reserved_bytes", "peak_allocated_bytes", "ledger"))
    found = answer("6", [one | (none if one.get("fits") is False else {}) | {"ranks": []} for one in rows])
    assert found.text.endswith("Out of memory: ddp.")
    assert cell(found, "allocated", "ddp") == "out of memory"


def test_cells_without_a_number_say_why():
    """One GPU has no NCCL; what was not read says so, with the reason below; what ran out says that."""
    unread = {"process_bytes": "NVML is missing", "activation_bytes": "a bound", "losses": "of no column"}
    blind = FULLEST | dict.fromkeys(("process_bytes", "context_bytes", "communicator_bytes"))
    none = dict.fromkeys(("process_bytes", "peak_reserved_bytes", "peak_allocated_bytes", "ledger"))
    ddp = DDP | {"ranks": [FULLEST, blind], "process_bytes": None, "unread": unread, "activation_bytes": 1}
    ddp["communication_s"] = 0.0
    zero1 = DDP | {"parallel": "zero1", "communication_s": 0.04, "exposed_communication_s": 0.01}
    found = answer("6", [ALONE, ddp, zero1, FSDP | none | {"fits": False, "ranks": []}])
    expected = {
        ("none", "0"): ("1,500.0", "none", "none"),
        ("ddp", "1"): ("not read", "not read", "none"),  # nothing of NCCL's time to hide
        ("fsdp2", "0"): ("out of memory",) * 3,
    }
    columns = ("process", "of it NCCL", "not hidden")
    assert {way: tuple(cell(found, name, *way) for name in columns) for way in expected} == expected
    assert "while nothing else runs there. Not read: NVML is missing." in found.table.caption
    assert "Not read" not in answer("6", ROWS).table.caption


def test_nothing_asked_is_skipped():
    """A run without such rows says how to ask for them."""
    found = answer("6", [])
    assert (found.source, "--parallel all" in found.text) == ("skipped", True)


def test_ways_to_share_are_two_things_to_a_comparison():
    """Rows that differ in how the step is shared, or in how many GPUs share it, are not compared."""
    assert len({identity(one) for one in (DDP, DDP | {"parallel": "zero1"}, DDP | {"gpus": 4})}) == 3


def test_what_is_asked_of_fsdp2_is_said_with_its_name():
    """Beside other strategies, of which it cannot be asked, its rows belong to the same answer."""
    asked = FSDP | {"fsdp_precision": "bf16", "fsdp_keep_gathered": True}
    found = answer("6", [DDP, asked, ALONE])
    assert "on one GPU; fsdp2 in bf16 kept gathered 1,750.0 MB" in found.text
    assert [line[0] for line in found.table.rows][1:] == ["ddp", "ddp", "fsdp2 in bf16 kept gathered"]
    assert len({identity(one) for one in (FSDP, asked, asked | {"fsdp_keep_gathered": False})}) == 3


def test_numbers_of_gpus_stand_side_by_side():
    """Where one strategy is shared by 2 and by 4 the answer, the table and the plot say by how many."""
    both = [DDP | {"source": "predicted"}, row("ddp", 0.1, *[HALF] * 4) | {"source": "predicted"}]
    both[1]["ranks"][3] = HALF | {"peak_reserved_likely_bytes": [875_000_000, 990_000_000]}
    found = answer("6", both)
    assert "of 2, 4 GPUs" in found.text
    assert "ddp on 4 1,750.0 MB and ddp on 2 1,900.0 MB" in found.text
    both[1][AT_MOST] = [875_000_000, 990_000_000]  # of 900 reserved
    assert "ddp on 4 1,750.0 MB or up to 1,840.0 MB where time decides" in answer("6", both).text
    assert [line[:2] for line in found.table.rows][2:] == [("ddp on 4", "0 to 2"), ("ddp on 4", "3")]
    assert cell(found, "at most", "ddp on 4", "3") == "990.0"
    assert cell(found, "at most", "ddp on 4", "0 to 2") == "900.0", "what is reserved, where nothing is open"
    assert "at most" not in answer("6", ROWS).table.columns
    plot = memory_by_rank(Run(name="ranks", path=Path("ranks.json"), rows=tuple(both)))
    assert isinstance(plot, Plot)
    assert [text.get_text() for text in plot.figure.axes[0].texts][::2] == ["ddp on 2", "ddp on 4"]
    assert "the fullest GPU of each" in plot.caption


def test_the_plot_has_a_bar_for_each_gpu():
    """One GPU, then each of both by strategy, with process and time; what is gathered is in its key."""
    plot = memory_by_rank(Run(name="ranks", path=Path("ranks.json"), rows=tuple(ROWS)))
    assert isinstance(plot, Plot)
    written = [text.get_text() for text in plot.figure.axes[0].texts]
    assert written[::2] == ["none", "ddp, GPU 0", "ddp, GPU 1", "fsdp2, GPU 0 to 1"]
    assert written[1] == "process 1,500.0 MB · 100 ms"
    assert written[7] == "process 1,750.0 MB · 200 ms"
    assert "buckets, gathered parameters 25.0 MB" in plot.description
    assert isinstance(memory_by_rank(Run(name="one", path=Path("one.json"), rows=(ALONE,))), str)


def test_time_over_the_number_of_gpus():
    """Two and four GPUs are a line a strategy from one GPU on, with a batch each and with one batch split."""
    four = DDP | {"gpus": 4, "stats": {"median": 0.15}}
    split = [DDP | {"batch_size": 4, "stats": {"median": 0.06}}, four | {"batch_size": 2}]
    rows = (*ROWS, four, *split)
    plot = step_time_over_gpus(Run(name="ranks", path=Path("ranks.json"), rows=rows))
    assert isinstance(plot, Plot)
    assert plot.description == (
        "Two panels of lines from 100 ms on one GPU. ddp with a batch on each: 2 GPUs 125 ms, 4 GPUs 150 ms; "
        "fsdp2 with a batch on each: 2 GPUs 200 ms; ddp with one batch split: 2 GPUs 60.0 ms, 4 GPUs 150 ms."
    )
    left, right = plot.figure.axes
    assert [text.get_text() for text in left.texts] == ["150", "200"]
    assert [text.get_text() for text in right.texts] == ["150"]
    for lacking in ((DDP,), (ALONE,)):
        assert isinstance(step_time_over_gpus(Run(name="one", path=Path("one.json"), rows=lacking)), str)


def test_a_run_of_this_question_alone_opens_with_one_gpu():
    """The first line is of the step that nothing is shared in."""
    (line, *_) = first_lines(ROWS, {}, "net")
    assert line.startswith("Adam, batch 8: 1.50")
