"""Which rows belong together: the same configuration but for the one thing that varies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stepcost.catalog.optimizers import OPTIMIZERS
from stepcost.catalog.savers import PLAIN
from stepcost.request import step_words
from stepcost.row import ROW

Row = dict[str, Any]

OF_ONE_TRAINING = ("seed", "train_images", "steps_per_epoch")
CONFIGURATION = tuple(
    name
    for name, one in ROW.items()
    if one.identifies and name not in ("question", "timed", *OF_ONE_TRAINING)
)
"""What must be equal before two rows may share a plot line or a sentence."""

EAGER = "eager"
"""The engine whose kernels the processor launches one by one, and whose time is therefore the processor's."""


def optimizer_label(name: str | None) -> str:
    """Return the name that a reader knows; names without one stay as stored."""
    row = OPTIMIZERS.get(name or "")
    return (row.label if row else "") or name or "unnamed optimizer"


def of_question(rows: Iterable[Row], question: str) -> list[Row]:
    """Choose the rows that answer ``question``."""
    return [row for row in rows if row.get("question") == question]


def own_first(rows: Iterable[Row], model: str | None) -> list[Row]:
    """Sort rows: the session's ``model`` first, and of each model what question 1a read first.

    Rows of a model that was trained in place of the session's come last.
    """

    def rank(row: Row) -> tuple[bool, ...]:
        is_other = model is not None and row.get("model") != model
        return bool(row.get("stand_in_for")), is_other, row.get("question") != "1a"

    return sorted(rows, key=rank)


def is_search(row: Row) -> bool:
    """Tell whether the row is of a search for the largest batch, and not of one batch size."""
    return row.get("timed") == "search" or row.get("trials") is not None


def searches(rows: Iterable[Row]) -> list[Row]:
    """Choose the searches for the largest batch of the step asked for, without a way to save memory."""
    asked = [row for row in rows if row.get("question") in ("3a", "5") and is_search(row)]
    return [row for row in asked if row.get("saver") in (None, PLAIN)]


def having(rows: Iterable[Row], *names: str) -> list[Row]:
    """Choose the rows in which every one of these fields was read."""
    return [row for row in rows if all(row.get(name) is not None for name in names)]


def groups(rows: Iterable[Row], varying: str) -> list[list[Row]]:
    """Group rows of one configuration each, apart from ``varying``; the largest group first.

    Within a group rows are ordered by ``varying``; of equally large groups the
    measured one, then the eager fp32 one, comes first.
    """
    keys = [name for name in CONFIGURATION if name != varying]
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in having(rows, varying):
        found.setdefault(tuple(row.get(key) for key in keys), []).append(row)

    def rank(group: list[Row]) -> tuple[Any, ...]:
        first = group[0]
        as_usual = (first.get("precision") in (None, "fp32")) + (first.get("engine") in (None, EAGER))
        return (
            -len({row[varying] for row in group}),
            first.get("source") != "measured",
            -as_usual,
            -len(group),
        )

    ordered = sorted(found.values(), key=rank)
    if varying == "optimizer":
        order = {name: place for place, name in enumerate(OPTIMIZERS)}
        return [sorted(group, key=lambda row: order.get(row[varying], len(order))) for group in ordered]
    return [sorted(group, key=lambda row: row[varying]) for group in ordered]


def source_of(rows: Iterable[Row]) -> str:
    """``measured``, ``predicted``, ``measured and predicted``, or ``skipped`` without rows."""
    sources = sorted({row.get("source") or "source not stored" for row in rows})
    return " and ".join(sources) if sources else "skipped"


def configuration(row: Row, *without: str) -> str:
    """``resnet152, Adam, batch 64, 32x32 images, fp32, eager``, as far as stored."""
    parts = [row.get("model") if "model" not in without else None]
    if row.get("optimizer") and "optimizer" not in without:
        parts.append(optimizer_label(row["optimizer"]))
    if row.get("batch_size") and "batch_size" not in without:
        parts.append(f"batch {row['batch_size']:,}")
    if row.get("image_size"):
        parts.append(f"{row['image_size']}x{row['image_size']} images")
    if row.get("sequence_length") and "sequence_length" not in without:
        parts.append(f"{row['sequence_length']:,} tokens")
    precision = row.get("precision")
    parts += [precision] if "precision" not in without else []
    parts += [word for word in step_words(row) if word != precision]
    parts += [row.get("engine")] if "engine" not in without else []
    parts.append(f"{row['schedule']} schedule" if row.get("schedule") else None)
    text = ", ".join(part for part in parts if part)
    if row.get("card"):
        text += f", for the card {row['card']}"
    if row.get("stand_in_for"):
        text += f" (in place of {row['stand_in_for']})"
    return text


MEMORY_FIGURES = (
    ("process_bytes", "process"),
    ("peak_reserved_bytes", "reserved"),
    ("peak_allocated_bytes", "allocated"),
    ("tensor_bytes", "tensor"),
)


def memory_figure(rows: Iterable[Row]) -> tuple[str, str] | None:
    """Choose the widest memory figure that every fitting row has: its field and its word, or ``None``."""
    fitting = [row for row in rows if row.get("fits") is not False]
    for field, word in MEMORY_FIGURES:
        if fitting and len(having(fitting, field)) == len(fitting):
            return field, word
    return None
