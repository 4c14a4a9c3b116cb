"""Answer 4: what the way a step is run costs, and what bounds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepcost.report.rows import EAGER, Row, configuration, of_question, source_of
from stepcost.report.said import Said
from stepcost.report.tables import Table
from stepcost.report.throttle import in_caption, throttled_note
from stepcost.report.units import count, listed, ms, significant


def by_engine(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """4: the fastest engine at each batch size compared with eager, and both limits."""
    asked = _asked(rows)
    if not asked:
        return Said("No row of this run answers it (--engines all compares them).", "skipped")
    steps = engine_steps(rows)
    parts = []
    for batch in sorted({batch for batch, _ in steps}):
        here = {engine: row for (size, engine), row in steps.items() if size == batch}
        best = min(here, key=lambda engine: step_s(here[engine]))
        parts.append(f"batch {count(batch)} {best} ({ms(step_s(here[best]))}{_gain(here, best)})")
    fastest = f"The fastest step: {', '.join(parts)}." if parts else ""
    failed = [f"batch {count(batch)} {engine}" for batch, engine in asked if (batch, engine) not in steps]
    too_large = f"Out of memory: {', '.join(failed)}." if failed else ""
    text = " ".join(said for said in (fastest, too_large, _losses(rows)) if said)
    some = list(asked.values())
    table = Table(
        caption=f"Steps by engine: {configuration(some[0], 'batch_size', 'engine', 'precision')}; "
        f"{source_of(some)}; ms = milliseconds, of kernels and least too. Kernels: the sum of their times. "
        "Least: the step's bytes or operations at the card's measured rates, whichever takes longer. "
        "'/ kernels' and '/ least': the step divided by that"
        + in_caption(throttled_note(some, lambda row: f"batch {count(row['batch_size'])}, {row['engine']}")),
        columns=(
            "batch",
            "engine",
            "step ms",
            "images /s",
            "x eager",
            "kernels",
            "/ kernels",
            "least",
            "/ least",
        ),
        rows=tuple(_line(steps, batch, engine) for batch, engine in asked),
        label_columns=2,
    )
    return Said(text, source_of(some), table)


def engine_steps(rows: list[Row]) -> dict[tuple[int, str], Row]:
    """Return timed steps by batch size and engine: batch sizes ascending, engines as they were asked for."""
    return {key: row for key, row in _asked(rows).items() if _is_timed(row)}


def _asked(rows: list[Row]) -> dict[tuple[int, str], Row]:
    """Return steps that were timed or ran out of memory, in that order; of one asked twice a timed one."""
    found: dict[tuple[int, str], Row] = {}
    for row in of_question(rows, "4"):
        if not row.get("batch_size") or not row.get("engine"):
            continue
        key = (row["batch_size"], row["engine"])
        if _is_timed(row) or (row.get("fits") is False and key not in found):
            found[key] = row
    return dict(sorted(found.items(), key=lambda one: one[0][0]))


def _is_timed(row: Row) -> bool:
    return row.get("timed") == "engine step" and bool((row.get("stats") or {}).get("median"))


def step_s(row: Row) -> float:
    """Return the median seconds of a step."""
    return float(row["stats"]["median"])


def _gain(here: Mapping[str, Row], best: str) -> str:
    if EAGER not in here or best == EAGER:
        return ""
    return f", {significant(step_s(here[EAGER]) / step_s(here[best]), 2)} times as fast as {EAGER}"


def _line(steps: Mapping[tuple[int, str], Row], batch: int, engine: str) -> tuple[str, ...]:
    if (batch, engine) not in steps:
        return (count(batch), engine, "out of memory", *["?"] * 6)
    row = steps[batch, engine]
    seconds = step_s(row)
    eager = steps.get((batch, EAGER))
    return (
        count(batch),
        engine,
        significant(seconds * 1000),
        count(round(batch / seconds)),
        "?" if eager is None else significant(step_s(eager) / seconds),
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
    """How far the engines' losses are from eager's."""
    apart = {
        row["engine"]: row["loss_difference"]
        for row in of_question(rows, "4")
        if row.get("engine") and row.get("precision") == "fp64" and row.get("loss_difference") is not None
    }
    if not apart:
        return ""
    said = listed([f"{engine} {difference:.0e}" for engine, difference in apart.items()])
    return f"In fp64 a step's loss is never further than this share from eager's: {said}."
