"""The end of a run in the lines that a person acts on: what it takes, what fits, what is fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepcost.report.answers.fastest import paces_of
from stepcost.report.opening import card_bytes, memory_of, opening_row
from stepcost.report.rows import (
    EAGER,
    Row,
    optimizer_label,
    own_first,
    searches,
    source_of,
)
from stepcost.row import clean_row
from stepcost.units import GB, count, gb, listed, ms

PARTS_SHOWN = 2
"""Of the parts of a process, the largest."""


def first_lines(
    rows: Sequence[Mapping[str, Any]], machine: Mapping[str, Any], model: str | None = None
) -> list[str]:
    """Say in at most two lines what the rows of a session say; nothing of a stand-in is among them.

    ``machine`` is the session's, ``model`` the one that was asked for. No line where nothing was read.
    """
    cleaned = [clean_row(row) for row in rows if not row.get("stand_in_for")]
    opening = opening_row(cleaned, model)
    own = own_first(cleaned, model)
    more = " · ".join(filter(None, (_largest(own), _fastest(own, machine))))
    return [line for line in (_memory(opening, machine) if opening else "", more) if line]


def _memory(row: Row, machine: Mapping[str, Any]) -> str:
    """``Adam, batch 64: 2.20 of 85.0 GB (context 36 %, optimizer state 21 %), measured``."""
    named = f"{optimizer_label(row['optimizer'])}, batch {count(row['batch_size'])}"
    if row.get("engine") not in (None, EAGER):
        named += f", {row['engine']}"
    if row.get("fits") is False:
        return f"{named}: does not fit, {_source(row)}"
    memory = memory_of(row)
    if memory is None:
        return ""
    total = card_bytes(row, machine)
    size = f"{memory.bytes / GB:,.2f} of {gb(total, 1)}" if total else gb(memory.bytes, 2)
    why = (row.get("unread") or {}).get(memory.field)
    if why is not None:
        size = f"at {'most' if why.startswith('at most') else 'least'} {size}"
    unknown = "" if memory.word == "process" else f" {memory.word}, the context on top is not known"
    if row.get("source") == "predicted" and row.get("fits") is None:
        unknown += ", nor whether it fits" if unknown else ", whether it fits is not known"
    return f"{named}: {size}{unknown}{_parts(row, memory.bytes)}, {_source(row)}"


def _parts(row: Row, whole_bytes: int) -> str:
    """`` (context 36 %, optimizer state 21 %)``: the largest parts of what is held at the peak."""
    known = {name: size for name, size in (row.get("ledger") or {}).items() if size}
    most = sorted(known, key=lambda name: -known[name])[:PARTS_SHOWN]
    said = [
        f"{name.removesuffix('_bytes').replace('_', ' ')} {100 * known[name] / whole_bytes:.0f} %"
        for name in most
    ]
    return f" ({', '.join(said)})" if said else ""


def _largest(rows: list[Row]) -> str:
    row = next(iter(searches(rows)), None)
    found = _bounds(row) if row else ""
    if not row or not found:
        return ""
    with_what = f"{optimizer_label(row['optimizer'])}, " if row.get("optimizer") else ""
    return f"largest batch {found} ({with_what}{_source(row)})"


def _bounds(search: Row) -> str:
    """Say the largest batch, or what bounds it."""
    at_least, at_most = search.get("largest_batch_at_least"), search.get("largest_batch_at_most")
    if search.get("largest_batch") is not None:
        estimated = "estimated " if search.get("largest_batch_rests_on") else ""
        return f"{estimated}{count(search['largest_batch'])}"
    if at_least is not None:
        return f"at least {count(at_least)}"
    likely = [count(size) for size in search.get("largest_batch_likely") or []]
    bounds = [f"at most {count(at_most)}"] if at_most else []
    return listed([*bounds, *([f"likely {' to '.join(likely)}"] if likely else [])])


def _fastest(rows: list[Row], machine: Mapping[str, Any]) -> str:
    pace = min(paces_of(rows), key=lambda one: one.epoch_s, default=None)
    if pace is None or pace.step_s is None:
        return ""
    where = "measured" if machine.get("gpu") else "measured on this CPU"
    return f"fastest batch {count(pace.batch)}, {ms(pace.step_s)} a step ({where})"


def _source(row: Row) -> str:
    return source_of([row]) + (f" for {row['card']}" if row.get("card") else "")
