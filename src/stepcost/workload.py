"""What is trained: a model, the batch it takes, and the objective it minimises."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from stepcost.catalog.models import build_model, prebuilt_model
from stepcost.request import Request
from stepcost.step import Objective, classify, map_tensors

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
"""Makes an optimizer over parameters: ``partial(torch.optim.SGD, momentum=0.9)``."""


class Workload(Protocol):
    """A model, a function that makes a batch of n, and an objective."""

    @property
    def objective(self) -> Objective:
        """What a step minimises."""

    @property
    def make_optimizer(self) -> MakeOptimizer | None:
        """What makes the optimizer where that is not the one that the request names."""

    def build(self) -> nn.Module:
        """Build the model on the CPU. Raises ``ValueError`` with one line where it cannot be built."""

    def build_on_meta(self) -> nn.Module:
        """Build the model for the meta device, without spending time on weights."""

    def batch(self, size: int, device: str | torch.device, memory_format: torch.memory_format = ...) -> Any:
        """Make a batch of ``size`` on ``device``, its tensors one after another."""


@dataclass(frozen=True, kw_only=True)
class ImageClassifier:
    """Logits (N, classes) from images (N, 3, S, S), by cross entropy."""

    model: str
    """A name as ``build_model`` takes it."""
    num_classes: int
    image_size: int
    objective: Objective = classify
    make_optimizer: None = None
    prebuilt: bool = False
    """Take the model that the fork server built, for readings that do not depend on the seed."""

    def build(self) -> nn.Module:
        """Build the model on the CPU, with weights that follow from torch's seed.

        Raises ``ValueError`` with one line where it cannot be built.
        """
        build = prebuilt_model if self.prebuilt else build_model
        return build(self.model, num_classes=self.num_classes, image_size=self.image_size)

    def build_on_meta(self) -> nn.Module:
        """Build the model on the meta device; builders that read values get real ones."""
        try:
            with torch.device("meta"):
                return self.build()
        except (RuntimeError, ValueError):
            return self.build().to("meta")

    def batch(
        self,
        size: int,
        device: str | torch.device,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Make a batch of random images, ``(size, 3, S, S)`` float, and labels, ``(size,)`` int64.

        The images are allocated first, and put into ``memory_format`` before the labels are.
        """
        images = torch.randn((size, 3, self.image_size, self.image_size), device=device)
        images = images.contiguous(memory_format=memory_format)
        return images, torch.randint(self.num_classes, (size,), device=device)


@dataclass(frozen=True, kw_only=True)
class OwnStep:
    """A live model with a function that makes its batch and one that computes its loss; none is changed."""

    model: nn.Module
    make_batch: Callable[[int], Any]
    """``make_batch(n)``: what ``loss`` takes, with tensors in tuples, lists, mappings or dataclasses."""
    loss: Callable[[Any, Any], torch.Tensor]
    """``loss(model, batch)``: a scalar."""
    make_optimizer: MakeOptimizer | None = None

    def objective(self, forward: Any, batch: Any) -> tuple[torch.Tensor, None]:
        """Return the loss, and nothing else."""
        loss = self.loss(forward, batch)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            is_a = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else repr(loss)
            raise ValueError(f"loss(model, batch) returned {is_a}, but it takes a scalar tensor")
        return loss, None

    def build(self) -> nn.Module:
        """Copy the model to the CPU; the copy has no gradients."""
        built = copy.deepcopy(self.model).to("cpu")
        built.zero_grad(set_to_none=True)
        return built

    def build_on_meta(self) -> nn.Module:
        """Copy the model with its shapes alone: tied parameters stay tied, and no weight is read."""
        shapes: dict[int, Any] = {}
        for parameter in self.model.parameters():
            shapes[id(parameter)] = nn.Parameter(
                torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad
            )
        for buffer in self.model.buffers():
            shapes[id(buffer)] = torch.empty_like(buffer, device="meta")
        return copy.deepcopy(self.model, shapes)

    def batch(
        self,
        size: int,
        device: str | torch.device,
        memory_format: torch.memory_format = torch.preserve_format,
    ) -> Any:
        """Make a batch on the CPU and put its tensors on ``device``, one after another."""
        if torch.device(device).type == "meta":
            return map_tensors(lambda one: torch.empty_like(one, device="meta"), self.make_batch(size))
        return map_tensors(lambda one: one.to(device), self.make_batch(size))


def workload_of(request: Request, *, prebuilt: bool = False) -> Workload:
    """Return the workload that a request names."""
    return ImageClassifier(
        model=request.model,
        num_classes=request.num_classes,
        image_size=request.image_size,
        prebuilt=prebuilt,
    )
