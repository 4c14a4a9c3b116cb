"""What cuDNN and cuBLAS take alongside the tensors: a recorded table, cuDNN itself, and rules."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from stepcost.catalog.cards import Card
from stepcost.predicting.convolution import BACKWARD_WEIGHT, DIRECTIONS, Convolution
from stepcost.predicting.cudnn_library import Library, find_library
from stepcost.predicting.cudnn_plans import workspaces_of
from stepcost.predicting.devices import MULTIPROCESSORS, described
from stepcost.predicting.recorded import Row, Table, between, find_table, values
from stepcost.predicting.torch_versions import (
    CUBLAS_32_MIB_ON_BLACKWELL,
    CUBLAS_FREES,
    CUBLASLT_SHARES,
    CUDNN_OF,
    Version,
)
from stepcost.predicting.unasked import Unasked, unasked_on


class Estimated(Enum):
    """How workspaces that were not recorded are made up for; the later, the worse."""

    BY_CUDNN = auto()
    """By the heuristics of the cuDNN that the predicted torch brings."""
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
    cudnn: str | None = None
    """Version of the cuDNN that the predicted torch brings, as far as known."""
    library: Library | None = None
    """That cuDNN, where it is installed."""
    unasked: Unasked | None = None
    """What it cannot be asked without a device."""
    unvalidated: str | None = "on this card"
    """With what cuDNN's answers were not compared with a run; ``None`` where they were."""
    asked: set[str] = field(default_factory=set)
    """Convolutions that cuDNN was asked about."""
    with_another: set[str] = field(default_factory=set)
    """Convolutions whose workspaces are those of another cuDNN, with which they were recorded."""
    missing: set[str] = field(default_factory=set)
    """Convolutions that were asked for and are not in the table at any batch size."""
    missing_batches: set[str] = field(default_factory=set)
    """Convolutions that were asked for and are in the table, but not at that batch size."""

    @property
    def estimated(self) -> Estimated | None:
        """What of the convolutions asked for so far had to be estimated; ``None`` where all were recorded."""
        if self.missing:
            return Estimated.NOT_AT_ALL if self.table is None else Estimated.FROM_CONVOLUTIONS
        if self.missing_batches:
            return Estimated.FROM_BATCHES
        return Estimated.BY_CUDNN if self.asked else None

    @property
    def why_estimated(self) -> str | None:
        """Say in one line what had to be estimated."""
        asked, batches, missing = map(_counted, (self.asked, self.missing_batches, self.missing))
        caveat = f"; not validated {self.unvalidated}" if self.unvalidated else ""
        why = {
            None: self._why_another,
            Estimated.BY_CUDNN: f"{asked} by cuDNN {self.cudnn}'s own heuristics{caveat}",
            Estimated.FROM_BATCHES: f"{batches} not in the table at this batch size",
            Estimated.FROM_CONVOLUTIONS: f"{missing} not in the table",
            Estimated.NOT_AT_ALL: "no convolution was recorded on this compute capability",
        }[self.estimated]
        broken = None if self.library is None else self.library.broken
        return f"{why} (cuDNN {self.cudnn} cannot be asked: {broken})" if why and broken else why

    @property
    def _why_another(self) -> str | None:
        if self.table is None or not self.with_another:
            return None
        brings = f"cuDNN {self.cudnn}" if self.cudnn else "a cuDNN that is not known here"
        counted = _counted(self.with_another).replace(" is", " was").replace(" are", " were")
        return f"{counted} recorded with cuDNN {self.table.cudnn}, and this torch brings {brings}"

    def of(self, one: Convolution, batch_size: int, direction: str) -> list[int]:
        """Workspace of a convolution and what it falls back to where there is no room for that.

        As it was recorded; else as cuDNN says, where it is installed. Else it is an estimate, noted in
        ``missing_batches`` or ``missing``: from other batch sizes (``between``), or from the nearest
        convolution of the same kind, scaled with input and output.
        """
        row = None if self.table is None else self.table.convolutions.get(one.key)
        recorded = None if row is None else row.get(str(batch_size))
        if self.library is not None and (recorded is None or not self._recorded_this_cudnn):
            found = workspaces_of(
                self.library,
                one,
                batch_size,
                direction,
                multiprocessors=self.threads[0],
                unasked=self.unasked,
            )
            if found is not None:
                self.asked.add(one.key)
                return found
        if recorded and not self._recorded_this_cudnn:
            self.with_another.add(one.key)
        sizes: Sequence[Sequence[float]] = recorded or self._estimated(one, row, batch_size)
        # A weight in another layout was copied inside what was recorded; the trace has its own copy.
        copied = one.weight_bytes if one.weight_layout != one.output_layout else 0
        if direction == BACKWARD_WEIGHT:
            copied = 0
        return [max(0, int(size) - copied) for size in sizes[DIRECTIONS.index(direction)]] if sizes else []

    @property
    def _recorded_this_cudnn(self) -> bool:
        return self.table is not None and self.table.cudnn == self.cudnn

    def _estimated(self, one: Convolution, row: Row | None, batch_size: int) -> Sequence[Sequence[float]]:
        """Estimate a row of the table."""
        if row:
            self.missing_batches.add(one.key)
            return between(row, batch_size)
        self.missing.add(one.key)
        nearest = None if self.table is None else self.table.nearest(one)
        if self.table is None or nearest is None:
            return []
        row = self.table.convolutions[nearest.key]
        sizes: Sequence[Sequence[float]] | None = row.get(str(batch_size))
        if sizes is None:
            self.missing_batches.add(one.key)
            sizes = between(row, batch_size)
        scale = values(one) / values(nearest)
        return [[size * scale for size in direction] for direction in sizes]


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
    if capability not in MULTIPROCESSORS:
        raise ValueError(
            f"{card.name}: compute capability {capability} is not known here, "
            f"only {', '.join(MULTIPROCESSORS)}"
        )
    since = LARGE_CUBLAS_SINCE.get(capability.partition(".")[0])
    is_large = since is not None and torch_version >= since
    cudnn, table = CUDNN_OF.get(torch_version), find_table(capability)
    recorded = {} if table is None else table.about.get("device", {})
    device = recorded if recorded.get("deviceName") == card.gpu else described(card)
    unvalidated = None if table is not None and table.cudnn == cudnn else "with this torch"
    if not card.is_measured:
        unvalidated = "on this card"
    return Workspaces(
        cublas_bytes=LARGE_CUBLAS_BYTES if is_large else OTHER_CUBLAS_BYTES,
        cublaslt_bytes=0 if CUBLASLT_SHARES <= torch_version < CUBLAS_FREES else CUBLASLT_BYTES,
        cublas_keeps=keeps,
        table=table,
        threads=(card.multiprocessors, MULTIPROCESSORS[capability].threads),
        context_bytes=card.context_bytes,
        cudnn=cudnn,
        library=find_library(cudnn, device),
        unasked=unasked_on(capability, cudnn),
        unvalidated=unvalidated,
    )
