"""A table of times from recorded steps: their kernels are given to operators, and doubts are learned."""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from stepcost.catalog.cards import CARDS, Card
from stepcost.operators import Operator
from stepcost.predicting.times.aligned import Likely, Recorded, align, kernels_of
from stepcost.predicting.times.chosen import choosing, cudnn_of
from stepcost.predicting.times.doubts import with_doubts
from stepcost.predicting.times.keys import key_of, name_of
from stepcost.predicting.times.table import TABLES, Entry, Step, Taken, TimesTable, table_name
from stepcost.predicting.times.traced import operators_of
from stepcost.request import Request

ROUNDS = 3
"""Of aligning: each learns from the one before."""
Row = Mapping[str, Any]


def rows_of(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """Read what ``stepcost record times`` wrote: what it says of the card, and its recorded steps."""
    with gzip.open(path, "rt") as file:
        lines = [json.loads(line) for line in file]
    about = next(one["about"] for one in lines if "about" in one)
    return about, [one for one in lines if "calls" in one]


def table_from(about: dict[str, Any], rows: Iterable[Row]) -> TimesTable:
    """Make a table of recorded rows, without what is learned by leaving steps out (``doubts``)."""
    kept = [(row, [one.operator for one in operators_of(Request(**row["request"]))]) for row in rows]
    return table_of_traced(about, [row for row, _ in kept], [operators for _, operators in kept])


def table_of_traced(
    about: dict[str, Any], rows: Sequence[Row], traced: Sequence[Sequence[Operator]]
) -> TimesTable:
    """Do the same with the operators of each row's step at hand."""
    kernels = [kernels_of(row) for row in rows]
    keys = [[key_of(one.key) for one in operators] for operators in traced]
    asked = Counter(name_of(key) for each in keys for key in each)
    pairs = [(name_of(one.key or ""), one.name) for each in kernels for one in each]
    with_any = Counter(
        name_of(key_of(row["operators"][index][0])) for row in rows for index, _ in row["calls"] if index >= 0
    )
    places: list[list[int]] = []
    for _ in range(ROUNDS):
        likely = Likely(asked, pairs, with_any)
        places = [align(ours, theirs, likely) for ours, theirs in zip(keys, kernels, strict=True)]
        pairs = [
            (name_of(ours[place]), one.name)
            for ours, theirs, found in zip(keys, kernels, places, strict=True)
            for one, place in zip(theirs, found, strict=True)
        ]
        with_any = Counter(
            name_of(ours[place]) for ours, found in zip(keys, places, strict=True) for place in set(found)
        )
    gap_s, more_s = _gaps([row["step_s"] for row in rows], kernels)
    steps = tuple(
        Step(
            request=dict(row["request"]),
            step_s=row["step_s"],
            entries=_entries(operators, theirs, found, more_s, _overlap(row, theirs, gap_s, more_s)),
        )
        for row, operators, theirs, found in zip(rows, traced, kernels, places, strict=True)
    )
    return TimesTable(about=about, gap_s=gap_s, doubts={}, steps=steps)


def _gaps(step_s: Sequence[float], kernels: Sequence[Sequence[Recorded]]) -> tuple[float, float]:
    """Find the seconds between two kernels, and how much longer it is at a fill by the driver.

    Those for which the sums come nearest to the steps (least absolute deviations, relative).
    """
    sums, numbers, fills = np.array(
        [(sum(k.seconds for k in each), len(each), sum(k.by_driver for k in each)) for each in kernels]
    ).T
    steps = np.array(step_s)
    left, right = np.array([numbers / steps, fills / steps]).T, 1 - sums / steps
    weights = np.ones(len(steps))
    solved = np.zeros(2)
    for _ in range(50):
        solved = np.linalg.lstsq(left * weights[:, None], right * weights, rcond=None)[0]
        weights = 1 / np.sqrt(np.abs(left @ solved - right) + 1e-3)
    return max(0.0, float(solved[0])), max(0.0, float(solved[1]))


def _overlap(row: Row, kernels: Sequence[Recorded], gap_s: float, more_s: float) -> float:
    """Return how much less of a step its kernels are than they say, where they ran side by side; else 1.

    cuDNN runs the groups of some convolutions on several streams: their kernels add up to more than the step.
    """
    busy_s = sum(one.seconds for one in kernels)
    if busy_s <= row["span_s"]:
        return 1.0
    between_s = gap_s * len(kernels) + more_s * sum(one.by_driver for one in kernels)
    return float(max(0.0, row["step_s"] - between_s) / busy_s)


def _entries(
    operators: Sequence[Operator],
    kernels: Sequence[Recorded],
    places: Sequence[int],
    more_s: float,
    overlap: float,
) -> tuple[Entry, ...]:
    seconds, numbers = [0.0] * len(operators), [0] * len(operators)
    for kernel, place in zip(kernels, places, strict=True):
        seconds[place] += overlap * kernel.seconds + more_s * kernel.by_driver
        numbers[place] += 1
    by_key: dict[str, list[int]] = {}
    for place, operator in enumerate(operators):
        by_key.setdefault(key_of(operator.key), []).append(place)
    return tuple(
        Entry(
            key,
            operators[each[0]].bytes,
            operators[each[0]].flops,
            len(each),
            Taken(
                sum(seconds[one] for one in each) / len(each), sum(numbers[one] for one in each) / len(each)
            ),
        )
        for key, each in by_key.items()
    )


def with_choices(table: TimesTable, card: Card) -> TimesTable:
    """Return a table with how cuDNN runs its convolutions; ends with one line where that is not installed."""
    choose = choosing(card, table)
    if choose is None:
        sys.exit(f"cuDNN {cudnn_of(table)} is not installed: how it ran the convolutions cannot be asked")
    asked = {key: choose(key) for key in tqdm(table.taken, unit="operator")}
    return replace(table, choices={key: found for key, found in asked.items() if found is not None})


def main(arguments: Sequence[str]) -> None:
    """Make a table of the files that ``stepcost record times`` wrote, in the package or in a folder."""
    files = [Path(one) for one in arguments if one.endswith(".jsonl.gz")]
    folder, *more = [*(Path(one) for one in arguments if not one.endswith(".jsonl.gz")), TABLES]
    if not files or len(more) > 1:
        sys.exit("usage: python -m stepcost.predicting.times.made ROWS.jsonl.gz... [FOLDER]")
    read = [rows_of(file) for file in files]
    about = read[0][0]
    card = next((one for one in CARDS.values() if one.gpu == about["gpu"]), None)
    if card is None or any(one["gpu"] != about["gpu"] for one, _ in read):
        sys.exit(
            f"a table is of one card of catalog/cards.py, not of {sorted({one['gpu'] for one, _ in read})}"
        )
    made = table_from(about, tqdm([row for _, rows in read for row in rows], unit="step"))
    table = with_doubts(with_choices(made, card))
    path = folder / table_name(card.name)
    table.save(path)
    print(f"{path}: {len(table.steps)} steps, {len(table.taken)} operators, in doubt by {table.doubts}")


if __name__ == "__main__":
    main(sys.argv[1:])
