"""An answer: what the function of one question returns, and what is shown of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from stepcost.report.tables import Table


class Said(NamedTuple):
    """What the rows of a run say of one question."""

    text: str
    """One or a few sentences, with units."""
    source: str
    """``measured``, ``predicted``, ``measured and predicted``, or ``skipped`` (nothing read).
    Of a stand-in it names both models."""
    table: Table | None = None


@dataclass(frozen=True)
class Answer:
    """One question with what the rows say of it: `Said`, with the question's name and title."""

    question: str
    title: str
    text: str
    source: str
    table: Table | None = None
    money: str = ""
    """The sentence on money at the end of ``text``, where a price was given."""


NOT_ASKED = Said("No row of this run answers it.", "skipped")
