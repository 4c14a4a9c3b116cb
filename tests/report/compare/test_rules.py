"""The rules one by one: tolerances, which rows are one, Holm's correction, names and patterns."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stepcost.report.compare.matching import identity
from stepcost.report.compare.noise import holm
from stepcost.report.compare.tolerances import (
    DEFAULT_FIELDS,
    EXACT,
    FIELDS,
    OTHER_BUILD,
    OTHER_DRIVER,
    RACES,
    Tolerance,
    default_tolerance,
    parse_rule,
)
from stepcost.report.find import runs_named
from stepcost.report.load import LoadError
from tests.report.compare.saved import changed, plain_run, save

MACHINE = {"gpu": "A", "compute_capability": "9.0", "torch": "2", "cudnn": "9", "driver": "5", "cuda": "13"}
STEP = {"question": "2a", "source": "measured", "timed": "training step", "model": "m", "batch_size": 4}


@given(base=st.integers(0, 2**50), parts=st.integers(0, 10**6), extra=st.integers(0, 2**40))
def test_a_tolerance_is_met_exactly_at_its_limit(base: int, parts: int, extra: int) -> None:
    """The allowed growth is the share in exact arithmetic, rounded down, plus the bytes: never one more."""
    allowed = Tolerance(share=Fraction(parts, 10**6), size_bytes=extra).allowed_bytes(base)
    assert (allowed - extra) * 10**6 <= base * parts < (allowed - extra + 1) * 10**6


@pytest.mark.parametrize(
    ("text", "allowed"),
    [("peak_allocated_bytes:0.1%", 1000), ("peak_*_bytes:0", 0), ("process_bytes:2GB", 2 * 10**9),
     ("process_bytes:2MB", 2 * 10**6), ("tensor_bytes:4096", 4096), ("ledger.slack_bytes:7B", 7)],
)  # fmt: skip
def test_a_rule_reads_as_it_is_written(text: str, allowed: int) -> None:
    """Percent, bytes, MB (10**6) and GB (10**9) mean what they say, of a base of one million bytes."""
    tolerance = parse_rule(text).tolerance
    assert tolerance is not None
    assert tolerance.allowed_bytes(10**6) == allowed


@pytest.mark.parametrize("text", ["", "median:10%", "peak:0", "tensor_bytes:", "tensor_bytes:-1",
                                  "tensor_bytes:1GBit", "tensor_bytes:0.5", "tensor_bytes:1e3%"])  # fmt: skip
def test_a_rule_that_gates_nothing_is_refused(text: str) -> None:
    """An unknown figure or a tolerance that is no amount is an error in one line, not a dead gate."""
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        parse_rule(text)


def test_what_races_between_gpus_may_differ_a_little() -> None:
    """Peaks of GPUs that share a step may differ by 1 %, of one not; what follows from shapes never."""
    alone = [STEP, STEP]
    shared = [STEP | {"ranks": [{}, {}]}] * 2
    for rows, allowed in ((alone, EXACT), (shared, RACES)):
        assert default_tolerance("peak_reserved_bytes", rows, MACHINE, MACHINE)[0] == allowed
        assert default_tolerance("parameter_bytes", rows, MACHINE, MACHINE)[0] == EXACT
    predicted = [row | {"source": "predicted"} for row in shared]
    assert default_tolerance("peak_reserved_bytes", predicted, MACHINE, MACHINE)[0] == EXACT


def test_default_figures_exist() -> None:
    """What is gated by default is stored under that name."""
    assert set(DEFAULT_FIELDS) <= set(FIELDS)


@pytest.mark.parametrize("name", ["compute_capability", "torch", "cudnn"])
@pytest.mark.parametrize("other", ["other", None])
def test_bytes_are_exact_only_on_the_same_build(name: str, other: str | None) -> None:
    """Capability, torch and cuDNN must all be known and equal; unknown is not equal."""
    rows = [STEP, STEP]
    assert default_tolerance("peak_allocated_bytes", rows, MACHINE, MACHINE)[0] is EXACT
    assert default_tolerance("peak_allocated_bytes", rows, MACHINE, MACHINE | {name: other})[0] is OTHER_BUILD
    unknown = MACHINE | {name: None}
    assert default_tolerance("peak_allocated_bytes", rows, unknown, unknown)[0] is OTHER_BUILD
    assert default_tolerance("parameter_bytes", rows, MACHINE, MACHINE | {name: other})[0] is EXACT


def test_the_process_figure_depends_on_card_and_driver() -> None:
    """The context in it may change with the driver; readings taken in two ways are not compared at all."""
    nvml = [STEP | {"process_bytes_from": "nvml process"}] * 2
    assert default_tolerance("process_bytes", nvml, MACHINE, MACHINE)[0] is EXACT
    assert default_tolerance("process_bytes", nvml, MACHINE, MACHINE | {"driver": "6"})[0] is OTHER_DRIVER
    mixed = [nvml[0], STEP | {"process_bytes_from": "nvml device difference"}]
    assert default_tolerance("process_bytes", mixed, MACHINE, MACHINE)[0] is None


@pytest.mark.parametrize(
    ("name", "is_another"),
    [
        *((name, True) for name in (
            "question", "timed", "source", "model", "dataset", "optimizer", "batch_size", "image_size",
            "num_classes", "precision", "engine", "card", "schedule", "seed", "train_images",
            "steps_per_epoch", "stand_in_for", "learning_rate_rule")),
        *((name, False) for name in (
            "name", "peak_allocated_bytes", "parameters", "gpu_busy_s", "seconds", "largest_batch")),
    ],
)  # fmt: skip
def test_what_a_row_is_tells_it_apart_and_what_it_costs_does_not(name: str, is_another: bool) -> None:
    """Another model, data set, precision, engine, batch or source is another row; another figure is not."""
    assert (identity(STEP) != identity(STEP | {name: "other"})) is is_another


def test_out_of_memory_is_still_the_same_row() -> None:
    """A step that ran out of memory is matched with the step that it tried to be."""
    assert identity(STEP | {"timed": "attempt that ran out of memory", "fits": False}) == identity(STEP)


def adjusted(chances: list[float]) -> list[float]:
    """Adjust probabilities by Holm, as Wright (1992) writes it: one at or below a limit is called there."""
    ordered = sorted(chances)
    at_least = [min(1.0, (len(ordered) - place) * one) for place, one in enumerate(ordered)]
    return [max(at_least[: ordered.index(chance) + 1]) for chance in chances]


@given(chances=st.lists(st.floats(0, 1), min_size=1, max_size=30), limit=st.floats(0.001, 0.2))
def test_holm_calls_what_adjusted_probabilities_call(chances: list[float], limit: float) -> None:
    """Stepping down and adjusting are one test: both call the same comparisons."""
    expected = adjusted(chances)
    assume(not any(math.isclose(one, limit) for one in expected))
    assert holm(chances, limit) == [one <= limit for one in expected]


@pytest.mark.parametrize(
    ("chances", "called"),
    [
        ([0.01], [True]),
        ([0.0101], [False]),
        ([0.005, 0.01], [True, True]),
        ([0.01, 0.0051], [False, False]),
        ([0.009, 0.0033, 0.005], [True, True, True]),
        ([0.009, 0.0033, 0.0051], [False, True, False]),
        ([], []),
    ],
)
def test_holm_by_hand(chances: list[float], called: list[bool]) -> None:
    """At a limit of 1 %: the smallest of three at 0.33 %, the next at 0.5 %, the last at 1 %."""
    assert holm(chances, 0.01) == called


def test_holm_keeps_its_promise_where_nothing_changed() -> None:
    """Of many comparisons without any change, at most the promised share has a false call (seeded)."""
    dice = random.Random(0)
    alarms = sum(any(holm([dice.random() for _ in range(12)], 0.05)) for _ in range(4000))
    assert alarms / 4000 < 0.05 + 3 * (0.05 * 0.95 / 4000) ** 0.5


def test_patterns_count_as_a_reader_does(tmp_path: Path) -> None:
    """A pattern finds runs by name, by number and name, or by path, 2.9 before 2.11."""
    for place, name in enumerate(("torch2.11", "torch2.9", "torch2.6", "other"), start=1):
        save(plain_run(), tmp_path, f"{place:04}_{name}")
    assert [run.name for run in runs_named("torch*", tmp_path)] == ["torch2.6", "torch2.9", "torch2.11"]
    assert [run.name for run in runs_named("000[12]_*", tmp_path)] == ["torch2.9", "torch2.11"]
    in_folders = runs_named(".benchmarks/*/*_torch2.?.json", tmp_path)
    assert [run.name for run in in_folders] == ["torch2.6", "torch2.9"]
    absolute = runs_named(str(tmp_path / ".benchmarks" / "*" / "000[12]*"), tmp_path)
    assert [run.name for run in absolute] == ["torch2.9", "torch2.11"]
    with pytest.raises(LoadError, match=r"torch2\.6"):
        runs_named("nothing*", tmp_path)


def test_changed_changes_one_row_only() -> None:
    """The helper of these tests plants what it says and nothing else."""
    before, after = plain_run(), changed(plain_run(), 0, tensor_bytes=1)
    different = [a != b for a, b in zip(before["benchmarks"], after["benchmarks"], strict=True)]
    assert different == [True, *[False] * (len(different) - 1)]
