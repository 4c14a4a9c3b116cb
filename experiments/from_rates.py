"""How far off are times from rates? Steps that two cards recorded, the second's estimated from the first's.

``python -m experiments.from_rates RECORDED OTHER`` takes two files of ``stepcost record times``. Each step
that both have is estimated for the second card by its operators on the first and the rates of both, without a
GPU.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from statistics import median
from typing import Any

from experiments.arguments import parser_of
from stepcost.catalog.cards import CARDS, Card
from stepcost.operators import Operator
from stepcost.predicting.times import RECORDED, Part, StepTime
from stepcost.predicting.times.from_rates import from_rates

Row = dict[str, Any]
NO_OPERATOR = Operator("none()", 0, 0)
"""Of kernels that belong to none."""


def main() -> None:
    """Print each step and, below, the errors of all."""
    parser = parser_of("from_rates", __doc__)
    parser.add_argument("recorded", type=Path)
    parser.add_argument("other", type=Path)
    options = parser.parse_args()
    try:
        (here, first), (there, second) = map(read, (options.recorded, options.other))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    errors, held, unscaled = [], 0, []
    print("step | ms | from rates | interval | error %")
    for name in first.keys() & second.keys():
        found, measured_s = estimated(first[name], here, there), second[name]["step_s"]
        errors.append(found.step_s / measured_s - 1)
        unscaled.append(first[name]["step_s"] / measured_s - 1)
        held += found.low_s <= measured_s <= found.high_s
        likely, low, high = (f"{1000 * one:.3f}" for one in (found.step_s, found.low_s, found.high_s))
        print(f"{name} | {1000 * measured_s:.3f} | {likely} | {low} to {high} | {100 * errors[-1]:+.1f}")
    if not errors:
        parser.error("the two files have no step in common")
    print(f"{here.name} -> {there.name}, {len(errors)} steps: {said(errors)}; {held} within their intervals")
    print(f"as long as on the {here.name}: {said(unscaled)}")


def said(errors: list[float]) -> str:
    """Say the median and the largest error, the median with its sign, and how many are too low."""
    sizes = [100 * abs(error) for error in errors]
    low = sum(error < 0 for error in errors)
    return (
        f"median {median(sizes):.1f} %, worst {max(sizes):.1f} %, bias {100 * median(errors):+.1f} %, "
        f"{low} too fast"
    )


def read(path: Path) -> tuple[Card, dict[str, Row]]:
    """Return the card and its recorded steps by name. Raises ``ValueError`` for a card without a row."""
    with gzip.open(path, "rt") as file:
        rows = [json.loads(line) for line in file]
    gpu = next((row["about"]["gpu"] for row in rows if "about" in row), None)
    card = next((one for one in CARDS.values() if one.gpu == gpu), None)
    if card is None:
        raise ValueError(f"{path}: {gpu!r} is no card of the catalog")
    return card, {name_of(row["request"]): row for row in rows if row.get("calls")}


def name_of(request: Row) -> str:
    """Return ``gpt2:adamw:4:1024:fast:bf16``."""
    size = request["sequence_length"] or request["image_size"]
    parts = (request["model"], request["optimizer"], request["batch_size"], size)
    return ":".join(map(str, (*parts, request["engine"], request["precision"])))


def estimated(row: Row, here: Card, there: Card) -> StepTime:
    """Estimate a step that was recorded on one card for another."""
    parts = [
        Part(
            NO_OPERATOR if index < 0 else Operator(*row["operators"][index]),
            "",
            sum(nanoseconds for _, nanoseconds in kernels) / 1e9,
            len(kernels),
            "recorded",
        )
        for index, kernels in row["calls"]
    ]
    took: Any = dict.fromkeys(("step_s", "low_s", "high_s"), row["step_s"])
    return from_rates(parts, StepTime(**took, basis=RECORDED, contributors=()), here, there)


if __name__ == "__main__":
    main()
