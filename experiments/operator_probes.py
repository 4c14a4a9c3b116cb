"""Steps for what no model of ``operator_cases`` asks of a GPU: other heads, short rows, clipped gradients."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend

from experiments import operator_cases
from experiments.operator_cases import Case


class Heads(nn.Module):
    """Causal attention of one layer: ``features`` a head, ``heads`` of queries on ``shared`` of keys."""

    def __init__(self, features: int, heads: int, shared: int, dropout: float) -> None:
        super().__init__()
        self.sizes = (heads, shared, shared)
        self.features, self.dropout = features, dropout
        self.first = nn.Linear(64, features * sum(self.sizes))
        self.last = nn.Linear(features * heads, 64)

    def forward(self, words: torch.Tensor) -> Any:
        """Take words (N, L, 64)."""
        parts = self.first(words).split([self.features * size for size in self.sizes], -1)
        q, k, v = (one.unflatten(-1, (-1, self.features)).transpose(1, 2) for one in parts)
        out = functional.scaled_dot_product_attention(
            q, k, v, dropout_p=self.dropout, is_causal=True, enable_gqa=k.shape[1] != q.shape[1]
        )
        return self.last(out.transpose(1, 2).flatten(2))


class Rows(nn.Module):
    """Many short rows, a table of few, one word of each sentence, and losses made for each value."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds, self.words = nn.Embedding(3, 96), nn.Embedding(40_000, 96)
        self.norm, self.rms, self.group = nn.LayerNorm(96), nn.RMSNorm(96), nn.GroupNorm(4, 96)
        self.head = nn.Linear(96, 50)

    def forward(self, words: torch.Tensor) -> Any:
        """Take words (N, L)."""
        f = functional
        x = self.rms(self.norm(self.words(words) + self.kinds(words % 3)))
        x = x + self.group(x.transpose(1, 2)).transpose(1, 2)
        one = x[torch.arange(len(x), device=x.device), words.argmax(1) % x.shape[1]]
        out = self.head(one).float()
        target = out.detach().sigmoid()
        some = out.topk(5, -1).values.mean() + out.sort(-1).values[:, 0].mean() + out.cumsum(1).mean()
        with torch.autocast(x.device.type, enabled=False):  # which refuses this loss
            losses = f.binary_cross_entropy(out.sigmoid(), target)
        losses = losses + f.huber_loss(out, target) + f.l1_loss(out, target)
        smooth = f.cross_entropy(self.head(x).flatten(0, 1), words.flatten() % 50, label_smoothing=0.1)
        return losses + some + smooth + out.var() + out.amax(1).mean() + x.abs().max()


class Clipped(torch.optim.AdamW):
    """AdamW that clips the norm of all gradients first."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Clip, then step."""
        nn.utils.clip_grad_norm_([one for group in self.param_groups for one in group["params"]], 1.0)
        return super().step(*args, **kwargs)


def _probes() -> Iterator[Case]:
    kinds = (None, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION)
    for (features, dropout), kind, precision in itertools.product(
        ((80, 0.0), (96, 0.0), (96, 0.1), (128, 0.0), (192, 0.0), (256, 0.0)), kinds, ("fp32", "bf16")
    ):
        if precision == "bf16" or kind is SDPBackend.EFFICIENT_ATTENTION:
            yield Case(
                name=f"heads of {features} {dropout} {kind.name if kind else 'chosen'} {precision}",
                model=partial(Heads, features, 4, 4, dropout),
                batch=partial(torch.randn, 8, 500, 64),
                loss=lambda model, batch: model(batch).sum(),
                precision=precision,
                attention=kind,
            )
    for kind, size in itertools.product((None, SDPBackend.FLASH_ATTENTION), (1, 8)):
        yield Case(
            name=f"shared heads {size} {kind.name if kind else 'chosen'} bf16",
            model=partial(Heads, 64, 12, 3, 0.0),
            batch=partial(torch.randn, size, 700, 64),
            loss=lambda model, batch: model(batch).sum(),
            precision="bf16",
            attention=kind,
        )
    for precision in ("fp32", "bf16", "pure-bf16"):
        yield Case(
            name=f"rows {precision}",
            model=Rows,
            batch=partial(torch.randint, 40_000, (70, 1000)),
            loss=lambda model, batch: model(batch),
            optimizer=Clipped,
            precision=precision,
        )


CASES = (*operator_cases.CASES, *_probes())
