"""Operators by their keys, and what one takes that nobody recorded, against small tables by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from stepcost.predicting.times.convolved import Choice, convolved
from stepcost.predicting.times.family import family_of, loaded_at_once
from stepcost.predicting.times.keys import key_of, of_lists
from stepcost.predicting.times.nearest import Times
from stepcost.predicting.times.table import Entry, Step, Taken, TimesTable

GB_PER_S, TFLOPS = 1e12, 1e14
TENSORS = "f32[2,8,4,4],f32[2,3,4,4],f32[8,3,1,1]"
BF16, FP32 = "matrix_flops_per_s_bf16", "matrix_flops_per_s_fp32"


def times_of(
    *entries: tuple[str, int, int, float, float],
    choices: dict[str, tuple[Choice, ...]] | None = None,
    choose: Callable[[str], tuple[Choice, ...] | None] = lambda key: None,
) -> Times:
    """Return what is asked of a table with these: key, bytes, operations, seconds, kernels."""
    step = Step(
        request={},
        step_s=1.0,
        entries=tuple(
            Entry(key, size, flops, 1, Taken(s, kernels)) for key, size, flops, s, kernels in entries
        ),
    )
    rates = {"copy_bytes_per_s": GB_PER_S, BF16: TFLOPS, FP32: TFLOPS}
    about = {"rates": rates}
    return Times(TimesTable(about=about, gap_s=0.0, doubts={}, steps=(step,), choices=choices or {}), choose)


@pytest.mark.parametrize(
    ("of_cuda", "of_meta"),
    [
        (
            "cudnn_batch_norm(f32[2,8,4,4]l,f32[8],f32[8],f32[8],f32[8],True,.,.)",
            "native_batch_norm(f32[2,8,4,4]l,f32[8],f32[8],f32[8],f32[8],True,.,.)",
        ),
        (
            f"convolution_backward({TENSORS},[0],[1,1],[0,0],[1,1],False,[0,0],1,[True,True,False])",
            f"convolution_backward({TENSORS},-,[1,1],[0,0],[1,1],False,[0,0],1,[True,True,False])",
        ),
    ],
)
def test_one_operator_has_one_key(of_cuda: str, of_meta: str) -> None:
    """What CUDA and the meta device call otherwise is looked up under one key, another one under another."""
    assert key_of(of_cuda) == key_of(of_meta)
    assert key_of(of_cuda) != key_of(of_cuda.replace("2,8,4,4", "4,8,4,4"))


def test_family_keeps_what_is_no_size() -> None:
    """Kernel, stride, groups and layout tell convolutions apart; batch and channels do not."""
    plain = "convolution(f32[2,8,4,4],f32[16,8,3,3],-,[1,1],[1,1],[1,1],False,[0,0],1)"
    alike = family_of(plain.replace("f32[2,8,4,4]", "f32[4,8,4,4]"))
    assert alike.kind == family_of(plain).kind and alike.sizes != family_of(plain).sizes
    assert family_of(plain.replace("4,4]", "4,4]l")).kind != family_of(plain).kind
    depthwise = "convolution(f32[2,8,4,4],f32[8,1,3,3],-,[1,1],[1,1],[1,1],False,[0,0],8)"
    assert "depthwise" in family_of(depthwise).kind
    for one, other in (("16,8,3,3", "16,8,1,1"), ("[1,1],[1,1],[1,1]", "[2,2],[1,1],[1,1]")):
        assert family_of(plain.replace(one, other)).sizes != family_of(plain).sizes


def test_bias_makes_no_other_kind() -> None:
    """Whether a bias is added, or its gradient made, is a kernel more of the same convolution."""
    plain = "convolution(f32[2,8,4,4],f32[16,8,3,3],-,[1,1],[1,1],[1,1],False,[0,0],1)"
    with_bias = plain.replace("-", "f32[16]")
    assert family_of(plain)[1:] == family_of(with_bias)[1:]
    one, other = convolved(plain), convolved(with_bias)
    assert one is not None and other is not None and other.with_bias and not one.with_bias
    added_s = other.bound_s((), 1.0, 1e30) - one.bound_s((), 1.0, 1e30)
    assert added_s == 2 * 2 * 16 * 16 * 4  # its result read and written: 2 x 16 x 4 x 4 values of 4 bytes


def test_convolution_reads_back_what_its_key_says() -> None:
    """Directions, lengths of the result, groups and layouts; a transposed one is none."""
    key = f"convolution_backward({TENSORS},-,[2,2],[1,1],[1,1],False,[0,0],1,[True,True,False])"
    one = convolved(key.replace("f32[8,3,1,1]", "f32[8,3,3,3]l"))
    assert one is not None
    assert one.directions == ("backward-data", "backward-weight") and one.output == (2, 8, 2, 2)
    assert one.channels_last == (False, True) and not one.with_bias
    described = one.described()
    assert described is not None and described.key == "3>8 4x4 3x3 2x2 1x1 1x1 g1 fp32 nchw/nhwc"
    first = convolved(key.replace("[True,True,False]", "[False,True,False]"))
    assert first is not None and first.directions == ("backward-weight",)
    assert convolved(key.replace("False,[0,0]", "True,[0,0]")) is None


def test_workspace_is_written_and_read() -> None:
    """30 MB of workspace in one of two directions take 60 MB longer."""
    key = f"convolution_backward({TENSORS},-,[1,1],[0,0],[1,1],False,[0,0],1,[True,True,False])"
    one = convolved(key)
    assert one is not None
    without, taking = (
        one.bound_s((Choice("67", 0), Choice("68", size)), 1.0, 1e30) for size in (0, 30_000_000)
    )
    assert taking - without == 60_000_000


def test_lengths_that_are_no_multiple_of_16_bytes_are_another_kind() -> None:
    """A product with 50,257 columns takes other kernels than one with 50,304."""
    even, odd = "mm(bf16[64,768],bf16[768,50304])", "mm(bf16[64,768],bf16[768,50257])"
    assert family_of(even).kind != family_of(odd).kind
    assert [loaded_at_once(key) for key in (even, odd)] == [8, 1]
    assert loaded_at_once("mm(bf16[64,768],bf16[768,30522])") == 2
    assert loaded_at_once("mm(bf16[50257,64]t,bf16[64,768])") == 1  # its rows lie 50,257 values apart
    assert loaded_at_once("mm(f32[64,768],f32[768,50257])") == 8
    assert of_lists("_fused_adam_(f32{62,1000},f32{62,1000})") == (62, 1000)


def test_batch_norm_of_58_channels_is_another_kind() -> None:
    """Its 58 float32 channels in channels last are no multiple of 16 bytes, those of 64 and 60 are."""
    kinds = [family_of(f"batch_norm(f32[64,{channels},28,28]l)").kind for channels in (58, 60, 64)]
    assert kinds[0] != kinds[1] == kinds[2]


def test_what_was_recorded_is_taken_as_it_was() -> None:
    """The recorded seconds, whatever its neighbours took."""
    times = times_of(("relu(f32[1000])", 8000, 0, 5e-6, 1), ("relu(f32[2000])", 16000, 0, 9e-6, 1))
    assert times.of("relu(f32[1000])", 8000, 0) == (Taken(5e-6, 1), "recorded")


def test_between_two_batch_sizes_lies_what_lies_between() -> None:
    """Two recorded at twice their bound make the one between take about twice its bound."""
    times = times_of(
        *((f"relu(f32[{n},1000000])", 8_000_000 * n, 0, 16e-6 * n, 1) for n in (16, 64)),
    )
    taken, how = times.of("relu(f32[32,1000000])", 256_000_000, 0)
    assert how == "near"
    assert taken.seconds == pytest.approx(512e-6, rel=0.05)
    assert taken.kernels == pytest.approx(1)


def test_product_with_odd_columns_is_slower_than_those_recorded() -> None:
    """Where all recorded products load 16 bytes at once, one that loads 2 takes 1.8 times 1.8 times 1.8."""
    sizes = (4096, 8192, 16384)
    times = times_of(*((f"mm(bf16[{n},768],bf16[768,50304])", 0, 10**6 * n, 1.1e-8 * n, 1) for n in sizes))
    taken, how = times.of("mm(bf16[8192,768],bf16[768,50257])", 0, 10**6 * 8192)
    assert how == "other" and taken.seconds == pytest.approx(1.8**3 * 1.1e-8 * 8192, rel=0.05)


Choices = tuple[Choice, ...]
SLOW: Choices = (Choice("28", 0),)
QUICK: Choices = (Choice("67", 0),)


def image(batch: int, channels: int) -> str:
    weight = f"f32[{channels},{channels},3,3]"
    return f"convolution(f32[{batch},{channels},8,8],{weight},-,[1,1],[1,1],[1,1],False,[0,0],1)"


def test_convolution_takes_what_those_of_its_engine_do() -> None:
    """Batch 32 between 16, of a quick engine, and 64, of one ten times as slow: as cuDNN says which it is."""
    recorded = {(8, 64): QUICK, (16, 64): QUICK, (64, 64): SLOW, (128, 64): SLOW}
    seconds = {QUICK: 1e-6, SLOW: 10e-6}
    entries = [(image(*of), 0, 0, seconds[each] * of[0], 1.0) for of, each in recorded.items()]
    choices = {image(*of): each for of, each in recorded.items()}
    asked = image(32, 64)
    quick = times_of(*entries, choices=choices, choose=lambda key: QUICK).of(asked, 0, 0)
    slow = times_of(*entries, choices=choices, choose=lambda key: SLOW).of(asked, 0, 0)
    assert slow.taken.seconds > 2.5 * quick.taken.seconds
    assert quick.how == slow.how == "near"
    unasked = times_of(*entries, choices=choices).of(asked, 0, 0)
    assert quick.taken.seconds < unasked.taken.seconds < slow.taken.seconds and unasked.how == "far"
    other = times_of(*entries, choices=choices, choose=lambda key: (Choice("1", 0),)).of(asked, 0, 0)
    assert other.how == "far"


def test_readings_that_lie_together_count_as_one() -> None:
    """Eight readings at one size do not outweigh the one at another size that is as far away."""
    many = [(f"relu(f32[{10**6 + n}])", 0, 0, 1e-5, 1.0) for n in range(8)]
    times = times_of(*many, ("relu(f32[4000000])", 0, 0, 4e-5, 1.0))
    assert times.of("relu(f32[2000000])", 0, 0).taken.seconds == pytest.approx(2e-5, rel=0.15)


def test_what_is_of_another_kind_is_said_to_be() -> None:
    """A product is known from one far larger, and a transposed one from another kind: that is said."""
    times = times_of(("mm(bf16[4096,4096],bf16[4096,4096])", 100_000_000, 2 * 4096**3, 2e-3, 1))
    assert times.of("mm(bf16[64,64],bf16[64,64])", 24_576, 2 * 64**3).how == "other"
    assert times.of("mm(bf16[4096,2048],bf16[2048,4096])", 70_000_000, 4096**3).how in ("near", "far")


def test_operator_that_no_step_had_takes_its_bytes() -> None:
    """Others that move as many bytes tell of it, as of what is unknown."""
    times = times_of(
        *((f"relu(f32[{n}])", 8 * n, 0, 1e-6 + 8 * n / GB_PER_S, 1) for n in (10**6, 10**7, 10**8))
    )
    taken, how = times.of("sinh(f32[20000000])", 160_000_000, 0)
    assert how == "unknown" and taken.seconds == pytest.approx(1e-6 + 160e-6)


def test_operator_without_kernels_stays_without() -> None:
    """What launched nothing wherever it was recorded launches nothing of another size."""
    times = times_of(("zeros([0],dtype=f32)", 0, 0, 0.0, 0), ("zeros([8],dtype=f32)", 0, 0, 0.0, 0))
    assert times.of("zeros([3],dtype=f32)", 0, 0).taken == Taken(0.0, 0.0)
    lists = ("cat(bf16{1,800},1)", "cat(bf16{1,900},1)")
    kept = "cat(bf16{2,800},f32[8,8])"
    some = times_of(*((key, 1600, 0, 0.0, 0) for key in lists), (kept, 1600, 0, 3e-6, 1))
    assert some.of("cat(bf16{1,850},1)", 1700, 0).taken == Taken(0.0, 0.0)
    assert some.of("cat(bf16{2,900},f32[8,8])", 1800, 0).taken.seconds == pytest.approx(3e-6, rel=0.2)


def test_optimizer_by_its_bytes() -> None:
    """Of three recorded that took 10 us and their bytes at full rate, a fourth lies on the same line."""
    sizes = (10**7, 10**8, 10**9)
    times = times_of(
        *((f"_fused_adam_(f32{{10,{n}}})", 16 * n, 0, 1e-5 + 16 * n / GB_PER_S, 1) for n in sizes),
    )
    taken, how = times.of("_fused_adam_(f32{10,300000000})", 4_800_000_000, 0)
    assert how == "near" and taken.seconds == pytest.approx(1e-5 + 4.8e-3, rel=0.01)
    assert math.isfinite(taken.kernels)
