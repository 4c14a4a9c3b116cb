"""What steps, epochs and runs cost in money, where somebody says what an hour costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepcost.price import Price
from stepcost.report.answers.engines import engine_steps, fastest_steps, step_s
from stepcost.report.answers.fastest import paces_of
from stepcost.report.answers.training import epochs_said
from stepcost.report.rows import Row
from stepcost.units import count


def of_training(rows: list[Row], machine: Mapping[str, Any], price: Price) -> str:
    """Say what a step, an epoch and the run cost at the batch size that trained fastest."""
    paces = paces_of(_on_the_card(rows, machine))
    if not paces:
        return ""
    quick = min(paces, key=lambda pace: pace.epoch_s)
    a_step = f"{price.of(quick.step_s)} a step, " if quick.step_s else ""
    return (
        f"At {price.given} batch {count(quick.batch)} costs {a_step}{price.of(quick.epoch_s)} an epoch and "
        f"{price.of(quick.measured_s)} for {epochs_said(quick.rows)} of training."
    )


def of_steps(rows: list[Row], machine: Mapping[str, Any], price: Price) -> str:
    """Say what the fastest step of each batch size costs."""
    steps = fastest_steps(engine_steps(_on_the_card(rows, machine)))
    if not steps:
        return ""
    parts = [f"batch {count(batch)} {engine} {price.of(step_s(row))}" for batch, engine, row in steps]
    return f"At {price.given} a step costs: {', '.join(parts)}."


def _on_the_card(rows: list[Row], machine: Mapping[str, Any]) -> list[Row]:
    """Choose the rows whose times are the card's: measured on a GPU, of the model that was asked for."""
    if not machine.get("gpu"):
        return []
    return [row for row in rows if row.get("source") == "measured" and not row.get("stand_in_for")]
