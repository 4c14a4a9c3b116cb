"""By which operators a step changed between two sides, and which are outside their predictions; by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stepcost.report.compare import show
from stepcost.report.compare.result import Comparison, OperatorPair
from stepcost.report.compare.sides import compare_sides
from tests.report.compare.test_sides import run, step

BASE = {"convolution": 0.5, "batch_norm": 0.25, "relu_": 0.125}
NEW = {"convolution": 0.625, "batch_norm": 0.375, "relu_": 0.125}
"""0.25 s more, half of it of each of two."""


def captured(log_s: float = 0.0, **fields: Any) -> dict[str, Any]:
    """A captured step of ``exp(log_s)`` seconds."""
    return step(1, log_s, question="4", timed="engine step", engine="graph", **fields)


def compared(base: list[dict[str, Any]], new: list[dict[str, Any]], **machine: Any) -> Comparison:
    """Compare one-row runs, one a repetition."""
    return compare_sides([run([row]) for row in base], [run([row], **machine) for row in new])


SLOWER, GREW_S = 0.25, 0.2840254
"""A logarithm, and by how much a step of one second is longer for it."""


def test_a_slower_step_is_taken_apart() -> None:
    """Both operators that grew are named with both sides, then what lies between kernels, and no third."""
    found = compared([captured(by_operator_s=BASE)], [captured(SLOWER, by_operator_s=NEW)])
    (row,) = {one.row for one in found.operators}
    *operators, rest = found.operators
    assert operators == [
        OperatorPair(row, "convolution", 0.5, 0.625, 0.125),
        OperatorPair(row, "batch_norm", 0.25, 0.375, 0.125),
    ]
    assert (rest.operator, rest.base_s) == ("between kernels", 0.125)
    assert rest.new_s == pytest.approx(1 + GREW_S - 1.125)
    assert rest.growth_s == pytest.approx(GREW_S - 0.25)
    text = show.markdown(found)
    assert "Steps that changed, by operator" in text
    assert "| 500 ms | 625 ms | +125 ms |" in text
    plain = json.loads(show.as_json(found, 1))
    assert [one["operator"] for one in plain["operators"]] == ["convolution", "batch_norm", "between kernels"]


def test_a_step_that_did_not_change_is_not_taken_apart() -> None:
    """However its operators changed, a step within noise has no table of them."""
    found = compared([captured(by_operator_s=BASE)], [captured(0.001, by_operator_s=NEW)])
    assert found.operators == ()
    assert "by operator" not in show.markdown(found)


def test_a_step_on_another_gpu_is_taken_apart() -> None:
    """Its time is shown and not judged, and its operators are shown as well."""
    found = compared([captured(by_operator_s=BASE)], [captured(SLOWER, by_operator_s=NEW)], gpu="B")
    assert [one.operator for one in found.operators][:2] == ["convolution", "batch_norm"]


def test_an_operator_of_one_side_stands_beside_none() -> None:
    """One that took the place of another has no seconds before, and the other none after."""
    new = {"convolution": 0.5, "batch_norm_v2": 0.5, "relu_": 0.125}
    text = show.markdown(compared([captured(by_operator_s=BASE)], [captured(SLOWER, by_operator_s=new)]))
    assert r"| batch\_norm\_v2 | none | 500 ms | +500 ms |" in text
    assert r"| batch\_norm | 250 ms | none | -250 ms |" in text


@pytest.mark.parametrize("sides", [(BASE, None), (None, NEW), (None, None)])
def test_operators_of_one_side_alone_are_not_compared(sides: tuple[Any, Any]) -> None:
    """A base from before the field says nothing of operators, and nothing is taken for zero."""
    base, new = sides
    assert compared([captured(by_operator_s=base)], [captured(SLOWER, by_operator_s=new)]).operators == ()


def test_of_repetitions_the_median_counts() -> None:
    """Of 0.5, 0.6 and 9 seconds it is 0.6."""
    base = [captured(by_operator_s=BASE | {"convolution": value}) for value in (9.0, 0.5, 0.625)]
    found = compared(base, [captured(SLOWER, by_operator_s=NEW | {"convolution": 0.875})] * 3)
    assert ("convolution", 0.625, 0.875) in [(one.operator, one.base_s, one.new_s) for one in found.operators]


def test_a_step_outside_its_prediction_is_noted() -> None:
    """Of the new side it is said by which operators a step is slower than predicted; of the base nothing."""
    predicted = {
        "step_s": 1.0,
        "step_low_s": 0.9,
        "step_high_s": 1.1,
        "step_basis": "recorded on this card",
        "recorded_torch": "2.11.0",
        "by_operator_s": BASE,
    }
    slower = captured(SLOWER, by_operator_s=NEW, predicted_step=predicted)
    within = captured(by_operator_s=BASE, predicted_step=predicted)
    (note,) = [one for one in compared([within], [slower]).notes if "predicted" in one]
    assert note.startswith("new side, 4, m, batch 1, graph: 28.4 % slower than predicted (")
    assert note.endswith(": convolution +125 ms, batch_norm +125 ms, between kernels +34.0 ms")
    assert not [one for one in compared([slower], [within]).notes if "predicted" in one]
