"""What reports say of engines: their steps, what bounds them, and what they train to."""

import copy
import io
from dataclasses import replace

import pytest

from stepcost.report.answers import answers
from stepcost.report.find import REFERENCE
from stepcost.report.load import load
from stepcost.report.page.drawing import Plot
from stepcost.report.page.plots_accuracy import accuracy_by_engine
from stepcost.report.page.plots_steps import step_by_engine
from stepcost.report.terminal import print_answers
from tests.report.handmade import NET


@pytest.fixture(scope="module")
def timed():
    """The reference run that times engines."""
    return load(REFERENCE / "h100-80gb-engines.json")


def answer_of(rows):
    """The answer to question 4."""
    return next(one for one in answers(rows) if one.question == "4")


def test_steps_are_compared_with_eager_and_their_limits(timed):
    """Each engine's line has its step, its speed against eager's, and both ratios to limits."""
    said = answer_of(timed.rows)
    lines = {(line[0], line[1]): line for line in said.table.rows}
    eager, fast = (
        next(r for r in timed.rows if r.get("engine") == engine and r.get("batch_size") == 64)
        for engine in ("eager", "fast")
    )
    plain_s, fast_s = eager["stats"]["median"], fast["stats"]["median"]
    line = lines["64", "fast"]
    assert float(line[2]) == pytest.approx(1000 * fast_s, rel=0.01)
    assert float(line[4]) == pytest.approx(plain_s / fast_s, rel=0.01)
    assert float(line[6]) == pytest.approx(fast_s / fast["kernel_s"], rel=0.01)
    assert float(line[8]) == pytest.approx(fast_s / fast["least_s"], rel=0.01)
    assert "batch 64 fast-bf16" in said.text
    assert said.source == "measured"


def out_of_memory(row):
    """What a run stores of that step where it runs out of memory."""
    names = ("question", "source", "model", "optimizer", "batch_size", "image_size", "precision", "engine")
    kept = {name: row.get(name) for name in names}
    return kept | {"timed": "attempt that ran out of memory", "fits": False, "stats": {"median": 1e-6}}


def test_steps_out_of_memory_are_said(timed):
    """A step that ran out of memory keeps its line and is named; where all did, none is called fastest."""
    failing = [
        out_of_memory(row) if (row.get("engine"), row.get("batch_size")) == ("eager", 256) else row
        for row in timed.rows
    ]
    said = answer_of(failing)
    lines = [(line[:3], set(line[3:])) for line in said.table.rows]
    assert len(lines) == len(answer_of(timed.rows).table.rows)
    assert (("256", "eager", "out of memory"), {"?"}) in lines
    assert said.text.count("Out of memory: batch 256 eager.") == 1
    assert "Out of memory" not in answer_of(timed.rows).text
    assert {line[4] for line in said.table.rows if line[0] == "256"} == {"?"}
    every = [out_of_memory(row) for row in timed.rows if row.get("timed") == "engine step"]
    assert answer_of(every).text.startswith("Out of memory: batch 4 eager, batch 4 graph, ")
    assert answer_of(every).source == "measured"


def test_a_step_that_was_timed_too_is_not_out_of_memory(timed):
    """Of a step asked twice the timed one is shown, whichever came first."""
    failed = [out_of_memory(row) for row in timed.rows if row.get("timed") == "engine step"]
    for rows in ([*timed.rows, *failed], [*failed, *timed.rows]):
        assert answer_of(rows) == answer_of(timed.rows)


@pytest.mark.parametrize("name", ["h100-80gb-engines", "h100-80gb-compiled", "h200-141gb-engines"])
@pytest.mark.parametrize("failing", [False, True])
def test_the_table_fits_80_columns(monkeypatch, failing, name):
    """No figure or heading is lost in a terminal of 80 columns, out of memory or not; engines are labels."""
    rows = [
        out_of_memory(row)
        if failing and row.get("timed") == "engine step" and row["batch_size"] == 256
        else row
        for row in load(REFERENCE / f"{name}.json").rows
    ]
    answer = answer_of(rows)
    assert len(set(answer.table.columns)) == len(answer.table.columns)
    assert answer.table.label_columns == 2
    monkeypatch.setenv("COLUMNS", "80")
    out = io.StringIO()
    print_answers([answer], out)
    heading, _, body = out.getvalue().partition("---")
    assert max(map(len, out.getvalue().splitlines())) <= 80
    words = heading.replace(answer.text, "").split()
    assert all(words.count(word) for column in answer.table.columns for word in column.split())
    found = [line.split()[-6:] for line in body.splitlines()]
    for row in answer.table.rows:
        assert list(row[-6:]) in found


def test_without_eager_nothing_is_compared_with_it(timed):
    """A run without eager says so by a question mark, never by a ratio to something else."""
    said = answer_of([row for row in timed.rows if row.get("engine") != "eager"])
    assert {line[4] for line in said.table.rows} == {"?"}
    assert "times as fast" not in said.text


def test_losses_are_quoted_only_where_they_were_taken_in_fp64(timed):
    """Losses of fp32, in which two right programs drift apart, are not quoted as a difference of engines."""
    rows = copy.deepcopy([dict(row) for row in timed.rows])
    assert any(row.get("loss_difference") for row in rows)
    assert "fp64" not in answer_of(rows).text
    for row in rows:
        if row.get("loss_difference"):
            row["precision"] = "fp64"
    assert "In fp64" in answer_of(rows).text


def test_not_asked_is_skipped(timed):
    """A run that timed no engines answers question 4 with how to ask it, and has no plot of it."""
    run = load(REFERENCE / "h100-80gb.json")
    assert (answer_of(run.rows).source, "--engines" in answer_of(run.rows).text) == ("skipped", True)
    assert isinstance(step_by_engine(run), str)
    plot = step_by_engine(timed)
    assert isinstance(plot, Plot)
    assert len(plot.figure.axes) == 4  # batch sizes


def test_training_curves_of_engines_share_a_panel():
    """Runs of two engines on the same data are drawn together; of one engine, there is no plot."""
    names = ("eager", "fast", "fast-seeds")
    runs = [load(REFERENCE / f"h200-141gb-cifar10-6k-{name}.json") for name in names]
    plot = accuracy_by_engine(runs)
    assert isinstance(plot, Plot)
    assert [axes.get_title(loc="left") for axes in plot.figure.axes] == ["batch 64, %", "batch 256, %"]
    legend = [text.get_text() for text in plot.figure.legends[0].get_texts()]
    assert legend == ["eager, 1 seed", "fast, 3 seeds"]
    assert isinstance(accuracy_by_engine(runs[1:]), str)


def test_the_caption_names_what_is_drawn():
    """The data set and every run with a line are in the caption; a run without one is not."""
    names = ("h200-141gb-cifar10-6k-eager", "h200-141gb-cifar10-6k-fast", "h200-141gb-engines")
    plot = accuracy_by_engine([load(REFERENCE / f"{name}.json") for name in names])
    caption = f"{plot.caption} {plot.where}"
    assert [name in caption for name in names] == [True, True, False]
    assert "cifar10-6k.npz" in caption


def test_a_seed_that_was_run_twice_is_one_seed():
    """Two runs with the same seed are called runs, not seeds."""
    runs = [load(REFERENCE / f"h200-141gb-cifar10-6k-{name}.json") for name in ("eager", "fast")]
    plot = accuracy_by_engine([*runs, replace(runs[1], name="again")])
    legend = [text.get_text() for text in plot.figure.legends[0].get_texts()]
    assert legend == ["eager, 1 seed", "fast, 2 runs"]


def test_schedules_are_not_drawn_together():
    """A run with a cosine schedule is not drawn with constant ones; two of them are, and say so."""
    runs = [load(REFERENCE / f"h200-141gb-cifar10-6k-{name}.json") for name in ("eager", "fast")]
    cosine = [replace(run, rows=tuple(row | {"schedule": "cosine"} for row in run.rows)) for run in runs]
    assert isinstance(accuracy_by_engine([runs[0], cosine[1]]), str)
    plot = accuracy_by_engine(cosine)
    assert "cosine schedule" in plot.caption


PREDICTED = {
    "step_s": 0.020,
    "step_low_s": 0.019,
    "step_high_s": 0.021,
    "step_basis": "recorded on this card",
    "recorded_torch": "2.11.0",
    "by_operator_s": {"convolution_backward": 0.010, "batch_norm": 0.005, "relu_": 0.004},
}
"""Of a step of 20 ms, of which 1 lies between kernels."""


def beside(median_s, **fields):
    """A captured step that took so long beside that prediction."""
    asked = NET | {"question": "4", "timed": "engine step", "engine": "graph", "batch_size": 8}
    return asked | {"stats": {"median": median_s}, "predicted_step": PREDICTED} | fields


def test_a_step_slower_than_predicted_says_by_which_operators():
    """Of 3 ms more, 2 are of one operator and 0.9 of another; what is under a tenth is not named."""
    taken = {"convolution_backward": 0.012, "batch_norm": 0.0059, "relu_": 0.004}
    said = answer_of([beside(0.023, by_operator_s=taken)]).text
    assert (
        "0 of 1 steps lie within their predictions; batch 8 graph is 15.0 % slower than predicted (20.0 ms, "
        "at most 21.0 ms; operators recorded on this card, torch 2.11.0): convolution_backward +2.00 ms, "
        "batch_norm +0.900 ms."
    ) in said


def test_an_operator_in_place_of_another_is_named_with_it():
    """One that is gone stands beside the one that came, and what no operator explains is between kernels."""
    taken = {"convolution_backward": 0.010, "batch_norm_v2": 0.007, "relu_": 0.004}
    said = answer_of([beside(0.023, by_operator_s=taken)]).text
    assert said.rstrip(".").endswith(
        ": batch_norm_v2 +7.00 ms, batch_norm -5.00 ms, between kernels +1.00 ms"
    )


def test_a_step_faster_than_predicted_says_so_too():
    """Below the interval the other end is quoted."""
    taken = {"convolution_backward": 0.008, "batch_norm": 0.005, "relu_": 0.004}
    said = answer_of([beside(0.018, by_operator_s=taken)]).text
    assert "10.0 % faster than predicted (20.0 ms, at least 19.0 ms;" in said
    assert said.rstrip(".").endswith(": convolution_backward -2.00 ms")


def test_operators_that_are_unread_say_why():
    """Without the measured operators the difference is said, and why no operator is named."""
    said = answer_of([beside(0.023, unread={"by_operator_s": "no room"})]).text
    assert said.rstrip(".").endswith("; by which operators is unread: no room")


@pytest.mark.parametrize("median_s", [0.019, 0.020, 0.021])
def test_a_step_within_its_prediction_is_counted(median_s):
    """Inside the interval, ends included, nothing is told apart."""
    assert "1 of 1 steps lie within their predictions." in answer_of([beside(median_s)]).text
