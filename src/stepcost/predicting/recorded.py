"""Workspaces of convolutions that were recorded on a GPU, and estimates of others from them."""

from __future__ import annotations

import bisect
import functools
import gzip
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepcost.predicting.convolution import Convolution

TABLES = Path(__file__).parent / "tables"

Row = dict[str, list[list[int]]]
"""Batch size (as text, for JSON) to, per direction, the workspace in bytes and its fallbacks in turn."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Workspaces of convolutions on one kind of GPU."""

    about: dict[str, Any]
    """``gpu``, ``compute_capability``, ``cudnn``, ``torch``, ``cuda``."""
    convolutions: dict[str, Row]

    def save(self, path: Path) -> None:
        """Write it as gzipped JSON, the same bytes for the same table."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            {"about": self.about, "convolutions": self.convolutions}, sort_keys=True, separators=(",", ":")
        )
        path.write_bytes(gzip.compress(text.encode(), mtime=0))

    @functools.cached_property
    def _by_kind(self) -> dict[tuple[object, ...], list[Convolution]]:
        found: dict[tuple[object, ...], list[Convolution]] = {}
        for key, row in self.convolutions.items():
            if row:
                one = Convolution.from_key(key)
                found.setdefault(one.kind, []).append(one)
        return found

    @functools.cached_property
    def _nearest(self) -> dict[Convolution, Convolution | None]:
        return {}

    def nearest(self, one: Convolution) -> Convolution | None:
        """Return the recorded convolution most like ``one``, with the same kernel, stride and layout."""
        if one not in self._nearest:
            same = self._by_kind.get(one.kind, [])
            self._nearest[one] = min(same, key=lambda other: _distance(one, other), default=None)
        return self._nearest[one]

    @property
    def cudnn(self) -> str:
        """Major and minor version of the cuDNN that was recorded, such as 9.19."""
        version = int(self.about["cudnn"])
        return f"{version // 10000}.{version // 100 % 100}"

    @staticmethod
    def load(path: Path) -> Table:
        """Read a table written by ``save``."""
        with gzip.open(path, "rt") as file:
            data = json.load(file)
        return Table(about=data["about"], convolutions=data["convolutions"])


def between(row: Row, batch_size: int) -> Sequence[Sequence[float]]:
    """Estimate a row at a batch size that was not recorded, in bytes.

    An algorithm's workspace is the same for every batch or grows with it, in part or whole. Where that may be
    so between the two recorded batches it is on the line between them; else the algorithm changes, and
    the smaller batch's is scaled. Of 38,943 recorded workspaces, each estimated from its neighbours, that is
    exact for 80 % and 1.3 MiB off in the mean; the nearest batch, scaled, is for 65 % and 1.5 MiB.
    """
    recorded = sorted(int(text) for text in row)
    above = bisect.bisect(recorded, batch_size)
    low = recorded[max(above - 1, 0)]
    scaled = [[size * batch_size / low for size in sizes] for sizes in row[str(low)]]
    if above in (0, len(recorded)):
        return scaled
    high = recorded[above]
    share = (batch_size - low) / (high - low)
    made = []
    for fewer, more, changed in zip(row[str(low)], row[str(high)], scaled, strict=True):
        if fewer[0] <= more[0] <= fewer[0] * high / low:
            # What is too small to have a fallback is its own.
            levels = range(max(len(fewer), len(more)))
            pairs = [(fewer[min(n, len(fewer) - 1)], more[min(n, len(more) - 1)]) for n in levels]
            made.append([few + (many - few) * share for few, many in pairs])
        else:
            made.append(changed)
    return made


def values(one: Convolution) -> int:
    """Values that go into and come out of a convolution, per image."""
    height, width = one.output_size
    return one.inputs * one.size[0] * one.size[1] + one.outputs * height * width


def _distance(one: Convolution, other: Convolution) -> float:
    """How unlike two convolutions of the same kind are: by which factors their lengths differ."""
    pairs = ((one.inputs, other.inputs), (one.outputs, other.outputs), (one.size[0], other.size[0]))
    return sum(abs(math.log(left / right)) for left, right in pairs)


def find_table(compute_capability: str) -> Table | None:
    """Return the table recorded on this compute capability with the newest cuDNN; ``None`` without one."""
    paths = sorted(TABLES.glob(f"sm{compute_capability.replace('.', '')}-cudnn*.json.gz"))
    return _load(paths[-1]) if paths else None


@functools.cache
def _load(path: Path) -> Table:
    return Table.load(path)
