"""What NCCL takes of a GPU that joins others: read on the first two GPUs of this machine."""

from __future__ import annotations

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from stepcost.failures import first_line
from stepcost.predicting.devices import read_by_nvml

RANKS = 2
LIMIT = timedelta(seconds=60)


def communicator_here() -> dict[str, Any]:
    """Return ``communicator_bytes`` of one of two GPUs and ``nccl``, the version; nothing with one GPU.

    By how much the context grows where NCCL joins them and does each collective once, as ``Reading.ranks``
    has it. ``communicator_unread`` is why it cannot be said.
    """
    if torch.cuda.device_count() < RANKS:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            with ProcessPoolExecutor(RANKS, multiprocessing.get_context("spawn")) as ranks:
                # Of the last one: its GPU has no other process of ours, and NVML may not know ours by number.
                before, after = list(ranks.map(joined, range(RANKS), [folder] * RANKS))[-1]
        except RuntimeError as error:
            return {"communicator_unread": first_line(error)}
    contexts = before.get("context_bytes"), after.get("context_bytes")
    if contexts[0] is None or contexts[1] is None:
        return {"communicator_unread": before.get("context_unread", "NVML does not say it")}
    nccl = ".".join(map(str, torch.cuda.nccl.version()))
    return {"communicator_bytes": contexts[1] - contexts[0], "nccl": nccl}


def joined(rank: int, folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Join the other rank; return what NVML said before and after."""
    torch.cuda.set_device(rank)
    one, every = torch.zeros(1, device="cuda"), torch.zeros(RANKS, device="cuda")
    before = read_by_nvml(torch.cuda.memory_reserved())
    store = dist.FileStore(f"{folder}/meeting", RANKS)  # type: ignore[attr-defined]  # public, but not in __all__
    dist.init_process_group("nccl", store=store, rank=rank, world_size=RANKS, timeout=LIMIT)
    dist.all_reduce(one)
    dist.broadcast(one, 0)
    dist.all_gather_into_tensor(every, one)
    dist.reduce_scatter_tensor(one, every)
    torch.cuda.synchronize()
    after = read_by_nvml(torch.cuda.memory_reserved())
    dist.destroy_process_group()
    return before, after
