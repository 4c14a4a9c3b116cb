"""Small steps of a user's own, for tests: their bytes can be counted by hand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

KEPT: list[torch.Tensor] = []


class Linear(nn.Module):
    """Logits (N, 8) from (N, 16): 16 x 8 weights and 8 biases, 544 bytes."""

    def __init__(self, classes: int = 8) -> None:
        super().__init__()
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        return self.head(x)


class Tied(nn.Module):
    """Next-word logits (N, L, 100): the embedding's weights (100, 32) are the head's too."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 32)
        self.blocks = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))
        self.head = nn.Linear(32, 100, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, words):
        x = self.words(words)
        for block in self.blocks:
            x = torch.relu(block(x))
        return self.head(x)


@dataclass
class Text:
    """A batch of texts."""

    words: torch.Tensor
    following: torch.Tensor
    name: str = "texts"


def rows(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, 16) float and (n,) int64: 64 n + 8 n bytes."""
    return torch.randn(n, 16), torch.randint(8, (n,))


def texts(n: int) -> Text:
    """(n, 12) int64 each: 192 n bytes."""
    text = torch.randint(100, (n, 13))
    return Text(text[:, :-1], text[:, 1:])


def of_rows(model, batch):
    """Cross entropy of rows."""
    x, labels = batch
    return nn.functional.cross_entropy(model(x), labels)


def of_texts(model, batch):
    """Cross entropy of the next word."""
    return nn.functional.cross_entropy(model(batch.words).flatten(0, 1), batch.following.flatten())


def keeps_a_tensor(model, batch):
    """Cross entropy of rows; the logits of each step stay for good."""
    x, labels = batch
    logits = model(x)
    KEPT.append(logits.detach())
    return nn.functional.cross_entropy(logits, labels)
