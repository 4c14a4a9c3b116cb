"""The models that can be measured: classifiers of images, language models, or the user's own."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from stepcost.catalog.closed_form import resnet_parameters
from stepcost.catalog.kinds import IMAGES, OWN, TOKENS
from stepcost.catalog.language_models import LANGUAGE_MODELS, build_language_model, is_language_model
from stepcost.catalog.own import find_own, is_own

if TYPE_CHECKING:
    import torch
    from torch import nn

DEFAULT_MODEL = "resnet152"
TIMM = "timm:"
"""Before the name of a model of the library timm."""
STAND_IN = "small-cnn"
"""What is trained on the CPU in place of a model that is too large for it."""


def _small_cnn(num_classes: int) -> nn.Module:
    """Four 3x3 convolutions with batch norm, 3-16-32-64-64 channels, mean pooling and one linear layer."""
    from torch import nn  # noqa: PLC0415 (the catalog must list names without importing torch)

    widths = (3, 16, 32, 64, 64)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes))


OWN_MODELS: dict[str, Callable[[int], nn.Module]] = {STAND_IN: _small_cnn}
"""Builders of our own: name to a function of ``num_classes``."""


class Prebuilt(NamedTuple):
    """A model that the fork server built before it forked."""

    model: nn.Module
    seed: int
    random_state: torch.Tensor
    """Of torch's generator of the CPU, as building the model left it."""
    dtype: torch.dtype
    """In which torch made its numbers."""


PREBUILT: dict[tuple[str, int | None, int | None], Prebuilt] = {}
"""Name, classes and image size to the model that the fork server built.

A child changes only its own copy (the system copies what is written to), so building
costs each child nothing.
"""


def prebuild(name: str, *, num_classes: int | None, image_size: int | None, seed: int) -> None:
    """Build the model for all children that will be forked from this process, without touching CUDA."""
    import torch  # noqa: PLC0415 (the catalog must list names without importing torch)

    torch.default_generator.manual_seed(seed)  # torch.manual_seed would leave word for CUDA, too
    model = build_named(name, num_classes=num_classes, image_size=image_size)
    state = torch.get_rng_state()
    PREBUILT[name, num_classes, image_size] = Prebuilt(model, seed, state, torch.get_default_dtype())


def is_prebuilt(name: str, *, num_classes: int | None, image_size: int | None, seed: int) -> bool:
    """Whether the fork server built the very model that building it would give after ``seed``."""
    import torch  # noqa: PLC0415 (see above)

    ready = PREBUILT.get((name, num_classes, image_size))
    return ready is not None and (ready.seed, ready.dtype) == (seed, torch.get_default_dtype())


def prebuilt_model(name: str, *, num_classes: int | None, image_size: int | None) -> nn.Module:
    """Return the model the fork server built, and torch's random state as that left it; or build it.

    For readings that do not depend on the seed, and where ``is_prebuilt`` says that it is of theirs.
    """
    import torch  # noqa: PLC0415 (see above)

    ready = PREBUILT.get((name, num_classes, image_size))
    if ready is None:
        return build_named(name, num_classes=num_classes, image_size=image_size)
    torch.set_rng_state(ready.random_state)
    return ready.model


def build_named(name: str, *, num_classes: int | None, image_size: int | None) -> nn.Module:
    """Build a classifier of images or, without classes and an image size, a language model."""
    if num_classes is None or image_size is None:
        return build_language_model(name)
    return build_model(name, num_classes=num_classes, image_size=image_size)


def kind_of(name: str) -> str:
    """Return what the batch of a named model is of: ``IMAGES``, ``TOKENS`` or ``OWN``.

    Imports the user's own code where it names that. Raises ``ValueError`` with one line where it cannot.
    """
    if is_language_model(name):
        return TOKENS
    if not is_own(name):
        return IMAGES
    try:
        takes = inspect.signature(find_own(name)).parameters
    except TypeError as error:
        kind = type(find_own(name)).__name__
        raise ValueError(f"model {name!r} is a {kind}, and it takes a function") from error
    except ValueError as error:
        raise ValueError(f"model {error}") from error
    return IMAGES if "num_classes" in takes else OWN


def build_model(name: str, *, num_classes: int, image_size: int) -> nn.Module:
    """Build a classifier with random weights on the CPU.

    ``name`` is a row above, a torchvision classifier (``resnet152``) or
    ``package.module:function`` (called as ``function(num_classes=num_classes)``).
    Raises ``ValueError`` with one line that says what is wrong and what would be right.
    """
    if name in OWN_MODELS:
        return OWN_MODELS[name](num_classes)
    if is_own(name):
        return _users_own(name, num_classes)
    import torchvision  # noqa: PLC0415 (slow to import, and not needed for the names above)

    if name.startswith(TIMM):
        return _of_timm(name, num_classes, image_size)
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = difflib.get_close_matches(name, [*known, *OWN_MODELS, *LANGUAGE_MODELS], n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "see torchvision.models.list_models()."
        raise ValueError(
            f"unknown model {name!r}: {hint} It takes a torchvision classifier, "
            f"{TIMM}NAME, {', '.join((*OWN_MODELS, *LANGUAGE_MODELS))}, a config.json or "
            "package.module:function"
        )
    # Vision transformers learn one position per patch, so they must be told the image size.
    sized = {"image_size": image_size} if name.startswith("vit_") else {}
    # These two would otherwise warn and spend a minute on a truncated-normal initialisation.
    lazy = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    try:
        model: nn.Module = torchvision.models.get_model(
            name, weights=None, num_classes=num_classes, **sized, **lazy
        )
    except Exception as error:
        raise ValueError(
            f"model {name!r} cannot be built for {image_size}x{image_size} images: {error}"
        ) from error
    return model


def _of_timm(name: str, num_classes: int, image_size: int) -> nn.Module:
    try:
        import timm  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise ValueError(
            f"model {name!r} needs the library timm ({error}): pip install 'stepcost[timm]'"
        ) from None
    known = timm.list_models()
    plain = name.removeprefix(TIMM)
    if plain not in known:
        close = difflib.get_close_matches(plain, known, n=3)
        hint = (
            f"did you mean {', '.join(TIMM + one for one in close)}?" if close else "see timm.list_models()."
        )
        raise ValueError(f"unknown model {name!r}: {hint}")
    try:
        try:
            model: nn.Module = timm.create_model(plain, num_classes=num_classes, img_size=image_size)
        except TypeError:  # convolutional ones take images of any size
            model = timm.create_model(plain, num_classes=num_classes)
    except Exception as error:
        raise ValueError(
            f"model {name!r} cannot be built for {image_size}x{image_size} images: {error}"
        ) from error
    return model


def _users_own(name: str, num_classes: int) -> nn.Module:
    from torch import nn  # noqa: PLC0415 (see above)

    try:
        function = find_own(name)
    except ValueError as error:
        raise ValueError(f"model {error}") from error
    try:
        model = function(num_classes=num_classes)
    except SystemExit as error:
        raise ValueError(f"model {name!r}: it calls sys.exit({error.code!r})") from error
    except Exception as error:
        raise ValueError(
            f"model {name!r}: called with num_classes={num_classes}, it raised {error!r}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {name!r} returned {type(model).__name__}, not a torch.nn.Module")
    return model


def parameters_by_closed_form(name: str, *, num_classes: int) -> int | None:
    """Count the parameters by formula, without building the model; ``None`` where there is none."""
    return resnet_parameters(name, num_classes=num_classes)
