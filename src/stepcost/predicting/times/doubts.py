"""How far off predicted steps are that contributed nothing to the table, and the interval learned from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stepcost.predicting.times.nearest import FAR, NEAR, OTHER, UNKNOWN, Times
from stepcost.predicting.times.step_time import STEP, doubt_of
from stepcost.predicting.times.table import Step, TimesTable

TAUGHT = 0.95
"""Of the steps that teach intervals so many are held, so that nine in ten of others are."""
DOUBTS = {NEAR: 1.0, FAR: 2.0, OTHER: 2.0, UNKNOWN: 2.0}
"""How unsure what was not recorded is, beside what is near to something recorded.

Quantile regression over 150 steps of an H200 finds 15 % and 32 %.
"""
LEAST_DOUBT = 0.02
"""Of a step that was recorded: medians of one in fresh processes lie within 2 % of each other."""
Request = dict[str, Any]
Leaves = Callable[[Request, Request], bool]
"""Whether the table loses the second step where the first is predicted."""


class Outcome(NamedTuple):
    """A recorded step, predicted."""

    step: Step
    predicted_s: float
    shares: dict[str, float]
    """How its operators' seconds are known (``nearest.py``), as shares of all."""

    @property
    def error(self) -> float:
        """Predicted less measured, as a share of measured."""
        return self.predicted_s / self.step.step_s - 1

    def is_held(self, doubts: dict[str, float]) -> bool:
        """Say whether the interval holds the measured time."""
        factor = 1 + doubt_of(self.shares.items(), doubts)
        return self.predicted_s / factor <= self.step.step_s <= self.predicted_s * factor


def model_of(request: Request) -> str:
    """Return a model's name without what differs by where its file lies."""
    return Path(request["model"]).stem


def nothing(asked: Request, other: Request) -> bool:
    """Leave nothing out: each step's own operators are in the table."""
    return False


def same_batch(asked: Request, other: Request) -> bool:
    """Leave out steps of the same model with the same batch size, whatever their engine or precision."""
    return same_model(asked, other) and asked["batch_size"] == other["batch_size"]


def same_model(asked: Request, other: Request) -> bool:
    """Leave out all steps of the same model."""
    return model_of(asked) == model_of(other)


def same_series(asked: Request, other: Request) -> bool:
    """Leave out all steps of models whose names begin with the same word, such as resnet."""
    return series_of(asked) == series_of(other)


def series_of(request: Request) -> str:
    """Return the word with which a model's name begins."""
    found = re.match("[A-Za-z]+", model_of(request))
    return found.group(0) if found else model_of(request)


NOTHING, BATCH, MODEL, SERIES = "nothing", "batch size", "model", "series"
LEFT_OUT: dict[str, Leaves] = {
    NOTHING: nothing,
    BATCH: same_batch,
    MODEL: same_model,
    SERIES: same_series,
}
TEACH = (BATCH, MODEL, SERIES)
"""What is left out of the steps that teach intervals."""


def outcomes(table: TimesTable, leaves: Leaves, asked: Iterable[Step] | None = None) -> list[Outcome]:
    """Predict each step of a table from the others (or the steps ``asked``)."""
    times: dict[tuple[int, ...], Times] = {}
    found = []
    for step in table.steps if asked is None else asked:
        left = tuple(n for n, one in enumerate(table.steps) if not leaves(step.request, one.request))
        if left not in times:
            times[left] = Times(replace(table, steps=tuple(table.steps[n] for n in left)))
        found.append(outcome(step, times[left], table.gap_s))
    return found


def outcome(step: Step, times: Times, gap_s: float) -> Outcome:
    """Predict one recorded step."""
    by_how: dict[str, float] = {}
    kernels = 0.0
    for entry in step.entries:
        taken, how = times.of(entry.key, entry.bytes, entry.flops)
        by_how[how] = by_how.get(how, 0.0) + entry.calls * taken.seconds
        kernels += entry.calls * taken.kernels
    busy_s = sum(by_how.values())
    return Outcome(step, busy_s + gap_s * kernels, {how: seconds / busy_s for how, seconds in by_how.items()})


def doubts_of(found: Sequence[Outcome], recorded: Sequence[Outcome]) -> dict[str, float]:
    """Learn by how much steps are off, from how their seconds are known: so that ``TAUGHT`` of them are held.

    What was recorded is off by as much as steps with nothing left out (``recorded``) are, at least by
    ``LEAST_DOUBT``; the rest in proportion to ``DOUBTS``. One figure is learned of that, since several follow
    the few steps at hand too closely: they held 75 % of those of another card.
    """
    least = max(LEAST_DOUBT, float(np.quantile([_off(one) for one in recorded], TAUGHT)))
    needs = []
    for one in found:
        unsure = sum(DOUBTS[how] * share for how, share in one.shares.items() if how in DOUBTS)
        needs.append(max(0.0, _off(one) - least) / unsure if unsure else 0.0)
    needed = float(np.quantile(needs, TAUGHT))
    return {STEP: round(least, 4), **{how: round(needed * times, 4) for how, times in DOUBTS.items()}}


def _off(one: Outcome) -> float:
    """Return the share by which a step is too slow or too fast, as the interval has it."""
    return max(one.error, 1 / (1 + one.error) - 1)


def with_doubts(table: TimesTable) -> TimesTable:
    """Return a table with what its own steps teach, each left out with its batch size, model and series."""
    found = {name: outcomes(table, LEFT_OUT[name]) for name in (NOTHING, *TEACH)}
    return replace(table, doubts=doubts_of([one for name in TEACH for one in found[name]], found[NOTHING]))
