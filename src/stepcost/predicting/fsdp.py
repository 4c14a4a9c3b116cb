"""FSDP2 without a GPU: torch's own ``fully_shard`` on the meta device, with streams that are only numbers.

It gathers and scatters on streams of its own, and the caching allocator keeps the blocks of streams apart.
Nothing is run on a stream here: it is noted on which one memory is asked for. The collectives take none.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.distributed.fsdp._fully_shard import _fsdp_param_group

from stepcost.ledger import PARALLEL
from stepcost.parallel import first_collectives, shard
from stepcost.predicting.tape import REDUCTION, Rule, Tape
from stepcost.predicting.trace import Alone
from stepcost.request import Request

FSDP = "torch.distributed.fsdp._fully_shard"
THREADS = 128
THREAD_BYTES = 16
"""Threads of a block that copies, and what each takes at a time."""
NUMBER_BYTES = 8


class _Stream:
    """A stream by its number; 0 is the one that the step runs on. Nobody waits."""

    device_index = device_type = 0

    def __init__(self, number: int) -> None:
        self.stream_id = number

    def wait_event(self, event: Any) -> None: ...

    def wait_stream(self, stream: Any) -> None: ...

    def record_event(self, event: Any = None) -> _Event:
        return _Event()


class _Event:
    """A moment on a stream."""

    def record(self, stream: Any = None) -> None: ...


class _Streams:
    """What of ``torch.cuda`` FSDP2 asks for, of the meta device."""

    Event = _Event

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._made = 0

    def Stream(self, priority: int = 0) -> _Stream:  # noqa: N802 (torch's name)
        self._made += 1
        return _Stream(self._made)

    def current_stream(self) -> _Stream:
        return _Stream(self._tape.stream)

    @contextlib.contextmanager
    def stream(self, stream: _Stream) -> Iterator[None]:
        was, self._tape.stream = self._tape.stream, stream.stream_id
        try:
            yield
        finally:
            self._tape.stream = was

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0


@dataclass(frozen=True)
class _Copies:
    """One kernel that copies pieces of many tensors, by a list of numbers that it is given on the GPU."""

    piece_bytes: tuple[int, ...]
    """Of each tensor's piece."""
    pieces: int
    """Of each tensor."""

    def scratch_bytes(self, multiprocessors: int, threads_per_multiprocessor: int) -> tuple[int]:
        """Bytes of the numbers: of each tensor where it is, goes and begins, and of each block its tensor."""
        blocks = sum(-(-size // (THREADS * THREAD_BYTES)) for size in self.piece_bytes)
        most = 2 * multiprocessors * threads_per_multiprocessor // THREADS
        rounds = -(-blocks * self.pieces // most) if most else 1
        rounds = -(-rounds // min(math.ceil(math.sqrt(rounds)), self.pieces))
        blocks = sum(-(-size // (THREADS * THREAD_BYTES * rounds)) for size in self.piece_bytes)
        return ((4 * len(self.piece_bytes) + 1 + blocks) * NUMBER_BYTES,)


def _copy_out(
    tape: Tape, func: Any, gathered: torch.Tensor, sizes: Sequence[int], dim: int = 0, *, out: Any
) -> None:
    """Copy what was gathered into each parameter (``split_with_sizes_copy`` in ``cuda/TensorShape.cu``)."""
    tape.know(PARALLEL, [gathered, *out])
    if all(one.dtype == gathered.dtype for one in out):
        pieces = tuple(size * gathered.element_size() for size in sizes)
        tape.events.append((REDUCTION, _Copies(pieces, gathered.shape[0]), None))


def _copy_in(
    tape: Tape, func: Any, gradients: Sequence[torch.Tensor], dim: int, parts: int, *, out: torch.Tensor
) -> None:
    """Copy gradients into what is scattered (``_chunk_cat_out_cuda`` in ``cuda/TensorShape.cu``).

    The kernel is given of each tensor where it is, begins and starts, its size, that of a piece and how many
    blocks copy it, and of each block its tensor.
    """
    tape.know(PARALLEL, [out])
    pieces = [-(-one.shape[0] // parts) * one[0].numel() * out.element_size() for one in gradients]
    blocks = sum(-(-size // (THREADS * THREAD_BYTES)) for size in pieces)
    with tape.holding((6 * len(pieces) + 2 + blocks) * NUMBER_BYTES):
        pass


COPIES_IN = ("chunk_cat", "chunk_cat_mixed_dtype")
"""The second took the place of the first after torch 2.11; for gradients of one dtype it is the same."""
FSDP_RULES: dict[Any, Rule] = {
    torch.ops.fsdp.split_with_sizes_copy.default: _copy_out,
    **{
        getattr(torch.ops.fsdp, name).default: _copy_in for name in COPIES_IN if hasattr(torch.ops.fsdp, name)
    },
}


class Sharded(Alone):
    """A GPU that holds its part of the model, by ``fully_shard``, and gathers a block while it is needed."""

    rules = FSDP_RULES

    def __init__(self, request: Request) -> None:
        """Take the request that the GPUs share."""
        self._request = replace(request, device="meta")
        self.alike: list[tuple[int, ...]] = []
        """Of each rank what it holds, when the model was placed: ranks with as much of it are alike."""

    @contextlib.contextmanager
    def around(self, tape: Tape) -> Iterator[None]:
        """Let ``fully_shard`` do on the meta device what it does on CUDA.

        What is changed is private in torch (tried with 2.11 and 2.15): it asks ``torch.meta`` for streams,
        as it asks ``torch.cuda``; leaves tensors on the meta device where they are; and refuses to train
        with them.
        """

        def resize(storage: torch.UntypedStorage, size_bytes: int) -> torch.UntypedStorage:
            return tape.resize(storage, size_bytes)

        def move(parameters: list[torch.Tensor], buffers: list[torch.Tensor], _: Any) -> None:
            for one in chain(parameters, buffers):
                one.data = tape.moved(one)

        with contextlib.ExitStack() as stack:
            change = stack.enter_context
            streams = _Streams(tape)
            change(mock.patch.object(torch, "meta", streams, create=True))
            change(mock.patch.object(torch.accelerator, "current_stream", streams.current_stream))
            change(mock.patch.object(torch.UntypedStorage, "resize_", resize))
            change(mock.patch.object(_fsdp_param_group.FSDPParamGroup, "_validate_no_meta_params"))
            for name, module in list(sys.modules.items()):
                if name.startswith(FSDP) and hasattr(module, "_move_states_to_device"):
                    change(mock.patch.object(module, "_move_states_to_device", move))
            yield

    def join(self) -> None:
        """Do the first collectives, which take memory of two small tensors."""
        first_collectives(self._request)

    def place(self, model: nn.Module, tape: Tape) -> nn.Module:
        """Move the model block by block, and keep this rank's part of each."""
        self.alike = parts_of(model, self._request.gpus)
        return shard(self._request, model)


def parts_of(model: nn.Module, gpus: int) -> list[tuple[int, ...]]:
    """Return of each rank how many rows of every parameter it holds: ranks with as many are alike.

    ``fully_shard`` gives each rank as many, rounded up, as long as there are any.
    """
    rows = [parameter.shape[0] for parameter in model.parameters() if parameter.dim()]
    each = [-(-number // gpus) for number in rows]
    return [
        tuple(max(0, min(part, number - rank * part)) for part, number in zip(each, rows, strict=True))
        for rank in range(gpus)
    ]
