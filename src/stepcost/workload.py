"""What is trained: a model, the batch it takes, and the objective it minimises."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from stepcost.catalog.kinds import IMAGES, TOKENS
from stepcost.catalog.language_models import is_masked, language_config, most_positions
from stepcost.catalog.models import build_named, kind_of, prebuilt_model
from stepcost.catalog.own import find_own
from stepcost.request import Request, without_images
from stepcost.step import Objective, bytes_of, classify, map_tensors, tensors_in

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


class _WeightsOnMeta(TorchFunctionMode):
    """Inside, what is made empty is on the meta device, as layers make their weights; all else has values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


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
        build = prebuilt_model if self.prebuilt else build_named
        return build(self.model, num_classes=self.num_classes, image_size=self.image_size)

    def build_on_meta(self) -> nn.Module:
        """Build the model on the meta device; builders that read values get real ones, weights last."""
        for device in (torch.device("meta"), _WeightsOnMeta()):
            with contextlib.suppress(RuntimeError, ValueError), device:
                return self.build().to("meta")
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


MASKED_SHARE = 0.15
"""Of the tokens, those that a masked language model fills in (Devlin et al. 2019)."""
MOST_ON_HOST_BYTES = 256 * 10**6
"""A larger batch of the user's own is made without its values where only its shapes are wanted."""
FEW = 8
"""Examples in a batch that is made to learn how large one of many is."""
NOT_A_LABEL = -100
"""A label at which no loss is taken, as ``transformers`` has it."""


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A causal or masked language model of ``transformers``, with the loss that it defines for labels.

    Everything else is the library's default, the cache of keys and values that it fills included.
    """

    model: str
    """A name as ``build_language_model`` takes it."""
    sequence_length: int
    make_optimizer: None = None
    prebuilt: bool = False
    """Take the model that the fork server built, for readings that do not depend on the seed."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` in one line for a sequence that the model has no positions for."""
        most = most_positions(self._config)
        if most is not None and self.sequence_length > most:
            raise ValueError(
                f"--sequence-length {self.sequence_length:,}: {self.model} has positions for {most:,} tokens"
            )

    @functools.cached_property
    def _config(self) -> Any:
        return language_config(self.model)

    def objective(self, forward: Any, batch: Any) -> tuple[torch.Tensor, None]:
        """Return the model's own loss for ``input_ids`` and ``labels``, and nothing else."""
        return forward(**batch).loss, None

    def build(self) -> nn.Module:
        """Build the model on the CPU, with weights that follow from torch's seed.

        Raises ``ValueError`` with one line where it cannot be built.
        """
        build = prebuilt_model if self.prebuilt else build_named
        return build(self.model, num_classes=None, image_size=None)

    def build_on_meta(self) -> nn.Module:
        """Build the model on the meta device."""
        with torch.device("meta"):
            return self.build()

    def batch(
        self,
        size: int,
        device: str | torch.device,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> dict[str, torch.Tensor]:
        """Make ``input_ids`` and ``labels`` of random tokens, each ``(size, sequence_length)`` int64.

        Labels are the tokens themselves; of a masked model, those of 15 % of the places.
        """
        shape = (size, self.sequence_length)
        tokens = torch.randint(self._config.vocab_size, shape, device=device)
        labels = tokens.clone()
        if is_masked(self.model, self._config):
            labels[:, int(MASKED_SHARE * self.sequence_length) :] = NOT_A_LABEL
        return {"input_ids": tokens, "labels": labels}


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
        if not loss.requires_grad:
            raise ValueError("no trainable parameter takes part in what loss(model, batch) returned")
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
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> Any:
        """Make a batch on the CPU and put its tensors on ``device``, one after another.

        Those with four dimensions are put into ``memory_format`` before that.
        """

        def laid_out(one: torch.Tensor) -> torch.Tensor:
            return one.contiguous(memory_format=memory_format) if one.dim() == 4 else one

        if torch.device(device).type == "meta":
            with ThreadPoolExecutor(1) as aside:  # where no mode follows what happens to tensors
                shapes = aside.submit(lambda: map_tensors(laid_out, self._shapes(size))).result()
            return map_tensors(_on_meta, shapes)
        return map_tensors(lambda one: laid_out(one).to(device), self._made(size))

    def _made(self, size: int) -> Any:
        try:
            return self.make_batch(size)
        except Exception as error:
            raise ValueError(f"make_batch({size}) raised {error!r}") from error

    def _shapes(self, size: int) -> Any:
        """Make a batch of which shapes are wanted: one that is too large for a host without its values."""
        if size > FEW:
            with contextlib.suppress(Exception):  # it reads values, or makes no batch of so few
                if bytes_of(tensors_in(self.make_batch(FEW))) / FEW * size > MOST_ON_HOST_BYTES:
                    with torch.device("meta"):
                        return self.make_batch(size)
        return self._made(size)


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    """Put a tensor on the meta device, with its values known where it has any."""
    return torch.empty_like(tensor) if tensor.is_meta else tensor.to("meta")


def workload_of(request: Request, *, prebuilt: bool = False) -> Workload:
    """Return the workload that a request names.

    Raises ``ValueError`` with one line where there is none, or where it does not go with the request.
    """
    kind = kind_of(request.model)
    request = without_images(request, kind)
    if kind == TOKENS:
        return LanguageModel(
            model=request.model, sequence_length=request.sequence_length or 0, prebuilt=prebuilt
        )
    if kind == IMAGES:
        return ImageClassifier(
            model=request.model,
            num_classes=request.num_classes or 0,
            image_size=request.image_size or 0,
            prebuilt=prebuilt,
        )
    return _users_own(request.model)


def _users_own(name: str) -> OwnStep:
    """Call a function of the user's own, which returns a model, what makes a batch of n, and a loss."""
    takes = "it takes a function that returns a model, make_batch(n) and loss(model, batch)"
    try:
        found = find_own(name)()
    except (Exception, SystemExit) as error:
        raise ValueError(f"model {name!r} raised {error!r}; {takes}") from error
    if not isinstance(found, tuple) or len(found) != 3:
        raise ValueError(f"model {name!r} returned {type(found).__name__}; {takes}")
    model, make_batch, loss = found
    if not (isinstance(model, nn.Module) and callable(make_batch) and callable(loss)):
        kinds = ", ".join(type(one).__name__ for one in found)
        raise ValueError(f"model {name!r} returned {kinds}; {takes}")
    return OwnStep(model=model, make_batch=make_batch, loss=loss)
