"""What the engine answers: frozen readings of plain data, in bytes and seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from stepcost.ledger import Ledger

SCHEMA_VERSION = 1
"""Raised when a stored name changes its meaning; ``docs/schema.md`` says what each one means."""


FORWARD = "forward"
BACKWARD = "backward"
OPTIMIZER_STEP = "optimizer step"
PHASES = (FORWARD, BACKWARD, OPTIMIZER_STEP)
"""The phases of a training step, in order."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Context memory at one named moment of a process, in bytes.

    ``context_bytes = process_bytes - reserved_bytes``; ``None`` where the
    process figure could not be read (the reading's ``unread`` says why).
    """

    moment: str
    process_bytes: int | None
    reserved_bytes: int
    context_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Memory of one training configuration, read in (or predicted for) a fresh process.

    ``None`` means 'could not be read', and ``unread`` maps the field's name to
    the reason. Names and meanings are those of ``docs/schema.md``.
    """

    source: str
    """``measured`` or ``predicted``."""
    fits: bool
    """False where the configuration ran (or would run) out of memory; ``reason`` says how."""
    parameters: int | None = None
    parameter_bytes: int | None = None
    buffer_bytes: int | None = None
    gradient_bytes: int | None = None
    """Bytes of the ``.grad`` tensors after a training step."""
    optimizer_state_bytes: int | None = None
    """Bytes of the optimizer's state tensors that have their parameter's shape."""
    optimizer_scalar_bytes: int | None = None
    """Bytes of the optimizer's other state tensors (step counters), wherever they live."""
    input_bytes: int | None = None
    activation_bytes: int | None = None
    """Allocated after the forward pass less allocated before it: what is kept for backward."""
    first_step_peak_allocated_bytes: int | None = None
    """Peak of the first step alone: lower than the steady one where state does not exist yet."""
    peak_allocated_bytes: int | None = None
    """Peak of a steady step (the first steps are not counted)."""
    peak_reserved_bytes: int | None = None
    peak_moment: str | None = None
    """``forward``, ``backward`` or ``optimizer step``: the phase whose peak is highest."""
    phase_peak_bytes: dict[str, int] | None = None
    """Peak of allocated memory in each phase of a steady step, keyed as ``peak_moment``."""
    leaked_bytes: int | None = None
    """Allocated after a steady step less allocated after the step before it: 0 unless something leaks."""
    process_bytes: int | None = None
    process_bytes_from: str | None = None
    """How ``process_bytes`` was read: ``nvml process``, ``nvml device difference`` or ``prediction``."""
    context_bytes: int | None = None
    """``process_bytes - reserved`` after the training steps."""
    moments: tuple[Moment, ...] = ()
    ledger: Ledger | None = None
    steps_before_reading: int | None = None
    seconds: float | None = None
    """What it took to obtain this reading, from request to answer."""
    reason: str | None = None
    """Where ``fits`` is false: what ran out of memory, and in which phase."""
    unread: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

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
