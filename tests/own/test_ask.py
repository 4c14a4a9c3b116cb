"""stepcost.predict and stepcost.measure: a live step in, its cost out."""

import copy
import os
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from functools import partial

import cloudpickle
import pytest
import torch
from torch import nn

import stepcost
from stepcost.catalog.models import build_model
from stepcost.measuring.child import STARTED
from stepcost.measuring.own_step import OwnConfiguration
from stepcost.request import Request
from stepcost.workload import OwnStep
from tests.measuring.simulated_torch import DEVICE, simulated_card
from tests.own.steps import KEPT, Linear, Tied, keeps_a_tensor, of_rows, of_texts, rows, texts

H100 = "h100-80gb"
ask = partial(stepcost.predict, batch_size=4, optimizer="adamw", gpu=H100)


def images(n):
    return torch.randn(n, 3, 32, 32), torch.randint(10, (n,))


def test_tensors_are_those_counted_by_hand():
    """16 x 8 weights and 8 biases in fp32; a gradient as large; AdamW's two moments; 72 bytes an example."""
    cost = ask(Linear(), rows, of_rows)
    assert (cost.parameters, cost.parameter_bytes) == (136, 544)
    assert (cost.gradient_bytes, cost.optimizer_state_bytes, cost.input_bytes) == (544, 1088, 4 * 72)
    assert cost.parameters_by_module == {"head": 544}
    assert (cost.source, cost.gpu, cost.leaked_bytes) == ("predicted", "NVIDIA H100 80GB HBM3", 0)
    assert cost.fits is True


def test_tied_weights_count_once_and_batches_may_be_dataclasses():
    """100 x 32 tied weights and three 32 x 32 layers; two (4, 12) int64 tensors in the batch."""
    cost = ask(Tied(), texts, of_texts)
    assert cost.parameters == 100 * 32 + 3 * (32 * 32 + 32)
    assert cost.parameters_by_module["words"] == 4 * 3200
    assert "head" not in cost.parameters_by_module
    assert cost.input_bytes == 2 * 4 * 12 * 8


@pytest.mark.parametrize("wrap", [list, lambda batch: {"x": batch[0], "y": batch[1], "name": "rows"}])
def test_batches_may_be_lists_and_mappings(wrap):
    """What holds the tensors changes nothing."""

    def loss(model, batch):
        x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
        return nn.functional.cross_entropy(model(x), y)

    found, plain = ask(Linear(), lambda n: wrap(rows(n)), loss), ask(Linear(), rows, of_rows)
    assert found.peak_allocated_bytes == plain.peak_allocated_bytes
    assert found.input_bytes == plain.input_bytes


def test_a_live_classifier_costs_what_its_name_costs():
    """To the byte, but for the logits (4, 10), which the named step keeps until it ends: one block."""
    named = ask("resnet18", torch_version="2.11")
    own = ask(
        build_model("resnet18", num_classes=10, image_size=32),
        images,
        of_rows,
        torch_version="2.11",
    )
    for name in ("parameter_bytes", "gradient_bytes", "optimizer_state_bytes", "buffer_bytes", "input_bytes"):
        assert getattr(own, name) == getattr(named, name)
    assert 0 <= named.peak_allocated_bytes - own.peak_allocated_bytes <= 512
    assert named.peak_reserved_bytes == own.peak_reserved_bytes
    assert len(own.parameters_by_module) == len(named.parameters_by_module) > 40
    assert "not with such a step" in own.rests_on
    assert "not with such a step" not in named.rests_on


def test_neither_model_nor_random_numbers_are_changed():
    """Weights, gradients, mode and torch's random numbers are as they were before."""
    model = Tied().eval()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    ask(model, texts, of_texts)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.device.type == "cpu" for p in model.parameters())
    assert not model.training
    assert model.head.weight is model.words.weight


def test_an_optimizer_may_be_made_over_parameters():
    """SGD keeps nothing, with momentum one value a parameter; either may come as a function or a class."""
    assert ask(Linear(), rows, of_rows, optimizer=torch.optim.SGD).optimizer_state_bytes == 0
    momentum = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    own = ask(Linear(), rows, of_rows, optimizer=momentum)
    assert own.optimizer_state_bytes == 544
    named = ask(Linear(), rows, of_rows, optimizer="sgd-momentum")
    assert own.peak_allocated_bytes == named.peak_allocated_bytes


def test_what_a_step_keeps_for_good_is_a_leak():
    """Logits (4, 8) kept each step: 128 bytes, a block of 512."""
    cost = ask(Linear(), rows, keeps_a_tensor)
    KEPT.clear()
    assert cost.leaked_bytes == 512


def test_a_bound_is_not_given_as_a_number():
    """Where cuDNN was never recorded, a convolution's peak is a bound: asking for the number says so."""
    cost = ask("small-cnn", gpu="rtx4090")
    with pytest.raises(
        stepcost.NotKnown, match=r"peak_reserved_bytes on NVIDIA GeForce RTX 4090: .* is a bound"
    ):
        _ = cost.peak_reserved_bytes
    with pytest.raises(stepcost.NotKnown, match=r"process_bytes on NVIDIA GeForce RTX 4090: .*not measured"):
        _ = cost.process_bytes
    assert "at least" in str(cost)
    assert cost.parameter_bytes > 0
    with pytest.raises(AttributeError, match="a cost has no 'peak'"):
        _ = cost.peak


def test_a_step_without_cudnn_has_a_smaller_context():
    """Of an H100 it was measured with and without cuDNN; without cuBLAS the process is a bound."""
    linear = ask(Linear(), rows, of_rows)
    assert linear.process_bytes == linear.peak_reserved_bytes + 742 * 2**20
    with pytest.raises(stepcost.NotKnown, match=r"process_bytes on NVIDIA H100.*: at most: .* is a bound"):
        _ = ask(nn.Sequential(nn.Conv2d(3, 10, 32), nn.Flatten()), images, of_rows).process_bytes
    resnet = ask(build_model("resnet18", num_classes=10, image_size=32), images, of_rows)
    assert resnet.process_bytes == resnet.peak_reserved_bytes + resnet.context_bytes


def test_libraries_are_known_from_the_step_and_not_from_the_modules():
    """A product of matrices outside of any module is cuBLAS's, and a layer that is not called is no one's."""

    def loss_of(head):
        return lambda model, batch: nn.functional.cross_entropy(head(model, batch[0]), batch[1])

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.idle = nn.Conv2d(3, 4, 3), nn.Linear(4, 10)
            self.weight = nn.Parameter(torch.randn(4, 10))

    multiplied = ask(Two(), images, loss_of(lambda model, x: model.body(x).mean((2, 3)) @ model.weight))
    assert "process_bytes" not in multiplied.reading.unread
    summed = ask(Two(), images, loss_of(lambda model, x: model.body(x).mean((2, 3)) + model.weight.sum()))
    with pytest.raises(stepcost.NotKnown, match=r"process_bytes on NVIDIA H100.*: at most: .* is a bound"):
        _ = summed.process_bytes


def test_checkpointing_is_no_autocast():
    """Computing again enters an autocast that is switched off; activations then live in backward only."""

    def loss(model, batch):
        x = model.words(batch.words)
        for block in model.blocks:
            x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
        return model.head(x).square().mean()

    def plain(model, batch):
        x = model.words(batch.words)
        for block in model.blocks:
            x = block(x)
        return model.head(x).square().mean()

    # Each block keeps its input (4, 12, 32) either way, and nothing else: a linear layer saves no output.
    assert ask(Tied(), texts, loss).activation_bytes == ask(Tied(), texts, plain).activation_bytes


def test_an_estimate_warns():
    """A convolution that was not recorded on that card is estimated from others, and the figure says so."""
    cost = ask("small-cnn", image_size=57)
    with pytest.warns(stepcost.EstimateWarning, match="peak_reserved_bytes is an estimate"):
        assert cost.peak_reserved_bytes > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cost.parameter_bytes > 0
        assert ask(Linear(), rows, of_rows).peak_reserved_bytes > 0


def test_a_step_that_does_not_fit_says_so():
    """Logits (2000, 1,000,000, 8), 64 GB, do not fit an H100 twice: no peak is known."""

    def many(n):
        return torch.empty(n, 1, 16).expand(n, 1_000_000, 16)

    cost = ask(Linear(), many, lambda model, batch: model(batch).square().sum(), batch_size=2000)
    assert cost.fits is False
    assert str(cost).startswith("does not fit: out of memory in ")
    with pytest.raises(stepcost.NotKnown, match=r"peak_allocated_bytes: the step does not fit"):
        _ = cost.peak_allocated_bytes


WRONG = {
    "batch_size is 0; it takes an integer from 1 on": ((Linear(), rows, of_rows), {"batch_size": 0}),
    "batch_size is 1.5": ((Linear(), rows, of_rows), {"batch_size": 1.5}),
    "model is a int; it takes a torch.nn.Module or a name": ((3, rows, of_rows), {}),
    "Linear needs two functions.* no make_batch": ((Linear(), None, of_rows), {}),
    "Linear needs two functions.* no loss": ((Linear(), rows), {}),
    "'resnet18' is a name, which says its batch and its loss": (("resnet18", rows, of_rows), {}),
    "image_size: Linear takes none of these: make_batch says": ((Linear(), rows, of_rows), {"image_size": 4}),
    "nothing to train": ((nn.ReLU(), rows, of_rows), {}),
    "unknown optimizer 'adamm'; did you mean adam": ((Linear(), rows, of_rows), {"optimizer": "adamm"}),
    "optimizer is a Adam; it takes a name": (
        (Linear(), rows, of_rows),
        {"optimizer": torch.optim.Adam(Linear().parameters())},
    ),
    "the optimizer is a name too": (("resnet18",), {"optimizer": torch.optim.SGD}),
    "unknown card 'h100'": ((Linear(), rows, of_rows), {"gpu": "h100"}),
    "Linear with batch size 4 cannot be traced: loss.* shape \\(4, 8\\)": (
        (Linear(), rows, lambda model, batch: model(batch[0])),
        {},
    ),
    "Linear with batch size 4 cannot be traced: make_batch\\(4\\) raised ZeroDivisionError": (
        (Linear(), lambda n: 1 / 0, of_rows),
        {},
    ),
    "LSTM cannot be predicted yet": (
        (nn.LSTM(16, 8), rows, lambda model, batch: model(batch[0])[0].sum()),
        {},
    ),
    "a transposed convolution cannot be predicted yet": (
        (
            nn.ConvTranspose2d(3, 4, 2),
            lambda n: torch.randn(n, 3, 8, 8),
            lambda model, batch: model(batch).sum(),
        ),
        {},
    ),
    "a convolution over 1 dimensions cannot be predicted yet": (
        (nn.Conv1d(3, 4, 2), lambda n: torch.randn(n, 3, 8), lambda model, batch: model(batch).sum()),
        {},
    ),
    "cannot be traced: it is compiled \\(torch.compile\\)": ((torch.compile(Linear()), rows, of_rows), {}),
    "cannot be traced: the step asks for the value of a tensor \\(\\) of float32": (
        (Linear(), rows, lambda model, batch: model(batch[0]).sum() * model(batch[0]).sum().item()),
        {},
    ),
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_arguments_get_one_line(line):
    """What is wrong is named, with what would be right."""
    arguments, options = WRONG[line]
    with pytest.raises(ValueError, match=line) as raised:
        ask(*arguments, **options)
    assert "\n" not in str(raised.value)


def test_autocast_of_a_loss_is_seen():
    """Two blocks more: the rows as cast, and the logarithms (4, 8) of probabilities also as float32."""

    def loss(model, batch):
        with torch.autocast("cuda", torch.bfloat16):
            return of_rows(model, batch)

    plain, cast = ask(Linear(), rows, of_rows), ask(Linear(), rows, loss)
    assert (cast.parameter_bytes, cast.gradient_bytes) == (plain.parameter_bytes, plain.gradient_bytes)
    assert cast.activation_bytes == plain.activation_bytes + 2 * 512


def test_measuring_needs_a_gpu(monkeypatch):
    """Without one, a line says what needs none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ValueError, match=r"nothing can be measured; stepcost.predict needs no GPU"):
        stepcost.measure(Linear(), rows, of_rows, optimizer="adamw", batch_size=4)


def test_a_script_needs_no_guard(tmp_path):
    """The processes that measure import nothing of the script, which would ask again in each of them."""
    script = tmp_path / "script.py"
    script.write_text(
        "import stepcost\n"
        "from torch import nn\n"
        "print('once')\n"
        "try:\n"
        "    model, nothing = nn.Linear(4, 2), lambda *_: None\n"
        "    stepcost.measure(model, nothing, nothing, optimizer='sgd', batch_size=1)\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(script)]
    found = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert found.returncode == 0, found.stderr
    once, line = found.stdout.splitlines()
    assert once == "once"
    assert "nothing can be measured" in line


@pytest.fixture
def started(monkeypatch):
    """As in a child that was just forked."""
    for name in ("requested_at", "forked_at"):
        monkeypatch.setitem(STARTED, name, time.perf_counter())
    monkeypatch.setitem(STARTED, "phase", "start")


def Untied():
    """Moving to the meta device, as which the card is simulated, would untie weights; to CUDA it does not."""
    return Tied(tied=False)


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize(("model", "make", "loss"), [(Linear, rows, of_rows), (Untied, texts, of_texts)])
def test_the_reading_of_a_live_step_is_the_prediction(model, make, loss):
    """The code that measures, on a simulated card: peaks, ledger and modules are the predicted ones."""
    predicted = ask(model(), make, loss, torch_version="2.11")
    pickled = cloudpickle.dumps(OwnStep(model=model(), make_batch=make, loss=loss))
    request = Request(model="live", optimizer="adamw", batch_size=4, device=DEVICE)
    with simulated_card():
        held = OwnConfiguration(request, pickled, sys.path)
        reading = held.reading()
    for name in (
        "peak_allocated_bytes",
        "peak_reserved_bytes",
        "activation_bytes",
    ):
        assert getattr(reading, name) == getattr(predicted.reading, name), name
    assert reading.ledger is not None
    # The simulated card's context is one with cuDNN, which these steps do not load.
    of_the_card = reading.ledger.context_bytes
    assert replace(predicted.reading.ledger, context_bytes=of_the_card) == reading.ledger
    assert reading.kept_by_modules == predicted.kept_by_modules


def test_importing_stepcost_imports_no_torch():
    """The package and its plugin start without torch; the calls bring it."""
    code = "import sys, stepcost, stepcost.pytest_plugin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
