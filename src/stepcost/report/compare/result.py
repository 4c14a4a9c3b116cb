"""What a comparison finds, as frozen objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["worse", "better", "same", "undecided", "shown"]
"""``undecided``: the noise would hide the smallest effect that matters. ``shown``: not gated, and ``why``."""

BUILD = {
    "gpu": "GPU",
    "compute_capability": "compute capability",
    "gpu_total_bytes": "GPU memory",
    "driver": "driver",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "torch": "torch",
    "torchvision": "torchvision",
    "cpu": "processor",
    "python_version": "Python",
}
"""What makes a machine and build, with a word for each: repetitions share all of it."""
ONE_SIDE_ONLY = "read on one side only"


class CannotCompareError(Exception):
    """Two sides that have nothing to say of each other; its text is one line that says why."""


@dataclass(frozen=True)
class Change:
    """One figure of one row, on both sides."""

    row: str
    question: str | None
    figure: str
    """Name as stored; its suffix is its unit: ``_bytes``, ``_s``."""
    base: float | None
    new: float | None
    verdict: Verdict
    why: str
    interval: tuple[float, float] | None = None
    """Of new over base, at 95 %, where the figure is noisy."""
    would_catch: float | None = None
    """Smallest slow-down, as a share, that this comparison would have caught in 95 % of cases."""

    @property
    def ratio(self) -> float | None:
        """New over base; ``None`` where a side has no figure or the base is zero."""
        return self.new / self.base if self.base and self.new is not None else None

    @property
    def is_beyond_noise(self) -> bool:
        """Whether the sides differ, by more than their noise where the figure is noisy."""
        if self.interval is None:
            return self.base != self.new
        return not self.interval[0] <= 1 <= self.interval[1]

    @property
    def is_time(self) -> bool:
        """Whether it is a time, or a ratio of times."""
        return self.figure.endswith(("_s", "_ratio"))

    @property
    def is_no_longer_read(self) -> bool:
        """Whether the base has the figure and the new side, whose row fits, lacks it."""
        return self.why == ONE_SIDE_ONLY and self.base is not None


@dataclass(frozen=True)
class Unmatched:
    """A row that only one side has."""

    row: str
    differs: str | None
    """In what the most similar row of the other side differs, if in little."""


@dataclass(frozen=True)
class BusyPair:
    """A step's time on two machines with the share of it that the GPU works."""

    row: str
    base_s: float
    new_s: float
    base_busy_share: float | None
    new_busy_share: float | None


@dataclass(frozen=True)
class OperatorPair:
    """What an operator takes of a step that changed, on both sides; measured."""

    row: str
    operator: str
    """Or what lies between kernels: the step less its operators."""
    base_s: float | None
    new_s: float | None
    """``None`` where a side's step has no such operator."""
    growth_s: float


@dataclass(frozen=True)
class Comparison:
    """Everything that a comparison of two sides found."""

    base: tuple[str, ...]
    new: tuple[str, ...]
    """Labels of the runs."""
    base_machine: Mapping[str, Any]
    new_machine: Mapping[str, Any]
    changes: tuple[Change, ...]
    added: tuple[Unmatched, ...]
    gone: tuple[Unmatched, ...]
    gone_is_worse: bool
    notes: tuple[str, ...] = ()
    busy: tuple[BusyPair, ...] = field(default=(), repr=False)
    operators: tuple[OperatorPair, ...] = field(default=(), repr=False)
    """Of steps that changed beyond noise, what they changed by."""

    def of(self, *verdicts: Verdict) -> list[Change]:
        """Return changes with one of these verdicts, the largest growth first."""
        chosen = [change for change in self.changes if change.verdict in verdicts]
        return sorted(chosen, key=lambda change: -(change.ratio or float("inf")))

    def no_longer_read(self) -> list[Change]:
        """Figures that the base has and the new side, whose rows fit, lacks."""
        return [change for change in self.changes if change.is_no_longer_read]

    @property
    def is_worse(self) -> bool:
        """Whether anything that is gated got worse."""
        return bool(self.of("worse")) or (self.gone_is_worse and bool(self.gone))
