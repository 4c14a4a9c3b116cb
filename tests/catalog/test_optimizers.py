"""The optimizers: each row against the class that torch builds of it."""

import inspect

import pytest
import torch

from stepcost.catalog.optimizers import BASE_BATCH_SIZE, OPTIMIZERS, build_optimizer, find_optimizer

TORCHS = {
    # class, learning rate, options that are not torch's, tensors of the parameter's shape by the update rule
    "sgd": (torch.optim.SGD, 0.01, {}, 0),
    "sgd-momentum": (torch.optim.SGD, 0.001, {"momentum": 0.9}, 1),
    "adam": (torch.optim.Adam, 0.0003, {}, 2),
    "adam-fused": (torch.optim.Adam, 0.001, {"fused": True}, 2),
    "adamw": (torch.optim.AdamW, 0.001, {}, 2),
    "adamax": (torch.optim.Adamax, 0.002, {}, 2),
    "nadam": (torch.optim.NAdam, 0.001, {}, 2),
    "radam": (torch.optim.RAdam, 0.001, {}, 2),
    "rmsprop": (torch.optim.RMSprop, 0.001, {}, 1),
    "adagrad": (torch.optim.Adagrad, 0.01, {}, 1),
    "adadelta": (torch.optim.Adadelta, 1.0, {}, 2),
}
FUSED_ON_CUDA = {"SGD", "Adam", "AdamW"}
"""Torch's documentation of ``torch.optim``, the table of implementations; Adagrad's is for the CPU."""
SHAPE = (3, 5)

rows = pytest.mark.parametrize("name", list(OPTIMIZERS))


def stepped(optimizer, parameter, steps, *, first=0):
    """Take steps on gradients that differ from step to step."""
    for step in range(first, first + steps):
        parameter.grad = torch.linspace(-1, 2, parameter.numel()).reshape(parameter.shape) * (step + 1)
        optimizer.step()


def built(name, **overrides):
    """An optimizer of the catalog over one parameter, and the parameter."""
    parameter = torch.nn.Parameter(torch.ones(SHAPE))
    return build_optimizer(name, [parameter], **overrides), parameter


def test_every_row_is_named_here():
    """The table above has every row of the catalog, each under its own name."""
    assert {name: row.name for name, row in OPTIMIZERS.items()} == {name: name for name in TORCHS}


@rows
def test_rate_and_options_reach_the_class(name):
    """The class is built at the row's rate with the row's options, and at torch's defaults otherwise."""
    make, rate, options, _ = TORCHS[name]
    optimizer, parameter = built(name)
    assert type(optimizer) is make
    assert optimizer.defaults == make([parameter], lr=rate, **options).defaults
    other, _ = built(name, learning_rate=0.125, weight_decay=0.5)
    assert (other.param_groups[0]["lr"], other.param_groups[0]["weight_decay"]) == (0.125, 0.5)


@rows
def test_steps_are_those_of_torchs_class(name):
    """Two steps change a weight as torch's class does that the table names."""
    make, rate, options, _ = TORCHS[name]
    ours, parameter = built(name)
    expected = torch.nn.Parameter(torch.ones(SHAPE))
    stepped(ours, parameter, 2)
    stepped(make([expected], lr=rate, **options), expected, 2)
    assert torch.equal(parameter, expected)
    assert not torch.equal(parameter, torch.ones(SHAPE))


@rows
def test_state_tensors(name):
    """After two steps an optimizer keeps as many tensors of the parameter's shape as its row declares."""
    optimizer, parameter = built(name)
    stepped(optimizer, parameter, 2)
    kept = [value for value in optimizer.state[parameter].values() if isinstance(value, torch.Tensor)]
    count = sum(value.shape == SHAPE for value in kept)
    assert count == find_optimizer(name).state_tensors == TORCHS[name][3]
    assert all(value.numel() == 1 for value in kept if value.shape != SHAPE), "the others are counters"


@rows
def test_what_a_captured_step_needs(name):
    """A row is captured by ``capturable`` where its class has it, else only where there is no counter."""
    optimizer, parameter = built(name)
    stepped(optimizer, parameter, 1)
    counts = any(value.shape != SHAPE for value in optimizer.state[parameter].values() if value is not None)
    options = find_optimizer(name).capture_options
    if "capturable" in inspect.signature(TORCHS[name][0]).parameters:
        assert options == (("capturable", True),)
        assert built(name, **dict(options))[0].defaults["capturable"] is True
    else:
        assert options == (None if counts else ())


@rows
def test_fused(name):
    """A row has a fused kernel for CUDA where torch says so, and its class then takes ``fused``."""
    make = TORCHS[name][0]
    row = find_optimizer(name)
    assert row.has_fused is (make.__name__ in FUSED_ON_CUDA)
    if row.has_fused:
        assert built(name, fused=True)[0].defaults["fused"] is True
    assert row.moving_rate_needs_fused is (make is torch.optim.SGD)


@rows
def test_start_of_the_state(name):
    """State at the values that the row declares, else at zero, steps as that of a new optimizer does."""
    used, parameter = built(name)
    stepped(used, parameter, 3)
    starts_at = dict(find_optimizer(name).state_starts_at)
    for key, value in used.state[parameter].items():
        if isinstance(value, torch.Tensor):
            value.fill_(starts_at.get(key, 0.0))
    parameter.data.fill_(1.0)
    new, expected = built(name)
    for optimizer, one in ((used, parameter), (new, expected)):
        stepped(optimizer, one, 2, first=5)
    assert torch.equal(parameter, expected)


def test_a_class_of_ones_own_trains_at_its_own_rate():
    """A class that is not in the catalog is built at its own default rate, and nothing is claimed of it."""
    optimizer, _ = built("torch.optim:Rprop")
    assert type(optimizer) is torch.optim.Rprop
    assert optimizer.param_groups[0]["lr"] == 0.01
    row = find_optimizer("torch.optim:Rprop")
    assert (row.state_tensors, row.capture_options, row.has_fused) == (None, None, False)


def test_rates_hold_at_64_images():
    """The rates above are those of 64 images, as the documentation says."""
    assert BASE_BATCH_SIZE == 64


@rows
def test_rates_that_are_torchs_defaults(name):
    """Rates are torch's defaults but for those of which the catalog says what they are instead."""
    make, rate, *_ = TORCHS[name]
    theirs = inspect.signature(make).parameters["lr"].default
    own = {"sgd": 10, "sgd-momentum": 1, "adam": 0.3, "nadam": 0.5, "rmsprop": 0.1}
    assert rate == pytest.approx(theirs * own.get(name, 1))
