"""What a run is opened with, in the terminal and on its page: one row, its memory, and the card's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from stepcost.catalog.cards import CARDS
from stepcost.catalog.savers import PLAIN
from stepcost.report.rows import MEMORY_FIGURES, Row, groups, having, is_search, of_question


class Memory(NamedTuple):
    """The widest memory figure of a row."""

    field: str
    bytes: int
    word: str
    """``process``, ``reserved`` or ``allocated``."""


def opening_row(rows: Iterable[Row], model: str | None) -> Row | None:
    """Return the row that is spoken of first, of the session's own ``model`` (``None``: of any).

    It is of the optimizers (2a), where these were not asked of the batch sizes (3a), else of the engines (4):
    the first that does not fit, else the one that takes the most memory. Else it is the plain step of
    question 5, or the step on one GPU of question 6. Steps in fp64 are of a comparison of losses, and a
    stand-in is none of the session's own.
    """
    own = [row for row in rows if not row.get("stand_in_for") and model in (None, row.get("model"))]
    asked_of = {"2a": "optimizer", "3a": "batch_size", "4": "batch_size", "5": "saver", "6": "batch_size"}
    for question, varying in asked_of.items():
        steps = having(of_question(own, question), "optimizer", "batch_size")
        steps = [row for row in steps if row.get("saver") in (None, PLAIN) and not row.get("parallel")]
        asked = [row for row in steps if not is_search(row) and row.get("precision") != "fp64"]
        if found := groups(asked, varying):
            unfit = [row for row in found[0] if row.get("fits") is False]
            return unfit[0] if unfit else max(found[0], key=_bytes_of)
    return None


def _bytes_of(row: Row) -> int:
    memory = memory_of(row)
    return memory.bytes if memory else 0


def memory_of(row: Row) -> Memory | None:
    """Return the memory of the process at the peak, or what comes nearest to it of what was read."""
    return next(
        (Memory(field, row[field], word) for field, word in MEMORY_FIGURES[:3] if row.get(field) is not None),
        None,
    )


def card_bytes(row: Row, machine: Mapping[str, Any]) -> int | None:
    """Return the memory that processes can have of the row's card, or ``None`` where it is not known.

    What the driver is known to keep is not in it: NVML counts that, torch does not.
    """
    if row.get("source") != "predicted":
        return machine.get("gpu_total_bytes") or machine.get("gpu_nvml_total_bytes")
    card = CARDS.get(row.get("card") or "")
    return card.total_bytes - (card.driver_reserved_bytes or 0) if card else None
