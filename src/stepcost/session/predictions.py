"""What a session asks of the prediction: in a child, by the name of its job. Imports no torch."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stepcost import jobs
from stepcost.failures import MeasureError
from stepcost.measuring.process import Worker
from stepcost.reading import Reading
from stepcost.request import ALONE, Request
from stepcost.search import PredictedLargest

if TYPE_CHECKING:
    from stepcost.session import Session


class Predictions:
    """Asks a child that serves the whole session; where it dies the next question gets a new one."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._child: Worker | None = None

    def memory(self, request: Request) -> Reading:
        """Predict the memory of ``request`` without a GPU. Raises ``MeasureError``."""
        with self._session.costs.of("predict memory"):
            reading: Reading = self._asked("predict", request, self._session.settings.card)
        return reading

    def largest_batch(self, request: Request) -> PredictedLargest:
        """Predict the largest batch that the card of ``--gpu`` would train. Raises ``MeasureError``."""
        with self._session.costs.of("predict the largest batch"):
            largest: PredictedLargest = self._asked("largest_batch", request, self._session.settings.card)
        return largest

    def time(self, request: Request, reading: Reading) -> dict[str, Any]:
        """Return what a row stores of a step's time on the card of ``--gpu``. Raises ``MeasureError``."""
        with self._session.costs.of("predict times"):
            found: dict[str, Any] = self._asked(
                "time", request, self._session.settings.card, self._session.card_engine, reading
            )
        return found

    @functools.cached_property
    def on_cards(self) -> dict[str, dict[str, Any]]:
        """What a row stores of a step on each card of ``--cards``, by its name. Raises ``MeasureError``."""
        settings = self._session.settings
        request = self._session.request(
            optimizer=settings.batch_optimizer, batch_size=settings.optimizer_batch_size
        )
        with self._session.costs.of("predict a step on other cards"):
            found: dict[str, dict[str, Any]] = self._asked(
                "on_cards", request, settings.cards, self._session.card_engine
            )
        return found

    @functools.cached_property
    def validation(self) -> str | None:
        """What predictions were compared with, in one line; ``None`` where nothing is predicted."""
        if self._session.on_gpu:
            return None
        return str(self._asked("validation", self._session.any_step, self._session.settings.card))

    @functools.cached_property
    def validation_of_ranks(self) -> str | None:
        """The same of steps that several GPUs share; ``None`` where none is predicted."""
        ways = [way for way in self._session.settings.parallel if way != ALONE]
        if self._session.on_gpu or not ways:
            return None
        shared = replace(self._session.any_step, parallel=ways[0], gpus=self._session.gpus)
        return str(self._asked("validation", shared, self._session.settings.card))

    def _asked(self, method: str, *arguments: Any) -> Any:
        if self._child is None:
            self._child = self._session.worker(jobs.PREDICTION)
        try:
            return self._child.call(method, *arguments)
        except MeasureError:
            self.close()
            raise

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()
            self._child = None
