"""Answers 2a and 2b: memory by optimizer, and why. Memory by what varies, for 3a too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepcost.catalog.optimizers import OPTIMIZERS
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
from stepcost.report.said import NOT_ASKED, Said
from stepcost.report.tables import Table
from stepcost.units import BYTES_NOTE, count, counted, listed, mb, mb_number

SMALL_SHARE = 0.01
"""A smaller part of a difference is not worth a clause."""
COLUMNS = {
    "tensor_bytes": "tensors",
    "peak_allocated_bytes": "allocated",
    "peak_reserved_bytes": "reserved",
    "context_bytes": "context",
    "process_bytes": "process",
}
"""Figures of the tables of memory, with their headings."""


def by_optimizer(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """2a: memory in training with each optimizer, all else equal."""
    found = groups(of_question(rows, "2a"), "optimizer")
    return memory_by("optimizer", found) if found else NOT_ASKED


def why_optimizers_differ(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """2b: the state that each update rule keeps, and how much of the difference it explains."""
    found = groups(of_question(rows, "2a"), "optimizer")
    if not found:
        return NOT_ASKED
    told = having(found[0], "optimizer_state_bytes", "parameter_bytes")
    told = [row for row in told if row.get("fits") is not False]
    figure = _ranked_by(told)
    if figure is None:
        return Said("The optimizer state was not read.", "skipped")
    if len(told) == 1:
        return Said(f"Only one optimizer was read: {_what_it_keeps(told[0])}.", source_of(told))
    field, word = figure
    if _bounded(field, told):  # bounds do not rank
        kept = [_what_it_keeps(row) for row in told]
        text = f"No winner is named: {word} memory is not all known (2a says why). {'; '.join(kept)}."
        return Said(text, source_of(told))
    highest = max(row[field] for row in told)
    winners = [row for row in told if row[field] == highest]
    names = listed([optimizer_label(row["optimizer"]) for row in winners])
    if len(winners) == len(told):
        text = f"A tie: {names} take the same {word} memory, {mb(highest)}"
    elif len(winners) > 1:
        text = f"{names} take the most {word} memory, {mb(highest)} each"
    else:
        text = f"{names} takes the most {word} memory, {mb(highest)}"
    kept = [_what_it_keeps(row) for row in [*winners, *(row for row in told if row not in winners)]]
    text += f": {kept[0]}{_unknown_said(told)}. {'; '.join(kept[1:])}."
    return Said(text + _peaks_apart(winners[0], min(told, key=lambda row: row[field])), source_of(told))


def _ranked_by(rows: list[Row]) -> tuple[str, str] | None:
    """Choose a figure as ``memory_figure`` does; where the process is a bound, what is reserved in it."""
    figure, reserved = memory_figure(rows), ("peak_reserved_bytes", "reserved")
    is_bound = figure is not None and figure[0] == "process_bytes" and _bounded("process_bytes", rows)
    return reserved if is_bound and len(having(rows, reserved[0])) == len(rows) else figure


def _bounded(field: str, rows: list[Row]) -> bool:
    """Whether a figure is a bound in any of the rows."""
    return any(field in (row.get("unread") or {}) for row in rows)


def _unknown_said(told: list[Row]) -> str:
    """Say that the ranking rests on something unknown, which 2a names for the same rows."""
    return "; not all of it is known (2a says what)" if unknown(told, "optimizer") else ""


def _peaks_apart(most: Row, least: Row) -> str:
    """How far two peaks are apart, and how much of that is the optimizers' state."""
    if not having([most, least], "peak_allocated_bytes")[1:]:
        return ""
    apart = most["peak_allocated_bytes"] - least["peak_allocated_bytes"]
    state = most["optimizer_state_bytes"] - least["optimizer_state_bytes"]
    if apart == 0:
        return ""
    name, other = optimizer_label(most["optimizer"]), optimizer_label(least["optimizer"])
    text = f" The peaks of {name} and {other} are {mb(apart)} apart, and their state {mb(state)}"
    if most.get("peak_moment"):
        text += f" ({name} peaks in the {_phase(most['peak_moment'])})"
    if abs(apart - state) > SMALL_SHARE * apart:
        text += f"; the other {mb(abs(apart - state))} are what else is alive at the two peaks"
    return f"{text}."


def _phase(moment: str) -> str:
    return moment if moment.endswith("step") else f"{moment} pass"


def _what_it_keeps(row: Row) -> str:
    """``Adam keeps 2 x 232.7 MB of moments``."""
    label, state = optimizer_label(row["optimizer"]), row["optimizer_state_bytes"]
    # Rows from before frozen parameters were counted hold the trainable ones alone.
    trained = row.get("trainable_parameter_bytes") or row["parameter_bytes"]
    if state == 0:
        return f"{label} keeps nothing between steps"
    known = OPTIMIZERS.get(row["optimizer"])
    what = known.keeps if known else "state"
    if trained and state % trained == 0:
        return f"{label} keeps {state // trained} x {mb(trained)} of {what}"
    return f"{label} keeps {mb(state)} of {what}"


def memory_by(varying: str, found: list[list[Row]]) -> Said:
    """Memory of the first group of rows in a sentence, with what is unknown about it, and its table."""
    group = found[0]
    table = Table(
        caption=f"Memory by {varying.replace('_', ' ')}: {configuration(group[0], varying)}; "
        f"{source_of(group)}; in {BYTES_NOTE}, allocated and reserved at their peaks",
        columns=(varying.replace("_", " "), *COLUMNS.values(), "peak in"),
        rows=tuple(
            (
                _name(row, varying),
                *(_cell(row, field) for field in COLUMNS),
                row.get("peak_moment") or "not read",
            )
            for row in group
        ),
    )
    figure = memory_figure(group)
    if figure is None:
        return Said(f"No memory was read: {_why_not(group)}.", source_of(group), table)
    field, word = figure
    parts = [
        f"{'out of memory' if row.get('fits') is False else mb(row[field])} {_place(row, varying)}"
        for row in group
    ]
    text = f"{word.capitalize()} memory is {listed(parts)} ({configuration(group[0], varying)})"
    rest = len(found) - 1
    others = f" {counted(rest, 'more configuration')} in the tables." if rest else ""
    return Said(f"{text}{unknown(group, varying)}.{others}", source_of(group), table)


def _name(row: Row, varying: str) -> str:
    if varying == "saver":
        return str(row["saver"])
    return optimizer_label(row["optimizer"]) if varying == "optimizer" else count(row[varying])


def _place(row: Row, varying: str) -> str:
    name = _name(row, varying)
    said = {"batch_size": f"at batch {name}", "sequence_length": f"at {name} tokens"}
    return said.get(varying, f"with {name}")


def _cell(row: Row, field: str) -> str:
    if row.get(field) is not None:
        return mb_number(row[field])
    return "out of memory" if row.get("fits") is False else "not read"


def unknown(group: list[Row], varying: str) -> str:
    """``; not known: context (why); estimated: workspace at batch 64 (why)``: what the figures rest on."""
    reasons: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in group:
        unread = {name: why for name, why in (row.get("unread") or {}).items() if name.endswith("_bytes")}
        if row.get("source") == "predicted" and row.get("fits") is None:
            why = (row.get("unread") or {}).get("fits") or row.get("reason") or "it does not say why"
            # Where other figures are unknown, that is why; it need not be said again for each row.
            unread["fits"] = "that depends on them" if unread else why
        for name, why in sorted(unread.items()):
            is_there = row.get(name) is not None or (row.get("ledger") or {}).get(name) is not None
            said = reasons.setdefault(("estimated" if is_there else "not known", why), {})
            said.setdefault(name, []).append(row)
    clauses: dict[str, list[str]] = {}
    for (kind, why), names in reasons.items():
        words = [
            "whether it fits" if name == "fits" else name.removesuffix("_bytes").replace("_", " ")
            for name in names
        ]
        rows = next(iter(names.values()))
        where = "" if len(rows) == len(group) else f" {listed([_place(row, varying) for row in rows])}"
        clauses.setdefault(kind, []).append(f"{listed(words)}{where} ({why})")
    return "".join(f"; {kind}: {', '.join(said)}" for kind, said in sorted(clauses.items(), reverse=True))


def _why_not(group: list[Row]) -> str:
    """Why no row of the group has a memory figure, in the rows' own words."""
    for row in group:
        unread = row.get("unread") or {}
        why = row.get("reason") or unread.get("process_bytes") or unread.get("peak_allocated_bytes")
        if why:
            return str(why)
    return "the rows do not say why"
