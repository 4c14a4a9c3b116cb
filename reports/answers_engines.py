"""Answer 4: what the way a step is run costs, and what bounds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reports.rows import PLAIN, Row, configuration, of_question, source_of
from reports.tables import Table
from reports.throttle import in_caption, throttled_note
from reports.units import count, listed, ms, significant

if TYPE_CHECKING:
    from reports.answers import Said


def by_engine(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """4: the fastest engine at each batch size against the plain loop, with both limits beside."""
    steps = engine_steps(rows)
    if not steps:
        return "Not asked in this run (--engines all compares them).", "skipped", None
    batches = sorted({batch for batch, _ in steps})
    parts = []
    for batch in batches:
        here = {engine: row for (size, engine), row in steps.items() if size == batch}
        best = min(here, key=lambda engine: step_s(here[engine]))
        parts.append(f"batch {count(batch)} {best} ({ms(step_s(here[best]))}{_gain(here, best)})")
    text = f"The fastest step: {', '.join(parts)}. {_losses(rows)}".rstrip()
    some = list(steps.values())
    table = Table(
        caption=f"Steps by engine: {configuration(some[0], 'batch_size', 'engine', 'precision')}; "
        f"{source_of(some)}; ms = milliseconds. Kernels: the sum of their times. Least: the step's bytes "
        "or operations at the card's measured rates, whichever takes longer. Over: the step by that"
        + in_caption(throttled_note(some, lambda row: f"batch {count(row['batch_size'])}, {row['engine']}")),
        columns=(
            "batch",
            "engine",
            "step ms",
            "images/s",
            "x eager",
            "kernels ms",
            "over",
            "least ms",
            "over",
        ),
        rows=tuple(_line(steps, batch, engine) for batch, engine in steps),
    )
    return text, source_of(some), table


def engine_steps(rows: list[Row]) -> dict[tuple[int, str], Row]:
    """Timed steps by batch size and engine: batch sizes ascending, engines as they were asked for."""
    found = {
        (row["batch_size"], row["engine"]): row
        for row in of_question(rows, "4")
        if row.get("timed") == "engine step"
        and row.get("batch_size")
        and row.get("engine")
        and (row.get("stats") or {}).get("median")
    }
    return dict(sorted(found.items(), key=lambda one: one[0][0]))


def step_s(row: Row) -> float:
    """Median seconds of a step."""
    return float(row["stats"]["median"])


def _gain(here: Mapping[str, Row], best: str) -> str:
    if PLAIN not in here or best == PLAIN:
        return ""
    return f", {significant(step_s(here[PLAIN]) / step_s(here[best]), 2)} times as fast as {PLAIN}"


def _line(steps: Mapping[tuple[int, str], Row], batch: int, engine: str) -> tuple[str, ...]:
    row = steps[batch, engine]
    seconds = step_s(row)
    plain = steps.get((batch, PLAIN))
    return (
        count(batch),
        engine,
        significant(seconds * 1000),
        count(round(batch / seconds)),
        "?" if plain is None else significant(step_s(plain) / seconds),
        _ms(row.get("kernel_s")),
        _ratio(seconds, row.get("kernel_s")),
        _ms(row.get("least_s")),
        _ratio(seconds, row.get("least_s")),
    )


def _ms(value_s: float | None) -> str:
    return "?" if value_s is None else significant(value_s * 1000)


def _ratio(seconds: float, limit_s: float | None) -> str:
    return significant(seconds / limit_s) if limit_s else "?"


def _losses(rows: list[Row]) -> str:
    """How far the engines' losses are from the plain loop's."""
    apart = {
        row["engine"]: row["loss_difference"]
        for row in of_question(rows, "4")
        if row.get("engine") and row.get("precision") == "fp64" and row.get("loss_difference") is not None
    }
    if not apart:
        return ""
    said = listed([f"{engine} {difference:.0e}" for engine, difference in apart.items()])
    return f"In fp64 a step's loss is never further than this share from the plain loop's: {said}."
