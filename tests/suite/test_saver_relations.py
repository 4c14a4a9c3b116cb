"""Each rule of question 5 holds of the real step, and is seen to fail on a planted fault."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from stepcost.catalog.models import OWN_MODELS
from stepcost.catalog.savers import changes_of
from stepcost.step import TrainingStep
from tests.suite.test_relations import benchmark_module, measure

savers = benchmark_module("test_memory_savers")
FLOAT32 = SimpleNamespace(dtypes=("float32",))
PLAIN = {"optimizer": "adam", "batch_size": 64}


class Block(nn.Module):
    """Two layers around a ReLU, added to their input; ``keep`` holds on to what is between them."""

    def __init__(self, keep):
        super().__init__()
        self.into, self.out, self.keep = nn.Linear(256, 1024), nn.Linear(1024, 256), keep

    def forward(self, features):
        hidden = self.into(features)
        if self.keep:
            self.kept = hidden
        return features + self.out(hidden.relu())


class Blocks(nn.Module):
    """Four blocks between two layers."""

    def __init__(self, keep=False):
        super().__init__()
        self.first, self.last = nn.Linear(3 * 32 * 32, 256), nn.Linear(256, 10)
        self.blocks = nn.Sequential(*(Block(keep) for _ in range(4)))

    def forward(self, images):
        return self.last(self.blocks(self.first(images.flatten(1))))


@pytest.fixture(autouse=True)
def models(monkeypatch):
    """Models of blocks: as it should be, and one that keeps its activations."""
    monkeypatch.setitem(OWN_MODELS, "blocks", lambda num_classes: Blocks())
    monkeypatch.setitem(OWN_MODELS, "keeping", lambda num_classes: Blocks(keep=True))


def ask(saver, model="blocks", plain=None):
    """Ask whether a way saves what its rule says; ``plain`` is asked of the model without a fault."""

    def measure_with(name, **more):
        whose = model if name == saver else plain or model
        return measure(model=whose, **PLAIN | changes_of(name, {"accumulate": 1} | PLAIN) | more)

    savers.test_saves_what_its_rule_says(measure_with, saver, FLOAT32)


WAYS = (
    "pure-bf16",
    "bf16",
    "fp16",
    "checkpoint",
    "accumulate",
    "channels-last",
    "fused",
    "bf16+checkpoint",
)


@pytest.mark.parametrize("way", WAYS)
def test_rules_hold(way):
    """Without a fault each way saves what its rule says."""
    ask(way)


def test_adapters_follow_their_rule():
    """LoRA freezes the model and trains what it adds."""
    pytest.importorskip("peft", reason="adapters are peft's")
    ask("lora")


def test_a_checkpointed_block_that_keeps_its_activations_is_caught():
    """A block that holds on to what it computes keeps more than its output."""
    with pytest.raises(AssertionError, match=r"blocks\.\* \(4\) keeps more: .*into"):
        ask("checkpoint", "keeping", "blocks")


def test_checkpointing_that_does_nothing_is_caught(monkeypatch):
    """Blocks that are not computed again keep what they kept, and turn the rule red."""
    monkeypatch.setattr("stepcost.prepare._checkpoint", lambda model, request: None)
    with pytest.raises(AssertionError, match="no block is checkpointed"):
        ask("checkpoint")


@pytest.fixture
def never_frees(monkeypatch):
    """A step that takes all micro-batches forward before it takes the sum of their losses backward."""

    def step(self, batch, after=lambda phase: None):
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for _ in range(self.accumulate):
            total = total + self._losses(batch)[0]
            after("forward")
        total.backward()
        after("backward")
        self.optimizer.step()
        after("optimizer step")
        return total.detach(), None

    monkeypatch.setattr(TrainingStep, "__call__", step)


def test_an_accumulation_that_never_frees_is_caught(never_frees):
    """Micro-batches whose activations are all alive at once turn the rule red."""
    with pytest.raises(AssertionError, match="forward peaks"):
        ask("accumulate")


@pytest.fixture
def cache_left_on(monkeypatch):
    """A step inside another autocast, which keeps what was cast until after the optimizer step."""
    plain = TrainingStep.__call__

    def step(self, *asked):
        kind = next(self.model.parameters()).device.type
        with torch.autocast(kind, self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            return plain(self, *asked)

    monkeypatch.setattr(TrainingStep, "__call__", step)


def test_autocast_whose_cache_is_left_on_is_caught(cache_left_on):
    """Weights that were cast and are still there in the optimizer step turn the rule red."""
    with pytest.raises(AssertionError, match="more are alive in the optimizer step"):
        ask("bf16")


def test_weights_that_are_not_halved_are_caught(monkeypatch):
    """Pure bf16 that leaves the weights in fp32 turns the rule red."""
    monkeypatch.setattr("stepcost.prepare.prepare", lambda model, request: model)
    monkeypatch.setattr("stepcost.predicting.trace.prepare", lambda model, request: model)
    monkeypatch.setattr(
        "stepcost.predicting.trace.batch_of", lambda workload, request, device: workload.batch(64, device)
    )
    with pytest.raises(AssertionError, match="parameter_bytes"):
        ask("pure-bf16")


def test_a_parameter_in_another_part_of_the_ledger_is_caught():
    """Weights in another memory format are parameters still; where some pass for workspace, it turns red."""
    asked = PLAIN | {"model": "small-cnn", "channels_last": True}
    reading = measure(**asked)
    ledger = replace(
        reading.ledger,
        parameter_bytes=reading.ledger.parameter_bytes - 100_000,
        workspace_bytes=reading.ledger.workspace_bytes + 100_000,
    )

    def ask_step(found):
        savers.test_step_with_each_saver(lambda *_, **__: found, lambda _: asked, "channels-last")

    ask_step(reading)
    with pytest.raises(AssertionError, match="rounded up to 512"):
        ask_step(replace(reading, ledger=ledger))


READING = SimpleNamespace(
    trainable_parameters=10_100,
    trainable_parameter_bytes=4 * 10_100,
    without_gradient_bytes=0,
    optimizer_state_bytes=2 * 4 * 10_100,
)
EIGHT_BIT = 2 * (10_000 + 4 * 100 + 4 * 40 + 4 * 256)
"""By hand: 10,000 numbers of a byte in 40 blocks (39.06), 100 small ones of 4, and a table; two moments."""


@pytest.mark.parametrize(
    ("state_bytes", "holds"), [(EIGHT_BIT, True), (EIGHT_BIT + 1, False), (8 * 10_100, False)]
)
def test_8_bit_state_is_held_to_the_byte(state_bytes, holds):
    """State of a byte a number, with scales and tables, holds; a byte more, or fp32, turns the rule red."""
    model = SimpleNamespace(parameter_shapes=((100, 100), (100,)))
    saved = SimpleNamespace(**vars(READING) | {"optimizer_state_bytes": state_bytes})
    if holds:
        savers.keeps_a_byte_a_number(saved, READING, model)
    else:
        with pytest.raises(AssertionError):
            savers.keeps_a_byte_a_number(saved, READING, model)


@pytest.mark.parametrize("name", ["parameter_bytes", "gradient_bytes", "optimizer_state_bytes"])
def test_a_byte_of_a_tensor_is_seen(name):
    """A way that should leave the tensors and adds a byte to any of them turns the rule red."""
    reading = measure(model="small-cnn", optimizer="adam", batch_size=8)
    with pytest.raises(AssertionError, match=name):
        savers.leaves_the_tensors(replace(reading, **{name: getattr(reading, name) + 1}), reading, FLOAT32)


@pytest.mark.parametrize(
    ("module", "block", "inside"),
    [
        ("h.*", "h.*", True),
        ("h.*.attn", "h.*", True),
        ("h.0.attn", "h.*", True),
        ("layer_*.fc", "layer_*", True),
        ("hh.*", "h.*", False),
        ("h.ln", "h.*", False),
        ("h", "h.*", False),
        ("head", "h", False),
    ],
)
def test_what_is_in_a_block(module, block, inside):
    """A path is in a block where it is the block's or goes on below it."""
    assert savers.is_in(module, block) is inside


def test_losses_that_drift_are_caught():
    """Losses that differ by more than rounding turn red, and so do losses that no step changes."""
    savers.test_losses_stay(lambda _: [2.0, 1.9], "checkpoint")
    with pytest.raises(AssertionError):
        savers.test_losses_stay(lambda name: [2.0, 1.9 + 1e-8 * (name == "checkpoint")], "checkpoint")
    with pytest.raises(AssertionError, match="each step changes the loss"):
        savers.test_losses_stay(lambda _: [2.0, 2.0], "checkpoint")
