"""Answers 2a, 2b and 3a: memory by optimizer and by batch size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stepcost.report.rows import (
    Row,
    configuration,
    groups,
    having,
    memory_figure,
    of_question,
    optimizer_label,
    source_of,
)
from stepcost.report.tables import Table
from stepcost.report.units import BYTES_NOTE, count, listed, mb, mb_number

if TYPE_CHECKING:
    from stepcost.report.answers import Said

NOT_ASKED: Said = ("Not asked in this run.", "skipped", None)
SMALL_SHARE = 0.01
"""A smaller part of a difference is not worth a clause."""
WHAT_IS_KEPT = {
    "sgd-momentum": "velocities",
    "adam": "moments",
    "adam-fused": "moments",
    "adamw": "moments",
}
"""What an optimizer's state tensors are called; others keep 'state'."""


def by_optimizer(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """2a: memory in training with each optimizer, all else equal."""
    found = groups(of_question(rows, "2a"), "optimizer")
    if not found:
        return NOT_ASKED
    group = found[0]
    figure = memory_figure(group)
    if figure is None:
        return f"No memory was read: {_why_not(group)}.", source_of(group), _table(group, "optimizer")
    field, word = figure
    parts = [
        f"{optimizer_label(row['optimizer'])} {mb(row[field])}"
        if row.get("fits") is not False
        else f"{optimizer_label(row['optimizer'])} ran out of memory"
        for row in group
    ]
    text = f"{listed(parts)} of {word} memory ({configuration(group[0], 'optimizer')})."
    return text + _others(found), source_of(group), _table(group, "optimizer")


def why_optimizers_differ(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """2b: the state that each update rule keeps, and how much of the difference it explains."""
    found = groups(of_question(rows, "2a"), "optimizer")
    group = found[0] if found else []
    told = having(group, "optimizer_state_bytes", "parameter_bytes")
    figure = memory_figure(told)
    if not told or figure is None:
        return NOT_ASKED if not group else ("The optimizer state was not read.", "skipped", None)
    field, word = figure
    most = max(told, key=lambda row: row[field])
    least = min(told, key=lambda row: row[field])
    kept = [_what_it_keeps(row) for row in told]
    if len(told) == 1:
        return f"Only one optimizer was read: {kept[0]}.", source_of(told), None
    text = f"{optimizer_label(most['optimizer'])} takes the most {word} memory, {mb(most[field])}: "
    text += f"{_what_it_keeps(most)}. "
    others = [_what_it_keeps(row) for row in told if row is not most]
    text += f"{'; '.join(others)}."
    peaks = [row.get("peak_allocated_bytes") for row in (most, least)]
    if None not in peaks and peaks[0] != peaks[1]:
        apart = most["peak_allocated_bytes"] - least["peak_allocated_bytes"]
        state = most["optimizer_state_bytes"] - least["optimizer_state_bytes"]
        text += (
            f" The peaks of {optimizer_label(most['optimizer'])} and {optimizer_label(least['optimizer'])} "
            f"are {mb(apart)} apart, and their state {mb(state)}"
        )
        if most.get("peak_moment"):
            text += f" ({optimizer_label(most['optimizer'])} peaks in the {most['peak_moment']})"
        if abs(apart - state) > SMALL_SHARE * apart:
            text += f"; the other {mb(abs(apart - state))} are what else is alive at the two peaks"
        text += "."
    return text, source_of(told), None


def _what_it_keeps(row: Row) -> str:
    """``Adam keeps 2 x 232.7 MB of moments``."""
    label = optimizer_label(row["optimizer"])
    state, model = row["optimizer_state_bytes"], row["parameter_bytes"]
    if state == 0:
        return f"{label} keeps nothing between steps"
    what = WHAT_IS_KEPT.get(row["optimizer"], "state")
    if model and state % model == 0:
        return f"{label} keeps {state // model} x {mb(model)} of {what}"
    return f"{label} keeps {mb(state)} of {what}"


def by_batch_size(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """3a: memory at each batch size, and the largest batch that trained."""
    asked = of_question(rows, "3a")
    searches = having(asked, "largest_batch")
    sizes = [row for row in asked if row.get("largest_batch") is None and row.get("trials") is None]
    found = groups(sizes, "batch_size")
    sentences, table = [], None
    if found:
        group = found[0]
        table = _table(group, "batch_size")
        figure = memory_figure(group)
        if figure is None:
            sentences.append(f"No memory was read: {_why_not(group)}.")
        else:
            field, word = figure
            parts = [
                f"{mb(row[field])} at batch {count(row['batch_size'])}"
                if row.get("fits") is not False
                else f"out of memory at batch {count(row['batch_size'])}"
                for row in group
            ]
            text = f"{listed(parts)} of {word} memory ({configuration(group[0], 'batch_size')})."
            sentences.append(text[0].upper() + text[1:] + _others(found))
    sentences += [_largest(search) for search in searches[:1]]
    if not sentences:
        return NOT_ASKED
    if not searches:
        sentences.append("The largest batch was not searched for in this run.")
    return " ".join(sentences), source_of([*(found[0] if found else []), *searches]), table


def _largest(search: Row) -> str:
    verb = "would train" if search.get("source") == "predicted" else "trained"
    text = f"The largest batch that {verb} is {count(search['largest_batch'])}"
    if search.get("smallest_batch_that_fails") is not None:
        text += f"; {count(search['smallest_batch_that_fails'])} did not fit"
    if search.get("largest_batch_at_full_speed") is not None:
        text += (
            f"; the largest within 5 % of the best images per second is "
            f"{count(search['largest_batch_at_full_speed'])}"
        )
    if search.get("trials"):
        text += f" ({len(search['trials'])} batch sizes tried)"
    return f"{text}, {source_of([search])}."


def _table(group: list[Row], varying: str) -> Table:
    fields = (
        ("tensor_bytes", "tensors"),
        ("peak_allocated_bytes", "allocated"),
        ("peak_reserved_bytes", "reserved"),
        ("context_bytes", "context"),
        ("process_bytes", "process"),
    )

    def cell(row: Row, field: str) -> str:
        if row.get(field) is not None:
            return mb_number(row[field])
        return "out of memory" if row.get("fits") is False else "not read"

    def label(row: Row) -> str:
        return optimizer_label(row["optimizer"]) if varying == "optimizer" else count(row["batch_size"])

    return Table(
        caption=f"Memory by {varying.replace('_', ' ')}: {configuration(group[0], varying)}; "
        f"{source_of(group)}; in {BYTES_NOTE}, allocated and reserved at their peaks",
        columns=(varying.replace("_", " "), *(word for _, word in fields), "peak in"),
        rows=tuple(
            (label(row), *(cell(row, field) for field, _ in fields), row.get("peak_moment") or "not read")
            for row in group
        ),
    )


def _why_not(group: list[Row]) -> str:
    """Why no row of the group has a memory figure, in the rows' own words."""
    for row in group:
        if row.get("reason"):
            return str(row["reason"])
        for field, _ in (("process_bytes", ""), ("peak_allocated_bytes", "")):
            if field in (row.get("unread") or {}):
                return str(row["unread"][field])
    return "the rows do not say why"


def _others(found: list[list[Row]]) -> str:
    rest = len(found) - 1
    return f" {rest} more configuration{'s' if rest > 1 else ''} in the tables." if rest else ""
