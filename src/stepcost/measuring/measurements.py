"""What is measured in fresh processes: each method starts its own. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import Any

from stepcost import jobs
from stepcost.catalog.engines import ENGINES
from stepcost.costs import Costs
from stepcost.failures import ChildKilled, MeasureError, OutOfMemory
from stepcost.measuring.process import Worker
from stepcost.measuring.ranks import Group
from stepcost.reading import Reading
from stepcost.request import Request
from stepcost.search import Trial

TimeRounds = Callable[[Callable[[], object], int], float | None]
"""``time_rounds(work, rounds)`` does ``work`` so often and returns its median seconds, or ``None`` where
nothing is timed."""
WARM_UP_ROUNDS = 3
TIMED_S = 1.0
"""Steps are timed for about so long, within these numbers of rounds."""
FEWEST_ROUNDS, MOST_ROUNDS = 20, 100
READ = "start a process and read its memory"
PROFILE = ("gpu_busy_s", "gpu_busy_share", "kernel_s", "kernels", "transfer_s")
"""What the profile of a step gives; of several GPUs their communication too."""


class Measurements:
    """Measures requests, each in a process of its own, within one time limit.

    Running out of memory is an outcome that says so; every other way of not answering is a ``MeasureError``.
    """

    def __init__(self, time_limit_s: float) -> None:
        self.time_limit_s = time_limit_s
        self.costs = Costs()
        self.step_medians_s: dict[Request, list[float]] = {}
        """Median step in each fresh process that timed the request's steps."""

    def worker(self, job: str, *arguments: Any) -> Worker:
        """Start a child within the time limit. Raises ``MeasureError``."""
        return Worker(job, *arguments, time_limit_s=self.time_limit_s)

    def holding(self, job: str, request: Request, *more: Any) -> Worker | Group:
        """Start a child for a request, or one a GPU where it has several. Raises ``MeasureError``."""
        if request.gpus > 1:
            return Group(job, request, *more, time_limit_s=self.time_limit_s)
        return self.worker(job, request, *more)

    def measured(self, request: Request, *more: Any, job: str | None = None) -> Reading:
        """Read the memory of a configuration in a fresh process; a ``job`` may take more than the request.

        Raises ``MeasureError``.
        """
        started = time.perf_counter()
        try:
            with self.asked("reading", READ, job or jobs.CONFIGURATION, request, *more) as (_, reading):
                found: Reading = reading
        except OutOfMemory as error:
            return _unfit(error, started)
        return found

    def timed_step(
        self, request: Request, time_rounds: TimeRounds, *, busy: bool = False
    ) -> tuple[Reading, dict[str, Any]]:
        """Read the memory of a configuration in a fresh process, then time its steps there.

        Returns the reading and, where it fits, ``clocks`` and (with ``busy``) the figures of ``PROFILE``.
        Where the profile alone runs out of memory, the reading's ``unread`` says so. Where the
        reading or the timed steps do, the reading does not fit, and ``time_rounds`` may not have been called.
        Raises ``MeasureError``.
        """
        started = time.perf_counter()
        try:
            with self.asked("reading", READ, jobs.CONFIGURATION, request) as (worker, reading):
                step_s = self._time_steps(worker, time_rounds)
                if step_s is not None:
                    self.step_medians_s.setdefault(request, []).append(step_s)
                fields = {"clocks": worker.call("clocks")}
                figures, unread = self._profile(worker, step_s) if busy else ({}, {})
        except OutOfMemory as error:
            return _unfit(error, started), {}
        return replace(reading, unread={**reading.unread, **unread}), fields | figures

    def engine_step(
        self, request: Request, time_rounds: TimeRounds, *, bounds: bool = True
    ) -> dict[str, Any]:
        """Prepare the step of the request's engine in a fresh process, time it and measure its energy.

        Returns ``fits`` with what ``EngineStep.prepare`` tells, ``clocks``, energy and (with ``bounds``) the
        figures of ``PROFILE``, and the kernels ``in_place`` of an engine that replays operators; without
        them, and with a ``reason``, where it runs out of memory. Raises ``MeasureError``.
        """
        started = time.perf_counter()
        part = "start a process and prepare an engine"
        try:
            with self.asked("prepare", part, jobs.ENGINE_STEP, request) as (worker, held):
                step_s = self._time_steps(worker, time_rounds)
                clocks = worker.call("clocks")
                with self.costs.of("measure the energy of the steps"):
                    energy, no_energy = worker.call("energy")
                figures, unread = self._profile(worker, step_s) if bounds else ({}, {})
                if figures and ENGINES[request.engine].replays_operators:
                    in_place, why_not = self._kernels(worker, step_s)
                    figures |= {"in_place": in_place}
                    unread |= {"by_operator_s": why_not} if why_not else {}
        except OutOfMemory as error:
            return {"fits": False, "reason": str(error), "seconds": time.perf_counter() - started}
        unread = {**held["unread"], **no_energy, **unread}
        return {"fits": True, "clocks": clocks, **held, **energy, **figures, "unread": unread}

    def trial(self, request: Request) -> Trial:
        """Take steps in a fresh process, to see whether they fit (``Configuration.attempt``).

        They do not where they run out of memory, or where the system kills the child, as it does where host
        memory runs out. Raises ``MeasureError``, which names the batch size, for any other end.
        """
        start = time.perf_counter()
        outcome: dict[str, Any]
        try:
            with self.asked("attempt", "try a batch size", jobs.CONFIGURATION, request) as (_, tried):
                outcome = {"fits": True, "peak_allocated_bytes": tried[0], "step_s": tried[1]}
        except (OutOfMemory, ChildKilled) as error:
            outcome = {"fits": False, "reason": str(error)}
        except MeasureError as error:
            raise type(error)(f"batch size {request.batch_size}: {error}") from error
        return Trial(batch_size=request.batch_size, seconds=time.perf_counter() - start, **outcome)

    @contextmanager
    def asked(
        self, method: str, part: str, job: str, request: Request, *more: Any
    ) -> Iterator[tuple[Worker | Group, Any]]:
        """Start a child and ask it once; give the child, which lives on inside, and its answer."""
        with self.costs.of(part):
            worker = self.holding(job, request, *more)
            try:
                answer = worker.call(method)
            except BaseException:
                worker.close()
                raise
        with worker:
            yield worker, answer

    def _time_steps(self, worker: Worker | Group, time_rounds: TimeRounds) -> float | None:
        """Time the steps of what a child holds; return their median seconds. Raises ``MeasureError``."""
        ran_out: OutOfMemory | None = None

        def step() -> None:
            # Raised through what times the rounds, it would cost the caller the rounds before it.
            nonlocal ran_out
            if ran_out is None:
                try:
                    worker.call("step")
                except OutOfMemory as error:
                    ran_out = error

        with self.costs.of("time the steps"):
            step_s = median(worker.call("timed_steps", WARM_UP_ROUNDS))
            rounds = max(FEWEST_ROUNDS, min(MOST_ROUNDS, int(TIMED_S / step_s)))
            median_s = time_rounds(step, rounds)
        if ran_out is not None:
            raise ran_out
        return median_s

    def _kernels(
        self, worker: Worker | Group, step_s: float | None
    ) -> tuple[dict[str, Any] | None, str | None]:
        """Time the kernels of the captured step that a child holds; return them, or why they are unread."""
        if step_s is None:
            return None, "the step was not timed"
        try:
            with self.costs.of("time the kernels of captured steps"):
                found, why_not = worker.call("kernels")
        except OutOfMemory as error:  # launched in turn, beside its own capture, the step does not fit
            return None, str(error)
        return (None if found is None else found | {"step_s": step_s}), why_not

    def _profile(self, worker: Worker | Group, step_s: float | None) -> tuple[dict[str, Any], dict[str, str]]:
        """Profile the steps of what a child holds; return the figures, and why they are unread."""
        try:
            with self.costs.of("profile the steps"):
                figures: dict[str, Any] = worker.call("profiled")
        except OutOfMemory as error:  # the step fits; the profiler's buffers alongside it do not
            return {}, dict.fromkeys(PROFILE, str(error))
        return figures | ({"gpu_busy_share": figures["gpu_busy_s"] / step_s} if step_s else {}), {}


def _unfit(error: OutOfMemory, started: float) -> Reading:
    """Return the reading of a configuration that ran out of memory."""
    seconds = time.perf_counter() - started
    return Reading(source="measured", fits=False, reason=str(error), seconds=seconds)


def least_s(least_bytes: int, limits: dict[str, Any]) -> float:
    """Return the seconds below which a step cannot come: of its bytes or, where counted, its operations."""
    moved_s: float = least_bytes / limits["copy_bytes_per_s"]
    if limits["step_flops"] is None:
        return moved_s
    computed_s: float = limits["step_flops"] / limits["matrix_flops_per_s"]
    return max(moved_s, computed_s)
