"""What a captured step takes on a card, from the times of its operators."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from stepcost.catalog.cards import Card
from stepcost.catalog.engines import ENGINES
from stepcost.operators import Operator
from stepcost.predicting.attention import attention_on
from stepcost.predicting.times.chosen import Choose, choosing, cudnn_of
from stepcost.predicting.times.convolved import convolved
from stepcost.predicting.times.keys import key_of, name_of
from stepcost.predicting.times.nearest import RECORDED as AS_RECORDED
from stepcost.predicting.times.nearest import Times
from stepcost.predicting.times.table import TimesTable, table_of
from stepcost.predicting.times.traced import operators_of
from stepcost.predicting.torch_versions import version_of
from stepcost.request import Request

RECORDED, FROM_RATES = "recorded on this card", "from rates"
"""What a time rests on: operators that were recorded on that card, or on another one and its rates."""
STEP = "step"
"""Of a step's doubts what is left where all its operators were recorded."""


@dataclass(frozen=True, kw_only=True)
class Contributor:
    """A part of a step's time."""

    name: str
    """An operator, or a module of the model."""
    seconds: float
    kernels: int


class Part(NamedTuple):
    """An operator of a step with what it takes."""

    operator: Operator
    module: str
    seconds: float
    kernels: float
    how: str
    """How that is known (``nearest.py``)."""


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """A predicted step: nothing of it ran anywhere."""

    step_s: float
    low_s: float
    """With ``high_s`` the interval that held the measured time in nine of ten steps left out of the table."""
    high_s: float
    basis: str
    """``RECORDED`` or ``FROM_RATES``."""
    contributors: tuple[Contributor, ...]
    """By operator, the largest first; their seconds are the GPU's own, without what lies between kernels."""
    modules: tuple[Contributor, ...] = ()
    """The same by module."""
    recorded_share: float = 0.0
    """Of the operators' seconds those that were recorded with these very shapes."""
    recorded_with: str = ""
    """The torch with which they were recorded."""
    unasked: str | None = None
    """Why how cuDNN runs the convolutions that were not recorded is not known; ``None`` where it is."""


def predict_time(request: Request, card: Card) -> StepTime:
    """Predict what one step of ``request`` takes on ``card``, in seconds, the optimizer included.

    Raises ``ValueError`` with one line where that cannot be said: for an engine whose steps are not captured
    (the processor decides what those take), for a card without a table, and for what cannot be traced.
    """
    return timed(predict_parts(request, card), card)


def predict_busy(request: Request, card: Card) -> StepTime:
    """Predict how long the kernels of the plain loop's step run on ``card``, in ``step_s`` and its interval.

    They are those of the same step captured (``graph``), without what lies between them, which the processor
    decides. Raises ``ValueError`` as ``predict_time`` does.
    """
    parts = predict_parts(replace(request, engine="graph"), card)
    return timed(parts, card, gap_s=0.0)


def predict_parts(request: Request, card: Card) -> list[Part]:
    """Predict each operator of a step on a card with a table; raises as ``predict_time`` does."""
    if (why_not := why_not_timed(request)) is not None:
        raise ValueError(why_not)
    times = _times(card)
    found = []
    for operator, _, module in operators_of(request, attention_on(card, version_of(torch.__version__))):
        (seconds, kernels), how = times.of(key_of(operator.key), operator.bytes, operator.flops)
        found.append(Part(operator, module, seconds, kernels, how))
    return found


def why_not_timed(request: Request) -> str | None:
    """Say why the time of a step cannot be predicted; ``None`` where it can."""
    if request.gpus > 1:
        return "the time of a step that several GPUs share is not predicted"
    engine = ENGINES[request.engine]
    return engine.why_not_timed or engine.why_not(request.optimizer)


def timed(parts: Sequence[Part], card: Card, gap_s: float | None = None) -> StepTime:
    """Add up the parts of a step on a card with a table, and say if cuDNN could not be asked about some."""
    table = _recorded_on(card)
    found = step_time(parts, table if gap_s is None else replace(table, gap_s=gap_s))
    others = (one for one in parts if one.how != AS_RECORDED)
    if _choosing(card) is not None or not any(convolved(key_of(one.operator.key)) for one in others):
        return found
    why = f"cuDNN {cudnn_of(table)}, with which times were recorded, is not installed"
    return replace(found, unasked=f"{why}: how it runs convolutions of other shapes is not known")


@functools.cache
def _times(card: Card) -> Times:
    choose = _choosing(card)
    return Times(_recorded_on(card)) if choose is None else Times(_recorded_on(card), choose)


@functools.cache
def _choosing(card: Card) -> Choose | None:
    return choosing(card, _recorded_on(card))


def _recorded_on(card: Card) -> TimesTable:
    table = table_of(card)
    if table is None:
        raise ValueError(
            f"no operators' times were recorded on {card.gpu}: stepcost record times on one does"
        )
    return table


def step_time(parts: Sequence[Part], table: TimesTable) -> StepTime:
    """Add up the parts of a step, with what lies between kernels."""
    busy_s = sum(one.seconds for one in parts)
    step_s = busy_s + table.gap_s * sum(one.kernels for one in parts)
    doubt = doubt_of([(one.how, one.seconds) for one in parts], table.doubts)
    recorded_s = sum(one.seconds for one in parts if one.how == AS_RECORDED)
    return StepTime(
        step_s=step_s,
        low_s=step_s / (1 + doubt),
        high_s=step_s * (1 + doubt),
        basis=RECORDED,
        contributors=contributors(parts, lambda one: name_of(key_of(one.operator.key))),
        modules=contributors(parts, lambda one: one.module),
        recorded_share=recorded_s / busy_s if busy_s else 0.0,
        recorded_with=table.about["torch"],
    )


def doubt_of(parts: Iterable[tuple[str, float]], doubts: dict[str, float]) -> float:
    """By which share a step may be off, from how its seconds are known."""
    parts = list(parts)
    total = sum(seconds for _, seconds in parts) or 1.0
    return doubts[STEP] + sum(doubts.get(how, 0.0) * seconds / total for how, seconds in parts)


def contributors(parts: Sequence[Part], name: Callable[[Part], str]) -> tuple[Contributor, ...]:
    """Sum parts by a name of each, the largest sum first."""
    found: dict[str, list[Part]] = {}
    for one in parts:
        found.setdefault(name(one), []).append(one)
    made = [
        Contributor(
            name=key,
            seconds=sum(one.seconds for one in each),
            kernels=round(sum(one.kernels for one in each)),
        )
        for key, each in found.items()
    ]
    return tuple(sorted((one for one in made if one.kernels), key=lambda one: -one.seconds))
