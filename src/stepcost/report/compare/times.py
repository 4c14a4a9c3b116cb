"""Verdicts on the times of training steps: all rows judged together, so that a whole run alarms rarely."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from stepcost.report.compare import noise
from stepcost.report.compare.matching import ENGINE_TIMED, STEP_TIMED, Pair, label
from stepcost.report.compare.result import ONE_SIDE_ONLY, BusyPair, Change, Verdict
from stepcost.report.compare.tolerances import all_fit, change_of, differing
from stepcost.report.load import Run
from stepcost.report.rows import PLAIN, Row
from stepcost.report.throttle import throttled_note
from stepcost.report.units import percent

SMALLEST_EFFECT = 0.05
FALSE_ALARM = 0.005
"""Half of the 1 % that is promised: process medians have heavier tails than Student's test assumes."""
ASSUMED_BUSY_NOISE = 0.007
"""Standard deviation of ``gpu_busy_s`` between processes that is assumed where runs are too few to tell."""
ASSUMED_CAPTURED_NOISE = 0.007
"""The same of the times of captured steps, which are the GPU's: the step, its kernels, the GPU's busy time.

It rests on one pair of runs on one card: 15 steps on an H100, each in two processes minutes apart, gave
0.53 % (``experiments/samples/h100-captured-steps.json``). All 15 were slower in the second run, by 0.67 %
in the mean, so most of it is a shift of the whole run, whose size one pair hardly tells. Nine runs in a row
on another H100 host gave 0.33 % for one step (``experiments/samples/h100-planted``)."""
STEPS = (STEP_TIMED, ENGINE_TIMED)
TOGETHER = {STEP_TIMED: "all steps together", ENGINE_TIMED: "all engine steps together"}
"""The row of what every timed step of a kind has in common."""
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

    def samples(self, pair: Pair) -> noise.Samples:
        """Seconds of this kind of step by run; empty for a side where no run has them."""
        base_s, new_s = (
            {
                run: value
                for run, row in rows.items()
                if kind_of_step(row) == self.timed and (value := self.read(row)) is not None
            }
            for rows in pair
        )
        return noise.Samples(base_s, new_s)


def kind_of_step(row: Row) -> str | None:
    """``training step`` or ``engine step``: an eager step is the former, whichever question asked for it."""
    return STEP_TIMED if row.get("timed") == ENGINE_TIMED and row.get("engine") == PLAIN else row.get("timed")


FIGURES = (
    TimeFigure("step_s", STEP_TIMED, step_s, None, HOST),
    TimeFigure("gpu_busy_s", STEP_TIMED, busy_s, ASSUMED_BUSY_NOISE, ("gpu",)),
    TimeFigure("step_s", ENGINE_TIMED, step_s, ASSUMED_CAPTURED_NOISE, ("gpu",)),
    TimeFigure("gpu_busy_s", ENGINE_TIMED, busy_s, ASSUMED_CAPTURED_NOISE, ("gpu",), gated=False),
    TimeFigure("kernel_s", ENGINE_TIMED, kernel_s, ASSUMED_CAPTURED_NOISE, ("gpu",), gated=False),
)


def host_noise(figure: TimeFigure, base: Sequence[Run], new: Sequence[Run]) -> noise.HostNoise:
    """What the sides' runs say of the noise between processes of this figure; only step times are read so.

    A side whose runs say nothing takes the other side's noise if both are one kind of machine.
    """
    known = noise.HostNoise(*(_noise_of_side(figure, runs) for runs in (base, new)))
    if None in (known.base, known.new) and differing(HOST, base[0].machine, new[0].machine):
        return noise.HostNoise(None, None)
    return known


def _noise_of_side(figure: TimeFigure, runs: Sequence[Run]) -> noise.ProcessNoise | None:
    return noise.process_noise(
        row["process_medians_s"]
        for run in runs
        for row in run.rows
        if figure.name == "step_s" and row.get("process_medians_s") and row.get("source") == "measured"
        if figure.timed == (STEP_TIMED if row.get("engine") in (None, PLAIN) else ENGINE_TIMED)
    )


@dataclass(frozen=True)
class _Judged:
    """One ratio before all of them are judged together."""

    row: str
    question: str | None
    figure: str
    base_s: float
    new_s: float
    estimate: noise.Estimate
    not_gated: str | None


def of_time(
    pairs: Sequence[Pair],
    base: Sequence[Run],
    new: Sequence[Run],
    *,
    gate: bool = True,
    smallest_effect: float = SMALLEST_EFFECT,
    false_alarm: float = FALSE_ALARM,
) -> tuple[list[Change], list[str]]:
    """Compare step times and GPU-busy times of all rows; returns the changes and what a reader must know."""
    judged: list[_Judged] = []
    unread: list[Change] = []
    notes: list[str] = []
    for figure in FIGURES:
        rows, samples = [], []
        for pair in pairs:
            row, read = next(iter(pair[0].values())), figure.samples(pair)
            if read.base_s and read.new_s:
                rows.append(row)
                samples.append(read)
            elif (read.base_s or read.new_s) and all_fit(*(side.values() for side in pair)):
                base_s, new_s = (
                    median(side.values()) if side else None for side in (read.base_s, read.new_s)
                )
                unread.append(change_of(row, figure.name, (base_s, new_s), "shown", ONE_SIDE_ONLY))
        if not samples:
            continue
        host = host_noise(figure, base, new)
        estimates = noise.estimate(samples, host, figure.assumed_noise)
        apart = differing(figure.needs, base[0].machine, new[0].machine)
        not_gated = None
        if apart or not gate:
            not_gated = f"not gated: other or unknown {', '.join(apart)}" if apart else "not gated"
            notes.append(f"{figure.called} is {not_gated}")
        elif not figure.gated:
            not_gated = "shown, not gated"
        else:
            notes += _about_noise(figure, samples, estimates, host)
        judged += [
            _Judged(
                label(row),
                row.get("question"),
                figure.name,
                median(read.base_s.values()),
                median(read.new_s.values()),
                one,
                not_gated,
            )
            for row, read, one in zip(rows, samples, estimates, strict=True)
        ]
        together = noise.estimate_together(samples, host, figure.assumed_noise)
        if together is not None:  # a ratio only
            name = f"{figure.name.removesuffix('_s')}_ratio"
            row_name = TOGETHER[figure.timed]
            judged.append(_Judged(row_name, None, name, 1.0, together.ratio, together, not_gated))
    changes = _verdicts(judged, smallest_effect, false_alarm)
    return [*changes, *unread], notes + _about_throttling(pairs)


def busy_pairs(pairs: Iterable[Pair]) -> Iterable[BusyPair]:
    """Step times side by side with the share of the step that the GPU works."""
    for olds, news in pairs:
        sides = [[row for row in rows.values() if step_s(row)] for rows in (olds, news)]
        if all(sides):
            base_s, new_s = (median(step_s(row) or 0 for row in rows) for rows in sides)
            shares = (
                next((row["gpu_busy_share"] for row in rows if row.get("gpu_busy_share")), None)
                for rows in sides
            )
            yield BusyPair(label(sides[0][0]), base_s, new_s, *shares)


def _about_noise(
    figure: TimeFigure,
    samples: Sequence[noise.Samples],
    estimates: Sequence[noise.Estimate],
    host: noise.HostNoise,
) -> list[str]:
    """How the noise between processes was known, a sentence for each way."""
    runs: dict[str, list[int]] = {}
    for read, one in zip(samples, estimates, strict=True):
        runs.setdefault(one.source, []).append(read.runs)
    notes = []
    for source, counts in runs.items():
        of_rows = "" if len(counts) == len(samples) else f" in {len(counts)} of {len(samples)} rows"
        said = {
            "runs": f"noise between processes from the spread of {min(counts)} runs",
            "processes": f"noise between processes from the medians of fresh processes: {_deviations(host)}",
            "assumed": "too few runs to measure the noise between processes; "
            f"{percent(figure.assumed_noise or 0)} is assumed",
            "rows": "too few runs to measure the noise between processes (it takes "
            f"{noise.ENOUGH_RUNS} on both sides together, or a run's own reading of it); judged by the "
            f"spread over rows, with {percent(noise.UNKNOWN_DRIFT)} allowed for drift between runs",
        }[source]
        notes.append(f"{figure.called}{of_rows}: {said}")
    return notes


def _deviations(host: noise.HostNoise) -> str:
    sides = [(side, one) for side, one in (("base", host.base), ("new", host.new)) if one is not None]
    said = " and ".join(f"{percent(one.deviation)} in the {side} side's" for side, one in sides)
    return f"a standard deviation of {said} runs" + (", taken for both sides" if len(sides) == 1 else "")


def _about_throttling(pairs: Sequence[Pair]) -> list[str]:
    """Which side's steps were timed with the clocks held back, which is not the build's doing."""
    notes = []
    for place, side in enumerate(("base", "new")):
        rows = [row for pair in pairs for row in pair[place].values() if step_s(row) is not None]
        note = throttled_note(rows, label)
        if note:
            notes.append(f"{side} side {note}; such times tell of power or heat, not of the build")
    return notes


def _verdicts(judged: Sequence[_Judged], smallest_effect: float, false_alarm: float) -> list[Change]:
    gated = [one for one in judged if one.not_gated is None]
    slower, faster = (
        noise.holm([one.estimate.chance(slower=way) for one in gated], false_alarm) for way in (True, False)
    )
    called = {id(one): (up, down) for one, up, down in zip(gated, slower, faster, strict=True)}
    matters = math.log1p(smallest_effect)
    changes = []
    for one in judged:
        is_slower, is_faster = called.get(id(one), (False, False))
        interval = one.estimate.interval()
        low, high = (math.log(bound) for bound in interval) if interval else (-math.inf, math.inf)
        verdict: Verdict
        catches = None
        if one.not_gated is not None:
            verdict, why = "shown", one.not_gated
        else:
            catches = one.estimate.would_catch(false_alarm, len(gated))
            if interval is None:
                verdict, why = "undecided", "too few rows and runs to know the noise"
            elif is_slower and high >= matters:
                verdict, why = "worse", f"beyond noise, and {percent(smallest_effect)} is not excluded"
            elif is_faster and low <= -matters:
                verdict, why = "better", "beyond noise"
            elif high < matters:
                verdict, why = "same", f"a slow-down of {percent(smallest_effect)} is excluded"
            else:
                verdict, why = "undecided", "the noise could hide a slow-down that matters"
        changes.append(
            Change(one.row, one.question, one.figure, one.base_s, one.new_s, verdict, why, interval, catches)
        )
    return changes
