"""Which rows are one, how they are named, what is said of those without a partner, and why each verdict."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from stepcost.report.compare.matching import label, without_shared
from stepcost.report.compare.result import CannotCompareError
from stepcost.report.compare.sides import Rules, compare_sides
from stepcost.report.compare.tolerances import Tolerance, parse_rule
from tests.report.compare.test_sides import PEAK, QUIET, SEARCH, medians, only, run, step

STEP = step(4)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "unnamed benchmark"),
        ({"name": "test_own[3]", "fullname": "a.py::test_own[3]"}, "test_own[3]"),
        (STEP, "3a, m, batch 4"),
        (STEP | {"timed": "engine step", "question": "4", "engine": "fast"}, "4, m, batch 4, fast"),
        (STEP | {"timed": "attempt that ran out of memory"}, "3a, m, batch 4"),
        (STEP | {"timed": "search"}, "3a, m, batch 4, search"),
        (STEP | {"timed": "prediction", "source": "predicted"}, "3a, m, batch 4, predicted"),
        (STEP | {"timed": None}, "3a, m, batch 4"),
        (STEP | {"timed": "training run", "dataset": "digits", "seed": 0}, "3a, m, batch 4, digits, seed 0"),
        (STEP | {"dataset": "random"}, "3a, m, batch 4"),
    ],
)
def test_a_row_is_named_by_what_it_is(row: dict[str, Any], said: str) -> None:
    """A name has question, configuration, and what else tells it apart; a foreign row has its own."""
    assert label(row) == said


@pytest.mark.parametrize(
    ("labels", "shared", "short"),
    [
        (["2a, m, SGD, fp32", "2a, m, Adam, fp32"], ": m, fp32", ["2a, SGD", "2a, Adam"]),
        (["2a, m, SGD", "3a, m, SGD"], ": m, SGD", ["2a", "3a"]),
        (["2a, m", "all steps together", "3a, m"], ": m", ["2a", "all steps together", "3a"]),
        (["2a, m"], "", ["2a, m"]),
        (["2a, m", "all steps together"], "", ["2a, m", "all steps together"]),
        (["2a, m", "3a, n"], "", ["2a, m", "3a, n"]),
        ([], "", []),
    ],
)
def test_what_all_rows_share_is_said_once(labels: list[str], shared: str, short: list[str]) -> None:
    """What every name has after its question is taken out of the names; one name alone stays whole."""
    assert without_shared(labels) == (shared, short)


def test_foreign_rows_are_matched_by_their_full_name() -> None:
    """Rows of plain pytest-benchmark are one where their full names are, or, without these, their names."""
    rows = [
        {"fullname": "a.py::t", "name": "t"},
        {"fullname": "b.py::t", "name": "t"},
        {"name": "u"},
    ]
    found = compare_sides([run([STEP, *rows])], [run([STEP, *rows[::-1]])])
    assert not found.gone
    assert not found.added
    found = compare_sides([run([STEP, rows[0], rows[2]])], [run([STEP, rows[1]])])
    assert [(one.row, one.differs) for one in found.gone] == [("t", None), ("u", None)]
    assert [(one.row, one.differs) for one in found.added] == [("t", None)]
    found = compare_sides([run([STEP, rows[2]])], [run([STEP, {"name": "v"}])])
    assert [one.row for one in (*found.gone, *found.added)] == ["u", "v"]


def test_the_nearest_row_is_the_one_that_differs_least() -> None:
    """Of a row without a partner it is said in what the most similar one differs: in one or two fields."""
    gone = STEP | {"batch_size": 8, "precision": "fp32", "engine": "eager"}
    others = [
        gone | {"question": "2a"},
        gone | {"precision": "bf16", "engine": "fast", "batch_size": 16},
        gone | {"batch_size": 16, "engine": "fast"},
        gone | {"precision": "bf16"},
        gone | {"batch_size": 32},
    ]

    def nearest(*rows: dict[str, Any]) -> str | None:
        (one,) = compare_sides([run([STEP, gone])], [run([STEP, *rows])]).gone
        assert one.row == "3a, m, batch 8, fp32, eager"
        return one.differs

    assert nearest(*others) == "precision fp32 -> bf16"
    assert nearest(*others[::-1]) == "batch_size 8 -> 32"
    assert nearest(*others[:3]) == "batch_size 8 -> 16, engine eager -> fast"
    assert nearest(*others[:2]) is None
    trained = [gone | {"timed": "training run", "epochs": [{"epoch": 1}] * count} for count in (2, 3)]
    (one,) = compare_sides([run([STEP, trained[0]])], [run([STEP, trained[1]])]).gone
    assert one.differs == "epochs 2 -> 3"
    (one,) = compare_sides([run([STEP, trained[0]])], [run([STEP, trained[1]])]).added
    assert one.differs == "epochs 3 -> 2"


def test_nothing_in_common_is_said_in_one_line() -> None:
    """Two sides without a row in common cannot be compared, and the line says what the nearest differ in."""
    for base, new, said in (
        ([STEP], [], "nothing to compare: a side has no rows"),
        ([], [STEP], "nothing to compare: a side has no rows"),
        ([STEP], [STEP | {"question": "2a"}], "nothing to compare: no row of one side is a row of the other"),
        ([STEP | {"question": "2a"}, STEP], [STEP | {"batch_size": 8}],
         "nothing to compare: no row of one side is a row of the other (the nearest rows differ in "
         "batch_size 4 -> 8)"),
    ):  # fmt: skip
        with pytest.raises(CannotCompareError) as refused:
            compare_sides([run(base)], [run(new)])
        assert str(refused.value) == said


def training(batch: int, epochs: int | None, **more: Any) -> dict[str, Any]:
    """A training run that took so many epochs, or ran out of memory before the first."""
    row = {"question": "3b", "source": "measured", "model": "m", "batch_size": batch}
    if epochs is None:
        return row | {"timed": "attempt that ran out of memory", "fits": False} | more
    return row | {"timed": "training run", "fits": True, "epochs": [{"epoch": 1}] * epochs} | more


def test_a_training_that_ran_out_of_memory_is_still_that_training() -> None:
    """It counted no epochs, and is matched with the only training that it can have been, on either side."""
    whole = [training(4, 2), training(8, 2)]
    for base, new, verdict in (
        (whole, [training(4, None), training(8, None)], "worse"),
        ([training(4, None), training(8, None)], whole, "better"),
    ):
        found = compare_sides([run([STEP, *base])], [run([STEP, *new])])
        assert [(one.row, one.verdict) for one in found.changes if one.figure == "fits"] == [
            ("3b, m, batch 4", verdict),
            ("3b, m, batch 8", verdict),
        ]
        assert not found.gone
        assert not found.added
    found = compare_sides([run([STEP, step(16), whole[0]])], [run([STEP, training(4, None), step(32)])])
    assert [one.row for one in found.changes if one.figure == "fits"] == ["3b, m, batch 4"]
    found = compare_sides([run([STEP, step(16), training(4, None)])], [run([STEP, whole[0]])])
    assert [one.row for one in found.changes if one.figure == "fits"] == ["3b, m, batch 4"]
    several = [training(4, 2), training(4, 3)]
    found = compare_sides([run([STEP, *several])], [run([STEP, training(4, None)])])
    assert (len(found.gone), len(found.added)) == (2, 1)
    # one that finished is of its own number of epochs
    found = compare_sides([run([STEP, training(4, 2)])], [run([STEP, training(4, 3)])])
    assert (len(found.gone), len(found.added)) == (1, 1)
    # and one whose partner is there is not given another
    found = compare_sides([run([training(4, 2), training(8, 1)])], [run([training(4, 2), training(8, None)])])
    assert [one.row for one in found.changes if one.figure == "fits"] == ["3b, m, batch 8"]


def test_names_tell_rows_apart_only_where_all_have_one() -> None:
    """Rows alike by every field are told apart by name; where a side's rows have none, by order alone."""
    named = [STEP | {"name": name, PEAK: size} for name, size in (("a", 100), ("b", 200))]
    found = compare_sides([run(named)], [run(named[::-1])])
    assert {one.verdict for one in found.changes if one.figure == PEAK} == {"same"}
    renamed = compare_sides([run(named[:1])], [run([named[0] | {"name": "c"}])])
    assert (len(renamed.gone), len(renamed.added)) == (0, 0)
    bare = [row | {"name": None} for row in named[::-1]]
    found = compare_sides([run(named)], [run(bare)])
    assert [(one.base, one.new) for one in found.changes if one.figure == PEAK] == [(100, 200), (200, 100)]
    for place in (0, 1):
        found = compare_sides([run(named)], [run([named[place]])])
        assert (len(found.gone), len(found.added)) == (1, 0)
        assert only(found, PEAK).verdict == "same"
        found = compare_sides([run([named[place]])], [run(named)])
        assert (len(found.gone), len(found.added), only(found, PEAK).verdict) == (0, 1, "same")


def test_what_a_reader_must_know_of_the_sides() -> None:
    """Notes name failed tests of a session, models that changed, and measured rows next to predicted ones."""
    failed = [{"test": name} for name in "abcd"]
    base = replace(run([STEP | {"parameters": 1000}], "one"), session={"failed": failed})
    new = replace(run([STEP | {"parameters": 2000}], "two"), session={"failed": failed[:1]})
    notes = compare_sides([base], [new]).notes
    assert "one: 4 tests of that session failed (a, b, c)" in notes
    assert "two: 1 test of that session failed (a)" in notes
    cut_off = {"why": "interrupted", "not_run": 3, "selected": 12}
    short = compare_sides([base], [replace(new, session={"cut_off": cut_off})]).notes
    assert "two was cut off (interrupted): 3 of 12 selected tests did not run" in short
    assert "m has 1,000 parameters on one side and 2,000 on the other: the model itself changed" in notes
    quiet = compare_sides([run([STEP | {"parameters": 1000}])], [run([STEP | {"parameters": None}])]).notes
    assert not [note for note in quiet if "parameters" in note or "failed" in note]
    apart = "a measured figure and a predicted one are never compared: those rows are listed apart"
    measured, predicted = step(8), step(8, source="predicted", timed="prediction")
    for one, other, is_said in (
        (measured, predicted, True),
        (predicted, measured, True),
        (measured, step(16), False),
        (predicted, predicted | {"batch_size": 16}, False),
    ):
        assert (apart in compare_sides([run([STEP, one])], [run([STEP, other])]).notes) is is_said


def test_why_bytes_are_worse_or_not_judged() -> None:
    """Each figure in bytes says by which tolerance it was judged, or why it was not."""
    base, new = (
        run([step(4, **{PEAK: 1000, "tensor_bytes": 7, "leaked_bytes": 5})]),
        run([step(4, **{PEAK: 1011, "tensor_bytes": 7, "leaked_bytes": 6})], torch="3"),
    )
    found = compare_sides([base], [new])
    assert (only(found, PEAK).verdict, only(found, PEAK).why) == ("worse", "1 % (other torch)")
    assert only(found, PEAK).question == "3a"
    rules = Rules(memory=(parse_rule("peak_*_bytes"), parse_rule(f"{PEAK}:11B")))
    asked = only(compare_sides([base], [new], rules), PEAK)
    assert (asked.verdict, asked.why) == ("same", "11 bytes (as asked)")
    assert (
        only(compare_sides([base], [new], Rules(memory=(parse_rule(f"{PEAK}:10"),))), PEAK).verdict == "worse"
    )
    exact = only(compare_sides([base], [base]), PEAK)
    assert (exact.verdict, exact.why) == ("same", "exact (same capability, torch and cuDNN)")
    unruled = compare_sides([base], [new], Rules(memory=(parse_rule("process_bytes"),)))
    assert [
        (one.figure, one.verdict, one.why) for one in unruled.changes if one.figure in (PEAK, "tensor_bytes")
    ] == [
        (PEAK, "shown", "not gated"),
        ("tensor_bytes", "same", "not gated"),
    ]
    ways = [step(4, process_bytes=size, process_bytes_from=way) for size, way in (
        (5, "nvml process"), (6, "nvml device difference"))]  # fmt: skip
    apart = only(compare_sides([run(ways[:1])], [run(ways[1:])]), "process_bytes")
    assert apart.verdict == "shown"
    assert apart.why == "read in different ways: nvml device difference, nvml process"


NVML = {"process_bytes_from": "nvml process"}
PREDICTED = {"source": "predicted", "timed": "prediction"}


@pytest.mark.parametrize(
    ("field", "row", "machine", "why"),
    [
        ("parameter_bytes", {}, {"torch": "3"}, "exact (follows from the shapes)"),
        (PEAK, {}, {}, "exact (same capability, torch and cuDNN)"),
        (PEAK, {}, {"driver": "6", "gpu": "B"}, "exact (same capability, torch and cuDNN)"),
        (PEAK, {}, {"torch": "3", "cudnn": None}, "1 % (other torch, cudnn)"),
        (PEAK, PREDICTED, {"cudnn": "1", "compute_capability": "8.0"}, "exact (same torch)"),
        (PEAK, PREDICTED, {"torch": "3"}, "1 % (other torch)"),
        ("process_bytes", NVML, {}, "exact (same card, driver and build)"),
        ("process_bytes", NVML, {"torch": "3", "driver": "6"}, "5 % (other torch, driver)"),
        ("process_bytes", {"process_bytes_from": "nvml device difference"}, {},
         "5 % (other not NVML's figure of this process alone)"),
        ("ledger.slack_bytes", {}, {}, "not gated"),
        ("phase_peak_bytes.forward", {}, {}, "not gated"),
    ],
)  # fmt: skip
def test_how_closely_each_figure_is_held(
    field: str, row: dict[str, Any], machine: dict[str, Any], why: str
) -> None:
    """Shapes decide some bytes, the build others, the driver the process: each line says which, and where."""
    part, _, name = field.partition(".")
    sizes = [{part: {name: size} if name else size} for size in (1000, 1001)]
    found = compare_sides([run([step(4, **row, **sizes[0])])], [run([step(4, **row, **sizes[1])], **machine)])
    change = only(found, field)
    assert (change.why, change.base, change.new) == (why, 1000, 1001)


def test_a_figure_of_one_side_is_shown_and_the_next_are_judged() -> None:
    """What one side alone has is shown, whichever it is; after it the other figures have their verdicts."""
    both, less = step(4, tensor_bytes=7, process_bytes=5, gpu_busy_s=0.1), step(4, tensor_bytes=8)
    for base, new, values in ((both, less, (5, None)), (less, both, (None, 5))):
        found = compare_sides([run([base])], [run([new])])
        one = only(found, "process_bytes")
        assert (one.verdict, one.why, one.base, one.new) == ("shown", "read on one side only", *values)
        assert only(found, "tensor_bytes").why == "exact (same capability, torch and cuDNN)"
        assert only(found, "gpu_busy_s").verdict == "shown"
    failed = step(4, fits=False, timed="attempt that ran out of memory", rounds_s=None)
    for base, new in ((both, failed), (failed, both)):
        assert [one.figure for one in compare_sides([run([base])], [run([new])]).changes] == ["fits"]


def test_rules_on_times_are_the_ones_that_were_asked_for() -> None:
    """A larger effect that matters, and more false alarms, change verdicts; the runs are named."""
    graph = {"question": "4", "timed": "engine step", "engine": "graph"}
    base, new = [run([step(4, **graph)], "one")], [run([step(4, 0.1, **graph)], "two")]
    found = compare_sides(base, new, Rules(smallest_effect=0.5))
    assert (found.base, found.new) == (("one",), ("two",))
    assert (only(found, "step_s").verdict, only(found, "step_s").why) == (
        "same",
        "a slow-down of 50.0 % is excluded",
    )
    # twice z of 0.95 times 0.0098995
    catches = only(compare_sides(base, new, Rules(false_alarm=0.05)), "step_s").would_catch
    assert catches == pytest.approx(math.expm1(2 * 1.644854 * 0.0098995), rel=1e-4)


@pytest.mark.parametrize(
    ("share", "size", "said"), [("0.1%", 0, "0.1 %"), ("", 2048, "2,048 bytes"), ("", 0, "exact")]
)
def test_a_tolerance_is_said_as_it_counts(share: str, size: int, said: str) -> None:
    """Percent, bytes, or exact."""
    rule = parse_rule(f"{PEAK}:{share or size}").tolerance
    assert str(rule) == said
    assert isinstance(rule, Tolerance)


def test_why_it_no_longer_fits() -> None:
    """The reason is the new side's own, else the base's where it fits now, else that memory ran out."""
    tried = {"fits": False, "timed": "attempt that ran out of memory", "rounds_s": None}
    why = only(compare_sides([run([STEP])], [run([step(4, reason="no room", **tried)])]), "fits")
    assert (why.verdict, why.why, why.base, why.new) == ("worse", "no room", 1.0, 0.0)
    now = only(compare_sides([run([step(4, reason="was full", **tried)])], [run([STEP])]), "fits")
    assert (now.verdict, now.why) == ("better", "was full")
    assert only(compare_sides([run([STEP])], [run([step(4, **tried)])]), "fits").why == "out of memory"


def test_why_a_largest_batch_is_judged() -> None:
    """A largest batch says how the search resolves, or that none trained; one side's alone is only shown."""
    found = {size: run([SEARCH | {"largest_batch": size}]) for size in (1000, 500, None)}
    assert (
        only(compare_sides([found[1000]], [found[500]]), "largest_batch").why == "1 %, as the search resolves"
    )
    for one, other in ((1000, None), (None, 1000)):
        assert only(compare_sides([found[one]], [found[other]]), "largest_batch").why == "no batch trained"
    fast = run([SEARCH | {"largest_batch": 1000, "largest_batch_at_full_speed": 900}])
    alone = only(compare_sides([fast], [found[1000]]), "largest_batch_at_full_speed")
    assert (alone.verdict, alone.why, alone.base, alone.new) == ("shown", "read on one side only", 900, None)
    failed = run([SEARCH | {"largest_batch": 1000, "fits": False}])
    for base, new in ((fast, failed), (failed, fast)):
        figures = [change.figure for change in compare_sides([base], [new]).changes]
        assert "largest_batch_at_full_speed" not in figures
    level = compare_sides([found[1000]], [run([SEARCH | {"largest_batch": 1000}])])
    assert only(level, "largest_batch").verdict == "same"
    assert "largest_batch_at_full_speed" not in [change.figure for change in level.changes]


def test_times_that_are_not_judged_say_why() -> None:
    """Times of two processors are shown, as are those that nobody gates, with the reason and a note."""
    other = {"cpu": {"brand_raw": "Q", "count": 8}}
    graph = {"question": "4", "timed": "engine step", "engine": "graph", "kernel_s": 0.5, "gpu_busy_s": 0.25}
    rows = [step(batch, gpu_busy_s=0.1) for batch in (1, 2)] + [step(4, **graph)]
    found = compare_sides([run(rows)], [run(rows, **other)])
    eager = only(found, "step_s", "batch 1")
    assert (eager.verdict, eager.why, eager.would_catch) == ("shown", "not gated: other or unknown cpu", None)
    assert eager.interval is None
    assert "step_s is not gated: other or unknown cpu" in found.notes
    assert only(found, "gpu_busy_s", "batch 1").verdict == "same"
    kernels = only(found, "kernel_s")
    assert (kernels.verdict, kernels.why) == ("shown", "shown, not gated")
    card = compare_sides([run(rows)], [run(rows, gpu="B", **other)])
    assert "step_s is not gated: other or unknown gpu, cpu" in card.notes
    assert "step_s of engine steps is not gated: other or unknown gpu" in card.notes
    together = only(card, "step_ratio", "all steps")
    assert (together.row, together.question, together.base, together.verdict) == (
        "all steps together", None, 1.0, "shown"
    )  # fmt: skip
    ungated = compare_sides([run(rows)], [run(rows)], Rules(gate_time=False))
    assert {one.verdict for one in ungated.changes if one.is_time} == {"shown"}
    assert {one.why for one in ungated.changes if one.is_time} == {"not gated"}
    assert "step_s is not gated" in ungated.notes


def test_why_a_time_has_its_verdict() -> None:
    """Worse, better, the same and undecided say why, and how small a slow-down would have been caught."""
    graph = {"question": "4", "timed": "engine step", "engine": "graph"}

    def judged(log: float) -> Any:
        return only(compare_sides([run([step(4, **graph)])], [run([step(4, log, **graph)])]), "step_s")

    worse = judged(0.1)
    assert (worse.verdict, worse.why) == ("worse", "beyond noise, and 5.0 % is not excluded")
    assert (judged(-0.1).verdict, judged(-0.1).why) == ("better", "beyond noise")
    assert (judged(0.0).verdict, judged(0.0).why) == ("same", "a slow-down of 5.0 % is excluded")
    # (z of 1 - 0.005 + z of 0.95) * 0.007 * sqrt(2) = (2.575829 + 1.644854) * 0.0098995
    assert worse.would_catch == pytest.approx(math.expm1(0.0417827), rel=1e-4)
    alone = only(compare_sides([run([step(4)])], [run([step(4)])]), "step_s")
    assert (alone.verdict, alone.why) == ("undecided", "too few rows and runs to know the noise")
    loud = medians(*(3 * log for log in QUIET))
    rows, slower = ([step(batch, log) for batch in (1, 2, 3)] for log in (0.0, 0.04))
    unsure = only(compare_sides([run([*rows, loud])], [run([*slower, loud])]), "step_s", "batch 1")
    assert (unsure.verdict, unsure.why) == ("undecided", "the noise could hide a slow-down that matters")


def test_how_the_noise_was_known() -> None:
    """A note says what the noise rests on, of which rows, and its size on each side."""
    rows = [step(batch) for batch in (1, 2, 3)]
    both = compare_sides(
        [run([*rows, medians(*QUIET)])], [run([*rows, medians(*(2 * log for log in QUIET))])]
    )
    assert (
        "step_s: noise from the medians of fresh processes (standard deviation 1.0 % on the base side and "
        "2.0 % on the new side), with 2 times their variance allowed between runs" in both.notes
    )
    new = compare_sides([run(rows)], [run([*rows, medians(*QUIET)])])
    assert any("(standard deviation 1.0 % on the new side, taken for both)" in note for note in new.notes)
    graph = {"question": "4", "timed": "engine step", "engine": "graph"}
    assumed = compare_sides([run([step(4, **graph)])], [run([step(4, **graph)])]).notes
    assert (
        "step_s of engine steps: too few runs to measure the noise between processes; 0.7 % is assumed"
        in assumed
    )


def test_times_while_throttled_are_told_of_each_side() -> None:
    """A note names the side and the steps that were timed while the clocks were held back."""
    hot = {"clocks": {"throttle_reasons": ["power cap"]}, "throttled": True}
    told = (
        "taken while throttled: 3a, m, batch 4 (power cap); "
        "such times tell of power or heat, not of the build"
    )
    for base, new, side in ((step(4, **hot), STEP, "base"), (STEP, step(4, **hot), "new")):
        notes = [one for one in compare_sides([run([base])], [run([new])]).notes if "throttled" in one]
        assert notes == [f"{side} side {told}"]
    cold = compare_sides([run([STEP, SEARCH | hot])], [run([STEP, SEARCH | hot])])
    assert not [one for one in cold.notes if "throttled" in one]


def test_busy_shares_stand_next_to_times() -> None:
    """Each step's time on both sides with the share that the GPU works, where a run of the side has it."""
    busy = [
        step(4, gpu_busy_share=share, rounds_s=[seconds]) for share, seconds in ((None, 1.0), (0.25, 3.0))
    ]
    found = compare_sides([run([row]) for row in busy], [run([step(4)])])
    (pair,) = found.busy
    assert (pair.row, pair.base_s, pair.new_s) == ("3a, m, batch 4", 2.0, 4.0)
    assert (pair.base_busy_share, pair.new_busy_share) == (0.25, None)
