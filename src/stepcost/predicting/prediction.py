"""The reading of a training configuration, without a GPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from stepcost.activations import ModuleActivations, alike_together, by_module
from stepcost.catalog.cards import NOT_MEASURED, Card
from stepcost.predicting import tape, trace
from stepcost.predicting.attention import attention_on
from stepcost.predicting.compared import rests_on
from stepcost.predicting.nccl_context import card_among, communicator_bytes
from stepcost.predicting.ranks import trace_ranks
from stepcost.predicting.simulate import Simulation, simulate
from stepcost.predicting.torch_versions import Version, installed_torch, version_of
from stepcost.predicting.trace import CUBLAS, CUDNN, Trace, trace_run
from stepcost.predicting.validation import NO_RUN, most_too_low
from stepcost.predicting.workspaces import Estimated, Workspaces, workspaces_on
from stepcost.reading import Reading, as_one, of_rank
from stepcost.request import FSDP2, Request, why_not_predicted_on
from stepcost.units import gb, mb, mb_number, range_mb
from stepcost.workload import Workload

FSDP_OF_HERE = (
    "it was traced with the FSDP2 of torch {}.{}, which is installed: when it lets go, versions differ"
)
PEAKS = ("peak_allocated_bytes", "peak_reserved_bytes")
NO_WORKSPACES = "cuDNN's workspaces are not in it"
NO_CARD = "no card is named: what cuDNN, cuBLAS and the context take depends on it"
FEWER_LIBRARIES = (
    "at most: the context was measured with cuDNN and cuBLAS loaded, and is smaller with one of them"
)
"""In MiB, on an H200: 760 with both, 742 without cuDNN, 630 without cuBLAS."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A predicted reading with what it came from."""

    reading: Reading
    kept: list[ModuleActivations]
    """By module what forward keeps for backward; empty where it does not fit."""
    workspaces: Workspaces
    """As they were asked for, so that they say what of them had to be estimated."""
    unseen: str | None = None
    """On which operators it rests that were never compared with a GPU's; ``None`` where on none."""


def predict(request: Request, card: Card | None = None, *, torch_version: str = torch.__version__) -> Reading:
    """Predict the memory of one training configuration, in bytes; needs no GPU and starts none.

    ``card`` says where it would run; without one the peaks have no workspaces in them and the
    process is not predicted. ``torch_version`` is the torch it would run with. Raises
    ``ValueError`` with one line for what cannot be built or traced.
    """
    return predict_in_full(request, card, torch_version=torch_version).reading


def predict_in_full(
    request: Request,
    card: Card | None = None,
    *,
    torch_version: str = torch.__version__,
    workload: Workload | None = None,
    traces: Sequence[Trace] | None = None,
) -> Prediction:
    """Predict as ``predict`` does; return the reading with the activations by module and the workspaces.

    ``workload`` is what is trained; by default, what the request names. ``traces`` are those of its GPUs, as
    the card runs them, where they were made already.
    """
    if card is not None and (why_not := why_not_predicted_on(card, request)):
        raise ValueError(why_not)
    started = time.perf_counter()
    version = version_of(torch_version)
    workspaces = workspaces_on(card, version)
    asked: dict[str, Any] = {"workload": workload, "attention": attention_on(card, version)}

    def predicted(traced: Trace) -> Prediction:
        return _predicted(traced, workspaces, request=request, card=card, version=version, started=started)

    if request.gpus == 1:
        return predicted(traces[0] if traces else trace_run(request, **asked))
    communicator = None if card is None else communicator_bytes(card, request.gpus, version)
    card = None if card is None else card_among(card, request.gpus, version)
    traces = traces or trace_ranks(request, **asked)
    found = {key: predicted(one) for key, one in {id(one): one for one in traces}.items()}
    ranks = [
        of_rank(found[id(one)].reading, bucket_bytes=one.bucket_bytes, communicator_bytes=communicator)
        for one in traces
    ]
    reading = replace(as_one(ranks), seconds=time.perf_counter() - started)
    if request.parallel == FSDP2 and (traced_with := version_of(installed_torch())) != version:
        why = FSDP_OF_HERE.format(*traced_with)
        reading = replace(reading, unread=dict.fromkeys(PEAKS, why) | reading.unread)
    fullest = max(found.values(), key=lambda one: one.reading.peak_reserved_bytes or 0)
    return Prediction(reading=reading, kept=fullest.kept, workspaces=workspaces, unseen=fullest.unseen)


def _predicted(
    traced: Trace,
    workspaces: Workspaces,
    *,
    request: Request,
    card: Card | None,
    version: Version,
    started: float,
) -> Prediction:
    """Predict what a traced step holds on a card, of which the workspaces are known."""
    room = None if card is None else card.room_bytes
    runs = [traced, *(replace(traced, events=events) for events in traced.otherwise)]
    simulations = [simulate(run, workspaces, room) for run in runs]
    if simulations[0].peak is None:  # it ended early: ask for the rest too, to know what would be estimated
        for action, what, more in traced.events:
            if action == tape.WORKSPACE:
                workspaces.of(what, *more)
    unseen = rests_on(traced.uncompared)
    too_low = most_too_low(request, workspaces, card, version, unseen=unseen)
    fits, reason = _fits(traced, simulations[0], workspaces, card, too_low)
    for run, simulation in zip(runs[1:], simulations[1:], strict=True):
        if fits:
            fits, reason = _fits(run, simulation, workspaces, card, too_low)
            if not fits:
                fits, reason = None, f"it depends on {traced.why_otherwise}: {reason}"
    kept = by_module(simulations[0].kept if fits is not False else [])
    reading = _reading(traced, simulations, workspaces, card, kept, fits=fits, reason=reason, started=started)
    return Prediction(reading=reading, kept=kept, workspaces=workspaces, unseen=unseen)


def _likely(sizes: Sequence[int]) -> tuple[int, int] | None:
    """Return the least and the most, where they differ."""
    return (min(sizes), max(sizes)) if len(set(sizes)) > 1 else None


def _fits(
    traced: Trace, simulation: Simulation, workspaces: Workspaces, card: Card | None, too_low: float
) -> tuple[bool | None, str | None]:
    """Return whether it fits, and the reason where it does not or where that cannot be said.

    ``too_low`` is the share by which such predictions may be too low: where what is missing would not fit on
    top, nothing is said to fit.
    """
    if simulation.peak is None:
        return False, simulation.out_of_memory_in
    if card is None:
        return None, NO_CARD
    if workspaces.estimated is not Estimated.NOT_AT_ALL:
        # Given the room that is left in the worst case that is likely; of a measured card there is one case.
        worst = card.likely_room_bytes[0]
        reserved = simulation.allocator.peak_reserved_bytes
        if too_low and reserved > (1 - too_low) * worst:
            estimated = workspaces.why_estimated or rests_on(traced.uncompared) or NO_RUN
            return None, (
                f"{gb(reserved, 2)} of {gb(worst, 2)} would be reserved, but {estimated}, and "
                f"such predictions were up to {100 * too_low:.0f} % too low"
            )
        if worst == card.room_bytes or simulate(traced, workspaces, worst).peak is not None:
            return True, None
    unknown = [
        f"{name} ({why}; likely {range_mb(low, high)})"
        for name, why, (low, high) in (
            ("the CUDA context", card.why_unmeasured, card.context_range_bytes),
            ("what the driver keeps", NOT_MEASURED, card.driver_range_bytes),
        )
        if low != high
    ]
    if workspaces.estimated is Estimated.NOT_AT_ALL:
        unknown.append(f"cuDNN's workspaces ({workspaces.why_estimated})")
    peak, total = simulation.peak.allocated_bytes, card.total_bytes
    *most, last = unknown
    listed = " and ".join(filter(None, (", ".join(most), last)))
    return None, f"at least {mb(peak, 0)} of {mb(total, 0)} are allocated, without {listed}"


def _reading(
    traced: Trace,
    simulations: Sequence[Simulation],
    workspaces: Workspaces,
    card: Card | None,
    kept: list[ModuleActivations],
    *,
    fits: bool | None,
    reason: str | None,
    started: float,
) -> Reading:
    simulation = simulations[0]
    unread: dict[str, str] = {} if fits is not None or reason is None else {"fits": reason}
    likely = None
    context = None if card is None else card.context_bytes
    if card is not None and simulation.peak is not None and CUDNN not in traced.libraries:
        context = card.context_without_cudnn_bytes
    if card is None:
        unread |= dict.fromkeys(("process_bytes", "context_bytes", "workspace_bytes"), NO_CARD)
    elif card.context_bytes is None:
        likely = card.context_range_bytes
        unread["context_bytes"] = f"{card.why_unmeasured}; likely {range_mb(*likely)}"
        unread["process_bytes"] = f"reserved and the context, which is {unread['context_bytes']}"
    elif context is None or (simulation.peak is not None and CUBLAS not in traced.libraries):
        context = card.context_bytes
        unread |= dict.fromkeys(("process_bytes", "context_bytes"), FEWER_LIBRARIES)
    if card is not None and workspaces.why_estimated is not None:
        unread["workspace_bytes"] = workspaces.why_estimated
    if card is None or workspaces.estimated is Estimated.NOT_AT_ALL:
        unread["peak_allocated_bytes"] = f"at least this: {NO_WORKSPACES}"
        unread["peak_reserved_bytes"] = NO_WORKSPACES
    if (unseen := rests_on(traced.uncompared)) is not None:
        unread.setdefault("peak_allocated_bytes", unseen)
    allocated = _likely([one.peak.allocated_bytes for one in simulations if one.peak])
    reserved = _likely([one.allocator.peak_reserved_bytes for one in simulations if one.peak])
    for name, sizes in (("peak_allocated_bytes", allocated), ("peak_reserved_bytes", reserved)):
        if sizes is not None:
            likely_sizes = f"likely {mb_number(sizes[0])} to {mb(sizes[1])}"
            unread.setdefault(name, f"depends on {traced.why_otherwise}; {likely_sizes}")
    if reserved is not None and context is not None:
        unread.setdefault("process_bytes", f"reserved, and this with it, depends on {traced.why_otherwise}")
    known: dict[str, Any] = {
        "source": "predicted",
        "fits": fits,
        "reason": reason if fits is False else None,
        **traced.counted,
        "context_likely_bytes": likely,
        "steps_before_reading": trace.STEPS - 1,
        "seconds": time.perf_counter() - started,
        "unread": unread,
    }
    if simulation.peak is None:
        return Reading(**known)
    peaks = simulation.phase_peak_bytes
    most = simulation.allocator.peak_reserved_bytes
    return Reading(
        **known,
        activation_bytes=simulation.kept_bytes,
        kept_by_modules=alike_together(kept),
        first_step_peak_allocated_bytes=simulation.first_step_peak_bytes,
        peak_allocated_bytes=simulation.peak.allocated_bytes,
        peak_reserved_bytes=most,
        peak_allocated_likely_bytes=allocated,
        peak_reserved_likely_bytes=reserved,
        peak_moment=max(peaks, key=lambda phase: peaks[phase]),
        phase_peak_bytes=peaks,
        leaked_bytes=simulation.leaked_bytes,
        process_bytes=None if context is None else most + context,
        process_bytes_from="prediction",
        context_bytes=context,
        ledger=replace(simulation.peak.ledger, context_bytes=context),
    )
