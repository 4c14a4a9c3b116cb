"""Ask what a training step of one's own costs: ``stepcost.predict`` and ``stepcost.measure``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import cloudpickle
import torch
from torch import nn

from stepcost import jobs
from stepcost.catalog.cards import find_card
from stepcost.catalog.optimizers import find_optimizer
from stepcost.cost import Cost
from stepcost.failures import ChildFailed
from stepcost.measuring.measurements import Measurements
from stepcost.predicting.prediction import predict_in_full
from stepcost.predicting.torch_versions import installed_torch, version_of
from stepcost.predicting.validation import validation_line
from stepcost.request import Request
from stepcost.workload import OwnStep, workload_of

TIME_LIMIT_S = 300.0
"""A child that is silent for longer has hung."""
VALIDATED_STEPS = "image classifiers in fp32"
"""What was trained in the runs that predictions were compared with."""
BUILD = ("torch", "cudnn", "cuda", "driver", "compute_capability")
"""What bytes depend on, besides the card."""
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
    **classifier: int,
) -> Cost:
    """Predict what a training step would hold on a GPU; needs no GPU and starts none.

    ``model`` is a module, ``make_batch(n)`` makes a batch of ``n`` on the CPU and ``loss(model, batch)``
    computes a scalar from it; or ``model`` is a name in the catalog, with ``image_size`` and ``num_classes``
    where they are not 32 and 10. ``optimizer`` is a name in the catalog or makes one over parameters. ``gpu``
    is a card of the catalog; without one, workspaces and the process are left out. Neither the model nor
    torch's random numbers are changed.

    Raises ``ValueError`` with one line for what cannot be built, traced or predicted.
    """
    card = None if gpu is None else find_card(gpu)
    request, own = _asked(model, make_batch, loss, optimizer, batch_size=batch_size, **classifier)
    version = torch_version or installed_torch()
    line = validation_line(card, version_of(version))
    if own is not None:
        line = f"{line} Those runs trained {VALIDATED_STEPS}; this step is another."
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
    **classifier: int,
) -> Cost:
    """Measure what a training step holds on a GPU of this machine, in a fresh process.

    Takes what ``predict`` takes. Model and functions are copied to the process by ``cloudpickle``; the
    model may live on any device and stays as it is. A step that runs out of memory is an answer: ``fits`` is
    false. ``device`` is ``cuda:N``, or the first GPU. Raises ``ValueError`` with one line for what is wrong,
    also where there is no GPU, and ``MeasureError`` where the process dies or hangs.
    """
    request, own = _asked(model, make_batch, loss, optimizer, batch_size=batch_size, **classifier)
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
    model: Any, make_batch: Any, loss: Any, optimizer: Any, *, batch_size: int, **classifier: int
) -> tuple[Request, OwnStep | None]:
    """Return the request, and the user's own step where live objects were given."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}; it takes an integer from 1 on")
    unknown = classifier.keys() - {"image_size", "num_classes"}
    if unknown:
        raise TypeError(f"unexpected argument {min(unknown)!r}")
    name = optimizer if isinstance(optimizer, str) else _name_of(optimizer)
    if isinstance(optimizer, str):
        find_optimizer(optimizer)
    if isinstance(model, str):
        if make_batch is not None or loss is not None:
            raise ValueError(
                f"model {model!r} is a name, whose batch and loss are a classifier's; "
                "with make_batch and loss it takes a torch.nn.Module"
            )
        if not isinstance(optimizer, str):
            raise ValueError(f"with {model!r}, the name of a model, the optimizer is a name too")
        sizes: dict[str, Any] = classifier
        return Request(model=model, optimizer=name, batch_size=batch_size, **sizes), None
    kind = type(model).__name__
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is a {kind}; it takes a torch.nn.Module or a name in the catalog")
    if not (callable(make_batch) and callable(loss)):
        missing = "loss(model, batch)" if callable(make_batch) else "make_batch(n)"
        raise ValueError(f"{kind} needs two functions, make_batch(n) and loss(model, batch): no {missing}")
    if classifier:
        names = " and ".join(classifier)
        raise ValueError(f"{names}: for a name in the catalog; make_batch says what a module takes")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"{kind} has no trainable parameters: there is nothing to train")
    make = None if isinstance(optimizer, str) else optimizer
    own = OwnStep(model=model, make_batch=make_batch, loss=loss, make_optimizer=make)
    return Request(model=kind, optimizer=name, batch_size=batch_size), own


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
