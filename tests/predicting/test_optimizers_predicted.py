"""What optimizers keep by prediction is what they keep after real steps on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import stepcost
from stepcost.catalog.optimizers import OPTIMIZERS, build_optimizer
from stepcost.step import TrainingStep
from stepcost.tensors import count_step


class Net(nn.Module):
    """A matrix of 4,096 elements or more, one of fewer, a convolution, norms, biases and an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden, self.small = nn.Embedding(50, 64), nn.Linear(64, 96), nn.Linear(96, 8)
        self.norm, self.pixels, self.head = nn.LayerNorm(8), nn.Conv2d(1, 4, 3), nn.Linear(4 * 4 * 6, 10)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.small(torch.relu(self.hidden(self.words(words)))))
        made: torch.Tensor = self.head(self.pixels(hidden[:, None]).flatten(1))
        return made


def words(n: int) -> torch.Tensor:
    """Six words a text: (n, 6) int64."""
    return torch.randint(50, (n, 6))


def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Something to minimise."""
    made: torch.Tensor = model(batch).square().mean()
    return made


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_is_predicted_as_it_steps(name: str) -> None:
    """State and step counters of each row of the catalog, to the byte; it trains, and it is predicted."""
    if OPTIMIZERS[name].extra is not None:
        pytest.importorskip("bitsandbytes", reason="an extra: pip install 'stepcost[bitsandbytes]'")
    if name == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("Muon came with torch 2.9")
    model = Net()
    cost = stepcost.predict(model, words, loss, optimizer=name, batch_size=4, gpu="h100-80gb")
    real = copy.deepcopy(model)
    step = TrainingStep(
        model=real,
        optimizer=build_optimizer(name, real),
        objective=lambda forward, batch: (loss(forward, batch), None),
    )
    batch = words(4)
    for _ in range(2):
        step(batch)
    counted = count_step(step, batch)
    for field in ("parameter_bytes", "gradient_bytes", "optimizer_state_bytes", "optimizer_scalar_bytes"):
        assert getattr(cost.reading, field) == counted[field], field
    assert not torch.equal(real.hidden.weight, model.hidden.weight)
    held = cost.reading.ledger.optimizer_state_bytes if cost.reading.ledger else None
    assert held is not None
    assert held >= counted["optimizer_state_bytes"]  # each tensor rounded up
