"""What the GPU tests share: the card, what is free on it, and readings that several tests look at."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest

from stepcost import jobs
from stepcost.machine import Machine
from stepcost.measuring.measurements import Measurements
from stepcost.measuring.process import Worker
from stepcost.reading import Reading
from stepcost.request import Request

SETTLED_S = 5.0
"""The driver may take so long to count the memory of a process that has ended as free."""
CHILD_LIMIT_S = 120


@pytest.fixture(scope="session")
def machine() -> Machine:
    """The machine, as a child sees it; skips where it has no GPU."""
    with Worker(jobs.INSPECTION) as worker:
        found: Machine = worker.call("machine", "auto")
    if found.why_no_gpu is not None:
        pytest.skip(f"only a GPU can tell: {found.why_no_gpu}")
    return found


class Card:
    """What is free on the card, by a child that does nothing else."""

    def __init__(self, device: str, watcher: Worker) -> None:
        self.device = device
        self._watcher = watcher

    def free_bytes(self) -> int:
        """Free memory now."""
        free: int = self._watcher.call("free_bytes", self.device)
        return free

    @contextmanager
    def left_as_it_was(self) -> Iterator[None]:
        """Assert that what happens inside leaves as much free as before."""
        before = self.free_bytes()
        yield
        end = time.monotonic() + SETTLED_S
        while (after := self.free_bytes()) != before and time.monotonic() < end:
            time.sleep(0.1)
        assert after == before, f"{before:,} bytes were free before, {after:,} are after: {after - before:+,}"


@pytest.fixture(scope="session")
def card(machine: Machine) -> Iterator[Card]:
    """The card, watched."""
    with Worker(jobs.INSPECTION) as watcher:
        yield Card(machine.device, watcher)


class Planted(Measurements):
    """Measurements in which a job of the tests' own takes the place of the usual one."""

    def __init__(self, job: str | None, *more: Any, time_limit_s: float = CHILD_LIMIT_S) -> None:
        super().__init__(time_limit_s)
        self.job, self.more = job, more

    def worker(self, job: str, *arguments: Any) -> Worker:
        if self.job is None:
            return super().worker(job, *arguments)
        return super().worker(f"tests.gpu.planted_jobs:{self.job}", *arguments, *self.more)


@pytest.fixture(scope="session")
def planted() -> Callable[..., Planted]:
    """``planted(job, *arguments, time_limit_s=...)``: measurements with that job of the tests' own."""
    return Planted


@pytest.fixture(scope="session")
def request_of(machine: Machine) -> Callable[..., Request]:
    """``request_of(model, optimizer, batch_size, **more)``: a configuration on this machine's GPU."""

    def ask(model: str, optimizer: str, batch_size: int, **more: Any) -> Request:
        return Request(model=model, optimizer=optimizer, batch_size=batch_size, device=machine.device, **more)

    return ask


@pytest.fixture(scope="session")
def read(request_of: Callable[..., Request]) -> Callable[..., Reading]:
    """``read(model, optimizer, batch_size)``: the memory reading, taken once and shared."""

    @cache
    def ask(model: str, optimizer: str, batch_size: int) -> Reading:
        found = Planted(None).measured(request_of(model, optimizer, batch_size))
        assert found.fits, found.reason
        return found

    return ask


class Rounds:
    """Times rounds as pytest-benchmark would, and keeps how many there were."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, work: Callable[[], object], rounds: int) -> float:
        for _ in range(rounds):
            start = time.perf_counter()
            work()
            self.seconds.append(time.perf_counter() - start)
        return sorted(self.seconds)[len(self.seconds) // 2]


@pytest.fixture
def rounds() -> Rounds:
    """What times rounds."""
    return Rounds()
