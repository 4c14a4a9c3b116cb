"""What can be asked of the engine: one frozen request in, one fresh process out."""

from __future__ import annotations

from dataclasses import dataclass

from stepcost.catalog.engines import ENGINES


@dataclass(frozen=True, kw_only=True)
class Request:
    """One training configuration, as names and numbers only.

    It is hashable (one request is measured once a session) and picklable (it
    crosses the process border). Nothing in it refers to a live object.
    """

    model: str
    """A name in the model catalog, a torchvision classifier, or ``package.module:function``."""
    optimizer: str
    """A name in the optimizer catalog, such as ``sgd`` or ``adam``."""
    batch_size: int
    """Images per training step."""
    image_size: int = 32
    """Height and width of the images; a batch is ``(batch_size, 3, image_size, image_size)``."""
    num_classes: int = 10
    """Width of the classifier's last layer."""
    engine: str = "eager"
    """How a step is run: a name in ``stepcost.catalog.engines.ENGINES``."""
    device: str = "cuda:0"
    """The torch device string: ``cuda:N`` or ``cpu``."""
    seed: int = 0
    """Seeds the weights, the random images and the order of training images."""

    @property
    def precision(self) -> str:
        """What the engine computes in: ``fp32`` or ``bf16``."""
        return ENGINES[self.engine].precision
