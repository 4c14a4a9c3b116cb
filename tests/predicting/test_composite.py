"""Operators that torch makes of others: what these take is on the tape, as torch's own kernels call them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from stepcost.predicting.composite import is_composite
from stepcost.predicting.rules import RULES
from stepcost.predicting.tape import ALLOC, FREE, GEMM, Tape
from stepcost.reading import BACKWARD

aten = torch.ops.aten


def events_of(run: Callable[[], Any], phase: str = BACKWARD) -> list[Any]:
    """Bytes that ``run`` takes (positive) and gives back (negative), in order, and names of other events."""
    tape = Tape(RULES)
    tape.phase = phase
    with tape:
        kept = run()
        events = list(tape.events)
        del kept
    sign = {ALLOC: 1, FREE: -1}
    return [sign[action] * size if action in sign else action for action, _, size in events]


@pytest.fixture
def summed() -> Iterator[Any]:
    """Define an operator that torch makes of others: e to the power of ``x``, plus ``x``."""
    library = torch.library.Library("stepcost_tests", "FRAGMENT")
    library.define("summed(Tensor x) -> Tensor")
    library.impl("summed", lambda x: x.exp() + x, "CompositeExplicitAutograd")
    yield torch.ops.stepcost_tests.summed.default
    library._destroy()


def test_what_has_a_kernel_of_its_own_is_not_composite() -> None:
    """A logarithm of sums is made of others; sums, views and lists of square roots are kernels or nothing."""
    assert is_composite(aten.logsumexp.default)
    assert not any(is_composite(one) for one in (aten.sum.dim_IntList, aten.slice.Tensor))
    assert not is_composite(aten._foreach_sqrt.default)


def test_an_operator_of_ones_own_shows_what_it_is_made_of(summed: Any) -> None:
    """The power is freed once the sum is made, and the sum is not written over it: it is not autograd's."""
    given = torch.empty(128, device="meta")
    with torch.no_grad():
        assert events_of(lambda: summed(given)) == [512, 512, -512]
        assert events_of(lambda: given.exp() + given) == [512]  # as autograd sums gradients


def test_a_number_that_a_kernel_hands_on_as_a_tensor_takes_nothing() -> None:
    """A remainder by a number is made of one by a tensor, which is on the CPU."""
    words = torch.empty(128, dtype=torch.int64, device="meta")
    assert events_of(lambda: words % 3) == [1024]
    half = torch.empty((), dtype=torch.bfloat16, device="meta")
    assert events_of(lambda: half % 0.5) == events_of(lambda: half * 0.5) == [2]


def test_an_expanded_index_is_copied() -> None:
    """Words that are expanded over a batch are copied before rows are taken."""
    table = torch.empty((2, 16), device="meta")
    words = torch.empty((1, 3), dtype=torch.int64, device="meta")
    assert events_of(lambda: aten.embedding(table, words.expand(8, 3)))[-3:] == [
        8 * 3 * 8,
        8 * 3 * 64,
        -8 * 3 * 8,
    ]


def test_a_matrix_times_a_vector_calls_cublas() -> None:
    """It is made of a product that writes into its result."""
    matrix, vector = torch.empty((4, 8), device="meta"), torch.empty(8, device="meta")
    assert events_of(lambda: aten.mv(matrix, vector)).count(GEMM) == 1
