"""What the driver says through NVML: identity, memory, processes, clocks and energy of one GPU.

Everything here is read in a child process. NVML may be missing, may refuse, and in
containers with their own PID namespace, under WSL and on WDDM it does not tell what a
process holds: each reading then is ``None`` together with the reason.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pynvml

from stepcost.failures import first_line
from stepcost.machine import Neighbour

FROM_PROCESS = "nvml process"
FROM_DEVICE = "nvml device difference"


class Gpu:
    """One GPU as NVML knows it, found by the UUID under which torch knows it.

    Raises ``pynvml.NVMLError`` where NVML is missing, refuses, or does not know the GPU.
    """

    def __init__(self, uuid: str) -> None:
        pynvml.nvmlInit()
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(
            uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
        )
        self._idle_bytes = self.memory()["used_bytes"]

    def memory(self) -> dict[str, int]:
        """Total, driver-reserved and used bytes of the device (``nvmlDeviceGetMemoryInfo`` version 2).

        Version 1 counts what the driver reserves as used: 480 MiB on an idle H100.
        """
        info = pynvml.nvmlDeviceGetMemoryInfo(self._handle, version=pynvml.nvmlMemory_v2)
        return {"total_bytes": info.total, "reserved_bytes": info.reserved, "used_bytes": info.used}

    def process_bytes(self) -> tuple[int | None, str]:
        """Bytes this process holds on the GPU, and how that was read.

        First choice ``nvmlDeviceGetComputeRunningProcesses``; where it does not list this
        process, the device's used bytes less those when this object was made, which is
        right only while no other process allocates.
        """
        own = self._own_bytes(os.getpid())
        if own is not None:
            return own, FROM_PROCESS
        return self.memory()["used_bytes"] - self._idle_bytes, FROM_DEVICE

    def neighbours(self) -> list[Neighbour]:
        """Other processes with a CUDA context on this GPU (empty where the driver does not tell)."""
        return [
            Neighbour(pid=entry.pid, name=_process_name(entry.pid), bytes=entry.usedGpuMemory)
            for entry in self._processes()
            if entry.pid != os.getpid()
        ]

    def driver(self) -> str:
        """Driver version, such as ``580.159.04``."""
        return str(pynvml.nvmlSystemGetDriverVersion())

    def clocks(self) -> dict[str, Any]:
        """Clocks in MHz, temperature in degrees C, and reasons for which the driver holds the clocks back."""
        handle = self._handle
        return {
            "sm_mhz": _or_none(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
            "sm_max_mhz": _or_none(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM),
            "memory_mhz": _or_none(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
            "temperature_c": _or_none(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
            "throttle_reasons": _throttle_reasons(handle),
        }

    def energy_mj(self) -> int:
        """Millijoules of the whole card since the driver was loaded. Raises ``pynvml.NVMLError``."""
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))

    def temperature_c(self) -> int:
        """Degrees Celsius. Raises ``pynvml.NVMLError``."""
        return int(pynvml.nvmlDeviceGetTemperature(self._handle, pynvml.NVML_TEMPERATURE_GPU))

    def _own_bytes(self, pid: int) -> int | None:
        return next((entry.usedGpuMemory for entry in self._processes() if entry.pid == pid), None)

    def _processes(self) -> list[Any]:
        try:
            return list(pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle))
        except pynvml.NVMLError:
            return []


# NVML's bits (nvml.h, nvmlClocksEventReasons) that mean 'slower than it could be'.
THROTTLE_BITS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}


def _throttle_reasons(handle: Any) -> list[str] | None:
    bits = _or_none(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    return None if bits is None else [name for bit, name in THROTTLE_BITS.items() if bits & bit]


def _or_none(read: Any, *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except pynvml.NVMLError:
        return None


def _process_name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "unknown, in another container or of another user"


def open_gpu(uuid: str) -> tuple[Gpu | None, str | None]:
    """Return the GPU, or ``None`` and the reason in one line."""
    try:
        return Gpu(uuid), None
    except pynvml.NVMLError as error:
        return None, f"NVML: {first_line(error)}"
