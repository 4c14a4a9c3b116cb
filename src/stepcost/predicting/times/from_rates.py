"""A step on a card without a table: the operators of a recorded card, scaled by the rates of both."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from stepcost.catalog.cards import CARDS, Card
from stepcost.operators import Operator
from stepcost.predicting.times.keys import in_16_bits, key_of, name_of
from stepcost.predicting.times.step_time import (
    FROM_RATES,
    Part,
    StepTime,
    contributors,
    predict_parts,
    timed,
)
from stepcost.predicting.times.table import TimesTable, table_of
from stepcost.request import Request

LATENCY_S = 2e-6
"""Of a kernel so much at most is start, end and the way to memory, which clocks decide and no rate."""
SAME_CHIP, OTHER_CHIP = (0.95, 1.05), (0.7, 1.5)
"""What is left in doubt where two cards differ in their memory alone, and where the chips are others.

A card of another architecture reaches another share of its rates: of 16-bit products an H100 makes 82 % of
what is published. No card but the H100 and the H200 was measured.
"""


class OnCard(NamedTuple):
    """A step on a card: what it takes, the operators that this rests on, and the table of those."""

    time: StepTime
    parts: Sequence[Part]
    """In their order, with their seconds on the card that they were recorded on."""
    table: TimesTable


class Scaled(NamedTuple):
    """Seconds of an operator on another card: the least, what is likely, and the most."""

    low_s: float
    likely_s: float
    high_s: float


def time_on(request: Request, card: Card) -> StepTime:
    """Predict a step on a card: from its own table of times, else from another card's and the rates of both.

    Raises ``ValueError`` with one line as ``predict_time`` does.
    """
    return step_on(request, card).time


def step_on(request: Request, card: Card) -> OnCard:
    """Predict as ``time_on`` does, and say of what operators; raises as it does."""
    with_tables = [one for one in CARDS.values() if table_of(one) is not None]
    recorded = min(with_tables, key=lambda one: (one != card, not is_same_chip(one, card), one.name))
    parts, table = _parts(request, recorded), table_of(recorded)
    assert table is not None
    found = timed(parts, recorded)
    return OnCard(found if recorded == card else from_rates(parts, found, recorded, card), parts, table)


@functools.lru_cache(maxsize=4)
def _parts(request: Request, recorded: Card) -> tuple[Part, ...]:
    return tuple(predict_parts(request, recorded))


def from_rates(parts: Sequence[Part], step: StepTime, recorded: Card, card: Card) -> StepTime:
    """Estimate a step on ``card`` from its operators and its time on ``recorded``, in seconds.

    What an operator takes beyond its bytes and operations at the recorded card's rates is scaled by all that
    might decide it, which makes the interval; ``step``'s own interval widens it.
    """
    scaled = [on_other(part, recorded, card) for part in parts]
    between_s = max(0.0, step.step_s - sum(part.seconds for part in parts)) * _slower(recorded, card)
    low_s, likely_s, high_s = (between_s + sum(one[end] for one in scaled) for end in range(3))
    doubt = SAME_CHIP if is_same_chip(recorded, card) else OTHER_CHIP
    there = [part._replace(seconds=one.likely_s) for part, one in zip(parts, scaled, strict=True)]
    return StepTime(
        step_s=likely_s,
        low_s=low_s * doubt[0] * step.low_s / step.step_s,
        high_s=high_s * doubt[1] * step.high_s / step.step_s,
        basis=FROM_RATES,
        contributors=contributors(there, lambda part: name_of(key_of(part.operator.key))),
        modules=contributors(there, lambda part: part.module),
        unasked=step.unasked,
    )


def on_other(part: Part, recorded: Card, card: Card) -> Scaled:
    """Scale an operator from one card to another.

    Its bytes or its operations, whichever take longer, are scaled by the cards' rates of them. What it took
    beyond that is latency, scaled by the clocks, and the rest, scaled as the bound is, or as multiprocessors
    and their clocks are where it is far from that; at the ends also as fp32 rates are, which some chips have
    twice of in a multiprocessor.
    """
    least_s = least(part.operator, recorded)
    by_all = recorded.multiprocessors / card.multiprocessors * _slower(recorded, card)
    by_lanes = recorded.fp32_tflops / card.fp32_tflops
    by_bound = least(part.operator, card) / least_s if least_s else by_all
    bound_s = min(least_s, part.seconds)
    latency_s = min(part.seconds - bound_s, LATENCY_S * part.kernels)
    rest_s = part.seconds - bound_s - latency_s
    fixed_s = bound_s * by_bound + latency_s * _slower(recorded, card)
    near_bound = bound_s / part.seconds if part.seconds else 0.0
    likely = near_bound * by_bound + (1 - near_bound) * by_all
    every = by_bound, by_all, by_lanes
    ends = min(every), likely, max(every)
    return Scaled(*(fixed_s + rest_s * each for each in ends))


def least(operator: Operator, card: Card) -> float:
    """Return the seconds that an operator's bytes or operations take at a card's rates, the longer ones."""
    moved_s = operator.bytes / (memory_gb_per_s(card) * 1e9)
    return max(moved_s, operator.flops / (tflops_of(operator, card) * 1e12))


def memory_gb_per_s(card: Card) -> float:
    """Return the measured rate of copying, else the published one less what the measured cards fall short."""
    return card.copied_gb_per_s or card.memory_gb_per_s * COPIED_SHARE


COPIED_SHARE = 0.89
"""Of the published rate the H100 copies 90 % and the H200 88 %."""


def tflops_of(operator: Operator, card: Card) -> float:
    """Return the rate of an operator's matrix products or convolutions, by its dtype."""
    if in_16_bits(operator.key):
        return card.half_tflops
    if operator.key.startswith("convolution"):
        return card.tf32_tflops or card.fp32_tflops
    return card.fp32_tflops


def is_same_chip(one: Card, other: Card) -> bool:
    """Say whether two cards differ in their memory alone."""
    return (one.compute_capability, one.multiprocessors, one.clock_mhz) == (
        other.compute_capability,
        other.multiprocessors,
        other.clock_mhz,
    )


def _slower(recorded: Card, card: Card) -> float:
    return recorded.clock_mhz / card.clock_mhz
