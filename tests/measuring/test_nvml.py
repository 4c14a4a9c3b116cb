"""What is said where the driver says nothing."""

import pynvml
import pytest

from stepcost.machine import throttled
from stepcost.measuring import nvml


class Entry:
    """A process as NVML lists it."""

    def __init__(self, pid, used):
        self.pid = pid
        self.usedGpuMemory = used


class Memory:
    """Memory as NVML version 2 tells it."""

    total, reserved, used = 1000, 10, 300


@pytest.fixture
def driver(monkeypatch):
    """A driver that lists ``processes`` and has 300 bytes in use; returns the list."""
    processes = []
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle, version: Memory)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda handle: processes)
    monkeypatch.setattr(nvml.os, "getpid", lambda: 7)
    return processes


def test_missing_nvml_is_a_reason_not_a_crash(monkeypatch):
    """Where NVML is missing or refuses there is no GPU object but one line that says why."""

    def refuse():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", refuse)
    gpu, why_not = nvml.open_gpu("1234")
    assert gpu is None
    assert why_not.startswith("NVML: ")
    assert "\n" not in why_not


def test_process_bytes_are_this_processs_own(driver):
    """Where the driver lists this process, its own figure is taken, whatever others hold."""
    driver += [Entry(7, 120), Entry(8, 150)]
    assert nvml.Gpu("1").process_bytes() == (120, nvml.FROM_PROCESS)


@pytest.mark.parametrize("listed", [[], [(99, 120)], [(7, None)]])
def test_process_bytes_fall_back_to_the_device(driver, monkeypatch, listed):
    """Where the driver does not tell this process's figure, the device's rise is taken and labelled so."""
    driver += [Entry(*entry) for entry in listed]
    gpu = nvml.Gpu("1")
    monkeypatch.setattr(Memory, "used", 450)
    assert gpu.process_bytes() == (150, nvml.FROM_DEVICE)


def test_neighbours_are_named(driver):
    """Other processes are listed with pid, name and bytes; this one is not among them."""
    driver += [Entry(7, 120), Entry(2**22 + 1, None)]
    (other,) = nvml.Gpu("1").neighbours()
    assert (other.pid, other.bytes) == (2**22 + 1, None)
    assert "unknown" in other.name


@pytest.mark.parametrize(
    ("bits", "reasons", "held_back"),
    [
        (0x0, [], False),
        (0x1 | 0x2 | 0x10 | 0x100, [], False),  # idle, application clocks, sync boost, display clocks
        (0x1 | 0x4, ["power cap"], True),
        (0x20 | 0x80, ["software thermal slowdown", "hardware power brake"], True),
        (None, None, None),
    ],
)
def test_only_power_and_heat_throttle(monkeypatch, bits, reasons, held_back):
    """Bits for power and heat mean throttled, those of an idle card do not; unread is neither."""

    def read(handle):
        if bits is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return bits

    monkeypatch.setattr(pynvml, "nvmlDeviceGetCurrentClocksThrottleReasons", read)
    assert nvml._throttle_reasons(None) == reasons
    assert throttled({"throttle_reasons": reasons}) is held_back
    assert throttled(None) is None
