"""Which row of one run is the same question as which row of another: by what it is, never by its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from reports.load import Run
from reports.rows import CONFIGURATION, Row, configuration

Key = tuple[Any, ...]
RowsByKey = dict[Key, list[Row]]
"""The same row in each run of one side that has it."""

IDENTITY = ("question", "timed", *CONFIGURATION, "seed", "train_images")
"""Rows are compared only where every one of these is equal; a field that neither row stores is equal."""

OUT_OF_MEMORY_TIMED = "attempt that ran out of memory"
STEP_TIMED = "training step"


def identity(row: Row) -> Key:
    """What a row is. One that ran out of memory is still the training step that it tried to be."""
    if not row.get("question"):
        return ("foreign", row.get("fullname") or row.get("name"))
    values = {name: row.get(name) for name in IDENTITY}
    if values["timed"] == OUT_OF_MEMORY_TIMED:
        values["timed"] = STEP_TIMED
    return (*values.values(), len(row.get("epochs") or ()))


def rows_by_key(runs: Sequence[Run], names_tell_apart: bool = True) -> RowsByKey:
    """Rows of all runs of one side by what they are.

    Two rows of one run that are the same by every field are told apart by the
    benchmark's name, or by their order where names were not stored.
    """
    found: RowsByKey = {}
    for run in runs:
        times = Counter(identity(row) for row in run.rows)
        seen: Counter[Key] = Counter()
        for row in run.rows:
            key = identity(row)
            seen[key] += 1
            if times[key] > 1:
                named = row.get("name") if names_tell_apart else None
                key = (*key, named or seen[identity(row)])
            found.setdefault(key, []).append(row)
    return found


def all_named(runs: Iterable[Run]) -> bool:
    """Whether every row carries its benchmark's name (the rows of a session under way do not)."""
    return all(row.get("name") for run in runs for row in run.rows)


def label(row: Row) -> str:
    """``3a, resnet152, SGD, batch 64, 32x32 images, fp32, eager``."""
    if not row.get("question"):
        return str(row.get("name") or "unnamed benchmark")
    parts = [configuration(row)]
    if row.get("timed") not in (STEP_TIMED, OUT_OF_MEMORY_TIMED, "prediction", "training run"):
        parts.append(str(row.get("timed") or ""))
    if row.get("dataset") not in (None, "random"):
        parts.append(str(row["dataset"]))
    if row.get("seed") is not None:
        parts.append(f"seed {row['seed']}")
    if row.get("source") == "predicted":
        parts.append("predicted")
    return ", ".join([row["question"], *(part for part in parts if part)])


def nearest(row: Row, others: Iterable[Row]) -> str | None:
    """Say in which fields the most similar row without a partner differs, where those are one or two."""
    best: tuple[int, str] | None = None
    for other in others:
        if not row.get("question") or row.get("question") != other.get("question"):
            continue
        apart = [
            f"{name} {row.get(name)} -> {other.get(name)}"
            for name in IDENTITY
            if row.get(name) != other.get(name)
        ]
        if len(row.get("epochs") or ()) != len(other.get("epochs") or ()):
            apart.append(f"epochs {len(row.get('epochs') or ())} -> {len(other.get('epochs') or ())}")
        if 0 < len(apart) <= 2 and (best is None or len(apart) < best[0]):
            best = (len(apart), ", ".join(apart))
    return best[1] if best else None
