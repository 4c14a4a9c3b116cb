"""What one training configuration costs, as frozen plain data in bytes and seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from stepcost.ledger import Ledger
from stepcost.schema import REQUIRED, Change, stored

SCHEMA_VERSION = 1
"""Raised when a stored name changes its meaning; ``docs/schema.md`` says what each one means."""

FORWARD = "forward"
BACKWARD = "backward"
OPTIMIZER_STEP = "optimizer step"
PHASES = (FORWARD, BACKWARD, OPTIMIZER_STEP)
"""The phases of a training step, in order."""
ALLOCATED_LIKELY = (
    "in a predicted row, where time decides whether memory is given back before more is taken: from and to"
)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Memory of a process at one named moment, in bytes."""

    moment: str = stored(
        "`first allocation`, `communicator` (of several GPUs: NCCL has joined them), `model loaded` or "
        "`training step`",
        default=REQUIRED,
    )
    process_bytes: int | None = stored("memory of the process on the GPU")
    reserved_bytes: int | None = stored("segments that the allocator holds")
    context_bytes: int | None = stored("`process_bytes` less `reserved_bytes`")


@dataclass(frozen=True, kw_only=True)
class ModulesKept:
    """What alike modules keep for backward, together."""

    module: str = stored(
        "path of the module, with `*` for the number that alike ones differ in: `layers.*.mlp.fc1`",
        default=REQUIRED,
    )
    class_name: str = stored("its class", default=REQUIRED)
    modules: int = stored("how many they are", default=REQUIRED)
    kept_bytes: int = stored("what they keep, in all", default=REQUIRED)


@dataclass(frozen=True, kw_only=True)
class Rank:
    """What one of several GPUs holds: of a reading, what differs between them."""

    parameter_bytes: int | None = stored("its parameters, or its parts of them")
    gradient_bytes: int | None = stored("the same of gradients")
    optimizer_state_bytes: int | None = stored("the same of the optimizer's state")
    bucket_bytes: int | None = stored("buckets in which DDP sums gradients; null without DDP")
    activation_bytes: int | None = stored("what forward leaves allocated")
    peak_allocated_bytes: int | None = stored("highest allocated memory in a steady step")
    peak_reserved_bytes: int | None = stored("highest reserved memory, read with the former")
    peak_allocated_likely_bytes: tuple[int, ...] | None = stored(ALLOCATED_LIKELY)
    peak_reserved_likely_bytes: tuple[int, ...] | None = stored("the same of reserved memory")
    process_bytes: int | None = stored("memory of its process after the training steps")
    context_bytes: int | None = stored("that less what is reserved")
    communicator_bytes: int | None = stored(
        "by how much the context grew when NCCL joined the GPUs and did each of its collectives once"
    )
    ledger: Ledger | None = stored("where every byte is at the moment of its peak")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Memory of one training configuration, read in (or predicted for) a fresh process.

    ``None`` means 'could not be read', and ``unread`` maps the field's name to the reason.
    """

    source: str = stored("`measured` or `predicted`", identifies=True, default=REQUIRED)
    fits: bool | None = stored(
        "false where it ran (or would run) out of memory, and `reason` says how; such a row has no bytes. "
        "In a predicted row null where that cannot be said, and `unread` says why",
        default=REQUIRED,
    )
    reason: str | None = stored("where it does not fit: what ran out of memory, and in which phase")
    parameters: int | None = stored("count of all parameters, trainable or frozen")
    trainable_parameters: int | None = stored("count of those that require a gradient")
    frozen_parameters: int | None = stored("count of those that do not")
    parameter_bytes: int | None = stored(
        "sum over all parameters of elements times element size", gated=True, follows="shapes"
    )
    trainable_parameter_bytes: int | None = stored("the same of the trainable ones", follows="shapes")
    buffer_bytes: int | None = stored(
        "the same of the buffers (batch-norm statistics)", gated=True, follows="shapes"
    )
    gradient_bytes: int | None = stored(
        "bytes of the `.grad` tensors after a training step", gated=True, follows="shapes"
    )
    without_gradient_bytes: int | None = stored(
        "bytes of the trainable parameters that got no gradient in the step, such as auxiliary heads",
        follows="shapes",
    )
    optimizer_state_bytes: int | None = stored(
        "bytes of the optimizer's state tensors: of the shape of their parameter, factors of it (Adafactor), "
        "scales of its blocks and the table of codes that all share (8-bit)",
        gated=True,
        follows="shapes",
    )
    optimizer_scalar_bytes: int | None = stored(
        "bytes of the optimizer's state tensors of one number (step counters), wherever they live"
    )
    input_bytes: int | None = stored(
        "tensors of one batch on the device: images and labels, tokens", follows="shapes"
    )
    activation_bytes: int | None = stored(
        "allocated after the forward pass less allocated before it: kept for backward", gated=True
    )
    kept_by_modules: tuple[ModulesKept, ...] | None = stored(
        "`activation_bytes` by the modules that made them, most first, alike ones together"
    )
    checkpointed_modules: dict[str, int] | None = stored(
        "path of the modules that are computed again in backward, with `*` for numbers as in "
        "`kept_by_modules`, to how many they are"
    )
    first_step_peak_allocated_bytes: int | None = stored(
        "peak of the first step alone, which lies: optimizer state is not there yet"
    )
    peak_allocated_bytes: int | None = stored(
        "highest allocated memory in a steady training step; in rows of question 4, of the prepared engine "
        "(a captured step with its pool) after the cached blocks of the warm-up were returned",
        gated=True,
    )
    peak_reserved_bytes: int | None = stored(
        "highest reserved memory (segments held by the caching allocator), read with the former", gated=True
    )
    peak_allocated_likely_bytes: tuple[int, ...] | None = stored(ALLOCATED_LIKELY)
    peak_reserved_likely_bytes: tuple[int, ...] | None = stored("the same of reserved memory")
    peak_moment: str | None = stored(
        "the phase whose peak is highest: `forward`, `backward` or `optimizer step`"
    )
    phase_peak_bytes: dict[str, int] | None = stored("those three names to the peak of allocated in each")
    leaked_bytes: Change | None = stored(
        "allocated after a steady step less allocated after the step before it: 0 unless something leaks"
    )
    process_bytes: int | None = stored(
        "memory of this process on the GPU after the training steps", gated=True, follows="driver"
    )
    process_bytes_from: str | None = stored(
        "`nvml process`, `nvml device difference` (from an idle baseline) or `prediction`"
    )
    context_bytes: int | None = stored(
        "`process_bytes` less reserved, after the training steps", follows="driver"
    )
    context_likely_bytes: tuple[int, ...] | None = stored(
        "in a predicted row, where the card's context was never measured: from and to, if it is as on "
        "cards where it was"
    )
    moments: tuple[Moment, ...] = stored("the context on the way to the reading, in order", default=())
    ledger: Ledger | None = stored(
        "where every byte is at the moment of the peak. The first eight parts add up to "
        "`peak_allocated_bytes`, with `slack_bytes` to reserved, with `context_bytes` to the process"
    )
    ranks: tuple[Rank, ...] = stored(
        "of several GPUs, in order. The row's own figures are of the rank that reserves most, the first "
        "of them",
        default=(),
    )
    steps_before_reading: int | None = stored("training steps taken before the steady step that is read")
    seconds: float | None = stored("what it took to obtain this reading, from request to answer")
    unread: dict[str, str] = stored(
        "name of a field to the reason why it is null, a bound or an estimate. In predicted rows "
        "`workspace_bytes` says which workspaces the table lacks",
        default={},
    )
    schema_version: int = stored("version of this page", default=SCHEMA_VERSION)

    @property
    def tensor_bytes(self) -> int | None:
        """Live tensors at the end of the forward pass: parameters, buffers, state, inputs, activations.

        Gradients are not among them (a step drops the old ones first, and makes the new ones
        while it frees activations), and neither is any workspace: unlike the peak, this figure
        grows with the batch.
        """
        parts = (
            self.parameter_bytes,
            self.buffer_bytes,
            self.optimizer_state_bytes,
            self.input_bytes,
            self.activation_bytes,
        )
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None


def of_rank(reading: Reading, **more: Any) -> Reading:
    """Return the reading of a rank with what it says of ranks, and ``more``, in its ``ranks``."""
    names = {one.name for one in fields(Rank)} & {one.name for one in fields(Reading)}
    return replace(reading, ranks=(Rank(**{name: getattr(reading, name) for name in names}, **more),))


def as_one(readings: Sequence[Reading]) -> Reading:
    """Return the reading of the rank that reserves most, the first of them, with those of all in ``ranks``.

    A rank that does not fit comes first, then one of which that cannot be said. What is unread in any of them
    is in its ``unread``.
    """
    most = max(readings, key=lambda one: (one.fits is False, one.fits is None, one.peak_reserved_bytes or 0))
    unread = {name: why for one in reversed(readings) for name, why in one.unread.items()}
    return replace(
        most,
        ranks=tuple(rank for one in readings for rank in one.ranks),
        seconds=max((one.seconds for one in readings if one.seconds), default=None),
        unread=unread | most.unread,
        peak_allocated_likely_bytes=_range_of_fullest(readings, "peak_allocated"),
        peak_reserved_likely_bytes=_range_of_fullest(readings, "peak_reserved"),
    )


def _range_of_fullest(readings: Sequence[Reading], peak: str) -> tuple[int, int] | None:
    """Return between what the highest of the ranks' peaks likely is; ``None`` where none is a range."""
    likely = [getattr(one, f"{peak}_likely_bytes") for one in readings]
    if not any(likely):
        return None
    peaks = [getattr(one, f"{peak}_bytes") for one in readings]
    ranges = [range_ or (one, one) for range_, one in zip(likely, peaks, strict=True)]
    lows, highs = zip(*(one for one in ranges if None not in one), strict=True)
    return max(lows), max(highs)
