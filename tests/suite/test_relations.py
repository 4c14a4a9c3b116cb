"""Each relation the benchmarks assert is seen to fail on a planted fault."""

import importlib.util
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from stepcost.catalog import optimizers as catalog
from stepcost.catalog.cards import CARDS
from stepcost.catalog.models import OWN_MODELS, build_named
from stepcost.catalog.optimizers import OPTIMIZERS
from stepcost.predicting import predict
from stepcost.request import Request

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def benchmark_module(name):
    """A file of benchmarks as a module, so that its relations can be asked directly."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


optimizer_memory = benchmark_module("test_optimizer_memory")
batch_size_memory = benchmark_module("test_batch_size_memory")
sequence_length = benchmark_module("test_sequence_length")
time_to_accuracy = benchmark_module("test_time_to_accuracy")
SETTINGS = SimpleNamespace(
    optimizers=("sgd", "sgd-momentum", "adam"),
    batch_sizes=(8, 32),
    optimizer_batch_size=32,
    batch_optimizer="sgd",
)


def measure(*, model="small-cnn", **asked):
    """A real reading, predicted here: the same training step on the same optimizers."""
    return predict(Request(model=model, device="cpu", **asked), CARDS["h100-80gb"])


class Backbone(nn.Module):
    """A frozen backbone with a trainable head, and a head that takes no part in the loss."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(3 * 32 * 32, 16).requires_grad_(False)
        self.head, self.auxiliary = nn.Linear(16, 10), nn.Linear(16, 10)

    def forward(self, images):
        features = self.frozen(images.flatten(1))
        return SimpleNamespace(logits=self.head(features), aux_logits=self.auxiliary(features))


@pytest.fixture
def backbone(monkeypatch):
    """The name of a model whose parameters do not all get a gradient."""
    monkeypatch.setitem(OWN_MODELS, "backbone", lambda num_classes: Backbone())
    return "backbone"


class Leaky(nn.Module):
    """A model that keeps one more megabyte after every forward pass."""

    def __init__(self):
        super().__init__()
        self.inner = OWN_MODELS["small-cnn"](10)
        self.kept = []

    def forward(self, images):
        self.kept.append(images.new_empty(250_000))
        return self.inner(images)


@pytest.fixture
def leaky_model(monkeypatch):
    """The name of a model that leaks."""
    monkeypatch.setitem(OWN_MODELS, "leaky", lambda num_classes: Leaky())
    return "leaky"


@pytest.fixture
def doubled_state(monkeypatch):
    """Adam that keeps its state twice: AMSGrad adds a third tensor."""
    row = OPTIMIZERS["adam"]
    monkeypatch.setitem(catalog.OPTIMIZERS, "adam", replace(row, options=(("amsgrad", True),)))


@pytest.fixture
def swapped_optimizers(monkeypatch):
    """SGD and Adam under each other's names."""
    sgd, adam = OPTIMIZERS["sgd"], OPTIMIZERS["adam"]
    monkeypatch.setitem(catalog.OPTIMIZERS, "sgd", replace(sgd, torch_class="torch.optim:Adam"))
    monkeypatch.setitem(catalog.OPTIMIZERS, "adam", replace(adam, torch_class="torch.optim:SGD"))


def ask_state(name, model="small-cnn"):
    """Ask whether an optimizer's state follows its update rule."""
    ask = partial(measure, model=model)
    built = build_named(model, num_classes=10, image_size=32)
    shapes = tuple(tuple(parameter.shape) for parameter in built.parameters())
    info = SimpleNamespace(parameters=sum(map(math.prod, shapes)), parameter_shapes=shapes)
    optimizer_memory.test_state_follows_the_update_rule(ask, info, OPTIMIZERS[name], SETTINGS)


@pytest.mark.parametrize("name", SETTINGS.optimizers)
def test_update_rule_holds(name):
    """Without a fault each optimizer keeps what its rule needs."""
    ask_state(name)


def test_state_by_shape_is_held_against_the_shapes(monkeypatch):
    """An optimizer in 8 bits keeps what its rule says of each shape; a rule that forgets a byte turns red."""
    pytest.importorskip("bitsandbytes", reason="an extra: pip install 'stepcost[bitsandbytes]'")
    ask_state("adamw-8bit")
    row = OPTIMIZERS["adamw-8bit"]
    short = replace(row, state_rule=lambda shapes, size: row.state_rule(shapes, size) - 1)
    monkeypatch.setitem(catalog.OPTIMIZERS, "adamw-8bit", short)
    with pytest.raises(AssertionError):
        ask_state("adamw-8bit")


def test_parameters_without_a_gradient_are_no_fault(backbone):
    """Frozen parameters and auxiliary heads have neither gradient nor state, and both relations hold."""
    ask_step(backbone)
    ask_state("adam", backbone)
    reading = measure(model=backbone, optimizer="adam", batch_size=32)
    assert reading.without_gradient_bytes == 4 * 170
    assert reading.frozen_parameters == 3 * 32 * 32 * 16 + 16
    assert reading.optimizer_state_bytes == 2 * 4 * 170


def test_state_kept_twice_is_caught(doubled_state):
    """An optimizer that keeps more than its rule needs turns the relation red."""
    with pytest.raises(AssertionError):
        ask_state("adam")


def test_order_of_peaks_holds():
    """Without a fault the peaks are in the order of the state."""
    optimizer_memory.test_more_state_means_a_higher_peak(measure, SETTINGS)


def test_swapped_optimizers_are_caught(swapped_optimizers):
    """SGD and Adam swapped turn the order of the peaks red, and the update rule too."""
    with pytest.raises(AssertionError, match="peaks at"):
        optimizer_memory.test_more_state_means_a_higher_peak(measure, SETTINGS)
    with pytest.raises(AssertionError):
        ask_state("sgd")


def ask_step(model="small-cnn"):
    """Ask what must hold of one step."""

    def step_of(question, **asked):
        return measure(model=model, **asked)

    optimizer_memory.test_step_with_each_optimizer(step_of, OPTIMIZERS["adam"], SETTINGS)


def test_step_holds():
    """Without a fault a steady step leaks nothing."""
    ask_step()


def test_tensor_leaked_per_step_is_caught(leaky_model):
    """A tensor leaked per step turns the step's relation red."""
    with pytest.raises(AssertionError, match="leaves allocated memory as it found it"):
        ask_step(leaky_model)


def test_ledger_that_does_not_add_up_is_caught():
    """A ledger with a byte too many turns red."""

    def one_byte_more(**asked):
        reading = measure(**asked)
        return replace(
            reading, ledger=replace(reading.ledger, workspace_bytes=reading.ledger.workspace_bytes + 1)
        )

    optimizer_memory.test_ledger_adds_up(measure, OPTIMIZERS["adam"], SETTINGS)
    with pytest.raises(AssertionError):
        optimizer_memory.test_ledger_adds_up(one_byte_more, OPTIMIZERS["adam"], SETTINGS)


def test_readings_that_do_not_repeat_are_caught():
    """A second process that differs by one byte turns the repetition red."""
    machine = SimpleNamespace(why_no_gpu=None)

    def again(**asked):
        reading = measure(**asked)
        return replace(reading, peak_reserved_bytes=reading.peak_reserved_bytes + 1)

    optimizer_memory.test_repeats_to_the_byte(measure, measure, OPTIMIZERS["sgd"], SETTINGS, machine)
    with pytest.raises(AssertionError, match="peak_reserved_bytes"):
        optimizer_memory.test_repeats_to_the_byte(measure, again, OPTIMIZERS["sgd"], SETTINGS, machine)


def test_tensors_that_do_not_grow_are_caught():
    """A reading that ignores the batch size turns the growth red."""
    batch_size_memory.test_tensor_bytes_grow_with_the_batch(measure, SETTINGS)

    def same(*, batch_size, **asked):
        return measure(batch_size=8, **asked)

    with pytest.raises(AssertionError, match="batch 8 holds"):
        batch_size_memory.test_tensor_bytes_grow_with_the_batch(same, SETTINGS)


def test_tensors_that_do_not_grow_with_the_length_are_caught():
    """A reading that ignores the sequence length turns the growth red; one length alone is not asked."""
    settings = SimpleNamespace(sequence_lengths=(64, 32), optimizer_batch_size=8, batch_optimizer="sgd")
    sequence_length.test_tensor_bytes_grow_with_the_length(
        lambda *, sequence_length, **_: SimpleNamespace(tensor_bytes=sequence_length), settings
    )
    with pytest.raises(AssertionError, match="32 tokens hold 7 bytes of tensors"):
        sequence_length.test_tensor_bytes_grow_with_the_length(
            lambda **_: SimpleNamespace(tensor_bytes=7), settings
        )


@pytest.mark.parametrize(
    ("accuracy", "wall_s", "line"),
    [(0.9, 10.0, None), (0.11, 10.0, "better than chance"), (0.9, 11.0, "the recorded times add up")],
)
def test_training_that_learns_nothing_or_loses_time_is_caught(accuracy, wall_s, line):
    """Accuracy at chance, and times that do not add up, turn red; a good run does not."""
    run = {
        "epochs": [{"train_seconds": 10.0, "test_accuracy": accuracy}],
        "train_s": 10.0,
        "wall_s": wall_s,
        "chance_accuracy": 0.1,
        "test_images": 1000,
    }

    def ask():
        time_to_accuracy.test_epochs_at_each_batch_size(lambda **_: run, 4, 0)

    if line is None:
        ask()
    else:
        with pytest.raises(AssertionError, match=line):
            ask()


def test_reading_counts_what_torch_holds():
    """Predicted parameter, gradient and state bytes are those of the real tensors after a real step."""
    model = OWN_MODELS["small-cnn"](10)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    parameters = list(model.parameters())
    real = sum(p.numel() * p.element_size() for p in parameters)
    moments = sum(v.numel() * 4 for s in optimizer.state.values() for v in s.values() if v.dim())
    reading = measure(optimizer="adam", batch_size=2)
    assert (reading.parameter_bytes, reading.gradient_bytes, reading.optimizer_state_bytes) == (
        real,
        real,
        moments,
    )
