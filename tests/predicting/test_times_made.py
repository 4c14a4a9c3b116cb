"""Kernels of recorded steps given to operators, and what lies between kernels, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from stepcost.operators import Operator
from stepcost.predicting.times.aligned import kernels_of
from stepcost.predicting.times.made import table_of_traced
from stepcost.predicting.times.table import TimesTable

ADD, NORM, RELU = (
    "add_.Tensor(i64[],1)",
    "cudnn_batch_norm(f32[2,8,4,4]l,f32[8],f32[8])",
    "relu_(f32[2,8,4,4]l)",
)
ABOUT: dict[str, Any] = {"rates": {}}
KERNELS = ("vectorized_add", "void cudnn::batchnorm_fwtr", "vectorized_relu", "Memset (Unknown)")


def row(calls: list[list[Any]], step_s: float, span_s: float = 1.0) -> dict[str, Any]:
    return {
        "request": {"model": "by-hand"},
        "step_s": step_s,
        "span_s": span_s,
        "operators": [[ADD, 16, 0], [NORM, 2048, 0], [RELU, 2048, 0]],
        "kernels": list(KERNELS),
        "calls": calls,
    }


WHOLE = [[0, [[0, 1000]]], [1, [[3, 500], [1, 9000]]], [2, [[2, 4000]]]]
"""Each kernel with its own operator: 14.5 us."""
MIXED = [[0, [[0, 1000], [3, 500], [1, 9000]]], [2, [[2, 4000]]]]
"""As a recording has it where the batch norm's kernels found no partner."""
TRACED = [Operator(ADD, 16, 0), Operator(NORM, 2048, 0), Operator(RELU, 2048, 0)]


def made(rows: list[dict[str, Any]]) -> TimesTable:
    return table_of_traced(ABOUT, rows, [TRACED] * len(rows))


def test_fill_at_the_end_of_a_call_belongs_to_the_next() -> None:
    """What fills room for a kernel runs before it, and is counted with it."""
    found = kernels_of(row([[0, [[0, 1000], [3, 500]]], [2, [[2, 4000]]]], 1.0))
    assert [one.name for one in found] == ["vectorized_add", "Memset", "vectorized_relu"]
    assert found[1].key == RELU and found[1].by_driver


def test_kernels_go_to_the_operators_that_launch_such() -> None:
    """A batch norm's kernel that a recording gives to an addition goes to the batch norm."""
    table = made([row(WHOLE, 20e-6)] * 3 + [row(MIXED, 20e-6)])
    for step in table.steps:
        by_name = {one.key.partition("(")[0]: one.taken for one in step.entries}
        assert by_name["add_.Tensor"].seconds == pytest.approx(1e-6)
        assert by_name["batch_norm"].kernels == 2
        assert by_name["relu_"].seconds == pytest.approx(4e-6)


def test_kernels_never_go_to_operators_that_launch_no_such() -> None:
    """Where every recording is wrong alike, a library's kernel still is of the operator that calls it."""
    for step in made([row(MIXED, 20e-6)] * 3).steps:
        by_name = {one.key.partition("(")[0]: one.taken for one in step.entries}
        assert by_name["batch_norm"].kernels == 2 and by_name["add_.Tensor"].kernels == 1


def test_fill_between_two_products_is_of_the_second() -> None:
    """Each of two products has its own kernel, the second with the fill before it."""
    first, second = "mm(f32[64,8],f32[8,64])", "mm(f32[8,64]t,f32[64,64])"
    names = ["cutlass_gemm_nn", "cutlass_gemm_nt", "memset32", "relu"]
    filled = {
        "request": {"model": "by-hand"},
        "step_s": 40e-6,
        "span_s": 1.0,
        "operators": [[first, 16, 64], [RELU, 16, 0]],
        "kernels": names,
        "calls": [[0, [[2, 500], [0, 9000], [2, 600], [1, 7000]]], [1, [[3, 1000]]]],
    }
    traced = [Operator(first, 16, 64), Operator(second, 16, 64), Operator(RELU, 2048, 0)]
    table = table_of_traced(ABOUT, [filled] * 3, [traced] * 3)
    taken = {one.key: one.taken for one in table.steps[0].entries}
    assert (taken[first].kernels, taken[second].kernels) == (2, 2)
    assert taken[first].seconds == pytest.approx(9.5e-6) and taken[second].seconds == pytest.approx(7.6e-6)


def test_what_lies_between_is_found_from_whole_steps() -> None:
    """14 us in 3 kernels that take 15.5 us have 0.5 us at each; a fill by the driver waits 2 us more."""
    plain = [[0, [[0, 1000]]], [1, [[1, 9000]]], [2, [[2, 4000]]]]
    table = made([row(plain, 15.5e-6)] * 3 + [row(WHOLE, 14.5e-6 + 4 * 0.5e-6 + 2e-6)] * 3)
    assert table.gap_s == pytest.approx(0.5e-6)
    waits = {one.key.partition("(")[0]: one.taken for one in table.steps[-1].entries}["batch_norm"]
    assert waits.seconds == pytest.approx(9.5e-6 + 2e-6)


def test_kernels_side_by_side_are_counted_as_the_step_took() -> None:
    """Kernels that add up to more than the time from the first to the last make no more than the step."""
    table = made([row(WHOLE, 20e-6)] * 3 + [row(WHOLE, 10e-6, span_s=11e-6)])
    whole = sum(one.taken.seconds + table.gap_s * one.taken.kernels for one in table.steps[-1].entries)
    assert whole == pytest.approx(10e-6, rel=0.01)
