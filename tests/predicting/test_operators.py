"""What single operators allocate: calls recorded on an H100 (torch 2.11.0+cu130), made again on a tape."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch

from experiments.operator_calls import Call, load, replay
from stepcost.predicting.compared import compared, rests_on
from stepcost.predicting.rules import RULES
from stepcost.predicting.tape import Tape

CALLS: dict[str, list[Call]] = defaultdict(list)
for one in load():
    CALLS[one.name].append(one)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_an_operator_takes_what_it_took(name: str) -> None:
    """Every allocation and free inside the operator is predicted, in order, with its bytes."""
    for call, changes, _ in replay(CALLS[name]):
        assert changes == call.changes, (call.arguments, call.options)


def test_an_operator_that_nobody_compared_is_noted() -> None:
    """A product along a dimension is noted with its dtype; a matrix product and elementwise ones are not."""
    tape = Tape(RULES)
    with tape:
        matrix = torch.empty((4, 4), device="meta")
        kept = [matrix @ matrix, matrix.cumprod(0), matrix.half().cumprod(1), matrix.atan()]
    assert tape.uncompared == {"aten.cumprod.default (float32)", "aten.cumprod.default (float16)"}
    assert len(kept) == 4


def test_the_list_tells_dtypes_apart() -> None:
    """Flash attention was recorded in bfloat16 and takes no float32."""
    assert "aten._scaled_dot_product_flash_attention.default (bfloat16)" in compared()
    assert "aten._scaled_dot_product_flash_attention.default (float32)" not in compared()


def test_a_prediction_says_on_what_it_rests() -> None:
    """Three operators are named in one line, of more the number is."""
    assert rests_on([]) is None
    assert rests_on(["a (float32)"]) == "it rests on what no GPU was asked: how a (float32) allocates"
    assert (rests_on(["e", "d", "c", "b", "a"]) or "").endswith("how a, b, c and 2 more allocate")
