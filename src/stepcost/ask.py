"""Ask what a training step of one's own costs: ``stepcost.predict`` and ``stepcost.measure``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

import cloudpickle
import torch
from torch import nn

from stepcost import jobs
from stepcost.catalog.cards import find_card
from stepcost.catalog.kinds import IMAGES, OWN, TOKENS
from stepcost.catalog.models import kind_of
from stepcost.catalog.optimizers import find_optimizer
from stepcost.cost import Cost
from stepcost.failures import ChildFailed
from stepcost.flags import whole
from stepcost.measuring.measurements import Measurements
from stepcost.predicting.prediction import predict_in_full
from stepcost.predicting.torch_versions import installed_torch, version_of
from stepcost.predicting.validation import validation_line
from stepcost.request import BLOCKS, Request, without_images
from stepcost.settings import FLAGS
from stepcost.workload import OwnStep, workload_of

TIME_LIMIT_S = 300.0
"""A child that is silent for longer has hung."""
BUILD = ("torch", "cudnn", "cuda", "driver", "compute_capability")
"""What bytes depend on, besides the card."""
SIZES_OF = {IMAGES: ("image_size", "num_classes"), TOKENS: ("sequence_length",)}
"""What says the size of the batch that a named model takes."""
SIZES = (*SIZES_OF[IMAGES], *SIZES_OF[TOKENS])
STEP = (*SIZES, "precision", "checkpoint", "accumulate", "channels_last", "attention", "lora")
"""What can be said of a step, by the request's names."""
MakeBatch = Callable[[int], Any]
Loss = Callable[[Any, Any], torch.Tensor]
OptimizerLike = str | Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def predict(
    model: nn.Module | str,
    make_batch: MakeBatch | None = None,
    loss: Loss | None = None,
    *,
    optimizer: OptimizerLike,
    batch_size: int,
    gpu: str | None = None,
    torch_version: str | None = None,
    **step: Any,
) -> Cost:
    """Predict what a training step would hold on a GPU; needs no GPU and starts none.

    ``model`` is a module, ``make_batch(n)`` makes a batch of ``n`` on the CPU and ``loss(model, batch)``
    computes a scalar from it; or ``model`` is a name as the command takes it, with ``image_size`` and
    ``num_classes`` where they are not 32 and 10, or ``sequence_length``. ``optimizer`` is a name in the
    catalog or, for a module, makes one over parameters. Of either ``precision``, ``checkpoint`` (``True``, or
    the name of a class), ``accumulate``, ``channels_last``, ``attention`` and ``lora`` say what the step is,
    as the flags of these names do. ``gpu`` is a card of the catalog; without one, workspaces and the process
    are left out. Neither the model nor torch's random numbers are changed.

    Raises ``ValueError`` with one line for what cannot be built, traced or predicted.
    """
    card = None if gpu is None else find_card(gpu)
    request, own = _asked(model, make_batch, loss, optimizer, batch_size=batch_size, **step)
    version = torch_version or installed_torch()
    line = validation_line(request, card, version_of(version))
    with torch.random.fork_rng(devices=[]):
        found = predict_in_full(request, card, torch_version=version, workload=own)
    return Cost(
        reading=found.reading,
        gpu=None if card is None else card.gpu,
        build={"torch": version},
        rests_on=line,
        parameters_by_module=_parameters_by_module(request, own),
    )


def measure(
    model: nn.Module | str,
    make_batch: MakeBatch | None = None,
    loss: Loss | None = None,
    *,
    optimizer: OptimizerLike,
    batch_size: int,
    device: str = "auto",
    **step: Any,
) -> Cost:
    """Measure what a training step holds on a GPU of this machine, in a fresh process.

    Takes what ``predict`` takes. Model and functions are copied to the process by ``cloudpickle``; the
    model may live on any device and stays as it is. A step that runs out of memory is an answer: ``fits`` is
    false. ``device`` is ``cuda:N``, or the first GPU. Raises ``ValueError`` with one line for what is wrong,
    also where there is no GPU, and ``MeasureError`` where the process dies or hangs.
    """
    request, own = _asked(model, make_batch, loss, optimizer, batch_size=batch_size, **step)
    measurements = Measurements(TIME_LIMIT_S)
    try:
        with measurements.worker(jobs.INSPECTION) as worker:
            machine = worker.call("machine", device)
        if machine.gpu is None:
            raise ValueError(f"{machine.why_no_gpu}: nothing can be measured; stepcost.predict needs no GPU")
        pickled = None if own is None else cloudpickle.dumps(replace(own, model=own.build()))
        here = replace(request, device=machine.device)
        reading = measurements.measured(here, pickled, list(sys.path), job=jobs.OWN_STEP)
    except ChildFailed as error:
        raise ValueError(error.reason) from error
    return Cost(
        reading=reading,
        gpu=machine.gpu,
        build={name: getattr(machine, name) for name in BUILD},
        rests_on="Measured in a fresh process.",
        parameters_by_module=_parameters_by_module(request, own),
    )


def _asked(
    model: Any, make_batch: Any, loss: Any, optimizer: Any, *, batch_size: int, **step: Any
) -> tuple[Request, OwnStep | None]:
    """Return the request, and the user's own step where live objects were given."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}; it takes an integer from 1 on")
    asked = {name: _read(name, value) for name, value in step.items()}
    name = optimizer if isinstance(optimizer, str) else _name_of(optimizer)
    if isinstance(optimizer, str):
        find_optimizer(optimizer)
    if isinstance(model, str):
        if make_batch is not None or loss is not None:
            raise ValueError(
                f"model {model!r} is a name, which says its batch and its loss; "
                "with make_batch and loss it takes a torch.nn.Module"
            )
        if not isinstance(optimizer, str):
            raise ValueError(f"with {model!r}, the name of a model, the optimizer is a name too")
        kind = kind_of(model)
        _refuse_sizes(asked, SIZES_OF.get(kind, ()), model)
        request = Request(model=model, optimizer=name, batch_size=batch_size, **asked)
        return without_images(request, kind), None
    kind = type(model).__name__
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is a {kind}; it takes a torch.nn.Module or a name in the catalog")
    if not (callable(make_batch) and callable(loss)):
        missing = "loss(model, batch)" if callable(make_batch) else "make_batch(n)"
        raise ValueError(f"{kind} needs two functions, make_batch(n) and loss(model, batch): no {missing}")
    _refuse_sizes(asked, (), kind)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"{kind} has no trainable parameters: there is nothing to train")
    make = None if isinstance(optimizer, str) else optimizer
    own = OwnStep(model=model, make_batch=make_batch, loss=loss, make_optimizer=make)
    request = Request(model=kind, optimizer=name, batch_size=batch_size, **asked)
    return without_images(request, OWN), own


def _read(name: str, value: Any) -> Any:
    """Check what was said of the step; raises ``TypeError`` for what cannot be said of it."""
    if name not in STEP:
        raise TypeError(f"unexpected argument {name!r}")
    if name == "channels_last":
        if not isinstance(value, bool):
            raise ValueError(f"channels_last is {value!r}; it takes True or False")
        return value
    if value is None or (name == "checkpoint" and value is False):
        return None
    read = FLAGS[name].read if name in FLAGS else whole(1)
    assert read is not None
    return read(name, BLOCKS if name == "checkpoint" and value is True else str(value))


def _refuse_sizes(asked: dict[str, Any], takes: Collection[str], model: str) -> None:
    """Refuse what says the size of another workload's batch."""
    wrong = [name for name in SIZES if name in asked and name not in takes]
    if wrong:
        can = " and ".join(takes) or "none of these: make_batch says what it takes"
        raise ValueError(f"{' and '.join(wrong)}: {model} takes {can}")


def _name_of(make: Any) -> str:
    """Name what makes an optimizer, for people."""
    if not callable(make):
        raise ValueError(
            f"optimizer is a {type(make).__name__}; it takes a name such as 'adamw', or what makes one over "
            "parameters, such as functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)"
        )
    made_by = getattr(make, "func", make)  # of a functools.partial
    return str(getattr(made_by, "__qualname__", made_by))


def _parameters_by_module(request: Request, own: OwnStep | None) -> dict[str, int]:
    model = own.model if own is not None else workload_of(request).build_on_meta()
    found: dict[str, int] = {}
    for path, parameter in model.named_parameters():  # which names a shared one once
        module = path.rpartition(".")[0] or "(model)"
        found[module] = found.get(module, 0) + parameter.numel() * parameter.element_size()
    return found
