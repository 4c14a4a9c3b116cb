"""Cards as cuDNN describes devices, from what is published of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepcost.catalog.cards import Card


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
"""Of a machine rather than of a card. No plan of 500 changed with them."""


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
