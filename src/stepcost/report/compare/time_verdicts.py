"""Verdicts on the times of training steps: all rows judged together, so that a whole run alarms rarely."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from stepcost.report.compare import noise as timing
from stepcost.report.compare.matching import ENGINE_TIMED, STEP_TIMED, label
from stepcost.report.compare.result import BusyPair, Change, Rules, Verdict
from stepcost.report.compare.tolerances import differing
from stepcost.report.rows import Row
from stepcost.report.throttle import throttled_note
from stepcost.report.units import percent

Pair = tuple[list[Row], list[Row]]
COMMON = {STEP_TIMED: "all steps together", ENGINE_TIMED: "all engine steps together"}
"""The row of what every timed step of a kind has in common."""


@dataclass(frozen=True)
class _Judged:
    """One ratio before all of them are judged together."""

    row: str
    question: str | None
    figure: timing.TimeFigure
    base_s: float | None
    new_s: float | None
    estimate: timing.Estimate
    not_gated: str | None


def of_time(
    pairs: Sequence[Pair], base: Mapping[str, Any], new: Mapping[str, Any], rules: Rules
) -> tuple[list[Change], list[str]]:
    """Compare step times and GPU-busy times of all rows; returns the changes and what a reader must know."""
    judged: list[_Judged] = []
    notes: list[str] = []
    for figure in timing.FIGURES:
        found = [(olds[0], _samples(figure, olds, news)) for olds, news in pairs]
        kept = [(row, samples) for row, samples in found if samples is not None]
        if not kept:
            continue
        apart = differing(figure.needs, base, new)
        not_gated = None
        if apart or not rules.gate_time:
            not_gated = f"not gated: other or unknown {', '.join(apart)}" if apart else "not gated"
            notes.append(f"{figure.called} is {not_gated}")
        elif not figure.gated:
            not_gated = "shown, not gated"
        else:
            notes += _about_noise(figure, [samples for _, samples in kept])
        estimates = timing.estimate([samples for _, samples in kept], figure)
        judged += [
            _Judged(
                label(row),
                row.get("question"),
                figure,
                median(samples.base_s),
                median(samples.new_s),
                one,
                not_gated,
            )
            for (row, samples), one in zip(kept, estimates, strict=False)  # the common one is left over
        ]
        if len(kept) > 1:
            judged.append(_Judged(COMMON[figure.timed], None, figure, None, None, estimates[-1], not_gated))
    return _verdicts(judged, rules), notes + _about_throttling(pairs)


def busy_pairs(pairs: Iterable[Pair]) -> Iterable[BusyPair]:
    """Step times side by side with the share of the step that the GPU works."""
    of_steps = [figure for figure in timing.FIGURES if figure.name == "step_s"]
    for olds, news in pairs:
        found = [_samples(figure, olds, news) for figure in of_steps]
        for times in (samples for samples in found if samples is not None):
            shares = [
                next((row["gpu_busy_share"] for row in rows if row.get("gpu_busy_share")), None)
                for rows in (olds, news)
            ]
            yield BusyPair(label(olds[0]), median(times.base_s), median(times.new_s), *shares)


def _samples(figure: timing.TimeFigure, olds: list[Row], news: list[Row]) -> timing.Samples | None:
    base, new = (
        tuple(value for row in rows if (value := figure.value(row)) is not None) for rows in (olds, news)
    )
    return timing.Samples(base, new) if base and new else None


def _about_noise(figure: timing.TimeFigure, samples: list[timing.Samples]) -> list[str]:
    """How the noise between processes was known, in one sentence."""
    fewest = min(one.runs for one in samples)
    if fewest >= timing.ENOUGH_RUNS:
        return [f"{figure.called}: noise between processes from the spread of {fewest} runs"]
    if figure.assumed_noise is not None:
        return [
            f"{figure.called}: too few runs to measure the noise between processes; "
            f"{percent(figure.assumed_noise)} is assumed"
        ]
    return [
        f"{figure.called}: too few runs to measure the noise between processes "
        f"(it takes {timing.ENOUGH_RUNS} on both sides together); judged by the spread over rows, with "
        f"{percent(timing.UNKNOWN_DRIFT)} allowed for drift between runs"
    ]


def _about_throttling(pairs: Sequence[Pair]) -> list[str]:
    """Which side's steps were timed with the clocks held back, which is not the build's doing."""
    notes = []
    for side, rows in (
        ("base", [row for olds, _ in pairs for row in olds]),
        ("new", [row for _, news in pairs for row in news]),
    ):
        note = throttled_note([row for row in rows if timing.step_s(row) is not None], label)
        if note:
            notes.append(f"{side} side {note}; such times tell of power or heat, not of the build")
    return notes


def _verdicts(judged: Sequence[_Judged], rules: Rules) -> list[Change]:
    gated = [one for one in judged if one.not_gated is None]
    slower, faster = (
        timing.holm([one.estimate.chance(slower=way) for one in gated], rules.false_alarm)
        for way in (True, False)
    )
    called = {id(one): (up, down) for one, up, down in zip(gated, slower, faster, strict=True)}
    return [_change(one, *called.get(id(one), (False, False)), len(gated), rules) for one in judged]


def _change(one: _Judged, slower: bool, faster: bool, comparisons: int, rules: Rules) -> Change:
    interval = one.estimate.interval()
    matters = math.log1p(rules.smallest_effect)
    low, high = (math.log(bound) for bound in interval) if interval else (-math.inf, math.inf)
    verdict: Verdict
    if one.not_gated is not None:
        verdict, why = "shown", one.not_gated
    elif interval is None:
        verdict, why = "undecided", "too few rows and runs to know the noise"
    elif slower and high >= matters:
        verdict, why = "worse", f"beyond noise, and {percent(rules.smallest_effect)} is not excluded"
    elif faster and low <= -matters:
        verdict, why = "better", "beyond noise"
    elif high < matters:
        verdict, why = "same", f"a slow-down of {percent(rules.smallest_effect)} is excluded"
    else:
        verdict, why = "undecided", "the noise could hide a slow-down that matters"
    base_s, new_s = one.base_s, one.new_s
    figure = one.figure.name
    if base_s is None:  # what rows have in common is a ratio only
        figure = f"{figure.removesuffix('_s')}_ratio"
        base_s, new_s = 1.0, one.estimate.ratio
    catches = one.estimate.would_catch(rules.false_alarm, comparisons) if one.not_gated is None else None
    return Change(one.row, one.question, figure, base_s, new_s, verdict, why, interval, catches)
