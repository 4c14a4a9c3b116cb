"""What can be asked of the engine: one frozen request in, one fresh process out."""

from __future__ import annotations

from dataclasses import dataclass

from stepcost.catalog.engines import ENGINES
from stepcost.schema import REQUIRED, Count, stored

MOST_SEED = 2**63 - 1
"""The largest seed that torch takes and that numbers in a saved file can be."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One training configuration, as names and numbers only.

    It is hashable (one request is measured once a session) and picklable (it
    crosses the process border). Nothing in it refers to a live object.
    """

    model: str = stored(
        "name in the catalog, torchvision name, or `package.module:function`",
        identifies=True,
        default=REQUIRED,
    )
    optimizer: str = stored(
        "name in the catalog (`sgd`, `adam`, ...) or `package.module:Class`",
        identifies=True,
        default=REQUIRED,
    )
    batch_size: Count = stored("images in a step", identifies=True, default=REQUIRED)
    image_size: Count = stored(
        "height and width of the images: a batch is `(batch_size, 3, image_size, image_size)`",
        identifies=True,
        default=32,
    )
    num_classes: Count = stored("width of the last layer", identifies=True, default=10)
    engine: str = stored("how a step is launched: a name in the catalog", identifies=True, default="eager")
    device: str = "cuda:0"
    """The torch device string: ``cuda:N`` or ``cpu``."""
    seed: int = stored(
        "seed of the weights, of random images and of the order of training images",
        identifies=True,
        default=0,
    )

    @property
    def precision(self) -> str:
        """What the engine computes in: ``fp32`` or ``bf16``."""
        return ENGINES[self.engine].precision
