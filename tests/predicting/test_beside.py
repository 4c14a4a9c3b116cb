"""The kernels of a measured step, made up, given to the operators of its trace beside their prediction."""

from __future__ import annotations

from typing import Any

import pytest

from stepcost.catalog.cards import CARDS
from stepcost.predicting.times import Part
from stepcost.predicting.times.beside import beside
from stepcost.predicting.times.from_rates import step_on
from stepcost.predicting.times.keys import key_of, name_of
from stepcost.report.beside import outside_prediction
from stepcost.request import step_named

H100 = CARDS["h100-80gb"]
REQUEST = step_named("resnet18:adam:64:224:fast")
H100_TIMES = step_on(REQUEST, H100)


def in_place(parts: list[Part], slower: dict[str, float]) -> dict[str, Any]:
    """A step in which each operator launched one kernel of its own name, as long as predicted or slower.

    Convolutions are by a library, which names its kernels otherwise.
    """
    parts = [part for part in parts if part.kernels >= 0.5]
    names = [name_of(key_of(part.operator.key)) for part in parts]
    kernels = [f"cudnn {one}" if one.startswith("convolution") else f"at::native {one}" for one in names]
    taken = [part.seconds * slower.get(name, 1.0) for part, name in zip(parts, names, strict=True)]
    table = H100_TIMES.table
    return {
        "operators": [list(part.operator) for part in parts],
        "kernels": kernels,
        "calls": [[place, [[place, round(1e9 * each)]]] for place, each in enumerate(taken)],
        "span_s": 2 * sum(taken),
        "step_s": sum(taken) + table.gap_s * len(taken),
    }


def test_operators_that_take_as_long_as_predicted_are_the_same() -> None:
    """Each operator's seconds come back under the name that the prediction has for it, within 2 %."""
    found = beside(REQUEST, H100.gpu, in_place(list(H100_TIMES.parts), {}))
    predicted = found["predicted_step"]
    assert predicted["step_low_s"] < predicted["step_s"] < predicted["step_high_s"]
    assert predicted["recorded_torch"].startswith("2.11")
    large = {name: each for name, each in predicted["by_operator_s"].items() if each > 5e-6}
    assert {"convolution", "convolution_backward", "batch_norm"} <= large.keys()
    for name, seconds in large.items():
        assert found["by_operator_s"][name] == pytest.approx(seconds, rel=0.02)


def test_the_operator_that_became_slower_is_named() -> None:
    """With backward convolutions twice as slow, the step is slower than predicted by them alone."""
    measured = in_place(list(H100_TIMES.parts), {"convolution_backward": 2.0})
    found = beside(REQUEST, H100.gpu, measured)
    said = outside_prediction(found, measured["step_s"])
    assert said is not None
    assert "slower than predicted" in said
    assert "recorded on this card" in said
    assert said.rpartition(": ")[2].startswith("convolution_backward +")
    assert said.rpartition(": ")[2].count("ms") == 1


def test_a_card_without_a_table_has_a_prediction_from_rates() -> None:
    """An A100's step is measured as any; its prediction says that it is from another card's rates."""
    found = beside(REQUEST, CARDS["a100-80gb"].gpu, None)
    assert found["predicted_step"]["step_basis"] == "from rates"
    assert "by_operator_s" not in found


def test_a_gpu_that_is_no_card_is_refused_in_a_line() -> None:
    """Of a GPU that the catalog lacks nothing is predicted, and it is named."""
    with pytest.raises(ValueError, match=r"^no card of the catalog is a Tesla K80$"):
        beside(REQUEST, "Tesla K80", None)
