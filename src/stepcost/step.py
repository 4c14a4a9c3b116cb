"""The training step that is measured, and that the prediction traces: the plain one of a textbook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from stepcost.reading import BACKWARD, FORWARD, OPTIMIZER_STEP

Forward = Callable[..., Any]
"""Runs the model: the model itself, compiled, or under autocast."""
Objective = Callable[[Any, Any], tuple[torch.Tensor, Any]]
"""``objective(forward, batch)`` returns the loss (scalar) and what else is wanted of the forward pass."""


def _ignore(phase: str) -> None:
    """Take note of nothing."""


@dataclass(kw_only=True)
class TrainingStep:
    """A model with its optimizer and objective: call it with a batch to train on that batch."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    objective: Objective
    forward: Forward | None = None
    """What runs the model where that is not the model itself."""
    autocast: torch.dtype | None = None
    """What forward and loss are cast to by ``torch.autocast``; ``None``: they are not."""
    keeps_casts: bool = True
    """Whether autocast keeps the weights it has cast until the end of forward."""
    scaler: torch.amp.GradScaler | None = None
    """Scales the loss, so that small gradients do not vanish in fp16."""
    accumulate: int = 1
    """Micro-batches whose gradients are summed before the optimizer steps; each is ``batch``."""
    attention: SDPBackend | None = None
    """The kernels to which ``scaled_dot_product_attention`` is held; ``None``: torch chooses."""
    known: dict[int, str] = field(default_factory=dict)
    """Address of what no tensor of these holds, to its kind in a ledger: the buckets of DDP."""

    def __call__(self, batch: Any, after: Callable[[str], None] = _ignore) -> tuple[torch.Tensor, Any]:
        """Take one step on ``batch``, which is whatever the objective takes.

        ``after(phase)`` is called at the end of each of ``PHASES``, for readings; with accumulation, at the
        end of forward and backward of each micro-batch. Returns the loss of the last (scalar, detached) and
        what else the objective returned.
        """
        self.optimizer.zero_grad(set_to_none=True)
        with nullcontext() if self.attention is None else sdpa_kernel(self.attention):
            for _ in range(self.accumulate):
                loss, output = self._losses(batch)
                after(FORWARD)
                (loss if self.scaler is None else self.scaler.scale(loss)).backward()
                after(BACKWARD)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        after(OPTIMIZER_STEP)
        return loss.detach(), output

    def _losses(self, batch: Any) -> tuple[torch.Tensor, Any]:
        """Run forward: the loss as its mean over all micro-batches, and what else the objective returns."""
        forward = self.forward or self.model
        if self.autocast is None:
            loss, output = self.objective(forward, batch)
        else:
            kind = next(self.model.parameters()).device.type
            with torch.autocast(kind, self.autocast, cache_enabled=self.keeps_casts):
                loss, output = self.objective(forward, batch)
        return (loss if self.accumulate == 1 else loss / self.accumulate), output


def classify(forward: Forward, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of a classifier on images (N, 3, H, W) float and labels (N,) int64.

    Returns the loss (scalar) and the logits (N, classes), detached.
    """
    images, labels = batch
    logits = logits_of(forward(images))
    return nn.functional.cross_entropy(logits, labels), logits.detach()


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
    """Add up the bytes of ``tensors`` as they are (not rounded); ``None`` among them counts nothing.

    Of a tensor that is in parts on several GPUs it is the part that this process holds.
    """
    held = (held_here(one) for one in tensors if one is not None)
    return sum(one.numel() * one.element_size() for one in held)


def held_here(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this process holds of a tensor: its part of a ``DTensor``, and any other as it is."""
    if not hasattr(tensor, "to_local"):
        return tensor
    in_parts: Any = tensor.detach()
    part: torch.Tensor = in_parts.to_local()
    return part


def state_of(optimizer: torch.optim.Optimizer) -> Mapping[torch.Tensor, Mapping[str, Any]]:
    """Return the state that this process keeps: ``ZeroRedundancyOptimizer`` has it in an optimizer within."""
    state: Mapping[torch.Tensor, Mapping[str, Any]] = getattr(optimizer, "optim", optimizer).state
    return state


def tensors_in(batch: Any) -> list[torch.Tensor]:
    """Find the tensors of a batch: in tuples, lists, mappings and dataclasses, in their order."""
    found: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    map_tensors(note, batch)
    return found


def map_tensors(change: Callable[[torch.Tensor], torch.Tensor], batch: Any) -> Any:
    """Return ``batch`` with each tensor changed, in tuples, lists, mappings and dataclasses.

    Anything else in it stays as it is.
    """
    if isinstance(batch, torch.Tensor):
        return change(batch)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(change, one) for one in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(map_tensors(change, one) for one in batch)
    if isinstance(batch, Mapping):
        made: Any = type(batch)
        return made({name: map_tensors(change, one) for name, one in batch.items()})
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{f.name: map_tensors(change, getattr(batch, f.name)) for f in fields(batch)})
    return batch
