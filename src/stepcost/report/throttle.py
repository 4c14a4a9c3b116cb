"""Which times were taken while the driver held the card's clocks back."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from stepcost.report.rows import Row


def throttle(row: Row) -> str | None:
    """Say why the card was throttled when this row was timed; ``None`` where it was not, or nobody looked."""
    reasons = (row.get("clocks") or {}).get("throttle_reasons") or []
    # Rows from before the field have the reasons only, and those that do not count are not among them.
    held_back = row.get("throttled", bool(reasons))
    return (", ".join(reasons) or "reason not stored") if held_back else None


def throttled_note(rows: Iterable[Row], name: Callable[[Row], str]) -> str:
    """Write ``taken while throttled: batch 64 (power cap)``; nothing where none of the rows was."""
    found = dict.fromkeys(f"{name(row)} ({why})" for row in rows if (why := throttle(row)) is not None)
    return f"taken while throttled: {'; '.join(found)}" if found else ""


def in_caption(note: str) -> str:
    """Write the note as the end of a table's caption."""
    return f"; {note}" if note else ""
