"""Where a session's time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Costs:
    """Seconds by part of the work."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = {}

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Add the time spent inside to ``part``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.parts.setdefault(part, []).append(time.perf_counter() - start)

    def table(self) -> list[dict[str, Any]]:
        """Return the parts with their seconds and how often they ran, costliest first."""
        rows = [
            {"part": part, "seconds": sum(spent), "times": len(spent)} for part, spent in self.parts.items()
        ]
        return sorted(rows, key=lambda row: -row["seconds"])
