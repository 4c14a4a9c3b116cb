"""Verdicts on the times of training steps: all rows judged together, so that a whole run alarms rarely."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from stepcost.report.compare import noise
from stepcost.report.compare.matching import ENGINE_TIMED, STEP_TIMED, Pair, label
from stepcost.report.compare.result import ONE_SIDE_ONLY, BusyPair, Change, Verdict
from stepcost.report.compare.time_figures import FIGURES, HOST, TimeFigure, step_s
from stepcost.report.compare.tolerances import all_fit, change_of, differing
from stepcost.report.load import Run
from stepcost.report.rows import EAGER
from stepcost.report.throttle import throttled_note
from stepcost.units import percent

SMALLEST_EFFECT = 0.05
FALSE_ALARM = 0.005
"""Half of the 1 % that is promised: process medians have heavier tails than Student's test assumes."""
TOGETHER = {STEP_TIMED: "all steps together", ENGINE_TIMED: "all engine steps together"}
"""The row of what every timed step of a kind has in common."""


def host_noise(figure: TimeFigure, base: Sequence[Run], new: Sequence[Run]) -> noise.HostNoise:
    """Return what the sides' runs say of the noise between processes, which is read of step times only.

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
        if figure.timed == (STEP_TIMED if row.get("engine") in (None, EAGER) else ENGINE_TIMED)
    )


@dataclass(frozen=True)
class _Judged:
    """One ratio before all of them are judged together."""

    change: Change
    """Without its verdict."""
    estimate: noise.Estimate
    not_gated: str | None
    """Why, where it is only shown."""


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
        found, samples = [], []
        for pair in pairs:
            read = figure.samples(pair)
            base_s, new_s = (median(side.values()) if side else None for side in (read.base_s, read.new_s))
            row = next(iter(pair[0].values()))
            change = change_of(row, figure.name, (base_s, new_s), "shown", ONE_SIDE_ONLY)
            if base_s and new_s:
                found.append(change)
                samples.append(read)
            elif (base_s or new_s) and all_fit(*(side.values() for side in pair)):
                unread.append(change)
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
        judged += [_Judged(*one, not_gated) for one in zip(found, estimates, strict=True)]
        together = noise.estimate_together(samples, host, figure.assumed_noise)
        if together is not None:  # a ratio only
            name = f"{figure.name.removesuffix('_s')}_ratio"
            change = Change(TOGETHER[figure.timed], None, name, 1.0, together.ratio, "shown", "")
            judged.append(_Judged(change, together, not_gated))
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
            "processes": f"noise from the medians of fresh processes ({_deviations(host)}), with "
            f"{noise.RUNS_TO_PROCESSES} times their variance allowed between runs",
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
    said = " and ".join(f"{percent(one.deviation)} on the {side} side" for side, one in sides)
    return f"standard deviation {said}{', taken for both' if len(sides) == 1 else ''}"


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
        changes.append(replace(one.change, verdict=verdict, why=why, interval=interval, would_catch=catches))
    return changes
