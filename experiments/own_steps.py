"""``python -m experiments.own_steps``: live steps, predicted and measured on this machine's GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import stepcost
from experiments.arguments import parser_of

WORDS, LENGTH = 1000, 64
FIGURES = ("peak_allocated_bytes", "peak_reserved_bytes", "process_bytes", "activation_bytes")


class Texts(nn.Module):
    """Next-word logits (N, LENGTH, WORDS): an embedding, ``layers``, and a head."""

    def __init__(self, layers: nn.Module, width: int, *, tied: bool = False) -> None:
        """Put the layers between the embedding and the head, which may share their weights."""
        super().__init__()
        self.words, self.layers = nn.Embedding(WORDS, width), layers
        self.head = nn.Linear(width, WORDS, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, words: torch.Tensor) -> Any:
        """Take words (N, LENGTH) int64."""
        return self.head(self.layers(self.words(words)))


class Attention(nn.Module):
    """Causal attention of 4 heads by ``scaled_dot_product_attention``, and a perceptron."""

    def __init__(self, width: int) -> None:
        """Build one block."""
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.out, self.up = nn.Linear(width, width), nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> Any:
        """Take and return x (N, length, width)."""
        n, length, width = x.shape
        query, key, value = self.qkv(self.norm(x)).view(n, length, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, length, width))
        return x + self.down(nn.functional.gelu(self.up(x)))


class Checkpointed(nn.Sequential):
    """Layers whose activations are computed again in backward (``torch.utils.checkpoint``)."""

    def forward(self, x: Any) -> Any:
        """Run the layers one after another."""
        for layer in self:
            x = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
        return x


def texts(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Make n random texts, with the next word of each word."""
    text = torch.randint(WORDS, (n, LENGTH + 1))
    return text[:, :-1], text[:, 1:]


def next_word(model: nn.Module, batch: Any) -> torch.Tensor:
    """Cross entropy of the next word."""
    words, following = batch
    return nn.functional.cross_entropy(model(words).flatten(0, 1), following.flatten())


def squares(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Mean square of what an autoencoder changes."""
    return nn.functional.mse_loss(model(batch), batch)


def autoencoder() -> nn.Module:
    """Build a convolution and back."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(64, 3, 2, stride=2)
    )


STEPS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Any], Callable[[Any, Any], torch.Tensor]]] = {
    "perceptrons": (
        lambda: Texts(nn.Sequential(nn.Linear(128, 512), nn.GELU(), nn.Linear(512, 128)), 128),
        texts,
        next_word,
    ),
    "tied attention": (
        lambda: Texts(nn.Sequential(*(Attention(128) for _ in range(4))), 128, tied=True),
        texts,
        next_word,
    ),
    "checkpointed attention": (
        lambda: Texts(Checkpointed(*(Attention(128) for _ in range(4))), 128),
        texts,
        next_word,
    ),
    "TransformerEncoder": (
        lambda: Texts(nn.TransformerEncoder(nn.TransformerEncoderLayer(128, 4, batch_first=True), 2), 128),
        texts,
        next_word,
    ),
    "LSTM": (lambda: Texts(_Recurrent(), 128), texts, next_word),
    "autoencoder": (autoencoder, lambda n: torch.randn(n, 3, 64, 64), squares),
}


class _Recurrent(nn.Module):
    """Two layers of LSTM, by cuDNN."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(128, 128, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> Any:
        """Return the outputs, without the state."""
        return self.lstm(x)[0]


def main() -> None:
    """Print a line a step and a figure, in bytes."""
    parser = parser_of("own_steps", __doc__)
    parser.add_argument("--gpu", default="h100-80gb", help="the card of this machine, as predictions call it")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--optimizer", default="adamw")
    arguments = parser.parse_args()
    ask = {"optimizer": arguments.optimizer, "batch_size": arguments.batch_size}
    print("| step | figure | predicted, bytes | measured, bytes | predicted / measured - 1, % |")
    print("|---|---|---|---|---|")
    for name, (build, make_batch, loss) in STEPS.items():
        try:
            predicted = stepcost.predict(build(), make_batch, loss, gpu=arguments.gpu, **ask).reading
        except ValueError as error:
            print(f"| {name} | not predicted: {error} | | | |", flush=True)
            continue
        measured = stepcost.measure(build(), make_batch, loss, **ask).reading
        for figure in FIGURES:
            low, real = getattr(predicted, figure), getattr(measured, figure)
            off = "" if not low or not real else f"{100 * (low / real - 1):+.3f}"
            print(f"| {name} | {figure} | {low or '':,} | {real or '':,} | {off} |", flush=True)


if __name__ == "__main__":
    main()
