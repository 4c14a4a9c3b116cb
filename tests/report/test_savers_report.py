"""What reports say of ways to save memory: rows with numbers worked out by hand."""

import io
from pathlib import Path

import pytest

from stepcost.report.compare.matching import identity
from stepcost.report.first_lines import first_lines
from stepcost.report.load import Run
from stepcost.report.page.drawing import Plot
from stepcost.report.page.headline import four_figures
from stepcost.report.page.plots_savers import memory_by_saver
from stepcost.report.terminal import print_answers
from tests.report.handmade import NET, answer, cell

PARTS = ("parameter", "gradient", "optimizer_state", "activation", "workspace", "slack", "context")


def row(saver, megabytes, took_s=None, **more):
    """A step with these MB in the parts of its ledger, and what pytest-benchmark timed."""
    ledger = {f"{part}_bytes": round(size * 1e6) for part, size in zip(PARTS, megabytes, strict=True)}
    reserved = sum(ledger.values()) - ledger["context_bytes"]
    return NET | {
        "question": "5",
        "saver": saver,
        "optimizer": "adam",
        "batch_size": 8,
        "fits": True,
        "timed": "training step" if took_s else "prediction",
        "stats": {"median": took_s or 0.7},
        "ledger": ledger | {"buffer_bytes": 0, "input_bytes": 0},
        "peak_reserved_bytes": reserved,
        "process_bytes": reserved + ledger["context_bytes"],
        "peak_moment": "backward",
    } | more  # fmt: skip


PLAIN = row("plain", (100, 0, 200, 600, 50, 50, 500), 0.1)
HALF = row("pure-bf16", (50, 0, 100, 300, 50, 25, 500), 0.05, precision="pure-bf16")
CHECKPOINT = row("checkpoint", (100, 100, 200, 60, 50, 90.04, 500), 0.13, checkpoint="blocks")
LAST = row("channels-last", (100, 0, 200, 700, 50, 50, 500), 0.12, channels_last=True)
ROWS = [PLAIN, HALF, CHECKPOINT, LAST]
PREDICTED = [one | {"source": "predicted", "timed": "prediction", "card": "h100-80gb"} for one in ROWS]


def largest(saver, **more):
    """The row of a search for the largest batch."""
    return NET | {
        "question": "5",
        "saver": saver,
        "source": "predicted",
        "card": "h100-80gb",
        "timed": "search",
        "optimizer": "adam",
    } | more  # fmt: skip


def test_what_is_saved_of_each_part_and_what_it_costs():
    """Each cell is the plain step's less that step's; a part of which more is held is below 0."""
    found = answer("5", ROWS)
    expected = {
        ("pure-bf16", "parameters"): "50.0",
        ("pure-bf16", "state"): "100.0",
        ("pure-bf16", "activations"): "300.0",
        ("pure-bf16", "workspace"): "0.0",
        ("pure-bf16", "slack"): "25.0",
        ("pure-bf16", "reserved"): "525.0",
        ("pure-bf16", "process"): "1,025.0",
        ("pure-bf16", "step ms"): "50.0",
        ("pure-bf16", "x plain"): "0.500",
        ("checkpoint", "gradients"): "-100.0",
        ("checkpoint", "activations"): "540.0",
        ("checkpoint", "x plain"): "1.30",
        ("plain", "activations"): "600.0",
        ("plain", "process"): "1,500.0",
    }
    assert {key: cell(found, key[1], key[0]) for key in expected} == expected
    assert [line[0] for line in found.table.rows] == ["plain", "pure-bf16", "checkpoint", "channels-last"]
    assert found.source == "measured"
    assert found.text == (
        "pure-bf16 saves most process memory, 475.0 MB or 31.7 % of the plain step's 1,500.0 MB (in 0.500 "
        "times the time): net, Adam, batch 8, 16x16 images, fp32, eager. The others save: checkpoint 400.0 "
        "MB (in 1.30 times the time). No less memory: channels-last."
    )


def test_a_difference_that_rounds_to_nothing_is_not_below_0():
    """40 kB more of a part are 0.0 MB, not -0.0."""
    found = answer("5", [PLAIN, row("bf16", (100.04, 0, 200, 600, 50, 50, 500), precision="bf16")])
    assert cell(found, "parameters", "bf16") == "0.0"


def test_predictions_have_no_time_and_measurements_no_predicted_batch():
    """A column without a figure is not there: no time of a prediction, no search of a measurement."""
    found = answer("5", [*PREDICTED, largest("plain", largest_batch=90)])
    assert found.source == "predicted"
    assert not {"step ms", "x plain"} & set(found.table.columns)
    assert "times the time" not in found.text
    assert "for the card h100-80gb" in found.text
    assert "largest batch" not in answer("5", ROWS).table.columns


def test_measured_and_predicted_never_meet():
    """Of a run that has both, what was measured is compared with what was measured."""
    both = [*PREDICTED, PLAIN, HALF, largest("plain", largest_batch=90)]
    found = answer("5", both)
    assert found.source == "measured"
    assert [line[0] for line in found.table.rows] == ["plain", "pure-bf16"]
    assert "largest batch" not in found.table.columns


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"largest_batch": 1234}, "1,234"),
        ({"largest_batch": 336, "accumulate": 4}, "4 x 336"),
        ({"largest_batch": None, "largest_batch_at_least": 99}, "at least 99"),
        ({"largest_batch": None, "largest_batch_at_most": 7, "accumulate": 4}, "at most 4 x 7"),
        ({"largest_batch": None}, "?"),
    ],
)
def test_the_largest_batch_is_said_in_the_terms_of_the_row(search, said):
    """With micro-batches it is their number and their size; a bound is called one."""
    rows = [*PREDICTED, largest("plain", largest_batch=5), largest("pure-bf16", **search)]
    assert cell(answer("5", rows), "largest batch", "pure-bf16") == said


def test_out_of_memory_is_no_saving():
    """A step that did not fit has no figures and is named; a plain one that did not, leaves no comparison."""
    unfit = {"fits": False, "ledger": None, "process_bytes": None, "peak_reserved_bytes": None}
    found = answer("5", [PLAIN, HALF, LAST | unfit])
    assert cell(found, "process", "channels-last") == "out of memory"
    assert cell(found, "activations", "channels-last") == "?"
    assert found.text.endswith("Out of memory: channels-last.")
    assert answer("5", [PLAIN | unfit, HALF]).text == "Nothing can be compared: the plain step does not fit."


def test_where_the_process_is_unknown_less_is_claimed():
    """Without a process in every row reserved memory is compared, and what is unknown is said."""
    rows = [
        one | {"process_bytes": None, "unread": {"process_bytes": "no context of this card was measured"}}
        for one in PREDICTED
    ]
    found = answer("5", rows)
    assert "saves most reserved memory, 475.0 MB or 47.5 % of" in found.text
    assert "not known: process (no context of this card was measured)" in found.text
    assert "process" not in found.table.columns


def test_nothing_asked_is_skipped():
    """A run without such rows says how to ask for them, and one of the plain step alone compares nothing."""
    found = answer("5", [])
    assert (found.source, "--savers" in found.text) == ("skipped", True)
    assert "plain step alone" in answer("5", [PLAIN]).text


def run_of(rows):
    """A saved run of these rows."""
    return Run(name="savers", path=Path("savers.json"), rows=tuple(rows))


def test_no_two_ways_are_compared_with_each_other():
    """Rows that differ in the way to save memory alone are two things to a comparison."""
    assert identity(PLAIN) != identity(PLAIN | {"saver": "bf16"})
    assert identity(PLAIN) == identity(PLAIN | {"process_bytes": 1})


def test_the_plot_has_a_bar_for_each_with_its_time():
    """The stack of each way, in the order asked, with process, time and the ratio to the plain step."""
    plot = memory_by_saver(run_of(ROWS))
    assert isinstance(plot, Plot)
    written = [text.get_text() for text in plot.figure.axes[0].texts]
    assert written[::2] == ["plain", "pure-bf16", "checkpoint", "channels-last"]
    assert written[1] == "process 1,500.0 MB · 100 ms"
    assert written[3] == "process 1,025.0 MB · 50.0 ms · 0.500 x"
    assert plot.caption.startswith("Measured. net, Adam, batch 8")
    predicted = memory_by_saver(run_of(PREDICTED))
    assert predicted.caption.startswith("Predicted.")
    assert predicted.figure.axes[0].texts[1].get_text() == "process 1,500.0 MB"
    assert isinstance(memory_by_saver(run_of([PLAIN])), str)


def test_a_run_of_this_question_alone_opens_with_its_plain_step():
    """The first line is of the plain step, whatever the others take."""
    searched = [largest("pure-bf16", largest_batch=180), largest("plain", largest_batch=90)]
    line, more = first_lines([*PREDICTED, *searched], {}, "net")
    assert line.startswith("Adam, batch 8: 1.50 of 85.0 GB")
    assert more == "largest batch 90 (Adam, predicted for h100-80gb)"
    figures = {one.label: one.value for one in four_figures(run_of([*PREDICTED, *searched]))}
    assert figures["Largest batch"] == "90"


def test_the_table_goes_on_below_where_a_terminal_ends(monkeypatch):
    """In 80 columns every figure is whole and stands in a line that begins with its step."""
    monkeypatch.setenv("COLUMNS", "80")
    out, found = io.StringIO(), answer("5", ROWS)
    print_answers([found], out)
    assert max(map(len, out.getvalue().splitlines())) <= 80
    lines = out.getvalue().partition("---")[2].splitlines()
    for step, *figures in found.table.rows:
        of_step = [word for line in lines if line.split()[:1] == [step] for word in line.split()[1:]]
        assert of_step == [word for figure in figures for word in figure.split()]
