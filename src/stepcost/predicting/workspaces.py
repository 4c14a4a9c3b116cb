"""What cuDNN and cuBLAS take alongside the tensors: a table recorded on a GPU, and a rule."""

from __future__ import annotations

import bisect
import functools
import gzip
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

from stepcost.catalog.cards import Card
from stepcost.predicting.convolution import BACKWARD_WEIGHT, DIRECTIONS, Convolution
from stepcost.predicting.torch_versions import (
    CUBLAS_32_MIB_ON_BLACKWELL,
    CUBLAS_FREES,
    CUBLASLT_SHARES,
    Version,
)

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

    @staticmethod
    def load(path: Path) -> Table:
        """Read a table written by ``save``."""
        with gzip.open(path, "rt") as file:
            data = json.load(file)
        return Table(about=data["about"], convolutions=data["convolutions"])


class Estimated(Enum):
    """How workspaces that were not recorded are made up for; the later, the worse."""

    FROM_BATCHES = auto()
    """From the same convolutions at other batch sizes."""
    FROM_CONVOLUTIONS = auto()
    """From other convolutions."""
    NOT_AT_ALL = auto()
    """Nothing was recorded on this compute capability: they are left out, so that peaks are lower bounds."""


def _counted(convolutions: Collection[str]) -> str:
    return "1 convolution is" if len(convolutions) == 1 else f"{len(convolutions)} convolutions are"


@dataclass(frozen=True, kw_only=True)
class Workspaces:
    """What cuDNN and cuBLAS take on one card, in bytes."""

    cublas_bytes: int
    cublaslt_bytes: int
    """Taken as well as ``cublas_bytes`` for a product with a bias; 0 where it is the same memory."""
    cublas_keeps: bool
    """Whether a thread's first product takes it for good, or each product for itself."""
    table: Table | None
    threads: tuple[int, int] = (0, 0)
    """Multiprocessors, and threads that each can hold."""
    context_bytes: int | None = None
    missing: set[str] = field(default_factory=set)
    """Convolutions that were asked for and are not in the table at any batch size."""
    missing_batches: set[str] = field(default_factory=set)
    """Convolutions that were asked for and are in the table, but not at that batch size."""

    @property
    def estimated(self) -> Estimated | None:
        """What of the convolutions asked for so far had to be estimated; ``None`` where all were recorded."""
        if self.missing:
            return Estimated.NOT_AT_ALL if self.table is None else Estimated.FROM_CONVOLUTIONS
        return Estimated.FROM_BATCHES if self.missing_batches else None

    @property
    def why_estimated(self) -> str | None:
        """Say in one line what had to be estimated."""
        batches, missing = (_counted(names) for names in (self.missing_batches, self.missing))
        return {
            None: None,
            Estimated.FROM_BATCHES: f"{batches} not in the table at this batch size",
            Estimated.FROM_CONVOLUTIONS: f"{missing} not in the table",
            Estimated.NOT_AT_ALL: "no convolution was recorded on this compute capability",
        }[self.estimated]

    def of(self, one: Convolution, batch_size: int, direction: str) -> list[int]:
        """Workspace of a convolution and what it falls back to where there is no room for that.

        A batch size that was not recorded is estimated from those that were (``_between``). A
        convolution that was not recorded takes the nearest one of the same kind, scaled with its
        input and output. Both are estimates, and noted in ``missing_batches`` and ``missing``.
        """
        if self.table is None:
            self.missing.add(one.key)
            return []
        row = self.table.convolutions.get(one.key)
        scale = 1.0
        if not row:
            self.missing.add(one.key)
            nearest = self.table.nearest(one)
            if nearest is None:
                return []
            row = self.table.convolutions[nearest.key]
            scale = _values(one) / _values(nearest)
        sizes: Sequence[Sequence[float]] = row.get(str(batch_size), [])
        if not sizes:
            self.missing_batches.add(one.key)
            sizes = _between(row, batch_size)
        # A weight in another layout was copied inside what was recorded; the trace has its own copy.
        copied = one.weight_bytes if one.weight_layout != one.output_layout else 0
        if direction == BACKWARD_WEIGHT:
            copied = 0
        return [max(0, int(size * scale) - copied) for size in sizes[DIRECTIONS.index(direction)]]


def _between(row: Row, batch_size: int) -> Sequence[Sequence[float]]:
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


def _values(one: Convolution) -> int:
    """Values that go into and come out of a convolution, per image."""
    height, width = one.output_size
    return one.inputs * one.size[0] * one.size[1] + one.outputs * height * width


def _distance(one: Convolution, other: Convolution) -> float:
    """How unlike two convolutions of the same kind are: by which factors their lengths differ."""
    pairs = ((one.inputs, other.inputs), (one.outputs, other.outputs), (one.size[0], other.size[0]))
    return sum(abs(math.log(left / right)) for left, right in pairs)


THREADS_PER_MULTIPROCESSOR = {"7.0": 2048, "7.5": 1024, "8.0": 2048, "8.6": 1536, "8.7": 1536, "8.9": 1536}
THREADS_PER_MULTIPROCESSOR |= {"9.0": 2048, "10.0": 2048, "12.0": 1536}
"""By compute capability (CUDA C++ Programming Guide, table of technical specifications)."""
LARGE_CUBLAS_BYTES = 32 << 20
LARGE_CUBLAS_SINCE: dict[str, Version] = {
    "9": (2, 0),
    "10": CUBLAS_32_MIB_ON_BLACKWELL,
    "12": CUBLAS_32_MIB_ON_BLACKWELL,
}
"""Major compute capability to the torch from which its cuBLAS workspace is the large one.

``parseChosenWorkspaceSize`` in ``aten/src/ATen/cuda/CublasHandlePool.cpp``.
"""
OTHER_CUBLAS_BYTES = (4096 * 2 + 16 * 8) << 10
"""cuBLAS workspace elsewhere: its own default of two buffers of 4 MiB and eight of 16 KiB."""
CUBLASLT_BYTES = 1 << 20
"""cuBLASLt workspace (the same file)."""


def workspaces_on(card: Card | None, torch_version: Version) -> Workspaces:
    """Return what is known of workspaces on ``card``; without a card nothing is.

    Raises ``ValueError`` with one line for a compute capability of which too little is known.
    """
    keeps = torch_version < CUBLAS_FREES
    if card is None:
        return Workspaces(cublas_bytes=0, cublaslt_bytes=0, cublas_keeps=keeps, table=None)
    capability = card.compute_capability
    if capability not in THREADS_PER_MULTIPROCESSOR:
        raise ValueError(
            f"{card.name}: compute capability {capability} is not known here, "
            f"only {', '.join(THREADS_PER_MULTIPROCESSOR)}"
        )
    since = LARGE_CUBLAS_SINCE.get(capability.partition(".")[0])
    is_large = since is not None and torch_version >= since
    return Workspaces(
        cublas_bytes=LARGE_CUBLAS_BYTES if is_large else OTHER_CUBLAS_BYTES,
        cublaslt_bytes=0 if CUBLASLT_SHARES <= torch_version < CUBLAS_FREES else CUBLASLT_BYTES,
        cublas_keeps=keeps,
        table=find_table(capability),
        threads=(card.multiprocessors, THREADS_PER_MULTIPROCESSOR[capability]),
        context_bytes=card.context_bytes,
    )


def find_table(compute_capability: str) -> Table | None:
    """Return the table recorded on this compute capability with the newest cuDNN; ``None`` without one."""
    paths = sorted(TABLES.glob(f"sm{compute_capability.replace('.', '')}-cudnn*.json.gz"))
    return _load(paths[-1]) if paths else None


@functools.cache
def _load(path: Path) -> Table:
    return Table.load(path)
