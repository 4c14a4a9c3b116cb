"""What a comparison finds, as plain frozen objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from stepcost.report.compare import tolerances as memory

Verdict = Literal["worse", "better", "same", "undecided", "shown"]
"""``undecided``: the noise would hide the smallest effect that matters. ``shown``: not gated, and ``why``."""

SMALLEST_EFFECT = 0.05
FALSE_ALARM = 0.005
"""Half of the 1 % that is promised: process medians have heavier tails than Student's test assumes."""


class CannotCompareError(Exception):
    """Two sides that have nothing to say of each other; its text is one line that says why."""


@dataclass(frozen=True)
class Rules:
    """What is gated, and how closely."""

    memory: tuple[memory.FieldRule, ...] = memory.DEFAULT_RULES
    smallest_effect: float = SMALLEST_EFFECT
    """Share by which a step must be slower to matter."""
    false_alarm: float = FALSE_ALARM
    """Probability of any false alarm on times in one comparison of whole runs."""
    gone_is_worse: bool = True
    gate_time: bool = True


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

    def of(self, *verdicts: Verdict) -> list[Change]:
        """Changes with one of these verdicts, the largest growth first."""
        chosen = [change for change in self.changes if change.verdict in verdicts]
        return sorted(chosen, key=lambda change: -(change.ratio or float("inf")))

    @property
    def is_worse(self) -> bool:
        """Whether anything that is gated got worse."""
        return bool(self.of("worse")) or (self.gone_is_worse and bool(self.gone))
