"""One session of the suite: what it is about, and what it measured or predicted. Imports no torch."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepcost import jobs
from stepcost.catalog.cards import CARDS
from stepcost.catalog.datasets import NEED_TORCH, Dataset, load_dataset
from stepcost.catalog.engines import ENGINES, UNCOMPILED_BY_SPEED
from stepcost.catalog.kinds import IMAGES
from stepcost.catalog.language_models import is_language_model
from stepcost.catalog.models import STAND_IN
from stepcost.catalog.optimizers import find_optimizer
from stepcost.catalog.own import is_own
from stepcost.catalog.precisions import emulated_on
from stepcost.failures import ChildFailed, MeasureError
from stepcost.machine import Machine, ModelInfo
from stepcost.measuring.instrument import Instrument
from stepcost.measuring.measurements import Measurements, TimeRounds, least_s
from stepcost.measuring.process import Progress, warm_up_server
from stepcost.measuring.training_runs import TrainingRuns
from stepcost.reading import Reading
from stepcost.request import Request, why_not_predicted_on, without_images
from stepcost.search import Search, Trial, find_largest, guess_from_tensors
from stepcost.session.limits import Limits
from stepcost.session.losses import Losses
from stepcost.session.predictions import Predictions
from stepcost.settings import Settings

NUM_CLASSES_EXPECTED = 10
"""Of both named data sets: the fork server builds the model before any data set is loaded."""
CPU_STUDY_S = 30.0
"""A model whose training runs take longer than this on the CPU is not trained there."""

PREDICTED_GPUS = 2
"""Between so many GPUs a step is shared where there is none, and nobody says between how many."""


class Session(Measurements):
    """Measures each request once and keeps the reading; predicts where there is no GPU."""

    def __init__(self, settings: Settings) -> None:
        """Look at the machine, the model and the data set, in a child.

        Raises ``ValueError`` in one line where something that was asked for does not exist.
        """
        super().__init__(settings.time_limit_s)
        self.settings = settings
        self._readings: dict[Request, list[Reading]] = {}
        """All that were taken of a request, each in a process of its own."""
        self.notes: list[str] = []
        """What a reader must know that turned up while it measured."""
        self.instrument = Instrument(self)
        with self.costs.of("inspect machine, model and data"):
            # A model of the user's own is not built in the server, which it could end.
            users_own = is_own(settings.model)
            images = (NUM_CLASSES_EXPECTED, settings.image_size)
            sizes = ("", "") if is_language_model(settings.model) else images
            warm_up_server(None if users_own else (settings.model, *sizes, settings.seeds[0]))
            named, folder, download = settings.dataset, settings.data_dir, settings.download
            try:
                if named not in NEED_TORCH:  # here, while the server imports torch, which takes longer
                    self.dataset: Dataset = load_dataset(named, Path(folder), download=download)
                with self.worker(jobs.INSPECTION) as worker:
                    self.machine: Machine = worker.call("machine", settings.device)
                    if named in NEED_TORCH:
                        self.dataset = worker.call("dataset", named, folder, download)
                    self.model: ModelInfo = worker.call("model", self._model_asked)
                    longest = max(settings.sequence_lengths)
                    worker.call("try_workload", replace(self._model_asked, sequence_length=longest))
                    own_rates = {
                        name: worker.call("learning_rate_of", name)
                        for name in settings.optimizers
                        if is_own(name)
                    }
                    for row in map(find_optimizer, settings.optimizers):
                        if row.by_module or row.extra is not None:
                            worker.call("try_optimizer", row.name)
                    if users_own:
                        worker.call("try_model", self._model_asked)
            except ChildFailed as error:
                raise ValueError(error.reason) from error
        request = self.any_step  # which says what cannot be combined
        if not self.on_gpu and (why_not := why_not_predicted_on(CARDS[settings.card], request)):
            raise ValueError(why_not)
        emulated = emulated_on(settings.precision, self.machine.compute_capability or "99")
        if emulated is not None:
            self.notes.append(f"{emulated}: times are not those of {settings.precision} elsewhere")
        self.training = TrainingRuns(self, settings, self.dataset, own_rates)
        if ENGINES[self.study_engine].captured and not self.on_gpu:
            raise ValueError(f"--engine {self.study_engine} needs a GPU: {self.machine.why_no_gpu}")
        why_not = ENGINES[self.study_engine].why_not(settings.batch_optimizer)
        if why_not:
            raise ValueError(f"--engine {self.study_engine}: {why_not}")
        if self.on_gpu and (most := max(settings.gpus, default=0)) > self._gpus_here:
            raise ValueError(f"--gpus {most}: from {self.machine.device} on there are {self._gpus_here}")

    @functools.cached_property
    def predictions(self) -> Predictions:
        """What is asked of a child that predicts."""
        return Predictions(self)

    @functools.cached_property
    def losses(self) -> Losses:
        """Losses of first steps in fp64."""
        return Losses(self)

    @functools.cached_property
    def limits(self) -> Limits:
        """What bounds a step here."""
        return Limits(self, self._model_asked)

    @property
    def on_gpu(self) -> bool:
        """Whether readings are measured; otherwise memory is predicted."""
        return self.machine.device != "cpu"

    @property
    def gpus(self) -> int:
        """How many GPUs share a step of question 6 where nothing else is asked."""
        return self._gpus_here if self.on_gpu else PREDICTED_GPUS

    @property
    def _gpus_here(self) -> int:
        """Count the GPUs of the machine, from the session's own on."""
        return self.machine.gpus - int(self.machine.device.partition(":")[2] or 0)

    @property
    def why_no_parallel(self) -> str | None:
        """Why no step is shared between GPUs here; ``None`` where there are several, or it is predicted."""
        if self.gpus > 1:
            return None
        return f"only several GPUs can tell: this machine has one from {self.machine.device} on"

    @property
    def study_engine(self) -> str:
        """How epochs are run: what the flag asks for, else the fastest that trains the same."""
        if self.settings.engine != "auto":
            return self.settings.engine
        if not self.on_gpu or self.model.kind != IMAGES or self.settings.precision != "fp32":
            return "eager"
        optimizer = self.settings.batch_optimizer
        return next(name for name in UNCOMPILED_BY_SPEED if ENGINES[name].why_not(optimizer) is None)

    @property
    def card_engine(self) -> str:
        """How the steps of question 7 are launched: as those of 3b to 3d, or by graph where that is eager."""
        return self.study_engine if ENGINES[self.study_engine].captured else "graph"

    @property
    def any_step(self) -> Request:
        """One of the steps that this session asks about."""
        return self.request(
            optimizer=self.settings.batch_optimizer, batch_size=min(self.settings.batch_sizes)
        )

    @property
    def _model_asked(self) -> Request:
        """The model as this session asks about it, in whatever step."""
        optimizer, size = self.settings.batch_optimizer, min(self.settings.batch_sizes)
        return self._plain_request(optimizer=optimizer, batch_size=size)

    @functools.cached_property
    def study_model(self) -> str:
        """What is trained for questions 3b to 3d: the model itself, or a stand-in that a CPU trains in time.

        Without a GPU a step of the model at each batch size decides. Raises ``MeasureError``.
        """
        model, settings = self.settings.model, self.settings
        if self.on_gpu or model == STAND_IN:
            return model
        asked = [
            self.request(optimizer=settings.batch_optimizer, batch_size=size)
            for size in sorted(settings.batch_sizes)
        ]
        if not self.training.takes_longer(asked, CPU_STUDY_S / len(settings.seeds)):
            return model
        self.notes.append(
            f"questions 3b to 3d train {STAND_IN} on the CPU, a stand-in for {model}, which would take more "
            f"than {CPU_STUDY_S:g} s: its accuracy and times are not those of that model"
        )
        return STAND_IN

    def request(self, *, optimizer: str, batch_size: int, **fields: Any) -> Request:
        """Return the request of this session's model and device, with ``fields`` changed."""
        plain = self._plain_request(optimizer=optimizer, batch_size=batch_size)
        return replace(without_images(plain, self.model.kind), **fields)

    def _plain_request(self, *, optimizer: str, batch_size: int) -> Request:
        return Request(
            model=self.settings.model,
            optimizer=optimizer,
            batch_size=batch_size,
            num_classes=self.dataset.num_classes,
            device=self.machine.device,
            **self.settings.step_asked,
        )

    def reading(self, request: Request) -> Reading:
        """Return the memory reading of ``request``, taken once a session; 'out of memory' is a reading."""
        return self._readings_of(request, 1)[0]

    def second_reading(self, request: Request) -> Reading:
        """Return the reading of a second fresh process: of one that this session had anyway, or a new one."""
        return self._readings_of(request, 2)[1]

    def remember(self, request: Request, reading: Reading) -> None:
        """Share a reading that was just taken with the relations that ask for it later."""
        self._readings.setdefault(request, []).append(reading)

    def _readings_of(self, request: Request, count: int) -> list[Reading]:
        """Return all readings of ``request``, ``count`` at least. Raises ``MeasureError``."""
        while len(self._readings.get(request, ())) < count:
            self.remember(
                request, self.measured(request) if self.on_gpu else self.predictions.memory(request)
            )
        return self._readings[request]

    def timed_step(
        self, request: Request, time_rounds: TimeRounds, *, busy: bool = False
    ) -> tuple[Reading, dict[str, Any]]:
        """Read and time a step as ``Measurements.timed_step`` does, and keep the reading."""
        reading, fields = super().timed_step(request, time_rounds, busy=busy)
        self.remember(request, reading)
        return reading, fields

    def engine_step(
        self, request: Request, time_rounds: TimeRounds, *, bounds: bool = True
    ) -> dict[str, Any]:
        """Time a step as ``Measurements.engine_step`` does; add what bounds it, and ``least_s``.

        Where its operators are known, what each takes and what was predicted is added too.
        """
        step = super().engine_step(request, time_rounds, bounds=bounds)
        if not step["fits"] or not bounds:
            return step
        limits = self.limits.of(request.precision, request.batch_size)
        unread = {**step["unread"], **limits["unread"]}
        if "in_place" in step:
            limits |= self._beside(request, step.pop("in_place"), unread)
        return {**step, **limits, "least_s": least_s(step["least_bytes"], limits), "unread": unread}

    def _beside(
        self, request: Request, in_place: dict[str, Any] | None, unread: dict[str, str]
    ) -> dict[str, Any]:
        """Return what a measured step's operators take and what was predicted of it; else add why not."""
        try:
            # A child that ends with its answer: one that lived on could hold memory of the GPU.
            with self.costs.of("predict measured steps"), self.worker(jobs.PREDICTION) as worker:
                found: dict[str, Any] = worker.call("beside", request, self.machine.gpu, in_place)
        except MeasureError as error:
            unread["predicted_step"] = str(error)
            unread.setdefault("by_operator_s", str(error))
            return {}
        return found

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
            trial = self.trial(self.request(batch_size=batch_size, **ask))
            if on_progress is not None:
                on_progress(trial)
            return trial

        return find_largest(attempt, guess)

    def machine_again(self) -> Machine:
        """Return the machine as another fresh process sees it. Raises ``MeasureError``."""
        machine: Machine = self._inspected("machine", self.machine.device)
        return machine

    def model_again(self) -> ModelInfo:
        """Return the model as another fresh process builds and counts it. Raises ``MeasureError``."""
        model: ModelInfo = self._inspected("model", self._model_asked)
        return model

    def free_bytes(self) -> int:
        """Return the free memory of the GPU, as a fresh process sees it. Raises ``MeasureError``."""
        free: int = self._inspected("free_bytes", self.machine.device)
        return free

    def _inspected(self, method: str, *arguments: Any) -> Any:
        with self.worker(jobs.INSPECTION) as worker:
            return worker.call(method, *arguments)

    def close(self) -> None:
        """End the child that predicts."""
        self.predictions.close()
