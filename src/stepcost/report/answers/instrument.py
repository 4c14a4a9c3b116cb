"""The answer about the instrument: what measuring itself costs, and how far its readings repeat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepcost.report.rows import Row, having, of_question, source_of
from stepcost.report.said import NOT_ASKED, Said
from stepcost.units import listed, ms, percent, seconds


def cost_of_measuring(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """Say what the process border adds, how fresh processes differ, what a start takes, what faults show."""
    asked = of_question(rows, "instrument")
    parts = [
        f"The border between processes adds {ms(row['border_s'])} to a step ({percent(row['border_share'])})."
        for row in having(asked, "border_s", "border_share")
    ]
    spread = [
        f"{percent(row['spread_share'])} ({row.get('engine') or 'engine not stored'})"
        for row in having(asked, "spread_share")
    ]
    if spread:
        parts.append(f"The same step in fresh processes differs by {listed(spread)}.")
    parts += [
        f"A configuration starts in {seconds(row['warm_start_s'])}, "
        f"a fresh interpreter in {seconds(row['fresh_start_s'])}."
        for row in having(asked, "warm_start_s", "fresh_start_s")
    ]
    for row in having(asked, "busy_shares"):
        busy = [f"{percent(share)} ({name})" for name, share in row["busy_shares"].items()]
        parts.append(f"With and without planted faults the GPU is busy for {listed(busy)} of a step.")
    return Said(" ".join(parts), source_of(having(asked, "source"))) if parts else NOT_ASKED
