"""One session's measurements: inspected, measured, predicted. Knows no pytest, imports no torch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from stepcost import jobs
from stepcost.catalog.datasets import NEED_TORCH, Dataset, load_dataset
from stepcost.catalog.engines import ENGINES, UNCOMPILED_BY_SPEED
from stepcost.catalog.models import STAND_IN
from stepcost.catalog.optimizers import BASE_BATCH_SIZE, find_optimizer
from stepcost.catalog.own import is_own
from stepcost.failures import ChildDied, ChildFailed, ChildHung, MeasureError, OutOfMemory
from stepcost.machine import Machine, ModelInfo
from stepcost.measure.process import Progress, Worker, warm_up_server
from stepcost.reading import Reading
from stepcost.request import Request
from stepcost.search import PredictedLargest, Search, Trial, find_largest, guess_from_tensors
from stepcost.settings import Settings

EXACT_RATE_SHARE = 1e-6
"""Of the learning rate, where losses are compared. At the whole rate a deep network in training multiplies
the difference of two runs by thousands from step to step, rounding first of all. At this share it does
not, and in fp64 what a step changes in the loss is still far above rounding."""
NUM_CLASSES_EXPECTED = 10
"""Of both named data sets: the fork server builds the model before any data set is loaded."""


@dataclass
class Costs:
    """Where the session's time goes, by part."""

    parts: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Add the time spent inside to ``part``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.parts.setdefault(part, []).append(time.perf_counter() - start)

    def table(self) -> list[dict[str, Any]]:
        """Parts with their seconds and how often they ran, costliest first."""
        rows = [
            {"part": part, "seconds": sum(spent), "times": len(spent)} for part, spent in self.parts.items()
        ]
        return sorted(rows, key=lambda row: -row["seconds"])


class Session:
    """Measures one request once a session and keeps the reading; predicts where there is no GPU."""

    def __init__(self, settings: Settings) -> None:
        """Look at the machine, the model and the data set, in a child.

        Raises ``ValueError`` in one line where something that was asked for does not exist.
        """
        self.settings = settings
        self.costs = Costs()
        self._readings: dict[Request, Reading] = {}
        self._predictor: Worker | None = None
        self._plain_losses: dict[Request, dict[str, Any]] = {}
        self._rates: dict[str, float] | None = None
        self._flops_per_image: tuple[int | None, str | None] | None = None
        with self.costs.of("inspect machine, model and data"):
            # A model of the user's own is not built in the server, which it could end.
            users_own = is_own(settings.model)
            warm_up_server(None if users_own else (settings.model, NUM_CLASSES_EXPECTED, settings.image_size))
            named, folder, download = settings.dataset, settings.data_dir, settings.download
            try:
                if named not in NEED_TORCH:  # here, while the server imports torch, which takes longer
                    self.dataset: Dataset = load_dataset(named, Path(folder), download=download)
                with self.worker(jobs.INSPECTION) as worker:
                    self.machine: Machine = worker.call("machine", settings.device)
                    if named in NEED_TORCH:
                        self.dataset = worker.call("dataset", named, folder, download)
                    self.model: ModelInfo = worker.call(
                        "model", settings.model, self.dataset.num_classes, settings.image_size
                    )
                    self._own_rates: dict[str, float] = {
                        name: worker.call("learning_rate_of", name)
                        for name in settings.optimizers
                        if is_own(name)
                    }
                    if users_own:
                        asked = (settings.model, self.dataset.num_classes, settings.image_size)
                        worker.call("try_model", *asked, self.machine.device)
            except ChildFailed as error:
                raise ValueError(error.reason) from error
        if ENGINES[self.study_engine].captured and not self.on_gpu:
            raise ValueError(f"--engine {self.study_engine} needs a GPU: {self.machine.why_no_gpu}")
        why_not = ENGINES[self.study_engine].why_not(settings.batch_optimizer)
        if why_not:
            raise ValueError(f"--engine {self.study_engine}: {why_not}")

    @property
    def on_gpu(self) -> bool:
        """Whether readings are measured; otherwise memory is predicted."""
        return self.machine.device != "cpu"

    @property
    def study_engine(self) -> str:
        """How epochs are run: what the flag asks for, else the fastest that trains the same."""
        if self.settings.engine != "auto":
            return self.settings.engine
        if not self.on_gpu:
            return "eager"
        optimizer = self.settings.batch_optimizer
        return next(name for name in UNCOMPILED_BY_SPEED if ENGINES[name].why_not(optimizer) is None)

    def worker(self, job: str, *arguments: Any) -> Worker:
        """Start a child with the time limit of the settings. Raises ``MeasureError``."""
        return Worker(job, *arguments, time_limit_s=self.settings.time_limit_s)

    @property
    def study_model(self) -> str:
        """What is trained for questions 3b to 3d: without a GPU, a smaller stand-in."""
        return self.settings.model if self.on_gpu else STAND_IN

    def request(self, *, optimizer: str, batch_size: int, **fields: Any) -> Request:
        """Return the request of this session's model and device, with ``fields`` changed."""
        plain = Request(
            model=self.settings.model,
            optimizer=optimizer,
            batch_size=batch_size,
            image_size=self.settings.image_size,
            num_classes=self.dataset.num_classes,
            device=self.machine.device,
        )
        return replace(plain, **fields)

    def configuration(self, request: Request) -> Worker:
        """Start a fresh process that holds the configuration. Raises ``MeasureError``."""
        return self.worker(jobs.CONFIGURATION, request)

    def reading(self, request: Request) -> Reading:
        """Return the memory reading of ``request``, taken once a session; 'out of memory' is a reading."""
        if request not in self._readings:
            self.remember(request, self.fresh_reading(request))
        return self._readings[request]

    def remember(self, request: Request, reading: Reading) -> None:
        """Share a reading that was just taken with the relations that ask for it later."""
        self._readings.setdefault(request, reading)

    def fresh_reading(self, request: Request) -> Reading:
        """Measure in a process of its own, or predict; never from what was kept. Raises ``MeasureError``."""
        if not self.on_gpu:
            return self.prediction(request)
        with self.costs.of("start a process and read its memory"):
            try:
                with self.configuration(request) as worker:
                    return self.read(worker)
            except OutOfMemory as error:
                return Reading(source="measured", fits=False, reason=str(error))

    def read(self, worker: Worker) -> Reading:
        """Return the memory reading of a configuration that a worker holds."""
        reading: Reading = worker.call("reading")
        return reading

    def prediction(self, request: Request) -> Reading:
        """Predict the memory of ``request`` without a GPU, in a child that serves the whole session.

        Raises ``MeasureError``; the next prediction then gets a new child.
        """
        with self.costs.of("predict memory"):
            reading: Reading = self._predicted("predict", request)
        return reading

    def predicted_largest(self, request: Request) -> PredictedLargest:
        """Predict the largest batch that the card of ``--gpu`` would train. Raises ``MeasureError``."""
        with self.costs.of("predict the largest batch"):
            largest: PredictedLargest = self._predicted("largest_batch", request)
        return largest

    def predicted_largest_batch(self, request: Request) -> int | None:
        """Predict the same; ``None`` where it is not known exactly."""
        return self.predicted_largest(request).largest_batch

    def _predicted(self, method: str, request: Request) -> Any:
        if self._predictor is None:
            self._predictor = self.worker(jobs.PREDICTION)
        try:
            return self._predictor.call(method, request, self.settings.card)
        except MeasureError:
            self.close()
            raise

    def largest_batch(self, on_progress: Progress | None = None) -> Search:
        """Find by trying the largest batch that trains; each trial in a fresh process."""
        sizes = sorted(self.settings.batch_sizes)
        sizes = sizes if len(sizes) > 1 else [sizes[0], 2 * sizes[0]]
        ask = {"optimizer": self.settings.batch_optimizer}
        known = [(size, self.reading(self.request(batch_size=size, **ask))) for size in sizes]
        lines = [(size, r.tensor_bytes, r.context_bytes) for size, r in known if r.fits and r.tensor_bytes]
        context_bytes = max((context or 0 for _, _, context in lines), default=0)
        limit = (self.machine.gpu_total_bytes or 0) - context_bytes
        tensors = [(size, held) for size, held, _ in lines]
        guess = guess_from_tensors(tensors, limit) if len(tensors) > 1 else min(sizes)

        def attempt(batch_size: int) -> Trial:
            trial = self._trial(self.request(batch_size=batch_size, **ask))
            if on_progress is not None:
                on_progress(trial)
            return trial

        return find_largest(attempt, guess)

    def free_bytes(self) -> int:
        """Free memory of the GPU, as a fresh process sees it."""
        with self.worker(jobs.INSPECTION) as worker:
            free: int = worker.call("free_bytes", self.machine.device)
        return free

    def _trial(self, request: Request) -> Trial:
        start = time.perf_counter()
        outcome: dict[str, Any] = {"fits": False}
        with self.costs.of("try a batch size"):
            try:
                with self.configuration(request) as worker:
                    peak, step_s = worker.call("attempt")
                outcome = {"fits": True, "peak_allocated_bytes": peak, "step_s": step_s}
            except (OutOfMemory, ChildDied) as error:  # the system kills where host memory runs out
                outcome["reason"] = str(error)
        return Trial(batch_size=request.batch_size, seconds=time.perf_counter() - start, **outcome)

    def learning_rate(self, optimizer: str, batch_size: int) -> float:
        """Rate for a batch size: linear in it (Goyal et al. 2017, section 2.1) unless that is turned off."""
        base = find_optimizer(optimizer).learning_rate or self._own_rates[optimizer]
        return base * batch_size / BASE_BATCH_SIZE if self.settings.scale_learning_rate else base

    def study(self, request: Request, on_progress: Progress | None = None) -> dict[str, Any]:
        """Train the epochs; returns ``epochs`` (their records) and ``wall_s``. Raises ``MeasureError``."""
        rate = self.learning_rate(request.optimizer, request.batch_size)
        with self.costs.of("start and build a training run"):
            worker = self.worker(jobs.STUDY, request, self.dataset, rate, self.settings.schedule)
        with worker, self.costs.of("train and evaluate epochs, with warm-up"):
            asked = (self.settings.epochs, self.settings.drop_last)
            outcome: dict[str, Any] = worker.call("run", *asked, on_progress=on_progress)
        return outcome

    def losses(self, request: Request) -> dict[str, Any]:
        """Train one epoch in fp64 at a small, changing rate, and read each step's loss.

        Returns ``losses`` (mean cross entropy over the images of each step) with what the steps counted and
        ``fits``; without losses, and with a ``reason``, where it ran out of memory. Raises ``MeasureError``.
        """
        rate = EXACT_RATE_SHARE * self.learning_rate(request.optimizer, request.batch_size)
        cost = self.costs.of("read the losses of single steps")
        try:
            with cost, self.worker(jobs.STUDY, request, self.dataset, rate, "cosine", True) as worker:
                losses: dict[str, Any] = worker.call("losses")
                return {"fits": True} | losses
        except OutOfMemory as error:
            return {"fits": False, "reason": str(error)}

    def plain_losses(self, request: Request) -> dict[str, Any]:
        """The same of the plain loop, once a session. Raises ``MeasureError``."""
        plain = replace(request, engine="eager")
        if plain not in self._plain_losses:
            self._plain_losses[plain] = self.losses(plain)
        return self._plain_losses[plain]

    def limits(self, precision: str, batch_size: int) -> dict[str, Any]:
        """What bounds a step on this card: its rates, measured once a session, and the step's operations.

        ``copy_bytes_per_s``, ``matrix_flops_per_s`` in that precision, and ``step_flops``: ``None`` where the
        model cannot be counted, as ``unread`` then says. Raises ``MeasureError``.
        """
        if self._rates is None:
            with self.costs.of("measure the card's rates"), self.worker(jobs.LIMITS) as worker:
                self._rates = worker.call("rates", self.machine.device)
        if self._flops_per_image is None:
            self._flops_per_image = self._count_flops()
        per_image, why_not = self._flops_per_image
        return {
            "step_flops": None if per_image is None else per_image * batch_size,
            "copy_bytes_per_s": self._rates["copy_bytes_per_s"],
            "matrix_flops_per_s": self._rates[f"matrix_flops_per_s_{precision}"],
            "unread": {"step_flops": why_not} if why_not else {},
        }

    def _count_flops(self) -> tuple[int | None, str | None]:
        """Operations of a step per image, or why they cannot be counted."""
        ask = (self.settings.model, self.dataset.num_classes, self.settings.image_size)
        try:
            with self.worker(jobs.LIMITS) as worker:
                return worker.call("step_flops", *ask), None
        except MeasureError as error:  # counted on the meta device, and a model may need real tensors
            return None, str(error)

    def fresh_interpreter_s(self, request: Request) -> float:
        """Seconds from request to first finished step in a fresh interpreter, the obvious way."""
        fields = json.dumps(asdict(request))
        start = time.perf_counter()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "stepcost.measure.fresh", fields],
                capture_output=True,
                text=True,
                check=False,
                timeout=self.settings.time_limit_s,
            )
        except subprocess.TimeoutExpired as error:
            raise ChildHung(f"a fresh interpreter: no first step within {error.timeout:g} s") from error
        if done.returncode:
            raise ChildFailed(
                f"a fresh interpreter failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
            )
        return time.perf_counter() - start

    def close(self) -> None:
        """End the child that predicts."""
        if self._predictor is not None:
            self._predictor.close()
            self._predictor = None
