"""The reading of a training configuration, without a GPU."""

from __future__ import annotations

import time
from typing import Any

import torch

from stepcost.activations import ModuleActivations, by_module
from stepcost.catalog.cards import NOT_MEASURED, Card
from stepcost.ledger import BUFFER, GRADIENT, INPUT, PARAMETER, STATE
from stepcost.predict import trace
from stepcost.predict.simulate import Simulation, simulate
from stepcost.predict.trace import Trace, trace_run
from stepcost.predict.workspaces import Workspaces, workspaces_on
from stepcost.reading import Reading
from stepcost.request import Request

OTHER_BATCH = "the table at this batch size"
"""How the reason ends where only batch sizes are missing, which are estimated far better."""
NO_CARD = "no card is named: what cuDNN, cuBLAS and the context take depends on it"


def predict(request: Request, card: Card | None = None, *, torch_version: str = torch.__version__) -> Reading:
    """Predict the memory of one training configuration, in bytes; needs no GPU and starts none.

    ``card`` says where it would run; without one the peaks have no workspaces in them and the
    process is not predicted. ``torch_version`` is the torch it would run with. Raises
    ``ValueError`` with one line for what cannot be built or traced.
    """
    return predict_activations(request, card, torch_version=torch_version)[0]


def predict_activations(
    request: Request, card: Card | None = None, *, torch_version: str = torch.__version__
) -> tuple[Reading, list[ModuleActivations]]:
    """Predict the same, and by module what forward keeps for backward (nothing where it does not fit)."""
    started = time.perf_counter()
    traced = trace_run(request)
    workspaces = workspaces_on(card, version_of(torch_version))
    simulation = simulate(traced, workspaces, capacity_bytes(card))
    reading = _reading(traced, simulation, workspaces, card, time.perf_counter() - started)
    return reading, by_module(simulation.kept if reading.fits else [])


def installed_torch() -> str:
    """Version of the torch that is installed here, such as ``2.11.0+cu130``."""
    return str(torch.__version__)


def capacity_bytes(card: Card | None) -> int | None:
    """Memory that the allocator can reserve on ``card``: what no driver and no context takes."""
    return None if card is None else card.usable_bytes - (card.context_bytes or 0)


def version_of(text: str) -> tuple[int, int]:
    """Major and minor version of a torch such as ``2.11.0+cu130``; ``ValueError`` for what is none."""
    try:
        major, minor = text.split("+", maxsplit=1)[0].split(".")[:2]
        return int(major), int(minor)
    except ValueError:
        raise ValueError(f"{text!r} is not a torch version such as 2.11") from None


def _reading(
    traced: Trace, simulation: Simulation, workspaces: Workspaces, card: Card | None, seconds: float
) -> Reading:
    tensors = traced.tensor_bytes
    unread: dict[str, str] = {}
    if card is None:
        unread |= dict.fromkeys(("process_bytes", "context_bytes", "workspace_bytes"), NO_CARD)
    elif card.context_bytes is None:
        unread |= dict.fromkeys(("process_bytes", "context_bytes"), f"{card.name}: {NOT_MEASURED}")
    known: dict[str, Any] = {
        "source": "predicted",
        "parameters": traced.parameters,
        "parameter_bytes": tensors[PARAMETER],
        "buffer_bytes": tensors[BUFFER],
        "gradient_bytes": tensors[GRADIENT],
        "optimizer_state_bytes": tensors[STATE],
        "optimizer_scalar_bytes": tensors["scalar"],
        "input_bytes": tensors[INPUT],
        "steps_before_reading": trace.STEPS - 1,
        "seconds": seconds,
    }
    if simulation.peak is None:
        return Reading(**known, fits=False, reason=simulation.out_of_memory_in, unread=unread)
    if workspaces.table is None and card is not None:
        unread["workspace_bytes"] = (
            f"no convolution was recorded on compute capability {card.compute_capability}"
        )
    elif workspaces.missing:
        unread["workspace_bytes"] = f"{len(workspaces.missing)} convolutions are not in the table"
    elif workspaces.missing_batches:
        unread["workspace_bytes"] = f"{len(workspaces.missing_batches)} convolutions are not in {OTHER_BATCH}"
    peaks = simulation.phase_peak_bytes
    reserved = simulation.allocator.peak_reserved_bytes
    context = workspaces.context_bytes
    return Reading(
        **known,
        fits=True,
        activation_bytes=simulation.kept_bytes,
        first_step_peak_allocated_bytes=simulation.first_step_peak_bytes,
        peak_allocated_bytes=simulation.peak.allocated_bytes,
        peak_reserved_bytes=reserved,
        peak_moment=max(peaks, key=lambda phase: peaks[phase]),
        phase_peak_bytes=peaks,
        leaked_bytes=simulation.leaked_bytes,
        process_bytes=None if context is None else reserved + context,
        process_bytes_from="prediction",
        context_bytes=context,
        ledger=simulation.peak.ledger,
        unread=unread,
    )
