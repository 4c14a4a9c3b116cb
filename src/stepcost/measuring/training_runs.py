"""Models in training on a data set: whole runs, and the losses of single steps. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from stepcost import jobs
from stepcost.catalog.datasets import Dataset, images_per_epoch
from stepcost.catalog.optimizers import BASE_BATCH_SIZE, find_optimizer
from stepcost.failures import ChildHung, ChildKilled, OutOfMemory
from stepcost.measuring.measurements import Measurements
from stepcost.measuring.process import Progress
from stepcost.request import Request
from stepcost.settings import Settings

EXACT_RATE_SHARE = 1e-6
"""Of the learning rate, where losses are compared. At the whole rate a deep network in training multiplies
the difference of two runs by thousands from step to step, rounding first of all. At this share it does
not, and in fp64 what a step changes in the loss is still far above rounding."""

STEP_LIMIT_S = 5.0
"""Within which a model that is small enough for the CPU has taken two steps."""


class TrainingRuns:
    """Trains on one data set as the settings say, each time in a fresh process."""

    def __init__(
        self,
        measure: Measurements,
        settings: Settings,
        dataset: Dataset,
        own_rates: Mapping[str, float],
    ) -> None:
        """``own_rates`` are the default learning rates of optimizers that are not in the catalog."""
        self._measure, self._settings, self._dataset = measure, settings, dataset
        self._own_rates = own_rates
        self._eager_losses: dict[Request, dict[str, Any]] = {}

    def learning_rate(self, optimizer: str, batch_size: int) -> float:
        """Return the rate for a batch size: linear in it (Goyal et al. 2017, 2.1) unless turned off."""
        base = find_optimizer(optimizer).learning_rate or self._own_rates[optimizer]
        return base * batch_size / BASE_BATCH_SIZE if self._settings.scale_learning_rate else base

    def study(self, request: Request, on_progress: Progress | None = None) -> dict[str, Any]:
        """Train the epochs, which ``on_progress`` is told of one by one.

        Returns ``fits``, ``epochs`` (their records), ``train_s`` (the sum of their times) and ``wall_s``;
        without them, and with a ``reason``, where it runs out of memory. Raises ``MeasureError``.
        """
        rate = self.learning_rate(request.optimizer, request.batch_size)
        try:
            with self._measure.costs.of("start and build a training run"):
                worker = self._measure.worker(
                    jobs.STUDY, request, self._dataset, rate, self._settings.schedule
                )
            with worker, self._measure.costs.of("train and evaluate epochs, with warm-up"):
                asked = (self._settings.epochs, self._settings.drop_last)
                outcome: dict[str, Any] = worker.call("run", *asked, on_progress=on_progress)
        except OutOfMemory as error:
            return {"fits": False, "reason": str(error)}
        train_s = sum(epoch["train_seconds"] for epoch in outcome["epochs"])
        return {"fits": True, **outcome, "train_s": train_s}

    def takes_longer(self, requests: Sequence[Request], limit_s: float) -> bool:
        """Tell from a step of each whether training all ``requests`` takes longer than ``limit_s`` seconds.

        What runs out of memory, or has no step within `STEP_LIMIT_S`, does. Raises ``MeasureError`` for
        any other way of not answering.
        """
        total_s = 0.0
        images = len(self._dataset.train_images)
        for request in requests:
            rate = self.learning_rate(request.optimizer, request.batch_size)
            with self._measure.costs.of("try a step of the model"):
                try:
                    asked = (jobs.STUDY, request, self._dataset, rate, self._settings.schedule)
                    with self._measure.worker(*asked) as worker:
                        step_s: float = worker.call("step_s", time_limit_s=STEP_LIMIT_S)
                except (ChildHung, ChildKilled, OutOfMemory):
                    return True
            an_epoch = images_per_epoch(images, request.batch_size, self._settings.drop_last)
            total_s += step_s * self._settings.epochs * -(-an_epoch // request.batch_size)
            if total_s > limit_s:
                return True
        return False

    def losses(self, request: Request) -> dict[str, Any]:
        """Train one epoch in fp64 at a small, changing rate, and read each step's loss.

        Returns ``fits``, ``losses`` (mean cross entropy over the images of each step) and what the steps
        counted; without them, and with a ``reason``, where it runs out of memory. Raises ``MeasureError``.
        """
        rate = EXACT_RATE_SHARE * self.learning_rate(request.optimizer, request.batch_size)
        cost = self._measure.costs.of("read the losses of single steps")
        try:
            with (
                cost,
                self._measure.worker(jobs.STUDY, request, self._dataset, rate, "cosine", True) as worker,
            ):
                return {"fits": True, **worker.call("losses")}
        except OutOfMemory as error:
            return {"fits": False, "reason": str(error)}

    def compared_losses(self, request: Request) -> dict[str, Any]:
        """Compare the losses of the request's engine with those of the eager one, step by step.

        Returns what ``losses`` does with ``steps``, ``losses_eager`` and ``loss_difference``: the largest
        of any step, as a share of the eager loss. The eager losses are read once. Raises ``MeasureError``.
        """
        eager, trained = self.eager_losses(request), self.losses(request)
        for one in (eager, trained):
            if not one["fits"]:
                return one
        pairs = list(zip(eager["losses"], trained["losses"], strict=True))
        return {
            **trained,
            "steps": len(pairs),
            "losses_eager": eager["losses"],
            "loss_difference": max(abs(a - b) / abs(a) for a, b in pairs),
            "precision": "fp64",  # of these losses, whatever the engine computes in otherwise
        }

    def eager_losses(self, request: Request) -> dict[str, Any]:
        """Return ``losses`` of the eager engine, read once a session. Raises ``MeasureError``."""
        eager = replace(request, engine="eager")
        if eager not in self._eager_losses:
            self._eager_losses[eager] = self.losses(eager)
        return self._eager_losses[eager]
