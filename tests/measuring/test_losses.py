"""Losses of the first steps in fp64: what computes the same gives the same."""

import json
from functools import partial

import pytest
import torch
from torch import nn

from stepcost.catalog.models import OWN_MODELS
from stepcost.measuring.losses import Losses
from stepcost.request import Request


class Block(nn.Module):
    """A layer with dropout, which draws random numbers."""

    def __init__(self):
        super().__init__()
        self.layer, self.dropout = nn.Linear(16, 16), nn.Dropout(0.5)

    def forward(self, features):
        return features + self.dropout(self.layer(features).relu())


@pytest.fixture(autouse=True)
def blocks(monkeypatch):
    """A model of four blocks."""

    def build(num_classes):
        blocks = (Block() for _ in range(4))
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16), *blocks, nn.Linear(16, num_classes))

    monkeypatch.setitem(OWN_MODELS, "blocks", build)


def losses(**fields):
    """Losses of three steps, in this process."""
    asked = {"optimizer": "adam", "image_size": 8} | fields
    request = Request(model="blocks", batch_size=4, device="cpu", **asked)
    return Losses(request).losses(3)


def test_a_seed_decides_the_losses():
    """Losses repeat to the bit, change from step to step, and are those of fp64."""
    first = losses()
    assert first == losses() != losses(seed=1)
    assert len(set(first)) == 3
    assert first != [float(torch.tensor(one, dtype=torch.float32)) for one in first]


@pytest.mark.parametrize("fields", [{"checkpoint": "blocks"}, {"optimizer": "adam-fused"}])
def test_what_computes_the_same_gives_the_same(fields):
    """Checkpointed blocks and the fused update give the plain step's losses."""
    assert losses(**fields) == pytest.approx(losses(), rel=1e-12)


@pytest.mark.parametrize("fields", [{}, {"precision": "bf16"}])
def test_norms_that_cast_stay_in_fp64(tmp_path, fields):
    """A Llama casts to fp32 in norms and positions; in fp64 its checkpointed blocks give the plain losses."""
    path = tmp_path / "config.json"
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 50}
    path.write_text(json.dumps({"model_type": "llama", **sizes, "num_attention_heads": 2}))
    asked = {"model": str(path), "optimizer": "adam", "batch_size": 2, "sequence_length": 8, **fields}
    plain, saved = (
        Losses(Request(device="cpu", image_size=None, num_classes=None, checkpoint=each, **asked)).losses(3)
        for each in (None, "blocks")
    )
    assert saved == pytest.approx(plain, rel=1e-12)
    assert len(set(plain)) == 3


def test_a_checkpoint_that_draws_other_numbers_is_seen(monkeypatch):
    """Recomputed without the random numbers of forward, dropout leaves out others, and losses differ."""
    import stepcost.prepare  # noqa: PLC0415

    careless = partial(stepcost.prepare.checkpoint, preserve_rng_state=False)
    monkeypatch.setattr(stepcost.prepare, "checkpoint", careless)
    plain, other = losses(), losses(checkpoint="blocks")
    assert max(abs(a - b) / a for a, b in zip(plain, other, strict=True)) > 1e-8
