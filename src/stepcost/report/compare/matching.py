"""Which row of one run is the same question as which row of another: by what it is, never by its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from stepcost.report.load import Run
from stepcost.report.rows import Row, configuration
from stepcost.row import OUT_OF_MEMORY_TIMED, ROW

Key = tuple[Any, ...]
RowsByKey = dict[Key, dict[int, Row]]
"""For each key, the row of each run of one side that has it, by the run's place on its side."""
Pair = tuple[dict[int, Row], dict[int, Row]]
"""One row of both sides, by run."""

IDENTITY = tuple(name for name, one in ROW.items() if one.identifies)
"""Rows are compared only where every one of these is equal; a field that neither row stores is equal."""

STEP_TIMED = "training step"
ENGINE_TIMED = "engine step"
"""A training step too, launched by the engine and in the precision that its row names."""
_TRIED = {"3b": "training run", "4": ENGINE_TIMED}
"""What a row that ran out of memory tried to time, by question; of the others a training step."""
_EPOCHS = len(IDENTITY)
"""Place of the number of epochs in a key."""


def identity(row: Row) -> Key:
    """Return what a row is. One that ran out of memory is still the step or training that it tried to be."""
    if not row.get("question"):
        return ("foreign", row.get("fullname") or row.get("name"))
    values = {name: row.get(name) for name in IDENTITY}
    if values["timed"] == OUT_OF_MEMORY_TIMED:
        values["timed"] = _TRIED.get(row["question"], STEP_TIMED)
    return (*values.values(), len(row.get("epochs") or ()))


def repeated(runs: Iterable[Run]) -> set[Key]:
    """Return what rows are of which some run has several, the same by every field."""
    return {key for run in runs for key, times in Counter(map(identity, run.rows)).items() if times > 1}


def rows_by_key(runs: Sequence[Run], repeated: Collection[Key], names_tell_apart: bool) -> RowsByKey:
    """Rows of all runs of one side by what they are.

    Those that are ``repeated`` on either side are told apart by the benchmark's
    name and, where that is the same or not stored, by their order.
    """
    found: RowsByKey = {}
    for place, run in enumerate(runs):
        seen: Counter[Key] = Counter()
        for row in run.rows:
            key = identity(row)
            if key in repeated:
                key = (*key, row.get("name") if names_tell_apart else None)
                seen[key] += 1
                key = (*key, seen[key])
            found.setdefault(key, {})[place] = row
    return found


def join_tried(one: RowsByKey, other: RowsByKey) -> None:
    """Give trainings of ``one`` that ran out of memory, and so counted no epochs, their partners' keys."""
    for key in [key for key in one if key not in other]:
        if any(row.get("timed") != OUT_OF_MEMORY_TIMED for row in one[key].values()):
            continue
        partners = [its for its in other if its not in one and _but_epochs(its) == _but_epochs(key)]
        if len(partners) == 1:
            one[partners[0]] = one.pop(key)


def _but_epochs(key: Key) -> Key:
    return key[:_EPOCHS] + key[_EPOCHS + 1 :]


def all_named(runs: Iterable[Run]) -> bool:
    """Whether every row carries its benchmark's name (the rows of a session under way do not)."""
    return all(row.get("name") for run in runs for row in run.rows)


def label(row: Row) -> str:
    """``3a, resnet152, SGD, batch 64, 32x32 images, fp32, eager``."""
    if not row.get("question"):
        return str(row.get("name") or "unnamed benchmark")
    parts = [configuration(row)]
    said_by_the_rest = (STEP_TIMED, ENGINE_TIMED, OUT_OF_MEMORY_TIMED, "prediction", "training run")
    if row.get("timed") not in said_by_the_rest:
        parts.append(str(row.get("timed") or ""))
    if row.get("dataset") not in (None, "random"):
        parts.append(str(row["dataset"]))
    if row.get("seed") is not None:
        parts.append(f"seed {row['seed']}")
    if row.get("source") == "predicted":
        parts.append("predicted")
    return ", ".join([row["question"], *(part for part in parts if part)])


def without_shared(labels: Sequence[str]) -> tuple[str, list[str]]:
    """Take from the labels what all say; returns that, as ``: resnet152, fp32``, and the rest of each.

    Labels of one part, such as *all steps together*, do not count.
    """
    parts = [label.split(", ") for label in labels]
    several = [one for one in parts if len(one) > 1]
    everywhere = (
        [part for part in several[0][1:] if all(part in one for one in several)] if len(several) > 1 else []
    )
    short = [", ".join(part for part in one if part not in everywhere) for one in parts]
    return (f": {', '.join(everywhere)}" if everywhere else ""), short


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
