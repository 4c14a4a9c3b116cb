"""What a captured step takes on a card, from the times of its operators."""

from __future__ import annotations

from dataclasses import dataclass

from stepcost.catalog.cards import Card
from stepcost.request import Request

RECORDED, FROM_RATES = "recorded on this card", "from rates"
"""What a time rests on: operators that were recorded on that card, or on another one and its rates."""


@dataclass(frozen=True, kw_only=True)
class Contributor:
    """A part of a step's time."""

    name: str
    """An operator, or a module of the model."""
    seconds: float
    kernels: int


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


def predict_time(request: Request, card: Card) -> StepTime:
    """Predict what one step of ``request`` takes on ``card``, in seconds, the optimizer included.

    Raises ``ValueError`` with one line where that cannot be said: for an engine whose steps are not captured
    (the processor decides what those take), for a card without a table, and for what cannot be traced.
    """
    raise ValueError(f"no operators' times were recorded on {card.gpu}: stepcost record times on one does")
