"""Operators by their keys, and what one takes that nobody recorded, against small tables by hand."""

from __future__ import annotations

import math

import pytest

from stepcost.predicting.times.family import family_of, key_of, of_lists
from stepcost.predicting.times.nearest import Times
from stepcost.predicting.times.table import Entry, Step, Taken, TimesTable

GB_PER_S, TFLOPS = 1e12, 1e14
TENSORS = "f32[2,8,4,4],f32[2,3,4,4],f32[8,3,1,1]"
BF16, FP32 = "matrix_flops_per_s_bf16", "matrix_flops_per_s_fp32"


def times_of(*entries: tuple[str, int, int, float, float]) -> Times:
    """Return what is asked of a table with these: key, bytes, operations, seconds, kernels."""
    step = Step(
        request={},
        step_s=1.0,
        entries=tuple(
            Entry(key, size, flops, 1, Taken(s, kernels)) for key, size, flops, s, kernels in entries
        ),
    )
    rates = {"copy_bytes_per_s": GB_PER_S, BF16: TFLOPS, FP32: TFLOPS}
    return Times(TimesTable(about={"rates": rates}, gap_s=0.0, doubts={}, steps=(step,)))


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
    for one, other in (
        ("16,8,3,3", "16,8,1,1"),
        ("[1,1],[1,1],[1,1]", "[2,2],[1,1],[1,1]"),
        ("4,4]", "4,4]l"),
    ):
        assert family_of(plain.replace(one, other)).kind != family_of(plain).kind
    depthwise = "convolution(f32[2,8,4,4],f32[8,1,3,3],-,[1,1],[1,1],[1,1],False,[0,0],8)"
    assert "depthwise" in family_of(depthwise).kind


def test_lengths_that_are_no_multiple_of_16_bytes_are_another_kind() -> None:
    """A product with 50,257 columns takes other kernels than one with 50,304."""
    even, odd = "mm(bf16[64,768],bf16[768,50304])", "mm(bf16[64,768],bf16[768,50257])"
    assert family_of(even).kind != family_of(odd).kind
    assert of_lists("_fused_adam_(f32{62,1000},f32{62,1000})") == (62, 1000)


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
