"""What operators took in place on a card, by recorded step: the table that predictions ask."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from stepcost.catalog.cards import Card
from stepcost.predicting.times.convolved import Choice

TABLES = Path(__file__).parents[1] / "tables"


class Taken(NamedTuple):
    """What one call of an operator takes."""

    seconds: float
    """On the GPU, with what its copies and fills by the driver wait longer than kernels do."""
    kernels: float
    """In the mean of its calls."""


class Entry(NamedTuple):
    """An operator of a recorded step."""

    key: str
    bytes: int
    flops: int
    calls: int
    taken: Taken
    """In the mean of the calls."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A recorded step: what was asked for, what it took, and its operators."""

    request: dict[str, Any]
    step_s: float
    entries: tuple[Entry, ...]


@dataclass(frozen=True, kw_only=True)
class TimesTable:
    """Recorded steps of one card."""

    about: dict[str, Any]
    """``gpu``, ``torch``, ``cudnn`` ... and ``rates``: bytes a second of copying, operations of products."""
    gap_s: float
    """Between two kernels of a captured step."""
    doubts: dict[str, float]
    """By how operators are known, by which share of their time a step may be off; ``step`` of any."""
    steps: tuple[Step, ...]
    choices: dict[str, tuple[Choice, ...]] = field(default_factory=dict)
    """By key of a convolution how cuDNN runs it, in each direction; none in a table made without cuDNN."""

    @functools.cached_property
    def taken(self) -> dict[str, tuple[Taken, int, int]]:
        """By key what an operator takes (the median of steps), its bytes and operations."""
        found: dict[str, list[Entry]] = {}
        for step in self.steps:
            for entry in step.entries:
                found.setdefault(entry.key, []).append(entry)
        return {key: (_middle(each), each[0].bytes, each[0].flops) for key, each in found.items()}

    def save(self, path: Path) -> None:
        """Write it as gzipped JSON, the same bytes for the same table; seconds in tenths of nanoseconds."""
        keys: dict[tuple[str, int, int], int] = {}
        rows = [
            {
                "request": step.request,
                "step_s": step.step_s,
                "entries": [
                    [
                        keys.setdefault((one.key, one.bytes, one.flops), len(keys)),
                        one.calls,
                        round(one.taken.seconds * 1e9, 1),
                        round(one.taken.kernels, 3),
                    ]
                    for one in step.entries
                ],
            }
            for step in self.steps
        ]
        plain = {
            "about": self.about,
            "gap_s": self.gap_s,
            "doubts": self.doubts,
            "keys": list(keys),
            "choices": [self.choices.get(key) for key, *_ in keys],
            "steps": rows,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _middle(each: Sequence[Entry]) -> Taken:
    if len(each) == 1:
        return each[0].taken
    return Taken(median(one.taken.seconds for one in each), median(one.taken.kernels for one in each))


def load(path: Path) -> TimesTable:
    """Read what ``TimesTable.save`` wrote."""
    plain = json.loads(gzip.decompress(path.read_bytes()))
    keys = plain["keys"]

    def entries(rows: Iterable[Any]) -> tuple[Entry, ...]:
        return tuple(
            Entry(key, size, flops, calls, Taken(nanoseconds / 1e9, kernels))
            for index, calls, nanoseconds, kernels in rows
            for key, size, flops in (keys[index],)
        )

    steps = tuple(
        Step(request=one["request"], step_s=one["step_s"], entries=entries(one["entries"]))
        for one in plain["steps"]
    )
    choices = {
        key: tuple(Choice(*one) for one in each)
        for (key, *_), each in zip(keys, plain.get("choices", ()), strict=False)
        if each is not None
    }
    return TimesTable(
        about=plain["about"], gap_s=plain["gap_s"], doubts=plain["doubts"], steps=steps, choices=choices
    )


def table_name(card: str) -> str:
    """Return the name of the file of a card's table."""
    return f"times-{card}.json.gz"


@functools.cache
def table_of(card: Card) -> TimesTable | None:
    """Return the times that were recorded on a card; ``None`` where there are none."""
    path = TABLES / table_name(card.name)
    return load(path) if path.exists() else None
