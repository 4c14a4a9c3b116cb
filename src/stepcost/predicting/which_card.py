"""A step on every card: whether it fits, the largest batch, and how long it would take."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any

from stepcost.catalog.cards import Card
from stepcost.predicting.largest import largest_batch
from stepcost.predicting.prediction import predict_in_full
from stepcost.predicting.times.from_rates import time_on
from stepcost.predicting.torch_versions import version_of
from stepcost.predicting.traces import traces_of
from stepcost.reading import Reading
from stepcost.request import Request, why_not_predicted_on
from stepcost.row import described, measured


def on_cards(
    request: Request,
    cards: Iterable[Card],
    *,
    torch_version: str,
    engine: str,
    on_card: Callable[[Card], object] = lambda _: None,
) -> list[dict[str, Any]]:
    """Predict a step on each of some cards; return what a row of question 7 stores, most memory first.

    Memory is that of the eager step, time that of the step under ``engine``. Of a card that such a step is
    not predicted for, ``unread`` says why. ``on_card`` is called before each. Raises ``ValueError`` with one
    line for what cannot be built or traced.
    """
    version = version_of(torch_version)
    launched = replace(request, engine=engine)
    ordered = sorted(cards, key=lambda card: -card.total_bytes)
    refused = {card: why_not_predicted_on(card, request) for card in ordered}
    traces = traces_of(request, [card for card in ordered if refused[card] is None], version)
    rows = []
    for card in ordered:
        on_card(card)
        row = described(request) | {"question": "7", "source": "predicted", "card": card.name}
        if (why_not := refused[card]) is not None:
            rows.append(row | {"fits": None, "unread": {"fits": why_not}})
            continue
        own = traces[card]
        reading = predict_in_full(
            request, card, torch_version=torch_version, traced=own.at(request.batch_size)[0]
        ).reading
        row |= measured(reading) | asdict(
            largest_batch(request, card, torch_version=torch_version, traces=own)
        )
        rows.append(row | row_of_time(launched, card, reading))
    return rows


def row_of_time(launched: Request, card: Card, reading: Reading) -> dict[str, Any]:
    """Return what a row stores of the time of a step on a card; where there is none, ``unread`` says why."""
    why_not = "it does not fit"
    if reading.fits is not False:
        try:
            found = time_on(launched, card)
        except ValueError as error:
            why_not = str(error)
        else:
            return {
                "step_s": found.step_s,
                "step_low_s": found.low_s,
                "step_high_s": found.high_s,
                "step_basis": found.basis,
                "step_engine": launched.engine,
                "kernels": sum(one.kernels for one in found.contributors),
                "kernel_s": sum(one.seconds for one in found.contributors),
            }
    return {"step_s": None, "unread": {**reading.unread, "step_s": why_not}}
