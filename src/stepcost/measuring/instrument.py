"""What measuring itself costs, and whether its figures can be trusted. Imports no torch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from statistics import median
from typing import Any

from stepcost import jobs
from stepcost.failures import ChildFailed, ChildHung, OutOfMemory
from stepcost.measuring.measurements import WARM_UP_ROUNDS, Measurements, TimeRounds
from stepcost.request import Request

ROUND_TRIPS = 200


class Instrument:
    """Measures the measuring, by steps of configurations.

    Every method raises ``MeasureError`` where a child does not answer: ``OutOfMemory`` where it ran out of
    memory, unless the method says otherwise.
    """

    def __init__(self, measure: Measurements) -> None:
        self._measure = measure

    def process_medians(self, request: Request, *, processes: int, steps: int) -> dict[str, Any]:
        """Time the same step in several fresh processes; those that timed it before in this session count.

        Returns ``fits``, ``process_medians_s`` (of each process, over ``steps`` steps) and ``spread_share``:
        the largest less the smallest, as a share of their median. Without them, and with a ``reason``, where
        it runs out of memory. Raises ``MeasureError``.
        """
        medians = self._measure.step_medians_s.get(request, [])[:processes]
        try:
            for _ in range(processes - len(medians)):
                part = "start processes and time their steps"
                with self._measure.asked("prepare", part, jobs.ENGINE_STEP, request) as (worker, _held):
                    medians.append(median(worker.call("timed_steps", steps)))
        except OutOfMemory as error:
            return {"fits": False, "reason": str(error)}
        spread_share = (max(medians) - min(medians)) / median(medians)
        return {"fits": True, "process_medians_s": medians, "spread_share": spread_share}

    def border(self, request: Request, time_rounds: TimeRounds, *, steps: int) -> dict[str, Any]:
        """Measure what the border between the processes adds to a step, by timing steps on both of its sides.

        Returns ``bare_step_s`` (in the child), ``piped_step_s`` (out here), ``border_s``, its share of the
        step ``border_share``, and ``round_trip_s`` of calls that do nothing. Raises ``MeasureError``.
        """
        bare, piped = [], []
        with self._measure.asked("first_step", "time the process border", jobs.CONFIGURATION, request) as (
            worker,
            _,
        ):
            worker.call("timed_steps", WARM_UP_ROUNDS)
            # The same step by both clocks: steps differ among themselves by more than the border adds.
            for _round in range(steps):
                start = time.perf_counter()
                bare += worker.call("timed_steps", 1)
                piped.append(time.perf_counter() - start)
            round_trip_s = time_rounds(lambda: worker.call("ping"), ROUND_TRIPS)
        border_s = median(outer - inner for outer, inner in zip(piped, bare, strict=True))
        return {
            "bare_step_s": median(bare),
            "piped_step_s": median(piped),
            "border_s": border_s,
            "border_share": border_s / median(bare),
            "round_trip_s": round_trip_s,
        }

    def warm_start(self, request: Request) -> dict[str, float]:
        """Take the first step in a fresh process; return where its time went, in seconds by part."""
        part = "start a process and take one step"
        with self._measure.asked("first_step", part, jobs.CONFIGURATION, request) as (_, parts_s):
            started: dict[str, float] = parts_s
        return started

    def fresh_interpreter_s(self, request: Request) -> float:
        """Return the seconds from request to first finished step in a fresh interpreter, the obvious way."""
        fields = json.dumps(asdict(request))
        start = time.perf_counter()
        try:
            with self._measure.costs.of("start a fresh interpreter, to compare"):
                done = subprocess.run(
                    [sys.executable, "-m", "stepcost.measuring.fresh", fields],
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=self._measure.time_limit_s,
                )
        except subprocess.TimeoutExpired as error:
            raise ChildHung(f"a fresh interpreter: no first step within {error.timeout:g} s") from error
        if done.returncode:
            raise ChildFailed(
                f"a fresh interpreter failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
            )
        return time.perf_counter() - start

    def busy_shares(self, request: Request) -> dict[str, float]:
        """Return the share of a step that the GPU computes, with and without faults (``PlantedStep``)."""
        part = "plant faults in a step"
        with self._measure.asked("busy_shares", part, jobs.PLANTED_STEP, request) as (_, shares):
            found: dict[str, float] = shares
        return found
