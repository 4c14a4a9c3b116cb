"""Is a time longer than its noise explains? The statistics; docs/compare.md has the rules.

Each run gives one number for a row: the median of its rounds. Runs are the
unit of replication, because rounds of one process follow each other's luck:
treated as independent they tell a build from itself. All arithmetic is on
logarithms, so that an effect is a ratio.

How far two runs of one build differ by chance is known in one of four ways,
the first that a row allows:

- ``runs``: the row was read in `ENOUGH_RUNS` runs of both sides together.
  Student's two-sample estimate from the row's own spread.
- ``processes``: the runs hold medians of the same step in fresh processes. The
  variance of the logarithms of a side's medians, times `RUNS_TO_PROCESSES` and
  divided by its number of runs, is added to that of the other side; degrees of
  freedom by Welch (1947) and Satterthwaite (1946), so that a quiet host and a
  noisy one may meet. Where one side alone has medians they stand for both, with
  their own degrees.
- ``assumed``: a constant, of times that are the GPU's and vary little.
- ``rows``: the spread of the ratios over rows, with `UNKNOWN_DRIFT` allowed for
  what all rows of a run share.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

ENOUGH_RUNS = 5
"""From this many runs on both sides together their spread is used as the noise between processes."""
ENOUGH_FREEDOM = ENOUGH_RUNS - 2
"""Degrees of freedom of a spread that is used; with fewer it would decide little and guess much."""
RUNS_TO_PROCESSES = 2
"""Variance between runs over that between processes of one run: what all processes of a run share is allowed
to vary as much as what each has of its own (docs/notes/compare.md: read at 1.6; alarms with 2)."""
UNKNOWN_DRIFT = 0.30
"""Share by which all steps of a run may differ from those of the next, where nothing tells: as far apart as
the farthest two runs of one build on one kind of host that are at hand (docs/notes/compare.md)."""
LEAST_NOISE = 0.001
"""No standard error below this share is believed: clocks and schedulers are not better than that."""
CONFIDENCE = 0.95
"""Of the interval shown with each ratio."""
POWER = 0.95

Source = Literal["runs", "processes", "assumed", "rows"]


@dataclass(frozen=True)
class Samples:
    """One figure of one row: seconds by run of each side, whose runs are counted from 0."""

    base_s: Mapping[int, float]
    new_s: Mapping[int, float]

    @property
    def log_ratio(self) -> float:
        """Logarithm of the geometric means' ratio, new over base."""
        return fmean(map(math.log, self.new_s.values())) - fmean(map(math.log, self.base_s.values()))

    @property
    def runs(self) -> int:
        """Of both sides together."""
        return len(self.base_s) + len(self.new_s)

    @property
    def spread(self) -> float:
        """Standard deviation of `log_ratio` where that of one run is 1."""
        return math.sqrt(1 / len(self.base_s) + 1 / len(self.new_s))


@dataclass(frozen=True)
class ProcessNoise:
    """How far apart fresh processes of one host time the same step."""

    deviation: float
    """Standard deviation of the logarithms of their medians."""
    freedom: int
    """Degrees of freedom of ``deviation``."""


@dataclass(frozen=True)
class HostNoise:
    """The noise between processes of each side's host; one that is ``None`` is that of the other side."""

    base: ProcessNoise | None
    new: ProcessNoise | None


@dataclass(frozen=True)
class Estimate:
    """A ratio of times, new over base, with what is known of its noise."""

    log_ratio: float
    error: float | None
    """Standard error of ``log_ratio``; ``None`` where nothing tells it."""
    source: Source
    """How the noise is known."""
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


def process_noise(medians_s: Iterable[Sequence[float]]) -> ProcessNoise | None:
    """Pool the spreads of several readings: the medians, in seconds, of one step in fresh processes each.

    Returns ``None`` where they have fewer than `ENOUGH_FREEDOM` degrees of freedom.
    """
    readings = [[math.log(one) for one in reading if one > 0] for reading in medians_s]
    freedom = sum(len(logs) - 1 for logs in readings if logs)
    if freedom < ENOUGH_FREEDOM:
        return None
    squares = sum((one - fmean(logs)) ** 2 for logs in readings for one in logs)
    return ProcessNoise(max(math.sqrt(squares / freedom), LEAST_NOISE), freedom)


def estimate(rows: Sequence[Samples], host: HostNoise, assumed_noise: float | None) -> list[Estimate]:
    """Estimate every row's ratio, each by its own number of runs."""
    return [
        _student(row)
        if row.runs >= ENOUGH_RUNS
        else _of_few_runs(row, host, assumed_noise)
        or _over_rows([one for one in rows if one is not row], row.log_ratio, row.spread)
        for row in rows
    ]


def estimate_together(
    rows: Sequence[Samples], host: HostNoise, assumed_noise: float | None
) -> Estimate | None:
    """Estimate what the rows have in common, over those that were read in every run.

    The geometric mean over rows of each run is taken first: what hits all rows of a run alike stays in it.
    Returns ``None`` where fewer than two rows were read in every run.
    """
    every_base, every_new = (
        set().union(*sides) for sides in ([row.base_s for row in rows], [row.new_s for row in rows])
    )
    whole = [row for row in rows if len(row.base_s) == len(every_base) and len(row.new_s) == len(every_new)]
    if len(whole) < 2:
        return None
    together = Samples(_mean_row([row.base_s for row in whole]), _mean_row([row.new_s for row in whole]))
    if together.runs >= ENOUGH_RUNS:
        return _student(together)
    # What rows share (clocks, temperature, the host's moment) does not average out over them, so the noise
    # of one row is taken; only where it is the spread over rows, drift is allowed for apart.
    return _of_few_runs(together, host, assumed_noise) or _over_rows(
        whole, together.log_ratio, together.spread / math.sqrt(len(whole))
    )


def _mean_row(rows: Sequence[Mapping[int, float]]) -> dict[int, float]:
    return {run: math.exp(fmean(math.log(row[run]) for row in rows)) for run in rows[0]}


def _student(row: Samples) -> Estimate:
    """Student's two-sample estimate with a common variance: sides may have one run, not both."""
    sides = [[math.log(value) for value in side.values()] for side in (row.base_s, row.new_s)]
    freedom = row.runs - 2
    squares = sum((value - fmean(side)) ** 2 for side in sides for value in side)
    error = math.sqrt(squares / freedom) * row.spread
    return Estimate(row.log_ratio, max(error, LEAST_NOISE), "runs", freedom)


def _of_few_runs(row: Samples, host: HostNoise, assumed_noise: float | None) -> Estimate | None:
    """Take the noise from the host's fresh processes, else as assumed; ``None`` where there is neither."""
    base, new = host.base or host.new, host.new or host.base
    if base is None or new is None:
        if assumed_noise is None:
            return None
        return Estimate(row.log_ratio, assumed_noise * row.spread, "assumed")
    variances = [
        (RUNS_TO_PROCESSES * base.deviation**2 / len(row.base_s), base.freedom),
        (RUNS_TO_PROCESSES * new.deviation**2 / len(row.new_s), new.freedom),
    ]
    total = sum(variance for variance, _ in variances)
    freedom: float = base.freedom
    if host.base and host.new:
        freedom = total**2 / sum(variance**2 / degrees for variance, degrees in variances)
    return Estimate(row.log_ratio, max(math.sqrt(total), LEAST_NOISE), "processes", freedom)


def _over_rows(others: Sequence[Samples], log_ratio: float, spread: float) -> Estimate:
    """Take the noise from how the ratios of ``others`` scatter; ``spread`` is the estimate's own, in runs."""
    drift = math.log1p(UNKNOWN_DRIFT)
    if len(others) < 3:  # whose scatter says nothing
        return Estimate(log_ratio, None, "rows", 1, drift)
    center = fmean(one.log_ratio for one in others)
    squares = sum(((one.log_ratio - center) / one.spread) ** 2 for one in others)
    freedom = len(others) - 1
    return Estimate(
        log_ratio, max(math.sqrt(squares / freedom) * spread, LEAST_NOISE), "rows", freedom, drift
    )


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
