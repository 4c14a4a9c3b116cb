"""The questions, each with its answer in a sentence, made from the rows of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepcost.report.answers import engines as answers_engines
from stepcost.report.answers import memory as answers_memory
from stepcost.report.answers import model as answers_model
from stepcost.report.answers import training as answers_training
from stepcost.report.rows import Row
from stepcost.report.tables import Table
from stepcost.row import MACHINE, clean_row
from stepcost.schema import clean

Said = tuple[str, str, Table | None]
"""The text of an answer, its source, and its table if it has one."""


@dataclass(frozen=True)
class Answer:
    """One question with what the rows say of it."""

    question: str
    """``1a`` to ``4``."""
    title: str
    text: str
    """One or a few sentences, with units."""
    source: str
    """``measured``, ``predicted``, ``measured and predicted``, or ``skipped`` (nothing read)."""
    table: Table | None = None


QUESTIONS: tuple[tuple[str, str, Callable[[list[Row], Mapping[str, Any]], Said]], ...] = (
    ("1a", "How many parameters, and how large is the model?", answers_model.size_of_model),
    ("1b", "Which GPU, and how much memory?", answers_model.which_gpu),
    ("1c", "How large is the CUDA context?", answers_model.size_of_context),
    ("2a", "How much memory does training take with each optimizer?", answers_memory.by_optimizer),
    ("2b", "Which optimizer takes the most, and why?", answers_memory.why_optimizers_differ),
    ("3a", "How much memory at each batch size, and which is the largest?", answers_memory.by_batch_size),
    ("3b", "Which batch size is the most accurate at the end?", answers_training.most_accurate),
    ("3c", "Which batch size is the fastest, and why?", answers_training.fastest),
    ("3d", "How does training accuracy rise over wall time?", answers_training.accuracy_over_time),
    ("4", "What does the way a step is run cost?", answers_engines.by_engine),
)


def answers(rows: Sequence[Mapping[str, Any]], machine: Mapping[str, Any] | None = None) -> list[Answer]:
    """Answer every question 1a to 4 from ``rows``, in order.

    A row is a benchmark's ``extra_info``, with pytest-benchmark's ``stats``
    under that key. Any subset of rows will do, none included: a question
    without rows is answered ``skipped``. Values of the wrong type are ignored.
    """
    cleaned = [clean_row(row) for row in rows]
    known, _ = clean(machine or {}, MACHINE)
    return [Answer(question, title, *answer(cleaned, known)) for question, title, answer in QUESTIONS]
