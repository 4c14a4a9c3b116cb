"""What is trained: a model, and the batch it takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from stepcost.catalog.models import build_model, prebuilt_model
from stepcost.request import Request


@dataclass(frozen=True, kw_only=True)
class Workload:
    """An image classifier: logits (N, classes) from images (N, 3, S, S). ``TrainingStep`` has its loss."""

    model: str
    """A name as ``build_model`` takes it."""
    num_classes: int
    image_size: int

    def build(self, *, prebuilt: bool = False) -> nn.Module:
        """Build the model on the CPU, with weights that follow from torch's seed.

        ``prebuilt`` takes the one that the fork server built, for readings that do not depend on the
        seed. Raises ``ValueError`` with one line where it cannot be built.
        """
        build = prebuilt_model if prebuilt else build_model
        return build(self.model, num_classes=self.num_classes, image_size=self.image_size)

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


def workload_of(request: Request) -> Workload:
    """Return the workload that a request names."""
    return Workload(model=request.model, num_classes=request.num_classes, image_size=request.image_size)
