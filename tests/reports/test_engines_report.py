"""What reports say of engines: their steps, what bounds them, and what they train to."""

import copy

import pytest

from reports.answers import answers
from reports.drawing import Plot
from reports.find import REFERENCE
from reports.load import load
from reports.plots_engines import accuracy_by_engine, step_by_engine


@pytest.fixture(scope="module")
def timed():
    """The reference run that times engines."""
    return load(REFERENCE / "h100-80gb-engines.json")


def answer_of(rows):
    """The answer to question 4."""
    return next(one for one in answers(rows) if one.question == "4")


def test_steps_are_set_beside_the_plain_loop_and_their_limits(timed):
    """Each engine's line has its step, how many times the plain loop's that is, and both ratios to limits."""
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


def test_without_the_plain_loop_nothing_is_compared_with_it(timed):
    """A run without the plain loop says so by a question mark, never by a ratio to something else."""
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
    assert [axes.get_title(loc="left") for axes in plot.figure.axes] == ["batch 64", "batch 256"]
    legend = [text.get_text() for text in plot.figure.axes[0].get_legend().get_texts()]
    assert legend == ["eager, 1 seed", "fast, 3 seeds"]
    assert isinstance(accuracy_by_engine(runs[1:]), str)
