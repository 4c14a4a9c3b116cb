"""What a training step of one's own costs: figures that say so where they are not known as numbers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from typing import Any

from stepcost.reading import Reading
from stepcost.units import BYTES_NOTE, mb


class NotKnown(LookupError):
    """A figure that cannot be given as a number; the message says why, and what can be had instead."""


class EstimateWarning(UserWarning):
    """A figure that was asked for rests on an estimate."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one training step costs: every figure of its reading, by the reading's names.

    ``cost.peak_reserved_bytes`` is that figure in bytes. A figure that is not known as a number raises
    ``NotKnown``, and one that rests on an estimate warns (``EstimateWarning``): no bound passes for a figure.
    ``cost.reading`` has all of it as it is, with the reasons in ``cost.reading.unread``.
    """

    reading: Reading
    gpu: str | None
    """The GPU that was measured, or the card that is predicted for; ``None``: no card in particular."""
    build: dict[str, str | None]
    """What it was measured with, or predicted for: ``torch``; where measured also ``cudnn``, ``cuda``,
    ``driver`` and ``compute_capability``."""
    rests_on: str
    """For a prediction, what predictions were compared with; for a measurement, that it is one."""
    parameters_by_module: dict[str, int]
    """Bytes of each module's own parameters, by its path; shared ones count where they come first."""

    def __getattr__(self, name: str) -> Any:
        """Return a figure of the reading; raises ``NotKnown`` where it is not known."""
        if name.startswith("_") or name not in _FIGURES:
            raise AttributeError(f"a cost has no {name!r}; it has {', '.join(_FIGURES)}")
        value, why = getattr(self.reading, name), self.reading.unread.get(name)
        if name == "fits" and value is not None:
            return value
        if self.reading.fits is False and value is None:
            raise NotKnown(f"{name}: the step does not fit: {self.reading.reason}")
        if why is not None:
            bound = "" if value is None else f" (cost.reading.{name}, {value:,}, is a bound)"
            raise NotKnown(f"{name} on {self.gpu or 'no card'}: {why}{bound}")
        estimated = self.reading.unread.get("workspace_bytes")
        if estimated is not None and name in _WITH_WORKSPACES:
            warnings.warn(f"{name} is an estimate: {estimated}", EstimateWarning, stacklevel=2)
        return value

    def __str__(self) -> str:
        """Say the peaks in a line: measured or predicted, where, with which torch; MB is 10**6 bytes."""
        reading = self.reading
        how = "measured on" if reading.source == "measured" else "predicted for"
        where = f"{how} {self.gpu or 'no card in particular'}, torch {self.build['torch']}"
        if reading.fits is False:
            return f"does not fit: {reading.reason} ({where})"
        peaks = (("reserved", reading.peak_reserved_bytes), ("allocated", reading.peak_allocated_bytes))
        bound = "at least " if "peak_reserved_bytes" in reading.unread else ""
        said = ", ".join(f"{name} {bound}{mb(size)}" for name, size in peaks if size is not None)
        return f"peak {said} ({where}; {BYTES_NOTE})"


_FIGURES = tuple(one.name for one in fields(Reading) if one.name not in ("unread", "schema_version"))
_WITH_WORKSPACES = ("peak_allocated_bytes", "peak_reserved_bytes", "process_bytes", "ledger")
