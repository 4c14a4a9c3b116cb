"""The engines: each row against what its name promises, built as far as a machine without a GPU can."""

import pytest
import torch

from stepcost.catalog.engines import ENGINES, UNCOMPILED_BY_SPEED
from stepcost.catalog.models import STAND_IN, build_model
from stepcost.catalog.optimizers import OPTIMIZERS
from stepcost.measuring import launch
from stepcost.prepare import memory_format
from stepcost.request import Request

PROMISES = {
    # captured, channels last, fused, autotuned, compiled, precision
    "eager": (False, False, False, False, False, "fp32"),
    "graph": (True, False, False, False, False, "fp32"),
    "graph-channels-last": (True, True, False, False, False, "fp32"),
    "graph-fused": (True, False, True, False, False, "fp32"),
    "fast": (True, True, True, False, False, "fp32"),
    "fast-autotuned": (True, True, True, True, False, "fp32"),
    "fast-bf16": (True, True, True, False, False, "bf16"),
    "fast-compiled": (True, True, True, False, True, "fp32"),
    "fast-compiled-bf16": (True, True, True, False, True, "bf16"),
}
CANNOT_CAPTURE = {"adagrad", "adamw-8bit", "adafactor", "muon"}
HAVE_FUSED = {"sgd", "sgd-momentum", "adam", "adam-fused", "adamw", "adamw-fused"}

rows = pytest.mark.parametrize("name", list(ENGINES))


def test_every_row_is_named_here():
    """The table above has every engine."""
    assert list(ENGINES) == list(PROMISES)


@pytest.fixture
def compiled(monkeypatch):
    """What was compiled, and with which options; compiling itself is left out."""
    seen = []

    def compile_model(model, **options):
        seen.append((model, options))
        return model

    monkeypatch.setattr(torch, "compile", compile_model)
    return seen


@rows
def test_built_step_has_what_the_name_promises(name, compiled):
    """A step of each engine: layout, optimizer, autotuning, compilation and precision, and it trains."""
    captured, channels_last, fused, autotuned, is_compiled, precision = PROMISES[name]
    assert ENGINES[name].captured is captured
    before = torch.backends.cudnn.benchmark
    request = Request(model=STAND_IN, optimizer="sgd-momentum", batch_size=4, engine=name, device="cpu")
    try:
        torch.manual_seed(0)
        model = build_model(STAND_IN, num_classes=10, image_size=32).train()
        step = launch.build_step(request, model)
        assert torch.backends.cudnn.benchmark is autotuned
    finally:
        torch.backends.cudnn.benchmark = before
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert memory_format(request) is layout
    weight = model[3].weight  # of 16 channels: with three and 3x3 both layouts may look alike
    assert weight.is_contiguous(memory_format=layout)
    assert weight.is_contiguous(memory_format=torch.contiguous_format) is not channels_last
    assert bool(step.optimizer.defaults["fused"]) is fused
    assert compiled == ([(model, {"dynamic": False})] if is_compiled else [])
    assert request.precision == precision

    convolved = []
    model[0].register_forward_hook(lambda module, images, made: convolved.append(made.dtype))
    start = weight.detach().clone()
    loss, logits = step((torch.randn(4, 3, 32, 32).contiguous(memory_format=layout), torch.arange(4)))
    assert convolved == [torch.bfloat16 if precision == "bf16" else torch.float32]
    assert (loss.dtype, weight.dtype) == (torch.float32,) * 2
    assert logits.dtype == convolved[0]
    assert not torch.equal(weight, start)


@rows
@pytest.mark.parametrize("rule", list(OPTIMIZERS))
def test_which_optimizers_an_engine_can_run(name, rule):
    """An engine runs an optimizer that it can capture and fuse; it is then built with those options."""
    captured, _, fused, *_ = PROMISES[name]
    can = not (captured and rule in CANNOT_CAPTURE) and not (fused and rule not in HAVE_FUSED)
    why_not = ENGINES[name].why_not(rule)
    assert (why_not is None) is can
    if why_not:
        assert why_not.startswith(f"{rule} ")
        return
    request = Request(model=STAND_IN, optimizer=rule, batch_size=4, engine=name, device="cpu")
    if OPTIMIZERS[rule].extra is not None:
        pytest.importorskip("bitsandbytes", reason="an extra: pip install 'stepcost[bitsandbytes]'")
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    options = launch.build_step(request, model).optimizer.defaults
    assert bool(options.get("fused")) is (fused or rule.endswith("-fused"))
    assert bool(options.get("capturable")) is (captured and not rule.startswith("sgd"))


@pytest.mark.parametrize(("rule", "chosen"), [("adam", "fast"), ("rmsprop", "graph-channels-last")])
def test_fastest_that_can_run_it(rule, chosen):
    """What a study uses unless told: the fastest engine that can run its optimizer."""
    assert next(name for name in UNCOMPILED_BY_SPEED if ENGINES[name].why_not(rule) is None) == chosen
