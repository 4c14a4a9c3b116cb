"""Answer 5: what each way to save memory buys in bytes, and costs in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from stepcost.catalog.savers import PLAIN, SAVERS
from stepcost.report.answers.memory import unknown
from stepcost.report.rows import (
    CONFIGURATION,
    Row,
    configuration,
    is_search,
    memory_figure,
    of_question,
    source_of,
)
from stepcost.report.said import Said
from stepcost.report.tables import Table
from stepcost.report.throttle import in_caption, throttled_note
from stepcost.units import BYTES_NOTE, count, listed, mb, mb_number, percent, significant

PARTS = {
    "parameters": ("parameter_bytes", "buffer_bytes"),
    "gradients": ("gradient_bytes",),
    "state": ("optimizer_state_bytes",),
    "activations": ("activation_bytes", "input_bytes"),
    "workspace": ("workspace_bytes",),
    "slack": ("slack_bytes",),
}
"""Parts of the ledger that add up to reserved memory; the small ones with what they belong to."""
FIGURES = {"peak_reserved_bytes": "reserved", "process_bytes": "process"}
CHANGED = {"saver", *(name for row in SAVERS.values() for name in row.fields)}
"""What differs between a step with a way to save memory and the plain one."""
NOTHING = "?"


class Steps(NamedTuple):
    """The plain step, and those with a way to save memory, as they were asked for."""

    plain: Row
    others: list[Row]
    largest: dict[str, Row]
    """The search for the largest batch of each, by its name."""

    @property
    def all(self) -> list[Row]:
        """The rows of all steps, the plain one first."""
        return [self.plain, *self.others]


def steps_of(rows: list[Row]) -> Steps | None:
    """Return the steps of question 5 of one configuration: measured, else the one with most; or ``None``."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in of_question(rows, "5"):
        if row.get("saver"):
            key = tuple(row.get(name) for name in CONFIGURATION if name not in CHANGED)
            found.setdefault(key, []).append(row)
    asked = []
    for group in found.values():
        steps = {row["saver"]: row for row in reversed(group) if not is_search(row)}
        plain = steps.pop(PLAIN, None)
        if plain is not None:
            largest = {row["saver"]: row for row in group if is_search(row)}
            asked.append(Steps(plain, list(steps.values())[::-1], largest))
    return min(asked, key=lambda one: (one.plain.get("source") != "measured", -len(one.others)), default=None)


def by_saver(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """5: what each way to save memory leaves of the plain step's memory, and what its step takes longer."""
    steps = steps_of(rows)
    if steps is None:
        return Said("No row of this run answers it (--savers all compares them).", "skipped")
    figure = memory_figure(steps.all)
    used = [*steps.all, *steps.largest.values()]
    table = _table(steps)
    if figure is None or steps.plain.get("fits") is False or not steps.others:
        why = "the plain step does not fit" if steps.plain.get("fits") is False else "no memory was read"
        text = f"Nothing can be compared: {why if steps.others else 'the plain step alone was read'}."
        return Said(text, source_of(used), table)
    return Said(f"{_compared(steps, *figure)}{_failed(steps.others)}", source_of(used), table)


def _compared(steps: Steps, field: str, word: str) -> str:
    """Say which way saves most of that figure, then what the others save."""
    usual, fitting = steps.plain[field], [row for row in steps.others if row.get("fits") is not False]
    less = sorted((row for row in fitting if row[field] < usual), key=lambda row: row[field])
    more = [row["saver"] for row in fitting if row not in less]
    of = f"{configuration(steps.plain)}{unknown(steps.all, 'saver')}"
    if not less:
        return f"None saves any of the {mb(usual)} of {word} memory of the plain step, {of}."
    first, *others = less
    share = percent(1 - first[field] / usual)
    text = (
        f"{first['saver']} saves most {word} memory, {mb(usual - first[field])} or {share} of the plain "
        f"step's {mb(usual)}{_cost(first, steps.plain)}: {of}."
    )
    if others:
        saved = [f"{row['saver']} {mb(usual - row[field])}{_cost(row, steps.plain)}" for row in others]
        text += f" The others save: {listed(saved)}."
    return f"{text} No less memory: {listed(more)}." if more else text


def _failed(rows: list[Row]) -> str:
    failed = [row["saver"] for row in rows if row.get("fits") is False]
    return f" Out of memory: {listed(failed)}." if failed else ""


def step_s(row: Row) -> float | None:
    """Return the median seconds of a step; ``None`` where none was timed."""
    if row.get("timed") != "training step" or row.get("fits") is False:
        return None
    return (row.get("stats") or {}).get("median") or None


def times_plain(row: Row, plain: Row) -> float | None:
    """Return how many times as long as the plain step a step takes, if both were timed."""
    took, usual = step_s(row), step_s(plain)
    return took / usual if took and usual else None


def _cost(row: Row, plain: Row) -> str:
    """Say `` (in 1.27 times the time)``, where both were timed."""
    ratio = times_plain(row, plain)
    return "" if ratio is None else f" (in {significant(ratio)} times the time)"


def _table(steps: Steps) -> Table:
    """Tell what the plain step holds, then what each way saves of it, part by part."""
    columns: dict[str, list[str]] = {
        "step": [PLAIN, *(row["saver"] for row in steps.others)],
        **{
            name: [_held(steps.plain, name), *(_saved(row, steps.plain, name) for row in steps.others)]
            for name in PARTS
        },
        **{name: [_figure(row, field) for row in steps.all] for field, name in FIGURES.items()},
        "peak in": [row.get("peak_moment") or NOTHING for row in steps.all],
        "step ms": [_ms(row) for row in steps.all],
        "x plain": [_ratio(row, steps.plain) for row in steps.all],
        "largest batch": [_largest(steps.largest.get(row["saver"])) for row in steps.all],
    }
    shown = {name: cells for name, cells in columns.items() if set(cells) != {NOTHING}}
    more = "; x plain: times as long as its step" if "x plain" in shown else ""
    if "largest batch" in shown:
        more += "; largest batch: 4 x 12 is 4 micro-batches of 12"
        if any(row.get("largest_batch_rests_on") for row in steps.largest.values()):
            more += ", estimated"
    return Table(
        caption=f"What each way saves of the plain step: {configuration(steps.plain)}; "
        f"{source_of(steps.all)}; in {BYTES_NOTE}, each at its own peak. {PLAIN}: what it holds; below it "
        f"what is saved of that, less than 0 where more is held. Reserved and process: what is held{more}"
        + in_caption(throttled_note(steps.all, lambda row: str(row["saver"]))),
        columns=tuple(shown),
        rows=tuple(zip(*shown.values(), strict=True)),
    )


def _size(row: Row, part: str) -> int | None:
    """Bytes of a part of the ledger; ``None`` where its main field was not read."""
    ledger = row.get("ledger") or {}
    sizes = [ledger.get(field) for field in PARTS[part]]
    return None if sizes[0] is None else sum(size or 0 for size in sizes)


def _held(row: Row, part: str) -> str:
    size = _size(row, part)
    return NOTHING if size is None else mb_number(size)


def _saved(row: Row, plain: Row, part: str) -> str:
    size, usual = _size(row, part), _size(plain, part)
    return NOTHING if size is None or usual is None else _change(usual - size)


def _change(size_bytes: int) -> str:
    number = mb_number(size_bytes)
    return number.removeprefix("-") if number == "-0.0" else number


def _figure(row: Row, field: str) -> str:
    if row.get(field) is not None:
        return mb_number(row[field])
    return "out of memory" if row.get("fits") is False else NOTHING


def _ms(row: Row) -> str:
    took = step_s(row)
    return NOTHING if took is None else significant(took * 1000)


def _ratio(row: Row, plain: Row) -> str:
    ratio = times_plain(row, plain)
    return NOTHING if ratio is None else significant(ratio)


def _largest(search: Row | None) -> str:
    if search is None:
        return NOTHING
    parts = search.get("accumulate") or 1
    times = f"{count(parts)} x " if parts > 1 else ""
    for name, word in (
        ("largest_batch", ""),
        ("largest_batch_at_least", "at least "),
        ("largest_batch_at_most", "at most "),
    ):
        if search.get(name) is not None:
            return f"{word}{times}{count(search[name])}"
    return NOTHING
