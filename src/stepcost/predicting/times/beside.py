"""A measured step beside the prediction of it: what its operators take, and what they were to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepcost.catalog.cards import CARDS
from stepcost.predicting.times.from_rates import step_on
from stepcost.predicting.times.keys import name_of
from stepcost.predicting.times.made import table_of_traced
from stepcost.predicting.times.step_time import Part
from stepcost.request import Request


def beside(request: Request, gpu: str, in_place: Mapping[str, Any] | None) -> dict[str, Any]:
    """Predict a step that was measured on a GPU of that name, and give its kernels to its operators.

    ``in_place`` is what ``stepcost record times`` writes of a step, or ``None`` where its kernels are unread.
    Returns ``predicted_step`` and, with ``in_place``, ``by_operator_s``, as a row stores them. Raises
    ``ValueError`` with one line where the step or the card is not predicted.
    """
    card = next((one for one in CARDS.values() if one.gpu == gpu), None)
    if card is None:
        raise ValueError(f"no card of the catalog is a {gpu}")
    time, parts, table = step_on(request, card)
    predicted = {
        "step_s": time.step_s,
        "step_low_s": time.low_s,
        "step_high_s": time.high_s,
        "step_basis": time.basis,
        "recorded_torch": table.about["torch"],
        "by_operator_s": {one.name: one.seconds for one in time.contributors},
    }
    found = {} if in_place is None else {"by_operator_s": by_operator(parts, in_place)}
    return found | {"predicted_step": predicted}


def by_operator(parts: Sequence[Part], in_place: Mapping[str, Any]) -> dict[str, float]:
    """Sum the seconds of a measured step's kernels by the operators of its trace, the largest first."""
    row = {"request": {}, **in_place}  # which step it is need not be said of a table that is not kept
    aligned = table_of_traced({}, [row], [[one.operator for one in parts]])
    found: dict[str, float] = {}
    for entry in aligned.steps[0].entries:
        name = name_of(entry.key)
        found[name] = found.get(name, 0.0) + entry.calls * entry.taken.seconds
    return dict(sorted(((n, s) for n, s in found.items() if s), key=lambda one: -one[1]))
