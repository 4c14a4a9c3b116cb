"""The times of a training step that are compared: how each is read from a row, and how noisy it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from stepcost.report.compare.matching import ENGINE_TIMED, STEP_TIMED, Pair
from stepcost.report.compare.noise import Samples
from stepcost.report.rows import EAGER, Row

ASSUMED_BUSY_NOISE = 0.007
"""Standard deviation of ``gpu_busy_s`` between processes that is assumed where runs are too few to tell."""
ASSUMED_CAPTURED_NOISE = 0.007
"""The same of the times of captured steps, which are the GPU's: the step, its kernels, the GPU's busy time.

It rests on one pair of runs on one card: 15 steps on an H100, each in two processes minutes apart, gave
0.53 % (``experiments/samples/h100-captured-steps.json``). All 15 were slower in the second run, by 0.67 %
in the mean, so most of it is a shift of the whole run, whose size one pair hardly tells. Nine runs in a row
on another H100 host gave 0.33 % for one step (``experiments/samples/h100-planted.tar.gz``)."""
STEPS = (STEP_TIMED, ENGINE_TIMED)
HOST = ("gpu", "cpu")
"""What must be equal of two machines before the noise of one stands for that of the other."""


def step_s(row: Row) -> float | None:
    """Median seconds of the training steps of one process; ``None`` for rows that time anything else."""
    if row.get("timed") not in STEPS:
        return None
    stats = row.get("stats") or {}
    rounds = row.get("rounds_s") or stats.get("data")
    value = median(rounds) if rounds else stats.get("median")
    return float(value) if value else None


def busy_s(row: Row) -> float | None:
    """Seconds of a step during which the GPU works, by the profiler; ``None`` where it was not read."""
    return _of_a_step(row, "gpu_busy_s")


def kernel_s(row: Row) -> float | None:
    """Seconds of all kernels of a step, one after the other; ``None`` where it was not read."""
    return _of_a_step(row, "kernel_s")


def _of_a_step(row: Row, field: str) -> float | None:
    value = row.get(field) if row.get("timed") in STEPS else None
    return float(value) if value else None


@dataclass(frozen=True)
class TimeFigure:
    """One way to time one kind of step. Kinds are judged apart: they are not equally noisy."""

    name: str
    timed: str
    read: Callable[[Row], float | None]
    assumed_noise: float | None
    """Between processes, as a share, where nothing tells; ``None``: nothing is assumed."""
    needs: tuple[str, ...]
    """What must be equal of two machines before a difference is the build's doing."""
    gated: bool = True

    @property
    def called(self) -> str:
        """The figure with its kind of step, where that is not the eager one."""
        return self.name if self.timed == STEP_TIMED else f"{self.name} of {self.timed}s"

    def samples(self, pair: Pair) -> Samples:
        """Seconds of this kind of step by run; empty for a side where no run has them."""
        base_s, new_s = (
            {
                run: value
                for run, row in rows.items()
                if kind_of_step(row) == self.timed and (value := self.read(row)) is not None
            }
            for rows in pair
        )
        return Samples(base_s, new_s)


def kind_of_step(row: Row) -> str | None:
    """``training step`` or ``engine step``: an eager step is the former, whichever question asked for it."""
    return STEP_TIMED if row.get("timed") == ENGINE_TIMED and row.get("engine") == EAGER else row.get("timed")


FIGURES = (
    TimeFigure("step_s", STEP_TIMED, step_s, None, HOST),
    TimeFigure("gpu_busy_s", STEP_TIMED, busy_s, ASSUMED_BUSY_NOISE, ("gpu",)),
    TimeFigure("step_s", ENGINE_TIMED, step_s, ASSUMED_CAPTURED_NOISE, ("gpu",)),
    TimeFigure("gpu_busy_s", ENGINE_TIMED, busy_s, ASSUMED_CAPTURED_NOISE, ("gpu",), gated=False),
    TimeFigure("kernel_s", ENGINE_TIMED, kernel_s, ASSUMED_CAPTURED_NOISE, ("gpu",), gated=False),
)
