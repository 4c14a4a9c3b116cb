"""What a child reads of a configuration, with stand-ins for the GPU's counters."""

import time
from types import SimpleNamespace

import pytest
import torch

from stepcost.allocator.history import HistoryUnavailable
from stepcost.catalog.models import STAND_IN
from stepcost.measuring import configuration, nvml
from stepcost.measuring.child import STARTED
from stepcost.measuring.configuration import Configuration
from stepcost.request import Request


@pytest.fixture(autouse=True)
def started(monkeypatch):
    """As a child that was just forked knows it."""
    now = time.perf_counter()
    monkeypatch.setitem(STARTED, "requested_at", now)
    monkeypatch.setitem(STARTED, "forked_at", now)
    monkeypatch.setitem(STARTED, "phase", "start")


def request(device="cpu"):
    """A small configuration."""
    return Request(model=STAND_IN, optimizer="adam", batch_size=4, device=device)


def test_idle_bytes_are_read_before_there_is_a_context(monkeypatch):
    """NVML's baseline comes before everything that makes a CUDA context."""
    done = []

    def stop(*_, **__):
        done.append("first allocation")
        raise InterruptedError

    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"uuid of {device}")
    )
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append("context"))
    monkeypatch.setattr(nvml, "open_gpu", lambda uuid: done.append(uuid) or (None, "NVML: missing"))
    monkeypatch.setattr(torch, "zeros", stop)
    with pytest.raises(InterruptedError):
        Configuration(request("cuda:1"))
    assert done == ["uuid of cuda:1", "context", "first allocation"]


@pytest.fixture
def counters(monkeypatch):
    """A configuration on a GPU whose counters rise with each question, and whose events are not recorded."""
    asked = []

    def rising(*_):
        asked.append(1)
        return 100 * len(asked)

    for name in ("memory_allocated", "max_memory_allocated", "max_memory_reserved", "memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, rising)
    for name in ("reset_peak_memory_stats", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)

    def unavailable(*_):
        raise HistoryUnavailable("not here")

    monkeypatch.setattr(configuration, "record_by_module", unavailable)
    held = Configuration(request())
    held.on_gpu = True
    return held


def test_reading_says_what_is_unread(counters):
    """Without NVML and without a recording, process, context and ledger are unread; all else is there."""
    reading = counters.reading()
    assert (reading.fits, reading.ledger, reading.unread["ledger"]) == (True, None, "not here")
    assert (reading.process_bytes, reading.process_bytes_from, reading.context_bytes) == (None, None, None)
    assert list(reading.phase_peak_bytes) == ["forward", "backward", "optimizer step"]
    assert reading.peak_allocated_bytes == max(reading.phase_peak_bytes.values())
    assert reading.peak_moment == "optimizer step"
    assert [moment.moment for moment in reading.moments] == ["training step"]
    assert reading.optimizer_state_bytes == 2 * reading.gradient_bytes == 2 * reading.parameter_bytes


def test_reading_again_does_not_add_moments(counters):
    """A second reading of the same process tells its own moments, not those of the first."""
    assert counters.reading().moments != counters.reading().moments
    assert len(counters.reading().moments) == 1


def test_failing_step_names_its_phase(counters):
    """A step that fails after the reading's own is not said to be in the phase in which that one ended."""
    model = counters.training_step.model
    phases = []
    model.register_forward_hook(lambda *_: phases.append(STARTED["phase"]))
    counters.reading()
    assert phases == ["first step", "warm-up", "forward"]
