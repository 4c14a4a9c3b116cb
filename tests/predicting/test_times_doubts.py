"""Recorded steps of an H100, predicted from what is left of the table without them: needs no GPU."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

import pytest

from experiments.step_times import BLIND_MODELS, WITH_ANOTHER, Compared, tables
from stepcost.catalog.cards import find_card
from stepcost.predicting.times.doubts import (
    MODEL,
    NOTHING,
    SERIES,
    Outcome,
    doubts_of,
    model_of,
    outcomes,
    same_batch,
    same_series,
)
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
    """Operators and what lies between add up to each step within 4 %, but for one whose kernels overlap."""
    first, *others = sorted(errors(found[NOTHING]), reverse=True)
    assert median(others) < 0.01 and others[0] < 0.04 and first < 0.06


def test_steps_without_their_batch_size(found: dict[str, list[Compared]]) -> None:
    """Where another batch size was recorded, half are within 2 %, nearly all within 10 %, and held."""
    steps = found[WITH_ANOTHER]
    assert len(steps) >= 40
    assert median(errors(steps)) < 0.02 and held(steps) >= 0.9
    assert sum(one < 0.1 for one in errors(steps)) >= 0.95 * len(steps) and max(errors(steps)) < 0.2


@pytest.mark.parametrize("left_out", [MODEL, SERIES])
def test_steps_without_their_model(found: dict[str, list[Compared]], left_out: str) -> None:
    """Of models of which nothing, nor of their series, was recorded half are within 5 %; nine of ten held."""
    steps = found[left_out]
    assert median(errors(steps)) < 0.05 and max(errors(steps)) < 0.35 and held(steps) >= 0.9
    assert abs(mean(one.error for one in steps)) < 0.04


def test_blind_models(found: dict[str, list[Compared]]) -> None:
    """Models named beforehand, from a table without any: half within 5 %, 45 of 49 within 15 %, and held."""
    steps = found[BLIND_MODELS]
    assert len(steps) == 49
    assert sum(one < 0.15 for one in errors(steps)) == 45
    assert median(errors(steps)) < 0.05 and max(errors(steps)) < 0.25 and held(steps) >= 0.9


STEP = Step(request={}, step_s=1.0, entries=())


def test_doubts_hold_nine_of_ten_or_more() -> None:
    """Of ten steps 1 to 10 % too slow nine are held, and what is known worse is no surer."""
    ten = [Outcome(STEP, 1 + 0.01 * number, {"near": 1.0}) for number in range(1, 11)]
    doubts = doubts_of(ten, [Outcome(STEP, 1.0, {"recorded": 1.0})])
    assert sum(one.is_held(doubts) for one in ten) in (9, 10)
    assert doubts["step"] + doubts["near"] == pytest.approx(0.1, abs=0.011)
    assert doubts["near"] <= doubts["far"] <= doubts["other"] <= doubts["unknown"]


def test_what_was_recorded_stays_sure() -> None:
    """Steps that are 30 % off make what was not recorded unsure, and a recorded step not."""
    recorded = [Outcome(STEP, 1.001, {"recorded": 1.0})] * 10
    doubts = doubts_of([Outcome(STEP, 1.3, {"recorded": 0.5, "near": 0.5})] * 10, recorded)
    assert doubts["near"] == pytest.approx(2 * (0.3 - doubts["step"]), abs=1e-3)
    assert not Outcome(STEP, 1.03, {"recorded": 1.0}).is_held(doubts)
    assert Outcome(STEP, 1.29, {"recorded": 0.5, "near": 0.5}).is_held(doubts)


def test_recorded_steps_that_spread_are_less_sure() -> None:
    """Where steps with nothing left out are up to 4 % off, so is what is said of a recorded one."""
    recorded = [Outcome(STEP, 1.04, {"recorded": 1.0})] * 10
    doubts = doubts_of(recorded, recorded)
    assert doubts["step"] == pytest.approx(0.04)
    assert Outcome(STEP, 0.97, {"recorded": 1.0}).is_held(doubts)


def test_series_is_the_word_that_names_begin_with() -> None:
    """A ResNet-50 is left out with a ResNet-18 and not with a ResNeXt."""
    asked, other, next_one = ({"model": f"{name}"} for name in ("resnet50", "resnet18", "resnext50_32x4d"))
    assert same_series(asked, other) and not same_series(asked, next_one)


def test_a_saved_table_is_read_as_it_was(table: TimesTable, tmp_path: Path) -> None:
    """Writing and reading keep every figure that is stored; a table without engines is read too."""
    table.save(tmp_path / "times.json.gz")
    assert load(tmp_path / "times.json.gz") == table and len(table.choices) > 2000
    plain = json.loads(gzip.decompress((tmp_path / "times.json.gz").read_bytes()))
    del plain["choices"]
    (tmp_path / "before.json.gz").write_bytes(gzip.compress(json.dumps(plain).encode()))
    assert load(tmp_path / "before.json.gz") == replace(table, choices={})


def test_engines_of_convolutions_make_predictions_better(table: TimesTable) -> None:
    """Without what cuDNN answered, steps whose batch size is left out are predicted clearly worse."""
    asked = [one for one in table.steps if model_of(one.request) in ("resnet152", "convnext_tiny")]
    with_engines, without = (
        mean(abs(one.error) for one in outcomes(each, same_batch, asked))
        for each in (table, replace(table, choices={}))
    )
    assert with_engines < 0.8 * without
