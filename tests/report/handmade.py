"""Small rows with numbers of one's own choosing, and what an answer made from them says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepcost.report.answers import answers
from stepcost.report.said import Answer

Fields = dict[str, Any]
SOURCES = ("measured", "predicted", "measured and predicted", "source not stored", "skipped")
NET: Fields = {"model": "net", "image_size": 16, "precision": "fp32", "engine": "eager", "source": "measured"}


def answer(question: str, rows: Sequence[Fields], **about: Any) -> Answer:
    """The answer to one question, which says where it comes from."""
    (found,) = [one for one in answers(rows, **about) if one.question == question]
    assert found.source.partition(" on ")[0] in SOURCES  # of a stand-in both models follow
    return found


def cell(found: Answer, column: str, *label: str) -> str:
    """What stands in the table of an answer, in that column of the row with those labels."""
    assert found.table is not None
    (row,) = [row for row in found.table.rows if row[: len(label)] == label]
    return row[found.table.columns.index(column)]


def memory(question: str, optimizer: str, batch: int, megabytes: Sequence[float], **more: Any) -> Fields:
    """A row with these MB of tensors, allocated, reserved, context and process."""
    names = ("tensor", "peak_allocated", "peak_reserved", "context", "process")
    sizes = {
        f"{name}_bytes": round(size * 1e6) for name, size in zip(names, megabytes, strict=False) if size > 0
    }
    return (
        NET | {"question": question, "optimizer": optimizer, "batch_size": batch, "fits": True} | sizes | more
    )


def search(**fields: Any) -> Fields:
    """The row of a search for the largest batch."""
    return NET | {"question": "3a", "timed": "search", "optimizer": "adam"} | fields


def trained(batch: int, epochs_s: Sequence[float], seed: int = 0, **more: Any) -> Fields:
    """A row of a training run whose epochs took these seconds, 60 % accurate in each; 100 images an epoch."""
    return NET | {
        "question": "3b",
        "optimizer": "adam",
        "batch_size": batch,
        "seed": seed,
        "fits": True,
        "steps_per_epoch": -(-100 // batch),
        "train_images": 100,
        "test_images": 1000,
        "train_s": sum(epochs_s),
        "epochs": [
            {"epoch": place, "train_seconds": took, "train_accuracy": 0.6, "test_accuracy": 0.5}
            for place, took in enumerate(epochs_s, start=1)
        ],
    } | more  # fmt: skip
