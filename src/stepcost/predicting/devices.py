"""Cards as cuDNN describes devices: from what is published, and the GPU of this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import pynvml
import torch

from stepcost.catalog.cards import Card
from stepcost.predicting.cudnn_library import device_here


@dataclass(frozen=True)
class Multiprocessor:
    """What one multiprocessor has, by compute capability."""

    threads: int
    blocks: int
    """Thread blocks at once."""
    shared_bytes: int
    """Shared memory that one block can have."""


MULTIPROCESSORS = {
    "7.0": Multiprocessor(2048, 32, 96 << 10),
    "7.5": Multiprocessor(1024, 16, 64 << 10),
    "8.0": Multiprocessor(2048, 32, 163 << 10),
    "8.6": Multiprocessor(1536, 16, 99 << 10),
    "8.7": Multiprocessor(1536, 16, 163 << 10),
    "8.9": Multiprocessor(1536, 24, 99 << 10),
    "9.0": Multiprocessor(2048, 32, 227 << 10),
    "10.0": Multiprocessor(2048, 32, 227 << 10),
    "12.0": Multiprocessor(1536, 24, 99 << 10),
}
"""CUDA C++ Programming Guide, table of technical specifications per compute capability."""
EVERYWHERE: dict[str, Any] = {
    "maxGridSize": [2**31 - 1, 65535, 65535],
    "maxBlockSize": [1024, 1024, 64],
    "regsPerBlock": 65536,
    "warpSize": 32,
    "maxSharedMemoryPerBlock": 48 << 10,
    "maxRegistersPerSM": 65536,
    "maxThreadsPerBlock": 1024,
    "supportCoopLaunch": 1,
}
"""The same on every capability (the same table)."""
NOT_ASKED = {"pciDeviceId": 0, "cudaDeviceId": 0, "isTccDriver": 0, "driverVer": 13000}
"""Of a machine rather than of a card. No first plan of 250 changed with them."""


def described(card: Card) -> dict[str, Any]:
    """Describe ``card`` as cuDNN's device-properties descriptor takes it, in bytes and kHz.

    Raises ``KeyError`` for a compute capability that is not in ``MULTIPROCESSORS``.
    """
    one = MULTIPROCESSORS[card.compute_capability]
    major, minor = map(int, card.compute_capability.split("."))
    return {
        **EVERYWHERE,
        **NOT_ASKED,
        "deviceName": card.gpu,
        "deviceVer": 100 * major + 10 * minor,
        "multiProcessorCount": card.multiprocessors,
        "maxThreadsPerSM": one.threads,
        "maxCtasPerSM": one.blocks,
        "maxSharedMemoryPerBlockOptin": one.shared_bytes,
        "reservedSharedMemoryPerBlock": (1 << 10) if major >= 8 else 0,
        "totalGlobalMem": card.total_bytes,
        "smClockRateKHz": 1000 * card.clock_mhz,
        "memClockRateKHz": 1000 * card.memory_clock_mhz,
        "l2CacheSize": card.l2_mib << 20,
    }


def described_here() -> dict[str, Any]:
    """Describe this machine's first GPU, for predictions of it elsewhere.

    ``device`` is how cuDNN describes it (or ``device_unread``, why not), ``context_bytes`` what this process
    holds of it beside torch's segments, ``driver_reserved_bytes`` what the driver keeps, by NVML (or
    ``context_unread``, why not). The context is that of convolutions: a training step's is a little more.
    """
    found: dict[str, Any] = {}
    version = torch.backends.cudnn.version() or 0
    try:
        device = device_here(f"{version // 10000}.{version // 100 % 100}")
        found["device"] = {**device, "deviceName": torch.cuda.get_device_name()}
    except ValueError as error:
        found["device_unread"] = str(error)
    try:
        found |= read_by_nvml(torch.cuda.memory_reserved())
    except pynvml.NVMLError as error:
        found["context_unread"] = str(error)
    return found


def read_by_nvml(reserved_bytes: int) -> dict[str, Any]:
    """Return what the driver keeps of the current GPU, and this process beside ``reserved_bytes``.

    Under the names of ``described_here``. Raises ``pynvml.NVMLError``.
    """
    pynvml.nvmlInit()
    try:
        uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
        gpu = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        driver = pynvml.nvmlDeviceGetMemoryInfo(gpu, version=pynvml.nvmlMemory_v2).reserved
        used = {one.pid: one.usedGpuMemory for one in pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)}
        # In a container NVML may know this process by another number.
        own = used.get(os.getpid()) or (next(iter(used.values())) if len(used) == 1 else None)
        context = (
            {"context_unread": "NVML does not list this process"}
            if own is None
            else {"context_bytes": own - reserved_bytes}
        )
        return {"driver_reserved_bytes": driver, **context}
    finally:
        pynvml.nvmlShutdown()
