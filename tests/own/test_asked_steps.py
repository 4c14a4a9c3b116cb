"""What can be said of a step in a call: of live objects, of names, of a workload in one's own file."""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stepcost
from stepcost import workload
from tests.command import predict as command
from tests.own.steps import Linear, of_rows, rows

TWO = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(100, 8)
        self.pixels = nn.Linear(12, 8)
        self.same, self.kind = nn.Linear(8, 1), nn.Linear(8, 5)

    def forward(self, words, pixels):
        both = self.words(words).mean(1) * self.pixels(pixels)
        return self.same(both).squeeze(1), self.kind(both)

def make_batch(n):
    texts = {"words": torch.randint(100, (n, 6)), "pixels": torch.randn(n, 12)}
    return texts, (torch.rand(n), torch.randint(5, (n,)))

def loss(model, batch):
    inputs, (same, kind) = batch
    one, other = model(**inputs)
    return (nn.functional.binary_cross_entropy_with_logits(one, same)
            + nn.functional.cross_entropy(other, kind))

def workload():
    return Two(), make_batch, loss
"""
PARAMETERS = 100 * 8 + (12 * 8 + 8) + (8 + 1) + (8 * 5 + 5)
"""Of the two inputs and the two outputs above."""
EXAMPLE_BYTES = 6 * 8 + 12 * 4 + 4 + 8
ask = partial(stepcost.predict, optimizer="adamw", gpu="h100-80gb", torch_version="2.11")
here = partial(ask, Linear(), rows, of_rows, batch_size=4)


class Block(nn.Module):
    """Keeps two hidden layers (N, 1024) for backward, and its input."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(16, 1024), nn.Linear(1024, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.other(self.one(x).tanh().sin())
        return made


class Blocks(nn.Module):
    """Three blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(Block() for _ in range(3)), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        made: torch.Tensor = self.head(x)
        return made


def test_a_live_model_in_pure_bf16_is_half_and_stays_as_it_is() -> None:
    """Parameters, gradients and state are halved, and so are the floats of the batch; the model is not."""
    model = Linear()
    before = copy.deepcopy(model.state_dict())
    cost = ask(model, rows, of_rows, batch_size=4, precision="pure-bf16")
    assert (cost.parameter_bytes, cost.gradient_bytes, cost.optimizer_state_bytes) == (272, 272, 544)
    assert cost.input_bytes == 4 * (16 * 2 + 8)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.head.weight.dtype == torch.float32


@pytest.mark.parametrize("which", [True, "Block"])
def test_a_live_model_is_checkpointed_as_a_copy(which: bool | str) -> None:
    """The hidden layers are not kept, by blocks or by their class, and the model runs as it did."""
    model, batch_size = Blocks(), 256
    plain = ask(model, rows, of_rows, batch_size=batch_size)
    cost = ask(model, rows, of_rows, batch_size=batch_size, checkpoint=which)
    hidden_bytes = 3 * 2 * 4 * batch_size * 1024
    assert plain.activation_bytes - cost.activation_bytes >= hidden_bytes
    assert all("forward" not in vars(block) for block in model.blocks)


def test_micro_batches_are_of_the_batch_size() -> None:
    """With four micro-batches of 4 the batch and the gradients are those of one."""
    cost, plain = here(accumulate=4), here()
    assert (cost.input_bytes, cost.gradient_bytes) == (plain.input_bytes, plain.gradient_bytes)
    assert cost.peak_allocated_bytes >= plain.peak_allocated_bytes


@pytest.mark.parametrize("rank", [2, 10**9])
def test_a_live_model_takes_adapters_as_a_copy(rank: int) -> None:
    """It trains 2 x (16 + 1024) weights a layer and nothing else; 40 TB of them take no memory here."""
    pytest.importorskip("peft", reason="an extra: pip install 'stepcost[peft]'")
    model = Blocks()
    cost = ask(model, rows, of_rows, batch_size=4, lora=rank)
    assert cost.trainable_parameters == rank * (6 * (16 + 1024) + (16 + 8))
    assert cost.optimizer_state_bytes == 2 * 4 * cost.trainable_parameters
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_live_model_of_images_in_channels_last() -> None:
    """Weights and images are laid out before the step: the batch arrives so, the model stays as it was."""
    seen: list[bool] = []

    def loss(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        seen.append(images.is_contiguous(memory_format=torch.channels_last))
        made: torch.Tensor = model(images).square().mean()
        return made

    model = nn.Conv2d(8, 8, 3)
    ask(model, lambda n: torch.randn(n, 8, 6, 6), loss, batch_size=2, channels_last=True)
    assert seen
    assert all(seen)
    assert model.weight.is_contiguous()
    ask(model, lambda n: torch.randn(n, 8, 6, 6), loss, batch_size=2)
    assert seen[-1] is False


def test_a_language_model_by_name_and_by_file(tmp_path: Path) -> None:
    """Tokens and labels are (batch, length) int64 each; the length is its own argument, 512 without."""
    pytest.importorskip("transformers", reason="an extra: pip install 'stepcost[transformers]'")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2}))
    cost = ask(str(path), batch_size=3, sequence_length=16)
    assert cost.input_bytes == 2 * 3 * 16 * 8
    assert ask(str(path), batch_size=3).input_bytes == 2 * 3 * 512 * 8
    assert "language models of transformers" in cost.rests_on


@pytest.mark.parametrize(
    ("model", "said", "line"),
    [
        ("resnet18", {"sequence_length": 8}, "sequence_length: resnet18 takes image_size and num_classes"),
        ("gpt2", {"image_size": 8}, "image_size: gpt2 takes sequence_length"),
        (None, {"sequence_length": 8}, "sequence_length: Linear takes none of these: make_batch says"),
        (None, {"precision": "fp8"}, "precision: unknown name 'fp8'; it takes fp32, bf16, pure-bf16, fp16"),
        (None, {"precision": ["bf16"]}, "precision: unknown name"),
        (None, {"accumulate": 0}, "accumulate: '0' is not a whole number of 1 or more"),
        (None, {"lora": 0}, "lora: '0' is not a whole number of 1 or more"),
        (None, {"channels_last": "yes"}, "channels_last is 'yes'; it takes True or False"),
        (None, {"checkpoint": "Nope"}, "Linear has no such module, only Linear"),
        (None, {"checkpoint": True}, "has no block that is repeated"),
        (None, {"attention": "flash"}, "its kernels take bf16 or fp16"),
    ],
)
def test_what_cannot_be_said_gets_one_line(model: str | None, said: dict[str, Any], line: str) -> None:
    """What does not go with the workload, or makes no sense, is named with what would be right."""
    with pytest.raises(ValueError, match=line) as caught:
        here(**said) if model is None else ask(model, batch_size=4, **said)
    assert "\n" not in str(caught.value)


def test_what_is_not_an_argument_is_a_type_error() -> None:
    """A word that no step has is refused as Python does it."""
    with pytest.raises(TypeError, match="unexpected argument 'precison'"):
        here(precison="bf16")


def test_a_workload_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two inputs and two losses, from a file outside of the repository: by the command and by a call."""
    (tmp_path / "train_two.py").write_text(TWO)
    monkeypatch.chdir(tmp_path)
    name = "./train_two.py:workload"
    asked = ["--optimizer", "adamw", "--batch-size", "32", "--gpu", "h100-80gb", "--torch", "2.11", "--json"]
    assert command([name, *asked]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["parameters"], told["input_bytes"]) == (PARAMETERS, 32 * EXAMPLE_BYTES)
    assert (told["image_size"], told["sequence_length"]) == (None, None)
    cost = ask(name, batch_size=32)
    assert cost.peak_allocated_bytes == told["peak_allocated_bytes"]
    assert cost.fits is True


def test_a_batch_without_values_costs_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is only asked for its shapes is predicted to the byte as one that is made."""
    made = here()
    monkeypatch.setattr(workload, "MOST_ON_HOST_BYTES", 0)
    monkeypatch.setattr(workload, "FEW", 1)
    assert here().peak_reserved_bytes == made.peak_reserved_bytes
    assert here().ledger == made.ledger
