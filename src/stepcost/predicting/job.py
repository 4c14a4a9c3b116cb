"""The job of the child that predicts: one call, one reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from stepcost.catalog.cards import CARDS
from stepcost.predicting import predict
from stepcost.predicting.largest import largest_batch
from stepcost.predicting.times.beside import beside
from stepcost.predicting.torch_versions import installed_torch, version_of
from stepcost.predicting.validation import validation_line
from stepcost.predicting.which_card import on_cards, row_of_time
from stepcost.reading import Reading
from stepcost.request import Request
from stepcost.search import PredictedLargest


class Prediction:
    """Predicts readings, one after another; nothing is kept between them."""

    def on_cards(self, request: Request, cards: Sequence[str], engine: str) -> dict[str, dict[str, Any]]:
        """Predict a step on each of some cards; return what a row stores of each, by its name."""
        found = on_cards(
            request, [CARDS[name] for name in cards], torch_version=installed_torch(), engine=engine
        )
        return {row["card"]: row for row in found}

    def time(self, request: Request, card: str, engine: str, reading: Reading) -> dict[str, Any]:
        """Predict how long a step of that reading takes under an engine; return what a row stores of it."""
        return row_of_time(replace(request, engine=engine), CARDS[card], reading)

    def beside(self, request: Request, gpu: str, in_place: Mapping[str, Any] | None) -> dict[str, Any]:
        """Predict a step that was measured on a GPU; return what its row stores of that and its operators."""
        return beside(request, gpu, in_place)

    def predict(self, request: Request, card: str) -> Reading:
        """Predict the memory of one training configuration on a card of the catalog, in bytes."""
        return predict(request, CARDS[card])

    def validation(self, request: Request, card: str) -> str:
        """Say in one line what such predictions for a card were compared with, with the torch of here."""
        return validation_line(request, CARDS[card], version_of(installed_torch()))

    def largest_batch(self, request: Request, card: str) -> PredictedLargest:
        """Predict the largest batch that a card would train, or its bounds."""
        return largest_batch(request, CARDS[card])
