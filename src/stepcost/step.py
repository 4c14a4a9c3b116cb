"""The training step that is measured, and that the prediction traces: the plain one of a textbook."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stepcost.reading import BACKWARD, FORWARD, OPTIMIZER_STEP


def _ignore(phase: str) -> None:
    """Take note of nothing."""


@dataclass
class TrainingStep:
    """A model with its optimizer and loss: call it with a batch to train on that batch."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    forward: Callable[[torch.Tensor], Any] | None = None
    """What runs the model where that is not the model itself: compiled, or under autocast."""

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, after: Callable[[str], None] = _ignore
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one step on ``images`` (N, 3, H, W) float and ``labels`` (N,) int64.

        ``after(phase)`` is called at the end of each of ``PHASES``, for readings.
        Returns the loss (scalar) and the logits (N, classes), both detached.
        """
        self.optimizer.zero_grad(set_to_none=True)
        logits = logits_of((self.forward or self.model)(images))
        loss = nn.functional.cross_entropy(logits, labels)
        after(FORWARD)
        loss.backward()
        after(BACKWARD)
        self.optimizer.step()
        after(OPTIMIZER_STEP)
        return loss.detach(), logits.detach()


def logits_of(output: Any) -> torch.Tensor:
    """Return the main logits of a classifier: GoogLeNet and Inception add auxiliary heads in training.

    Raises ``ValueError`` with one line for an output without logits, such as a list or a dictionary.
    """
    logits = output if isinstance(output, torch.Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, torch.Tensor):
        raise ValueError(
            f"the model returned a {type(output).__name__}, but it takes one that returns logits (N, classes)"
        )
    return logits


def bytes_of(tensors: Iterable[torch.Tensor | None]) -> int:
    """Add up the bytes of ``tensors`` as they are (not rounded); ``None`` among them counts nothing."""
    return sum(one.numel() * one.element_size() for one in tensors if one is not None)
