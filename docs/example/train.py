"""A small language model, its batch and its loss."""

import torch
from torch import nn

WORDS, WIDTH, LAYERS, LENGTH = 1000, 128, 4, 64


class Block(nn.Module):
    """What a word knows of itself, by a multilayer perceptron."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x):
        """Return x (N, length, width), changed word by word."""
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Model(nn.Module):
    """Next-word logits (N, length, WORDS) from words (N, length)."""

    def __init__(self, width=WIDTH):
        super().__init__()
        self.words = nn.Embedding(WORDS, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(LAYERS)))
        self.head = nn.Linear(width, WORDS, bias=False)

    def forward(self, words):
        """Return logits."""
        return self.head(self.blocks(self.words(words)))


def make_batch(n):
    """Make n random texts, with the next word of each word."""
    text = torch.randint(WORDS, (n, LENGTH + 1))
    return text[:, :-1], text[:, 1:]


def loss(model, batch):
    """Cross entropy of the next word."""
    words, following = batch
    return nn.functional.cross_entropy(model(words).flatten(0, 1), following.flatten())
