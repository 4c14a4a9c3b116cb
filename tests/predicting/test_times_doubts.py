"""Recorded steps of an H100, predicted from what is left of the table without them: needs no GPU."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import median

import pytest

from experiments.step_times import BLIND_MODELS, WITH_ANOTHER, Compared, tables
from stepcost.catalog.cards import find_card
from stepcost.predicting.times.doubts import MODEL, NOTHING, Outcome, doubts_of, model_of
from stepcost.predicting.times.table import Step, TimesTable, load, table_of


@pytest.fixture(scope="module")
def table() -> TimesTable:
    found = table_of(find_card("h100-80gb"))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def found(table: TimesTable) -> dict[str, list[Compared]]:
    return dict(tables(table))


def errors(steps: list[Compared]) -> list[float]:
    return [abs(one.error) for one in steps]


def held(steps: list[Compared]) -> float:
    return sum(bool(one.held) for one in steps) / len(steps)


def test_the_table_has_many_steps(table: TimesTable) -> None:
    """80 steps or more of 15 or more models, in fp32 and bf16, on captured engines alone."""
    asked = [one.request for one in table.steps]
    assert len(asked) >= 80 and len({model_of(one) for one in asked}) >= 15
    assert set(Counter(one["precision"] for one in asked)) == {"fp32", "bf16"}
    assert {one["engine"] for one in asked} == {"graph", "fast"}


def test_steps_with_their_own_operators_are_added_up(found: dict[str, list[Compared]]) -> None:
    """The sum of operators and what lies between reproduces each step within 4 %, half of them within 1 %."""
    assert median(errors(found[NOTHING])) < 0.01 and max(errors(found[NOTHING])) < 0.04


def test_steps_without_their_batch_size(found: dict[str, list[Compared]]) -> None:
    """Where another batch size of the step was recorded, half are within 3 % and nine of ten are held."""
    steps = found[WITH_ANOTHER]
    assert len(steps) >= 40
    assert median(errors(steps)) < 0.03 and held(steps) >= 0.9


def test_steps_without_their_model(found: dict[str, list[Compared]]) -> None:
    """Of models that contributed nothing half are within 6 %, and most are in their interval."""
    assert median(errors(found[MODEL])) < 0.06 and held(found[MODEL]) >= 0.85


def test_blind_models(found: dict[str, list[Compared]]) -> None:
    """Models named beforehand, from a table without any of them: half within 5 %, the worst within 15 %."""
    steps = found[BLIND_MODELS]
    assert len(steps) >= 8
    assert median(errors(steps)) < 0.05 and max(errors(steps)) < 0.15 and held(steps) >= 0.9


def test_doubts_hold_nine_of_ten_or_more() -> None:
    """Of ten steps 1 to 10 % too slow nine are held, and what is known worse is no surer."""
    step = Step(request={}, step_s=1.0, entries=())
    ten = [Outcome(step, 1 + 0.01 * number, {"near": 1.0}) for number in range(1, 11)]
    doubts = doubts_of(ten)
    assert sum(one.is_held(doubts) for one in ten) in (9, 10)
    assert doubts["step"] + doubts["near"] == pytest.approx(0.1, abs=0.011)
    assert doubts["near"] <= doubts["far"] <= doubts["other"] <= doubts["unknown"]


def test_a_saved_table_is_read_as_it_was(table: TimesTable, tmp_path: Path) -> None:
    """Writing and reading keep every figure that is stored."""
    table.save(tmp_path / "times.json.gz")
    assert load(tmp_path / "times.json.gz") == table
