from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stepcost.catalog.cards import CARDS
from stepcost.predicting import predict
from stepcost.predicting.trace import trace_run
from stepcost.reading import Reading
from stepcost.request import Request

SMALL = Request(model="small-cnn", optimizer="sgd", batch_size=8)
H100 = CARDS["h100-80gb"]


def peak(reading: Reading) -> int:
    """Return the peak of allocated bytes, which must be known."""
    assert reading.peak_allocated_bytes is not None
    return reading.peak_allocated_bytes


@pytest.fixture(scope="module")
def resnet152() -> Reading:
    """ResNet-152 with a 10-class head, Adam, as on an H100."""
    return predict(Request(model="resnet152", optimizer="adam", batch_size=4), H100)


def test_tensors_of_resnet152_are_those_of_its_closed_form(resnet152: Reading) -> None:
    """58,164,298 parameters of 4 bytes, as many bytes of gradients, twice as many of Adam's state."""
    assert resnet152.parameters == 58_164_298
    assert resnet152.parameter_bytes == 232_657_192
    assert resnet152.gradient_bytes == 232_657_192
    assert resnet152.optimizer_state_bytes == 2 * 232_657_192
    assert resnet152.input_bytes == 4 * (3 * 32 * 32 * 4 + 8)


def test_the_ledger_adds_up(resnet152: Reading) -> None:
    """Parts to peak allocated, with slack to reserved, with context to the process, exactly."""
    ledger = resnet152.ledger
    assert ledger is not None
    assert ledger.allocated_bytes == resnet152.peak_allocated_bytes
    assert ledger.allocated_bytes + (ledger.slack_bytes or 0) == resnet152.peak_reserved_bytes
    assert H100.context_bytes is not None
    assert resnet152.process_bytes == (resnet152.peak_reserved_bytes or 0) + H100.context_bytes


def test_the_peak_is_that_of_its_moment(resnet152: Reading) -> None:
    """The highest phase is the peak; Adam's temporaries put it in the optimizer step at a small batch."""
    assert resnet152.phase_peak_bytes is not None
    assert max(resnet152.phase_peak_bytes.values()) == peak(resnet152)
    assert resnet152.peak_moment == "optimizer step"


def test_a_prediction_is_labelled_as_one(resnet152: Reading) -> None:
    """Nothing predicted passes for measured, and it says how the process figure came about."""
    assert resnet152.source == "predicted"
    assert resnet152.process_bytes_from == "prediction"
    assert resnet152.moments == ()


def test_more_state_needs_more_memory() -> None:
    """SGD < momentum < Adam, at the same batch."""
    sgd, momentum, adam = (
        peak(predict(replace(SMALL, optimizer=name))) for name in ("sgd", "sgd-momentum", "adam")
    )
    assert sgd < momentum < adam


def test_tensor_bytes_grow_with_the_batch() -> None:
    """More images are more inputs and activations, and nothing else changes."""
    few, many = (predict(replace(SMALL, batch_size=size)) for size in (8, 16))
    assert few.tensor_bytes is not None
    assert many.tensor_bytes is not None
    assert few.tensor_bytes < many.tensor_bytes
    assert few.parameter_bytes == many.parameter_bytes


def test_the_first_step_lies() -> None:
    """Before the first update there is no optimizer state, so the first step peaks lower."""
    reading = predict(replace(SMALL, optimizer="adam", batch_size=256))
    assert reading.first_step_peak_allocated_bytes is not None
    assert reading.first_step_peak_allocated_bytes <= peak(reading)


def test_fused_adam_makes_no_temporaries() -> None:
    """The fused kernel peaks below the foreach one, with the same state."""
    foreach, fused = (predict(replace(SMALL, optimizer=name)) for name in ("adam", "adam-fused"))
    assert foreach.optimizer_state_bytes == fused.optimizer_state_bytes
    assert (fused.phase_peak_bytes or {})["optimizer step"] < (foreach.phase_peak_bytes or {})[
        "optimizer step"
    ]


def test_without_a_card_the_process_is_unknown_not_zero() -> None:
    """What depends on the card is None, with the reason."""
    reading = predict(SMALL)
    assert reading.process_bytes is None
    assert "card" in reading.unread["process_bytes"]
    assert predict(SMALL, CARDS["t4"]).process_bytes is None


@pytest.mark.parametrize(
    ("model", "uses_both"),
    [("resnet18", True), ("vit_b_16", True), ("small-cnn", True), ("squeezenet1_1", False)],
)
def test_the_process_is_a_bound_without_one_of_the_libraries(model: str, uses_both: bool) -> None:
    """A network of convolutions alone never loads cuBLAS, whose kernels are part of the measured context."""
    reading = predict(Request(model=model, optimizer="sgd", batch_size=2), H100)
    assert reading.process_bytes is not None
    bounds = {name for name, why in reading.unread.items() if why.startswith("at most: the context")}
    assert bounds == (set() if uses_both else {"process_bytes", "context_bytes"})


def test_what_is_too_large_does_not_fit() -> None:
    """A step larger than the card is predicted to run out of memory, and where, whatever else is unknown."""
    reading = predict(replace(SMALL, batch_size=4_000_000), CARDS["t4"])
    assert reading.fits is False
    assert reading.peak_allocated_bytes is None
    assert "out of memory in" in (reading.reason or "")


def test_without_a_card_nothing_is_said_about_fitting() -> None:
    """What no card is named for neither fits nor does not."""
    reading = predict(SMALL)
    assert (reading.fits, reading.reason) == (None, None)
    assert "no card is named" in reading.unread["fits"]


def test_what_was_never_measured_is_never_said_to_fit() -> None:
    """Context, driver and workspaces unknown: it cannot be said, and the sentence says which and how much."""
    reading = predict(SMALL, CARDS["rtx4090"])
    assert reading.fits is None
    for unknown in ("CUDA context", "what the driver keeps", "cuDNN's workspaces", " MB"):
        assert unknown in reading.unread["fits"]
    assert reading.context_bytes is None
    assert reading.context_likely_bytes is not None
    low, high = reading.context_likely_bytes
    assert 0 < low < high
    assert "at least" in reading.unread["peak_allocated_bytes"]


def test_a_card_with_room_for_every_bound_fits_where_no_workspace_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a convolution only context and driver are unknown: a small step fits, one at the edge may."""
    (tmp_path / "no_convolution.py").write_text(
        "from torch import nn\n"
        "def build(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    request = replace(SMALL, model="no_convolution:build")
    assert predict(request, CARDS["t4"]).fits is True
    edge = replace(CARDS["t4"], total_bytes=600 * 2**20)
    assert predict(request, edge).fits is None


def test_what_no_gpu_was_asked_is_not_said_to_fit_at_the_edge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 5 % of room to spare a step fits, unless it rests on an operator whose memory was not compared."""
    (tmp_path / "edge.py").write_text(
        "from torch import nn\n"
        "def plain(num_classes, last=nn.ReLU):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 4096), last())\n"
        "def unseen(num_classes): return plain(num_classes, nn.Hardswish)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name, fits in (("plain", True), ("unseen", None)):
        request = replace(SMALL, model=f"edge:{name}")
        reserved = predict(request, H100, torch_version="2.11").peak_reserved_bytes or 0
        edge = replace(H100, total_bytes=H100.total_bytes - H100.room_bytes + int(1.05 * reserved))
        assert predict(request, edge, torch_version="2.11").fits is fits
    assert "hardswish_backward" in predict(request, edge, torch_version="2.11").unread["fits"]


def test_what_would_be_estimated_is_noted_where_it_does_not_fit() -> None:
    """A step that ends before its first convolution still says that workspaces would be estimates."""
    reading = predict(Request(model="resnet18", optimizer="sgd", batch_size=3_000_000), H100)
    assert reading.fits is False
    assert "convolutions are not in the table" in reading.unread["workspace_bytes"]


def test_a_card_of_unknown_capability_is_refused_in_one_line() -> None:
    """A compute capability that no table knows is named, with those that are."""
    with pytest.raises(ValueError, match=r"compute capability 9\.9 is not known here, only .*8\.7") as caught:
        predict(SMALL, replace(CARDS["t4"], compute_capability="9.9"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [images.mean((2, 3))]", "the model returned a list"),
        ("return (images.mean((2, 3)), None)", "the model returned a tuple"),
        ("return {'logits': images.mean((2, 3))}", "the model returned a dict"),
        ("return {}['x']", "KeyError: 'x'"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
    ],
)
def test_a_model_that_cannot_be_trained_is_one_line(
    body: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a model's forward returns or raises, the error is one line that says what it was."""
    (tmp_path / "odd_model.py").write_text(
        "from torch import nn\n"
        "class Odd(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.used = nn.Linear(3, 3)\n"
        "    def forward(self, images):\n"
        f"        {body}\n"
        "def build(num_classes):\n"
        "    return Odd()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_model", raising=False)
    with pytest.raises(ValueError, match="cannot be traced") as caught:
        predict(replace(SMALL, model="odd_model:build"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_that_ends_the_process_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``sys.exit`` while a model is built does not end the prediction without a word."""
    (tmp_path / "quitter.py").write_text("import sys\ndef build(num_classes):\n    sys.exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"sys\.exit\(3\)"):
        predict(replace(SMALL, model="quitter:build"))


def test_a_model_that_reads_values_needs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that reads its widths off a tensor, as RegNet does, is built without its 400 GB of weights."""
    (tmp_path / "reads.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def build(num_classes):\n"
        "    narrow, wide = torch.tensor([3, 10**11]).tolist()\n"
        "    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "    few, many = nn.Linear(narrow, num_classes), nn.Linear(num_classes, wide // 10)\n"
        "    return nn.Sequential(*pool, few, many)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert (predict(replace(SMALL, model="reads:build")).parameter_bytes or 0) > 400 * 10**9


def test_predictions_repeat() -> None:
    """The same request gives the same bytes."""
    first, second = (predict(SMALL, H100) for _ in range(2))
    assert replace(first, seconds=None) == replace(second, seconds=None)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "convnext_tiny", "vit_b_16"])
def test_models_of_many_kinds_can_be_traced(name: str) -> None:
    """Convolutional, dense, depthwise and attention models have a trace in which frees match allocations."""
    events = trace_run(Request(model=name, optimizer="sgd", batch_size=2, image_size=64), steps=1).events
    alive: set[int] = set()
    for action, what, _ in events:
        if action == "alloc":
            assert what not in alive
            alive.add(what)
        elif action == "free":
            alive.remove(what)
    assert alive


def test_the_trace_makes_the_tensors_that_a_real_step_makes() -> None:
    """Gradients and state counted on meta tensors are those of a real step on the CPU."""
    from stepcost.catalog.models import build_model  # noqa: PLC0415
    from stepcost.catalog.optimizers import build_optimizer  # noqa: PLC0415
    from stepcost.step import TrainingStep, classify  # noqa: PLC0415

    model = build_model("small-cnn", num_classes=10, image_size=32)
    step = TrainingStep(model=model, optimizer=build_optimizer("adam", model), objective=classify)
    step((torch.zeros(8, 3, 32, 32), torch.zeros(8, dtype=torch.int64)))
    state = [value for values in step.optimizer.state.values() for value in values.values()]
    reading = predict(replace(SMALL, optimizer="adam"))
    assert reading.gradient_bytes == sum(4 * p.numel() for p in model.parameters() if p.grad is not None)
    assert reading.optimizer_state_bytes == sum(4 * value.numel() for value in state if value.dim())
    assert reading.optimizer_scalar_bytes == sum(4 * value.numel() for value in state if not value.dim())


def test_predicting_neither_needs_pytest_nor_starts_cuda() -> None:
    """A fresh interpreter predicts without importing pytest and without initialising CUDA."""
    program = (
        "import sys, torch\n"
        "from stepcost.request import Request\n"
        "from stepcost.predicting import predict\n"
        "predict(Request(model='small-cnn', optimizer='adam', batch_size=4))\n"
        "predict(Request(model='small-cnn', optimizer='adam', batch_size=4, precision='bf16'))\n"
        "assert 'pytest' not in sys.modules\n"
        "assert not torch.cuda.is_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_a_step_leaks_nothing() -> None:
    """What is allocated between steps is the same after every step."""
    assert predict(SMALL, H100).leaked_bytes == 0


def test_accumulation_adds_the_gradients_to_the_peak_of_one_micro_batch() -> None:
    """Later forwards begin with the gradients, the loss before (512 bytes) and its logits (64 x 10 x 4)."""
    plain, three = (predict(replace(SMALL, batch_size=64, accumulate=count), H100) for count in (1, 3))
    assert plain.phase_peak_bytes is not None
    assert three.phase_peak_bytes is not None
    assert three.activation_bytes == plain.activation_bytes
    assert three.gradient_bytes == plain.gradient_bytes
    assert plain.ledger is not None
    gradients = plain.ledger.parameter_bytes  # an allocated block each, as the weights
    more = (gradients or 0) + 512 + 2560
    assert three.phase_peak_bytes["forward"] == plain.phase_peak_bytes["forward"] + more
    assert three.leaked_bytes == 0


@pytest.mark.parametrize(("precision", "width"), [("bf16", 4), ("fp16", 4), ("pure-bf16", 2)])
def test_weights_and_gradients_have_the_width_of_their_precision(precision: str, width: int) -> None:
    """Autocast leaves both in fp32 and halves activations; pure bf16 halves all three."""
    plain = predict(replace(SMALL, batch_size=64), H100)
    reading = predict(replace(SMALL, batch_size=64, precision=precision), H100)
    assert reading.parameters is not None
    assert reading.parameter_bytes == reading.gradient_bytes == width * reading.parameters
    assert reading.activation_bytes is not None
    assert plain.activation_bytes is not None
    assert reading.activation_bytes < 0.7 * plain.activation_bytes


def test_weights_in_another_layout_are_weights() -> None:
    """Channels-last copies the weights; the ledger knows the copies."""
    plain, last = (predict(replace(SMALL, channels_last=given), H100).ledger for given in (False, True))
    assert plain is not None
    assert last is not None
    assert last.parameter_bytes == plain.parameter_bytes
