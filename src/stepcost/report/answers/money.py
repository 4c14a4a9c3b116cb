"""What steps, epochs and runs cost in money, where somebody says what an hour costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepcost.price import Prices
from stepcost.report.answers.cards import cheapest, steps_on_cards, table_of
from stepcost.report.answers.engines import engine_steps, fastest_steps, step_s
from stepcost.report.answers.fastest import paces_of
from stepcost.report.answers.training import epochs_said
from stepcost.report.rows import Row
from stepcost.report.said import Money
from stepcost.units import count


def of_training(rows: list[Row], machine: Mapping[str, Any], prices: Prices) -> Money:
    """Say what a step, an epoch and the run cost at the batch size that trained fastest."""
    paces, price = paces_of(_on_the_card(rows, machine)), prices.of_gpu(machine.get("gpu"))
    if not paces or price is None:
        return Money("")
    quick = min(paces, key=lambda pace: pace.epoch_s)
    a_step = f"{price.of(quick.step_s)} a step, " if quick.step_s else ""
    return Money(
        f"At {price.given} batch {count(quick.batch)} costs {a_step}{price.of(quick.epoch_s)} an epoch and "
        f"{price.of(quick.measured_s)} for {epochs_said(quick.rows)} of training."
    )


def of_steps(rows: list[Row], machine: Mapping[str, Any], prices: Prices) -> Money:
    """Say what the fastest step of each batch size costs."""
    steps = fastest_steps(engine_steps(_on_the_card(rows, machine)))
    price = prices.of_gpu(machine.get("gpu"))
    if not steps or price is None:
        return Money("")
    parts = [f"batch {count(batch)} {engine} {price.of(step_s(row))}" for batch, engine, row in steps]
    return Money(f"At {price.given} a step costs: {', '.join(parts)}.")


def of_cards(rows: list[Row], machine: Mapping[str, Any], prices: Prices) -> Money:
    """Say on which card an epoch is cheapest, and tabulate its price on each that has one."""
    steps, by_card = steps_on_cards(rows), prices.by_card(machine.get("gpu"))
    said = cheapest(steps, by_card)
    return Money(" ".join(said), table_of(steps, by_card) if said else None)


def _on_the_card(rows: list[Row], machine: Mapping[str, Any]) -> list[Row]:
    """Choose the rows whose times are the card's: measured on a GPU, of the model that was asked for."""
    if not machine.get("gpu"):
        return []
    return [row for row in rows if row.get("source") == "measured" and not row.get("stand_in_for")]
