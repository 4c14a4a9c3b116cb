"""The first screen of a page: the configuration that it speaks of first, and its four figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stepcost.catalog.cards import CARDS
from stepcost.report.load import Run
from stepcost.report.opening import card_bytes, memory_of, opening_row
from stepcost.report.page.facts import session_model
from stepcost.report.rows import (
    Row,
    configuration,
    having,
    optimizer_label,
    searches,
)
from stepcost.request import Request, example_of
from stepcost.schema import fields_of
from stepcost.units import GB, an, count, gb, joules, mb, ms, percent, significant

UNITS = "MB = 10**6 bytes, GB = 10**9 bytes"
"""Said once, and meant everywhere on the page."""
NOT_READ = "not read"


SAME_STEP = tuple(name for name in fields_of(Request) if name not in ("engine", "num_classes", "seed"))
"""What is equal in rows of one step, however it is launched."""


@dataclass(frozen=True)
class Figure:
    """One of the four figures in large type."""

    label: str
    value: str
    note: str
    source: str
    """``measured``, ``predicted``, or empty where there is no figure."""

    @property
    def is_read(self) -> bool:
        """Whether there is a figure."""
        return bool(self.source)


def headline_row(run: Run) -> Row | None:
    """Return the row that the page speaks of first, as the terminal does."""
    return opening_row(run.rows, session_model(run))


def device_of(run: Run, row: Row | None) -> str:
    """Name the card that the figures are of: the one that was measured or predicted for."""
    if row and row.get("source") == "predicted":
        return (
            f"predicted for {_card_name(row)}" if row.get("card") else "predicted, for no card in particular"
        )
    return f"on {run.gpu}" if run.machine.get("gpu") else run.gpu


def four_figures(run: Run) -> list[Figure]:
    """Return peak, largest batch, time and energy of a step, each with what it is of, or why it lacks."""
    row = headline_row(run)
    if row is None:
        nothing = "no row of this run is of a training step"
        labels = ("Peak memory", "Largest batch", "Time a step", "Energy a step")
        return [Figure(label, NOT_READ, nothing, "") for label in labels]
    return [_peak(run, row), _largest(run, row), _time(run, row), _energy(run, row)]


def _peak(run: Run, row: Row) -> Figure:
    memory = memory_of(row)
    if row.get("fits") is False:
        return Figure("Peak memory", "does not fit", row.get("reason") or "", _source(row))
    if memory is None:
        return Figure("Peak memory", NOT_READ, _why_not(row, "process_bytes"), "")
    label = f"Peak of the {memory.word}" if memory.word == "process" else f"Peak {memory.word}"
    total = card_bytes(row, run.machine)
    notes = [f"{percent(memory.bytes / total)} of {gb(total, 1)}"] if total else []
    if memory.word != "process":
        notes.append("without the context, which is not known")
    if row.get("source") == "predicted" and row.get("fits") is None:
        notes.append("whether it fits is not known")
    return Figure(label, _bytes(memory.bytes), "; ".join(notes), _source(row))


def _largest(run: Run, row: Row) -> Figure:
    found = [one for one in searches(run.rows) if one.get("model") in (None, row.get("model"))]
    label = "Largest batch"
    if not found:
        return Figure(label, "not searched", "no search is in this run", "")
    search = found[0]
    bounds = (
        ("largest_batch", ""),
        ("largest_batch_at_least", "at least "),
        ("largest_batch_at_most", "at most "),
    )
    value = next((f"{word}{count(search[name])}" for name, word in bounds if search.get(name)), None)
    unread = search.get("unread") or {}
    if value is None:
        return Figure(label, "not known", unread.get("largest_batch") or "the search found none", "")
    notes = [optimizer_label(search.get("optimizer") or row.get("optimizer"))]
    if search.get("largest_batch_rests_on"):
        notes.append(f"estimated: {search['largest_batch_rests_on']}")
    if (search.get("smallest_batch_that_fails") or 0) > 1:
        notes.append(f"{count(search['smallest_batch_that_fails'])} did not fit")
    likely = [count(size) for size in search.get("largest_batch_likely") or []]
    if likely:
        notes.append(f"likely {' to '.join(likely)}{' or more' if len(likely) == 1 else ''}")
    if unread.get("largest_batch"):
        notes.append(unread["largest_batch"])
    return Figure(label, value, "; ".join(notes), _source(search))


def _time(run: Run, row: Row) -> Figure:
    found = {
        one.get("engine") or "eager": one["stats"]["median"]
        for one in reversed(_alike(run, row))
        if one.get("timed") in ("training step", "engine step") and (one.get("stats") or {}).get("median")
    }
    label = "Time a step"
    if not found:
        why = "memory is predicted, time is not" if row.get("source") == "predicted" else "no step was timed"
        return Figure(label, NOT_READ, why, "")
    best = min(found, key=lambda engine: found[engine])
    notes = [f"{best}, {count(round(row['batch_size'] / found[best]))} {example_of(row)}s/s"]
    if best != "eager" and "eager" in found:
        notes.append(f"eager {ms(found['eager'])}")
    return Figure(label, ms(found[best]), "; ".join(notes), "measured")


def _energy(run: Run, row: Row) -> Figure:
    label = "Energy a step"
    read = having(_alike(run, row), "energy_j")
    others = [] if read else having(_of_model(run, row), "energy_j")  # a default run reads one step alone
    read = read or others
    if not read:
        why = _why_not(row, "energy_j", "no row of this run has it")
        return Figure(label, NOT_READ, why, "")
    best = min(read, key=lambda one: one["energy_j"])
    one_mj, one = significant(1000 * best["energy_j"] / best["batch_size"]), example_of(best)
    notes = [f"{best.get('engine') or 'eager'}, {one_mj} mJ {an(one)}"]
    if others:
        notes.insert(0, f"{optimizer_label(best.get('optimizer'))}, batch {count(best['batch_size'])}")
    interval = best.get("energy_interval_j")
    if isinstance(interval, Sequence) and len(interval) == 2:
        notes.append(f"{joules(interval[0])} to {joules(interval[1])}")
    return Figure(label, joules(best["energy_j"]), "; ".join(notes), _source(best))


def _alike(run: Run, row: Row) -> list[Row]:
    """Return rows of the same step, launched in any way: the row itself first."""
    others = [one for one in run.rows if all(one.get(name) == row.get(name) for name in SAME_STEP)]
    return [row, *(one for one in others if one is not row and one.get("question") in ("2a", "3a", "4"))]


def _of_model(run: Run, row: Row) -> list[Row]:
    return [one for one in run.rows if one.get("model") == row.get("model") and one.get("batch_size")]


def _why_not(row: Row, field: str, otherwise: str = "the row does not say why") -> str:
    return str((row.get("unread") or {}).get(field) or otherwise)


def _source(row: Row) -> str:
    return row.get("source") or "source not stored"


def _card_name(row: Row) -> str:
    card = CARDS.get(row["card"])
    return card.gpu if card else str(row["card"])


def _bytes(size: int) -> str:
    return gb(size, 2) if size >= GB else mb(size, 0)


def asked(row: Row | None) -> str:
    """Say the configuration that the four figures are of."""
    return configuration(row, "model") if row else "no training step"
