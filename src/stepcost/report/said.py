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


class Money(NamedTuple):
    """What the times of an answer cost, where a price was given."""

    text: str
    """A sentence, or nothing where no time has a price."""
    table: Table | None = None
    """The answer's table with money in it, where it has a column of that."""


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
