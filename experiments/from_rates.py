"""How far off are times from rates? Steps that two cards recorded, the second's estimated from the first's.

``python -m experiments.from_rates h100-80gb h200-141gb`` takes two cards with a table of times. Each step
that both have is estimated for the second by its operators on the first and the rates of both, without a GPU.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from experiments.arguments import parser_of
from stepcost.catalog.cards import CARDS, Card
from stepcost.operators import Operator
from stepcost.predicting.times import RECORDED, Part, StepTime
from stepcost.predicting.times.from_rates import from_rates
from stepcost.predicting.times.table import Step, table_of
from stepcost.request import name_of_step


def main() -> None:
    """Print each step and, below, the errors of all."""
    parser = parser_of("from_rates", __doc__)
    parser.add_argument("recorded", choices=CARDS, metavar="CARD")
    parser.add_argument("other", choices=CARDS, metavar="CARD")
    options = parser.parse_args()
    here, there = CARDS[options.recorded], CARDS[options.other]
    first, second = steps_of(here), steps_of(there)
    errors, held, unscaled = [], 0, []
    print("step | ms | from rates | interval | error %")
    for name in first.keys() & second.keys():
        found, measured_s = estimated(first[name], here, there), second[name].step_s
        errors.append(found.step_s / measured_s - 1)
        unscaled.append(first[name].step_s / measured_s - 1)
        held += found.low_s <= measured_s <= found.high_s
        likely, low, high = (f"{1000 * one:.3f}" for one in (found.step_s, found.low_s, found.high_s))
        print(f"{name} | {1000 * measured_s:.3f} | {likely} | {low} to {high} | {100 * errors[-1]:+.1f}")
    if not errors:
        parser.error("the two cards' tables have no step in common")
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


def steps_of(card: Card) -> dict[str, Step]:
    """Return a card's recorded steps by name; none where it has no table."""
    table = table_of(card)
    return {} if table is None else {name_of_step(one.request): one for one in table.steps}


def estimated(step: Step, here: Card, there: Card) -> StepTime:
    """Estimate a step that was recorded on one card for another."""
    parts = [
        Part(Operator(one.key, one.bytes, one.flops), "", one.taken.seconds, one.taken.kernels, "recorded")
        for one in step.entries
        for _ in range(one.calls)
    ]
    took: Any = dict.fromkeys(("step_s", "low_s", "high_s"), step.step_s)
    return from_rates(parts, StepTime(**took, basis=RECORDED, contributors=()), here, there)


if __name__ == "__main__":
    main()
