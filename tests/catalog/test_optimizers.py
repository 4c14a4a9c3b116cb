"""The optimizers: each row against the class that torch builds of it."""

import inspect
import sys

import pytest
import torch
from torch import nn

from stepcost.catalog.muon import hidden_matrices_and_others
from stepcost.catalog.optimizers import BASE_BATCH_SIZE, OPTIMIZERS, build_optimizer, find_optimizer
from stepcost.step import TrainingStep
from stepcost.tensors import count_step

TORCHS = {
    # class, learning rate, options that are not torch's, tensors of the parameter's shape by the update rule
    "sgd": (torch.optim.SGD, 0.01, {}, 0),
    "sgd-momentum": (torch.optim.SGD, 0.001, {"momentum": 0.9}, 1),
    "adam": (torch.optim.Adam, 0.0003, {}, 2),
    "adam-fused": (torch.optim.Adam, 0.001, {"fused": True}, 2),
    "adamw": (torch.optim.AdamW, 0.001, {}, 2),
    "adamw-fused": (torch.optim.AdamW, 0.001, {"fused": True}, 2),
    "adamax": (torch.optim.Adamax, 0.002, {}, 2),
    "nadam": (torch.optim.NAdam, 0.001, {}, 2),
    "radam": (torch.optim.RAdam, 0.001, {}, 2),
    "rmsprop": (torch.optim.RMSprop, 0.001, {}, 1),
    "adagrad": (torch.optim.Adagrad, 0.01, {}, 1),
    "adadelta": (torch.optim.Adadelta, 1.0, {}, 2),
}
BY_SHAPE = ("adamw-8bit", "adafactor", "muon")
"""What they keep depends on a parameter's shape or place: tested at the end."""
FUSED_ON_CUDA = {"SGD", "Adam", "AdamW"}
"""Torch's documentation of ``torch.optim``, the table of implementations; Adagrad's is for the CPU."""
SHAPE = (3, 5)

rows = pytest.mark.parametrize("name", list(TORCHS))


def stepped(optimizer, parameter, steps, *, first=0):
    """Take steps on gradients that differ from step to step."""
    for step in range(first, first + steps):
        parameter.grad = torch.linspace(-1, 2, parameter.numel()).reshape(parameter.shape) * (step + 1)
        optimizer.step()


def built(name, **overrides):
    """An optimizer of the catalog over one parameter, and the parameter."""
    model = nn.ParameterList([torch.ones(SHAPE)])
    return build_optimizer(name, model, **overrides), model[0]


def test_every_row_is_named_here():
    """The tables above have every row of the catalog, each under its own name."""
    assert {name: row.name for name, row in OPTIMIZERS.items()} == {n: n for n in (*TORCHS, *BY_SHAPE)}


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


class Words(nn.Module):
    """A language model whose last layer has the weights of its embedding, (100, 64)."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(100, 64)
        self.hidden = nn.Linear(64, 64)
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, 100)
        self.head.weight = self.words.weight

    def forward(self, words):
        return self.head(self.norm(self.hidden(self.words(words))))


def counted(name, model):
    """What a model's training step keeps after two steps with an optimizer of the catalog."""
    step = TrainingStep(
        model=model,
        optimizer=build_optimizer(name, model),
        objective=lambda forward, batch: (forward(batch).square().mean(), None),
    )
    words = torch.arange(12).reshape(3, 4)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(2):
        step(words)
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)), "all train"
    return count_step(step, words)


def shapes_of(model):
    """The shapes of a model's parameters."""
    return [tuple(parameter.shape) for parameter in model.parameters()]


def test_state_of_adafactor():
    """Of a matrix it keeps a number a row and a number a column, of a vector as many as it has elements."""
    # (100, 64): 164; (64, 64): 128; three vectors of 64, one of 100; floats of 4 bytes.
    expected = 4 * (164 + 128 + 3 * 64 + 100)
    found = counted("adafactor", Words())
    assert found["optimizer_state_bytes"] == expected
    assert found["optimizer_scalar_bytes"] == 4 * 6  # a count of steps each
    rule = find_optimizer("adafactor").state_rule
    assert rule(shapes_of(Words()), 4) == expected
    assert rule([(8, 4, 3, 3)], 2) == 2 * 8 * 4 * (3 + 3)  # a convolution: the last two dimensions


def test_state_of_8_bit_adamw():
    """Two bytes an element, two floats a block of 256, two tables of codes; small parameters in floats."""
    pytest.importorskip("bitsandbytes", reason="an extra: pip install 'stepcost[bitsandbytes]'")
    # (100, 64) and (64, 64) have 25 and 16 blocks; 3 vectors of 64 and one of 100 are small; 2 x 256 codes.
    expected = 2 * (6400 + 4096) + 8 * (25 + 16) + 8 * (3 * 64 + 100) + 2 * 1024
    found = counted("adamw-8bit", Words())
    assert found["optimizer_state_bytes"] == expected
    rule = find_optimizer("adamw-8bit").state_rule
    assert rule(shapes_of(Words()), 4) == rule(shapes_of(Words()), 2) == expected
    assert rule([(64, 64), (1, 63, 65)], 4) == 2 * 4096 + 8 * 16 + 8 * 4095 + 2 * 1024


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="Muon came with torch 2.9")
def test_muon_trains_hidden_matrices_and_adamw_the_rest():
    """A hidden matrix has one velocity, an embedding, the tied head, norms and biases have two moments."""
    model = Words()
    matrices, others = hidden_matrices_and_others(model)
    assert [id(one) for one in matrices] == [id(model.hidden.weight)]
    assert len(others) == 5
    found = counted("muon", model)
    assert found["optimizer_state_bytes"] == 4 * (64 * 64 + 2 * (6400 + 3 * 64 + 100))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="Muon came with torch 2.9")
def test_muon_and_adamw_step_as_torchs_do():
    """After two steps weights are those of torch's two optimizers, one over matrices, one over the rest."""
    ours, theirs = Words(), Words()
    theirs.load_state_dict(ours.state_dict())
    optimizer = build_optimizer("muon", ours, learning_rate=0.01)
    others = [one for one in theirs.parameters() if one is not theirs.hidden.weight]
    parts = [
        torch.optim.Muon([theirs.hidden.weight], lr=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=0.01),
    ]
    for rate in (0.01, 0.02):  # a schedule changes the rate of all groups
        for group in (*optimizer.param_groups, *(group for one in parts for group in one.param_groups)):
            group["lr"] = rate
        for model, steps in ((ours, [optimizer]), (theirs, parts)):
            model.zero_grad()
            model(torch.arange(12)).square().mean().backward()
            for one in steps:
                one.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="Muon came with torch 2.9")
def test_state_that_is_loaded_is_used():
    """Put back to its start, both parts step as new ones do: a warm-up can be undone."""
    model = Words()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = build_optimizer("muon", model)
    new, ended = optimizer.state_dict(), []
    for _ in range(2):
        for step in range(3):
            optimizer.zero_grad()
            model(torch.arange(12) + step).square().mean().backward()
            optimizer.step()
        ended.append([parameter.detach().clone() for parameter in model.parameters()])
        model.load_state_dict(start)
        optimizer.load_state_dict(new)
    assert all(torch.equal(*pair) for pair in zip(*ended, strict=True))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="Muon came with torch 2.9")
def test_muon_without_a_matrix_is_refused():
    """A model whose only matrix is its last layer has nothing for Muon: one line that names what to take."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 4))
    with pytest.raises(ValueError, match="this model has none: adamw trains all else"):
        build_optimizer("muon", model)


def test_an_extra_that_is_not_installed_is_named(monkeypatch):
    """Without bitsandbytes one line says how to install it; other rows do without."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.delitem(sys.modules, "bitsandbytes.optim", raising=False)
    with pytest.raises(ValueError, match=r"pip install 'stepcost\[bitsandbytes\]'") as caught:
        build_optimizer("adamw-8bit", nn.Linear(2, 2))
    assert "\n" not in str(caught.value)
    assert build_optimizer("adamw", nn.Linear(2, 2)).param_groups
