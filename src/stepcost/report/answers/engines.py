"""Answer 4: what the way a step is run costs, and what bounds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepcost.report.beside import outside_prediction
from stepcost.report.rows import EAGER, Row, configuration, having, of_question, source_of
from stepcost.report.said import Said
from stepcost.report.tables import Table
from stepcost.report.throttle import in_caption, throttled_note
from stepcost.request import example_of
from stepcost.units import an, count, joules, listed, ms, percent, significant


def by_engine(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """4: the fastest engine at each batch size compared with eager, and both limits."""
    asked = _asked(rows)
    if not asked:
        return Said("No row of this run answers it (--engines all compares them).", "skipped")
    steps = engine_steps(rows)
    best = fastest_steps(steps)
    parts = [
        f"batch {count(batch)} {engine} ({ms(step_s(row))}{_gain(row, steps.get((batch, EAGER)))})"
        for batch, engine, row in best
    ]
    which = "fastest step" if len(steps) > 1 else "only step timed"
    fastest = f"The {which}: {', '.join(parts)}." if parts else ""
    failed = [f"batch {count(batch)} {engine}" for batch, engine in asked if (batch, engine) not in steps]
    too_large = f"Out of memory: {', '.join(failed)}." if failed else ""
    text = " ".join(
        said
        for said in (fastest, _energy(list(steps.values())), too_large, _beside(steps), _losses(rows))
        if said
    )
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
            f"{example_of(some[0])}s /s",
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


def fastest_steps(steps: Mapping[tuple[int, str], Row]) -> list[tuple[int, str, Row]]:
    """Return batch size, engine and row of the fastest step of each batch size, batch sizes ascending."""
    ranked = sorted(steps.items(), key=lambda one: (one[0][0], step_s(one[1])))
    best: dict[int, tuple[int, str, Row]] = {}
    for (batch, engine), row in ranked:
        best.setdefault(batch, (batch, engine, row))
    return list(best.values())


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


def _gain(row: Row, eager: Row | None) -> str:
    if eager is None or eager is row:
        return ""
    return f", {significant(step_s(eager) / step_s(row), 2)} times as fast as {EAGER}"


def _beside(steps: Mapping[tuple[int, str], Row]) -> str:
    """Say how many measured steps lie where they were predicted, and of the others by which operators not."""
    predicted = {key: row for key, row in steps.items() if row.get("predicted_step")}
    if not predicted:
        return ""
    apart = [
        f"batch {count(batch)} {engine} is {said}"
        for (batch, engine), row in predicted.items()
        if (said := outside_prediction(row, step_s(row)))
    ]
    inside = f"{len(predicted) - len(apart)} of {len(predicted)} steps lie within their predictions"
    return f"{'; '.join([inside, *apart])}."


def _energy(rows: Sequence[Row]) -> str:
    """Say what the step costs in joules that takes the fewest an example; where none was read, why not."""
    read = having(rows, "energy_j")
    if not read:
        why = next(
            (row["unread"]["energy_j"] for row in rows if "energy_j" in (row.get("unread") or {})), None
        )
        return f"Energy is unread: {why}." if why else ""
    row = min(read, key=lambda one: one["energy_j"] / one["batch_size"])
    an_example = an(example_of(row))
    of = (
        "Energy"
        if len(read) == 1
        else f"Least energy {an_example}: batch {count(row['batch_size'])} {row['engine']}"
    )
    text = f"{of}, of the whole card: {joules(row['energy_j'])} a step"
    if row.get("energy_interval_j"):
        text += f" ({joules(row['energy_interval_j'][0])} to {joules(row['energy_interval_j'][-1])})"
    text += f", {joules(row['energy_j'] / row['batch_size'])} {an_example}"
    if row.get("idle_power_w") is not None and row.get("power_w"):
        text += f", {percent(max(0.0, 1 - row['idle_power_w'] / row['power_w']))} of it above idle"
    return text + (", not yet at a steady temperature." if row.get("temperature_steady") is False else ".")


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
