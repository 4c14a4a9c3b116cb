"""A step on every card: whether it fits, the largest batch, how long it would take; or shared by several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any

from stepcost.catalog.cards import Card
from stepcost.predicting.largest import largest_batch
from stepcost.predicting.prediction import predict_in_full
from stepcost.predicting.times.from_rates import time_on
from stepcost.predicting.torch_versions import version_of
from stepcost.predicting.traces import Traces, traces_of
from stepcost.reading import Reading
from stepcost.request import Request, in_precision_of, why_not_predicted_on
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

    Memory is that of the eager step in the precision of ``engine``, time that of the step under ``engine``.
    Of a card that such a step is not predicted for, ``unread`` says why. ``on_card`` is called before each.
    Raises ``ValueError`` with one line for what cannot be built or traced.
    """
    launched = replace(request, engine=engine)
    request = in_precision_of(engine, request)
    rows = []
    for card, row, found in _predicted(request, cards, torch_version, on_card):
        if found is not None:
            reading, traces = found
            largest = largest_batch(request, card, torch_version=torch_version, traces=traces)
            rows.append(row | asdict(largest) | row_of_time(launched, card, reading))
        else:
            rows.append(row)
    return rows


def shared_on_cards(
    requests: Iterable[Request],
    cards: Iterable[Card],
    *,
    torch_version: str,
    on_card: Callable[[Card], object] = lambda _: None,
) -> list[dict[str, Any]]:
    """Predict the memory of a step that several GPUs share, each of ``requests`` on each card, in that order.

    Rows are as those of ``on_cards``, of the fullest GPU and with all of them in ``ranks``; they have no
    largest batch and no time. Raises ``ValueError`` as it does.
    """
    cards = list(cards)
    return [row for request in requests for _, row, _ in _predicted(request, cards, torch_version, on_card)]


def _predicted(
    request: Request, cards: Iterable[Card], torch_version: str, on_card: Callable[[Card], object]
) -> Iterator[tuple[Card, dict[str, Any], tuple[Reading, Traces] | None]]:
    """Yield what is stored of a step's memory on each card, most memory first, and what that was read from.

    That is ``None`` where such a step is not predicted for the card.
    """
    ordered = sorted(cards, key=lambda card: -card.total_bytes)
    refused = {card: why_not_predicted_on(card, request) for card in ordered}
    predicted = [card for card in ordered if refused[card] is None]
    traces = traces_of(request, predicted, version_of(torch_version))
    for card in ordered:
        on_card(card)
        row = described(request) | {"question": "7", "source": "predicted", "card": card.name}
        if (why_not := refused[card]) is not None:
            yield card, row | {"fits": None, "unread": {"fits": why_not}}, None
            continue
        own = traces[card].at(request.batch_size)
        reading = predict_in_full(request, card, torch_version=torch_version, traces=own).reading
        yield card, row | measured(reading), (reading, traces[card])


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
                "unread": reading.unread | ({} if found.unasked is None else {"step_s": found.unasked}),
            }
    return {"step_s": None, "unread": {**reading.unread, "step_s": why_not}}
