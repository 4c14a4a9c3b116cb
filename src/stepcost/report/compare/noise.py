"""Is a training step slower? Decided between processes, not between rounds; docs/compare.md says why.

Each run gives one number for a row: the median of its rounds. Runs are the
unit of replication, because rounds of one process follow each other's luck:
treated as independent they tell a build from itself. All arithmetic is on
logarithms, so that an effect is a ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median, stdev

from stepcost.report.compare.matching import ENGINE_TIMED, STEP_TIMED
from stepcost.report.rows import PLAIN, Row

ENOUGH_RUNS = 5
"""From this many runs on both sides together their spread is used as the noise between processes (at least
3 degrees of freedom); with fewer it would decide little and guess much."""
ASSUMED_BUSY_NOISE = 0.007
"""Standard deviation of ``gpu_busy_s`` between processes that is assumed where runs are too few to tell."""
ASSUMED_CAPTURED_NOISE = 0.007
"""The same of the times of captured steps, which are the GPU's: the step, its kernels, the GPU's busy time.

It rests on one pair of runs on one card: 15 steps on an H100, each in two processes minutes apart, gave
0.53 % (``experiments/samples/h100-captured-steps.json``). All 15 were slower in the second run, by 0.67 %
in the mean, so most of it is a shift of the whole run, whose size one pair hardly tells. Nine runs in a row
on another H100 host gave 0.33 % for one step (``experiments/samples/h100-planted``)."""
UNKNOWN_DRIFT = 0.30
"""Share by which all steps of a run may differ from those of the next, where runs are too few to tell: as far
apart as the farthest two runs of one build on one host that are at hand (docs/compare.md)."""
LEAST_NOISE = 0.001
"""No standard error below this share is believed: clocks and schedulers are not better than that."""
CONFIDENCE = 0.95
"""Of the interval shown with each ratio."""
POWER = 0.95


STEPS = (STEP_TIMED, ENGINE_TIMED)


@dataclass(frozen=True)
class Samples:
    """One figure of one row: a value in seconds for each run of both sides."""

    base_s: tuple[float, ...]
    new_s: tuple[float, ...]

    @property
    def log_ratio(self) -> float:
        """Logarithm of the geometric means' ratio, new over base."""
        return fmean(map(math.log, self.new_s)) - fmean(map(math.log, self.base_s))

    @property
    def runs(self) -> int:
        """Of both sides together."""
        return len(self.base_s) + len(self.new_s)


@dataclass(frozen=True)
class Estimate:
    """A ratio of times, new over base, with what is known of its noise."""

    log_ratio: float
    error: float | None
    """Standard error of ``log_ratio``; ``None`` where nothing tells it."""
    freedom: float = math.inf
    """Degrees of freedom of ``error``."""
    drift: float = 0.0
    """How much of ``log_ratio`` may be due to the moment of a run, either way; 0 where noise was measured."""

    @property
    def ratio(self) -> float:
        """New over base: above 1 is slower."""
        return math.exp(self.log_ratio)

    def interval(self) -> tuple[float, float] | None:
        """Ratio's interval at `CONFIDENCE`, of this row alone; ``None`` where the noise is unknown."""
        if self.error is None:
            return None
        width = self._quantile((1 + CONFIDENCE) / 2) * self.error + self.drift
        return math.exp(self.log_ratio - width), math.exp(self.log_ratio + width)

    def chance(self, slower: bool) -> float:
        """Probability of so large a slow-down (or speed-up) where there is none."""
        if self.error is None:
            return 1.0
        from scipy import stats  # noqa: PLC0415 (slow to import; a comparison of bytes does not need it)

        sign = 1 if slower else -1
        return float(stats.t.sf((sign * self.log_ratio - self.drift) / self.error, self.freedom))

    def would_catch(self, false_alarm: float, comparisons: int) -> float | None:
        """Smallest slow-down, as a share, that would be caught in `POWER` of cases with this noise."""
        if self.error is None:
            return None
        steps = self._quantile(1 - false_alarm / comparisons) + self._quantile(POWER)
        return math.expm1(min(steps * self.error + self.drift, 50.0))

    def _quantile(self, probability: float) -> float:
        from scipy import stats  # noqa: PLC0415 (as above)

        return float(stats.t.ppf(probability, self.freedom))


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
    """Between processes, as a share, where too few runs tell; ``None``: nothing is assumed."""
    needs: tuple[str, ...]
    """What must be equal of two machines before a difference is the build's doing."""
    gated: bool = True

    @property
    def called(self) -> str:
        """The figure with its kind of step, where it is not the plain one."""
        return self.name if self.timed == STEP_TIMED else f"{self.name} of {self.timed}s"

    def value(self, row: Row) -> float | None:
        """Seconds of this kind of step; ``None`` for other rows."""
        return self.read(row) if kind_of_step(row) == self.timed else None


def kind_of_step(row: Row) -> str | None:
    """``training step`` or ``engine step``: a step of the plain loop is plain, whoever asked for it."""
    return STEP_TIMED if row.get("timed") == ENGINE_TIMED and row.get("engine") == PLAIN else row.get("timed")


FIGURES = (
    TimeFigure("step_s", STEP_TIMED, step_s, None, ("gpu", "cpu")),
    TimeFigure("gpu_busy_s", STEP_TIMED, busy_s, ASSUMED_BUSY_NOISE, ("gpu",)),
    TimeFigure("step_s", ENGINE_TIMED, step_s, ASSUMED_CAPTURED_NOISE, ("gpu",)),
    TimeFigure("gpu_busy_s", ENGINE_TIMED, busy_s, ASSUMED_CAPTURED_NOISE, ("gpu",), gated=False),
    TimeFigure("kernel_s", ENGINE_TIMED, kernel_s, ASSUMED_CAPTURED_NOISE, ("gpu",), gated=False),
)


def estimate(rows: Sequence[Samples], figure: TimeFigure) -> list[Estimate]:
    """Estimate every row's ratio, and last the ratio that all rows have in common."""
    if not rows:
        return []
    if min(row.runs for row in rows) >= ENOUGH_RUNS:
        return [*(_student(row) for row in rows), _student(_common(rows))]
    ratios = [row.log_ratio for row in rows]
    if figure.assumed_noise is not None:
        noise = figure.assumed_noise
        known = [
            Estimate(ratio, noise * math.sqrt(1 / len(row.base_s) + 1 / len(row.new_s)))
            for row, ratio in zip(rows, ratios, strict=True)
        ]
        # What rows share (clocks, temperature) does not average out over them.
        return [*known, replace(known[0], log_ratio=fmean(ratios))]
    drift = math.log1p(UNKNOWN_DRIFT)
    alone = [
        Estimate(ratio, _spread(ratios[:place] + ratios[place + 1 :]), max(len(ratios) - 2, 1), drift)
        for place, ratio in enumerate(ratios)
    ]
    spread = _spread(ratios)
    error = None if spread is None else max(spread / math.sqrt(len(ratios)), LEAST_NOISE)
    return [*alone, Estimate(fmean(ratios), error, max(len(ratios) - 1, 1), drift)]


def _student(row: Samples) -> Estimate:
    """Student's two-sample estimate with a common variance: sides may have one run, not both."""
    base, new = [[math.log(value) for value in side] for side in (row.base_s, row.new_s)]
    freedom = len(base) + len(new) - 2
    squares = sum((value - fmean(side)) ** 2 for side in (base, new) for value in side)
    error = math.sqrt(squares / freedom * (1 / len(base) + 1 / len(new)))
    return Estimate(row.log_ratio, max(error, LEAST_NOISE), freedom)


def _common(rows: Sequence[Samples]) -> Samples:
    """Geometric mean over rows of each run: what hits all rows of a run alike stays in it."""

    def over_rows(sides: list[tuple[float, ...]]) -> tuple[float, ...]:
        runs = min(len(side) for side in sides)
        return tuple(math.exp(fmean(math.log(side[place]) for side in sides)) for place in range(runs))

    return Samples(over_rows([row.base_s for row in rows]), over_rows([row.new_s for row in rows]))


def _spread(values: Sequence[float]) -> float | None:
    """Standard deviation; ``None`` below three values, whose spread says nothing."""
    return max(stdev(values), LEAST_NOISE) if len(values) > 2 else None


def holm(chances: Sequence[float], false_alarm: float) -> list[bool]:
    """Which of several comparisons may be called, so that a false call among all has ``false_alarm`` at most.

    Holm (1979): the smallest against ``false_alarm / m``, the next against
    ``false_alarm / (m - 1)``, up to the first that fails. It holds whatever
    the dependence between rows is, and never calls less than Bonferroni. The
    rate of Benjamini and Hochberg is of another promise: it bounds the share
    of false ones among the calls, while an alarm here stops a build.
    """
    called = [False] * len(chances)
    for rank, place in enumerate(sorted(range(len(chances)), key=lambda place: chances[place])):
        if chances[place] > false_alarm / (len(chances) - rank):
            break
        called[place] = True
    return called
