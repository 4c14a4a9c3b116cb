"""Kernels of a replayed graph and the operators that launched them, from events written by hand."""

import pytest
import torch

from stepcost.measuring.kernels import Event, Kernel, by_position, calls, matched, operators_of_kernels
from stepcost.measuring.timed_step import compact
from stepcost.operators import Operator, describe

MM, ADD = Operator("mm(f32[2,2],f32[2,2])", 48, 16), Operator("add.Tensor(f32[2,2],f32[2,2])", 48, 0)


def host(name, start, end, own):
    return Event(name, False, start, end, own, 0)


def kernel(name, start, own, linked=0):
    return Event(name, True, start, start + 5, own, linked)


def test_kernel_belongs_to_the_range_of_its_launch():
    """A kernel's operator is that in whose range it was launched, however much later it ran."""
    events = [
        host("stepcost operator 0", 10, 20, 1),
        host("stepcost operator 1", 30, 40, 2),
        host("cudaLaunchKernel", 15, 16, 100),
        host("cuLaunchKernel", 31, 32, 101),
        kernel("second", 210, 101),
        kernel("first", 200, 100),
    ]
    assert operators_of_kernels(events) == [("first", 0), ("second", 1)]


def test_kernel_whose_launch_was_not_seen_goes_by_its_operator():
    """Where the profiler saw no launch, the operator on the processor says where it was, or nothing."""
    events = [
        host("stepcost operator 0", 10, 20, 1),
        host("aten::mm", 12, 18, 7),
        kernel("known", 200, 900, linked=7),
        kernel("unknown", 300, 901),
    ]
    assert operators_of_kernels(events) == [("known", 0), ("unknown", None)]


def test_profile_without_launches_is_refused():
    """Where most kernels have no operator, nothing is recorded of them: the profiler saw too little."""
    events = [host("stepcost operator 0", 10, 20, 1), kernel("one", 200, 900), kernel("two", 300, 901)]
    with pytest.raises(ValueError, match="of 2 kernels 0 were launched by a known operator"):
        operators_of_kernels(events)


def test_replays_give_medians_by_position():
    """Each kernel has the median over replays at its place; the span is the median of whole replays."""
    spans = [(0, 10, "a"), (12, 20, "b"), (100, 130, "a"), (131, 140, "b"), (200, 212, "a"), (214, 224, "b")]
    kernels, span_s = by_position(spans, 3)
    assert kernels == [Kernel("a", pytest.approx(12e-9)), Kernel("b", pytest.approx(9e-9))]
    assert span_s == pytest.approx(24e-9)


def test_kernels_side_by_side_may_change_places():
    """Where a replay has two kernels the other way round, each keeps its seconds, at its first place."""
    spans = [(0, 10, "a"), (2, 8, "b"), (11, 15, "a"), (100, 106, "b"), (101, 111, "a"), (112, 118, "a")]
    kernels, span_s = by_position(spans, 2)
    assert kernels == [Kernel("a", pytest.approx(10e-9)), Kernel("b", pytest.approx(6e-9)), Kernel("a", 5e-9)]
    assert span_s == pytest.approx(16.5e-9)


@pytest.mark.parametrize("names", ["aba", "abbc"])
def test_replays_that_differ_are_refused(names):
    """Replays whose kernels are not the same in each say nothing by position."""
    with pytest.raises(ValueError, match="not the same"):
        by_position([(10 * n, 10 * n + 1, name) for n, name in enumerate(names)], 2)


def test_names_are_matched_around_what_is_extra():
    """What either sequence has extra costs no partner of the others."""
    assert matched("abcde", "abcde") == [0, 1, 2, 3, 4]
    assert matched("abcde", "xabcde") == [None, 0, 1, 2, 3, 4]
    assert matched("axbcde", "abcde") == [0, 2, 3, 4, 5]
    assert matched("abcde", "abyzcde") == [0, 1, None, None, 2, 3, 4]
    assert matched("ab", "abc") == [0, 1, None]


def test_calls_hold_the_kernels_of_an_operator():
    """An operator keeps its kernels together, its next call is another; an extra kernel joins the last."""
    in_turn = [("gemm", 0), ("reduce", 0), ("gemm", 1), ("reduce", 1), ("add", 2)]
    in_place = [Kernel(name, 1e-6) for name in ("gemm", "reduce", "gemm", "reduce", "memset", "add")]
    found, unmatched = calls([MM, MM, ADD], in_turn, in_place)
    assert [(call.operator, [one.name for one in call.kernels]) for call in found] == [
        (MM, ["gemm", "reduce"]),
        (MM, ["gemm", "reduce", "memset"]),
        (ADD, ["add"]),
    ]
    assert unmatched == 1
    row = compact(found)
    assert row["operators"] == [[*MM], [*ADD]] and row["kernels"] == ["gemm", "reduce", "memset", "add"]
    assert row["calls"] == [
        [0, [[0, 1000], [1, 1000]]],
        [0, [[0, 1000], [1, 1000], [2, 1000]]],
        [1, [[3, 1000]]],
    ]


def test_kernel_before_any_operator_has_none():
    """What a replay runs before the step's first kernel belongs to no operator."""
    found, unmatched = calls([MM], [("gemm", 0)], [Kernel("fill", 1e-6), Kernel("gemm", 1e-6)])
    assert [call.operator for call in found] == [None, MM] and unmatched == 1
    assert compact(found)["calls"][0][0] == -1


def test_operator_is_described_alike_on_any_device():
    """Shapes, dtypes, layouts, bytes and operations of a call, worked out by hand."""
    for device in ("cpu", "meta"):
        left = torch.empty(4, 8, device=device)
        right = torch.empty(3, 8, device=device, dtype=torch.float32).t()
        made = torch.ops.aten.mm.default(left, right)
        found = describe(torch.ops.aten.mm.default, (left, right), {}, made)
        # 32 + 24 + 12 values of 4 bytes; 2 * 4 * 8 * 3 operations
        assert found == Operator("mm(f32[4,8],f32[8,3]t)", 272, 192)


@pytest.mark.parametrize(("groups", "flops"), [(1, 165_888), (6, 27_648)])
def test_gradients_take_as_many_operations_as_forward(groups, flops):
    """6 channels to 6 by 3x3 on two 8x8 images: 2 * 2 * 6 * 64 * 9 each, 6 times that without groups."""
    images, weight = torch.empty(2, 6, 8, 8), torch.empty(6, 6 // groups, 3, 3)
    how = [0], [1, 1], [1, 1], [1, 1], False, [0, 0], groups
    func = torch.ops.aten.convolution_backward.default
    for wanted, share in (([True, True], 1), ([False, True], 2), ([True, False], 2)):
        args = (images, images, weight, *how, [*wanted, False])
        assert describe(func, args, {}, func(*args)).flops == flops // share


def test_views_are_no_operators_with_a_time():
    """What launches nothing by its nature is not described."""
    one = torch.empty(4, 8)
    assert describe(torch.ops.aten.view.default, (one, [32]), {}, one.view(32)) is None
    assert describe(torch.ops.aten.empty_like.default, (one,), {}, one) is None


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (torch.empty(2, 3, 4, 5), "f32[2,3,4,5]"),
        (torch.empty(2, 3, 4, 5, memory_format=torch.channels_last), "f32[2,3,4,5]l"),
        (torch.empty(2, 4, 3).transpose(1, 2), "f32[2,3,4]t"),
        (torch.empty(2, 4, 3, 5).transpose(1, 2), "f32[2,3,4,5]@0213"),
        (torch.empty(2, 9, dtype=torch.bfloat16)[:, :3], "bf16[2,3]@01+"),
        (torch.empty(1, 3).expand(2, 3), "f32[2,3]e"),
    ],
)
def test_layout_is_part_of_the_key(tensor, text):
    """How a tensor lies in memory decides which kernel is taken."""
    found = describe(torch.ops.aten.neg.default, (tensor,), {}, tensor)
    assert found.key == f"neg({text})"


def test_a_look_up_moves_what_it_returns_and_not_its_table():
    """Of an embedding's 100 rows, four are read and written: 128 bytes each way, and 32 of indices."""
    table, rows = torch.empty(100, 8), torch.zeros(4, dtype=torch.int64)
    made = torch.ops.aten.embedding.default(table, rows)
    found = describe(torch.ops.aten.embedding.default, (table, rows), {}, made)
    assert found.bytes == 128 + 128 + 32
