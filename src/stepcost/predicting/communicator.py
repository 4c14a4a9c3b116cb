"""What NCCL takes of a GPU that joins others: read on the first two GPUs of this machine."""

from __future__ import annotations

import json
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

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
            torch.multiprocessing.spawn(_joined, (folder,), RANKS)
        except (torch.multiprocessing.ProcessException, RuntimeError) as error:
            return {"communicator_unread": str(error).strip().splitlines()[-1]}
        read: list[dict[str, Any]] = json.loads((Path(folder) / "read").read_text())
    contexts = [one.get("context_bytes") for one in read]
    if None in contexts:
        return {"communicator_unread": read[0].get("context_unread", "NVML does not say it")}
    before, after = contexts
    return {"communicator_bytes": after - before, "nccl": ".".join(map(str, torch.cuda.nccl.version()))}


def _joined(rank: int, folder: str) -> None:
    """Join the other rank; the last one, whose GPU has no other process of ours, writes what was read."""
    torch.cuda.set_device(rank)
    one, every = torch.zeros(1, device="cuda"), torch.zeros(RANKS, device="cuda")
    read = [read_by_nvml(torch.cuda.memory_reserved())]
    store = dist.FileStore(f"{folder}/meeting", RANKS)  # type: ignore[attr-defined]  # public, but not in __all__
    dist.init_process_group("nccl", store=store, rank=rank, world_size=RANKS, timeout=LIMIT)
    dist.all_reduce(one)
    dist.broadcast(one, 0)
    dist.all_gather_into_tensor(every, one)
    dist.reduce_scatter_tensor(one, every)
    torch.cuda.synchronize()
    read.append(read_by_nvml(torch.cuda.memory_reserved()))
    if rank == RANKS - 1:
        (Path(folder) / "read").write_text(json.dumps(read))
    dist.destroy_process_group()
