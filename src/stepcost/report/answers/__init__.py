"""The registry of questions, each with the function that answers it from the rows of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from stepcost.price import Prices
from stepcost.report.answers import (
    cards,
    engines,
    fastest,
    instrument,
    memory,
    model,
    money,
    ranks,
    savers,
    sizes,
    training,
)
from stepcost.report.rows import Row, of_question, own_first, source_of
from stepcost.report.said import Answer, Money, Said
from stepcost.row import clean_row
from stepcost.schema import clean
from stepcost.session_record import MACHINE
from stepcost.units import counted


class Question(NamedTuple):
    """One question: its name in the rows, its title, and the function of rows and machine that answers it."""

    name: str
    title: str
    answer: Callable[[list[Row], Mapping[str, Any]], Said]
    priced: Callable[[list[Row], Mapping[str, Any], Prices], Money] | None = None
    """What it costs in money, where somebody says what an hour costs."""


QUESTIONS = (
    Question("1a", "How many parameters, and how large is the model?", model.size_of_model),
    Question("1b", "Which GPU, and how much memory?", model.which_gpu),
    Question("1c", "How large is the CUDA context?", model.size_of_context),
    Question("2a", "How much memory does training take with each optimizer?", memory.by_optimizer),
    Question("2b", "Which optimizer takes the most, and why?", memory.why_optimizers_differ),
    Question("3a", "How much memory at each batch size, and which is the largest?", sizes.by_batch_size),
    Question("3b", "Which batch size is the most accurate at the end?", training.most_accurate),
    Question("3c", "Which batch size is the fastest, and why?", fastest.fastest, money.of_training),
    Question("3d", "How does training accuracy rise over wall time?", training.accuracy_over_time),
    Question("4", "What does the way a step is run cost?", engines.by_engine, money.of_steps),
    Question("5", "What does each way to save memory buy, and what does it cost in time?", savers.by_saver),
    Question("6", "What do several GPUs cost each of them?", ranks.by_strategy),
    Question(
        "7", "Which card does a step fit, and how long would it take there?", cards.which_card, money.of_cards
    ),
    Question("instrument", "What does measuring itself cost?", instrument.cost_of_measuring),
)
"""A new question is one entry here, and a benchmark whose rows carry its name."""


def answers(
    rows: Sequence[Mapping[str, Any]],
    machine: Mapping[str, Any] | None = None,
    model: str | None = None,
    prices: Prices | None = None,
) -> list[Answer]:
    """Answer every registered question from ``rows``, in order, then count the rows of other questions.

    A row is a benchmark's ``extra_info``, with pytest-benchmark's ``stats``
    under that key; ``model`` is the name of the model that the session was
    for. With ``prices`` answers that have times say what these cost. Any
    subset of rows will do, none included: a question without rows is answered
    ``skipped``. Values of the wrong type are ignored.
    """
    cleaned = own_first([clean_row(row) for row in rows], model)
    known, _ = clean(machine or {}, MACHINE)
    found = []
    for question in QUESTIONS:
        said = question.answer(cleaned, known)
        money = question.priced(cleaned, known, prices) if prices and question.priced else Money("")
        said = said._replace(text=f"{said.text} {money.text}".rstrip(), table=money.table or said.table)
        found.append(Answer(question.name, question.title, *said, money=money.text))
    registered = {question.name for question in QUESTIONS}
    for name in dict.fromkeys(row.get("question") for row in cleaned):
        if name is None or name in registered:
            continue
        others = of_question(cleaned, name)
        text = f"{counted(len(others), 'row')}; the tables of all rows show what was read."
        found.append(Answer(name, "A question that is not registered", text, source_of(others)))
    return found
