"""Autocast on meta tensors: which operators cast what, as torch's own AutocastCUDA kernels do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from stepcost.predicting.as_on_cuda import as_on_cuda
from stepcost.predicting.rules import RULES
from stepcost.predicting.tape import ALLOC, Tape

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def meta(*shape: int, dtype: torch.dtype = FP32) -> torch.Tensor:
    """Make a tensor without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")


def traced(run: Callable[[], Any]) -> tuple[Any, list[int]]:
    """Return what ``run`` returns, and the bytes of each allocation it makes."""
    tape = Tape(RULES)
    with as_on_cuda(tape), tape:
        made = run()
        sizes = [size for action, _, size in tape.events if action == ALLOC]
    return made, sizes


CASES: dict[str, tuple[Callable[[], torch.Tensor], torch.dtype]] = {
    "a product": (lambda: meta(4, 4) @ meta(4, 4), BF16),
    "a linear layer": (lambda: functional.linear(meta(4, 4), meta(4, 4), meta(4)), BF16),
    "a convolution": (lambda: functional.conv2d(meta(1, 3, 8, 8), meta(4, 3, 3, 3)), BF16),
    "products made in C++": (lambda: torch.einsum("ij,jk->ik", meta(4, 4), meta(4, 4)), BF16),
    "a softmax": (lambda: meta(4, 4, dtype=BF16).softmax(-1), FP32),
    "a softmax that is told its dtype": (lambda: meta(4, 4, dtype=BF16).softmax(-1, FP32), FP32),
    "a sum": (lambda: meta(4, dtype=BF16).sum(), FP32),
    "a norm": (lambda: torch.norm(meta(4, dtype=BF16), 3), FP32),
    "a normalisation": (lambda: functional.layer_norm(meta(4, 4, dtype=BF16), (4,)), FP32),
    "a power": (lambda: meta(4, dtype=BF16).pow(2), FP32),
    "the wider of two": (lambda: torch.cat([meta(4, dtype=BF16), meta(4)]), FP32),
    "what has no rule": (lambda: meta(4, dtype=BF16).relu(), BF16),
    "doubles stay": (
        lambda: meta(4, 4, dtype=torch.float64) @ meta(4, 4, dtype=torch.float64),
        torch.float64,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_operators_cast_as_on_cuda(name: str) -> None:
    """Products in bf16, what needs the range in fp32; outside autocast nothing is cast."""
    run, dtype = CASES[name]

    def cast() -> torch.Tensor:
        with torch.autocast("cuda", BF16):
            return run()

    assert traced(cast)[0].dtype == dtype


def test_a_weight_is_cast_once_until_autocast_ends() -> None:
    """(64, 64) in bf16 is 8,192 bytes: cast once for two products, and once more in a second region."""
    weight = nn.Parameter(meta(64, 64))

    def run(keeps: bool) -> Any:
        for _ in range(2):
            with torch.autocast("cuda", BF16, cache_enabled=keeps):
                x = meta(2, 64, dtype=BF16)
                made = (x @ weight, x @ weight)
        return made

    assert traced(lambda: run(True))[1].count(8192) == 2
    assert traced(lambda: run(False))[1].count(8192) == 4


def test_an_activation_is_cast_each_time() -> None:
    """Only weights are kept: a tensor that is no leaf that needs a gradient is cast twice."""
    images, weight = meta(64, 64), meta(64, 64, dtype=BF16)

    def run() -> Any:
        with torch.autocast("cuda", BF16):
            return images @ weight, images @ weight

    assert traced(run)[1] == [8192] * 4


def test_gradients_come_back_in_fp32() -> None:
    """The cast is part of the graph: the gradient of an fp32 weight is fp32."""
    weight = nn.Parameter(meta(4, 4))

    def run() -> Any:
        with torch.autocast("cuda", BF16):
            loss = (meta(4, 4) @ weight).float().mean()
        loss.backward()

    traced(run)
    assert weight.grad is not None
    assert weight.grad.dtype == FP32


def test_autocast_of_the_tensors_device_is_that_of_cuda() -> None:
    """What asks by the device of a tensor, or switches it off for a moment, sees the same state."""

    def run() -> list[Any]:
        x = meta(4, 4)
        with torch.autocast(x.device.type, BF16):
            seen = [torch.is_autocast_enabled(x.device.type), torch.get_autocast_dtype(x.device.type)]
            with torch.autocast(x.device.type, enabled=False):
                seen.append((x @ x).dtype)
            return [*seen, (x @ x).dtype]

    assert traced(run)[0] == [True, BF16, FP32, BF16]


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_checkpoint_computes_again_under_the_same_autocast(use_reentrant: bool) -> None:
    """Backward, outside of autocast, makes the hidden (32, 64) in bf16 once more: 4,096 bytes, not 8,192."""
    block = nn.Sequential(nn.Linear(16, 64, bias=False), nn.Linear(64, 16, bias=False)).to("meta")
    sizes: list[int] = []

    def run() -> None:
        x = meta(32, 16).requires_grad_()
        with torch.autocast("cuda", BF16):
            loss = checkpoint(block, x, use_reentrant=use_reentrant).float().sum()
        tape.events.clear()
        loss.backward()

    tape = Tape(RULES)
    with as_on_cuda(tape), tape:
        run()
        sizes += [size for action, _, size in tape.events if action == ALLOC]
    assert 4096 in sizes
    assert 8192 not in sizes


def test_custom_functions_see_autocast() -> None:
    """``custom_fwd`` casts what it is told to, and switches autocast off inside."""

    class Product(torch.autograd.Function):
        @staticmethod
        @torch.amp.custom_fwd(device_type="cuda", cast_inputs=FP16)
        def forward(ctx: Any, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return left @ right

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> Any:
            return gradient, gradient

    def run() -> torch.dtype:
        with torch.autocast("cuda", BF16):
            made: torch.Tensor = Product.apply(meta(4, 4), meta(4, 4))
            return made.dtype

    assert traced(run)[0] == FP16


def test_binary_cross_entropy_is_refused_as_on_cuda() -> None:
    """Torch's own line says what to use instead."""

    def run() -> Any:
        with torch.autocast("cuda", BF16):
            return functional.binary_cross_entropy(meta(4, dtype=BF16), meta(4, dtype=BF16))

    with pytest.raises(RuntimeError, match="binary_cross_entropy_with_logits"):
        traced(run)


def test_torch_is_left_as_it_was() -> None:
    """After a trace, meta has no autocast, and operators are not met any more."""
    traced(lambda: meta(4) + 1)
    with pytest.raises(RuntimeError):
        torch.autocast("meta")
    assert not torch.is_autocast_enabled("cuda")
    left = meta(4, 4, dtype=FP32)
    assert (left @ left).dtype == FP32


def test_autocast_of_the_processor_is_refused() -> None:
    """It does nothing on CUDA: a step that asks for it where there is no GPU would be another with one."""

    def run() -> Any:
        with torch.autocast("cpu", BF16):
            return meta(4, 4) @ meta(4, 4)

    with pytest.raises(ValueError, match="enters autocast of the CPU"):
        traced(run)


def test_a_view_or_a_result_is_no_weight() -> None:
    """What needs a gradient but is no leaf is cast each time: it may change."""
    weight = nn.Parameter(meta(64, 64))

    def run() -> Any:
        doubled = weight * 2
        with torch.autocast("cuda", BF16):
            x = meta(2, 64, dtype=BF16)
            return x @ doubled, x @ doubled

    assert traced(run)[1].count(8192) == 2


def test_a_softmax_of_fp16_makes_fp32_at_once() -> None:
    """(4, 64) in fp32 is 1,024 bytes; no copy of the input is made."""
    scores = meta(4, 64, dtype=FP16)

    def run() -> Any:
        with torch.autocast("cuda", FP16):
            return scores.softmax(-1), functional.log_softmax(scores, -1)

    assert traced(run)[1] == [1024, 1024]


def test_transformers_can_switch_it_off_for_a_moment() -> None:
    """Its own context manager leaves meta tensors alone, and would compute rotary embeddings in bf16 here."""
    generic = pytest.importorskip("transformers.utils.generic", reason="transformers is not installed")
    if not hasattr(generic, "maybe_autocast"):
        pytest.skip("this transformers has no maybe_autocast")

    def run() -> torch.dtype:
        x = meta(4, 4)
        with torch.autocast("cuda", BF16), generic.maybe_autocast(device_type=x.device.type, enabled=False):
            return (x @ x).dtype

    assert traced(run)[0] == FP32


def test_asking_torch_starts_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a GPU, fake tensors would allocate on it; they are not let to."""

    def start(device: torch.device) -> None:
        raise AssertionError(f"CUDA is started on {device}")

    monkeypatch.setattr("torch._subclasses.fake_tensor.init_gpu_context", start)

    def run() -> Any:
        with torch.autocast("cuda", BF16):
            return meta(4, 4) @ meta(4, 4)

    assert traced(run)[0].dtype == BF16
