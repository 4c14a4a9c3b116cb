"""Joules of a step, by the energy counter that the driver keeps of the whole card.

The counter moves about every 100 ms on recent cards, and what a card draws depends on its temperature. So the
card is warmed by steps until its temperature is steady, and windows of steps begin and end where the counter
was seen to move. Both troubles are ML.ENERGY's ("Thermally Stable Profiling for Accurate GPU Energy
Measurement"). That the sensor of an H100 looks for a quarter of the time only (Yang, Adamek and Armour,
"Part-time Power Measurements", arXiv 2312.02741) is in no interval here.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import stdev
from typing import Any, Protocol

import pynvml

from stepcost.failures import first_line
from stepcost.row_times import Energy
from stepcost.schema import fields_of

WINDOWS, WINDOW_S = 4, 0.45
"""So many windows, one right after the other, each of so many seconds at least: five movements of a counter
that moves every 100 ms, half a second."""
STUDENT = 3.182
"""Student's 97.5 % point for the spread of `WINDOWS` windows: three degrees of freedom."""
SETTLED_S = 0.5
"""After the last step the card is given so long, before its idle power is read."""
IDLE_S = 0.45
STEADY_C, STEADY_S, WARM_LIMIT_S = 1, 1.0, 3.0
"""A temperature is steady that differs from that of so many seconds before by so many degrees Celsius at
most. After ``WARM_LIMIT_S`` it is measured all the same, and the row says that it was not steady."""
STUCK_S = 2.0
"""A counter that has not moved for so long does not count."""
NAP_S = 0.001
FIELDS = tuple(fields_of(Energy))
"""What ``energy_of`` reads."""


class Meter(Protocol):
    """What is asked of a card; each raises ``pynvml.NVMLError`` where the driver refuses."""

    def energy_mj(self) -> int:
        """Millijoules since the driver was loaded."""

    def temperature_c(self) -> int:
        """Degrees Celsius."""


class Unread(Exception):
    """Why energy cannot be told; its text is one line."""


class Clock:
    """The time, and waiting for it."""

    now = staticmethod(time.perf_counter)
    wait = staticmethod(time.sleep)


def energy_of(
    step: Callable[[], None], meter: Meter, clock: Any = Clock
) -> tuple[dict[str, Any], dict[str, str]]:
    """Measure what a step costs in joules; ``step`` takes one and waits until the card has finished it.

    Returns those of `FIELDS` that were read, and the reason by field of those that were not. ``energy_j`` is
    the energy of all windows over their steps. ``energy_interval_j``, from and to, is as far on both sides of
    it as the resolution (where windows begin and end is known to a step, or a movement of the counter if that
    is shorter) and the 95 % interval of the mean over the windows together. Takes about 4 s, 6 where the
    temperature does not get steady.
    """
    try:
        clock.wait(SETTLED_S)
        idle, movement_s = _idle(meter, clock)
        steady, unread = _warm_up(step, meter, clock)
        counter = _Counter(step, meter, clock)
        edges = [counter.movement()]
        for _ in range(WINDOWS):
            edges.append(counter.movement(after_s=edges[-1].at_s + WINDOW_S))
    except Unread as error:
        return {}, dict.fromkeys(FIELDS, str(error))
    except pynvml.NVMLError as error:
        return {}, dict.fromkeys(FIELDS, f"NVML: {first_line(error)}")
    whole = Window(edges[0], edges[-1])
    windows = tuple(Window(*ends).energy_j / Window(*ends).steps for ends in pairwise(edges))
    energy_j = whole.energy_j / whole.steps
    resolution_j = energy_j * min(whole.seconds / whole.steps, movement_s) / whole.seconds
    apart_j = resolution_j + STUDENT * stdev(windows) / math.sqrt(WINDOWS)
    found = Energy(
        energy_j=energy_j,
        energy_interval_j=(max(0.0, energy_j - apart_j), energy_j + apart_j),
        energy_windows_j=windows,
        power_w=whole.power_w,
        idle_power_w=idle.power_w,
        temperature_steady=steady,
    )
    return asdict(found), unread


@dataclass(frozen=True)
class Movement:
    """The counter as it was first seen after it moved."""

    at_s: float
    energy_mj: int
    steps: int
    """Taken until then."""


@dataclass(frozen=True)
class Window:
    """What lies between two movements of the counter."""

    first: Movement
    last: Movement

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.last.at_s - self.first.at_s

    @property
    def steps(self) -> int:
        """Steps in it."""
        return self.last.steps - self.first.steps

    @property
    def energy_j(self) -> float:
        """Joules in it."""
        return (self.last.energy_mj - self.first.energy_mj) / 1000

    @property
    def power_w(self) -> float:
        """Mean power."""
        return self.energy_j / self.seconds


class _Counter:
    """Looks at the counter after each step."""

    def __init__(self, step: Callable[[], None], meter: Meter, clock: Any) -> None:
        self._step, self._meter, self._clock = step, meter, clock
        self._energy_mj = meter.energy_mj()
        self._steps = 0

    def movement(self, after_s: float = -math.inf) -> Movement:
        """Take steps until the counter moves, at that time or later. Raises ``Unread``."""
        moved_s = self._clock.now()
        while True:
            self._step()
            self._steps += 1
            now, before = self._clock.now(), self._energy_mj
            self._energy_mj = self._meter.energy_mj()
            if self._energy_mj < before:
                raise Unread("NVML's energy counter went backwards")
            if self._energy_mj > before:
                moved_s = now
                if now >= after_s:
                    return Movement(now, self._energy_mj, self._steps)
            elif now - moved_s > STUCK_S:
                raise Unread(f"NVML's energy counter did not move within {STUCK_S:g} s")


def _idle(meter: Meter, clock: Any) -> tuple[Window, float]:
    """Return a window in which nothing is done, and the seconds from one movement to the next."""
    counter = _Counter(lambda: clock.wait(NAP_S), meter, clock)
    moved = [counter.movement()]
    while moved[-1].at_s < moved[0].at_s + IDLE_S:
        moved.append(counter.movement())
    window = Window(moved[0], moved[-1])
    return window, window.seconds / (len(moved) - 1)


def _warm_up(step: Callable[[], None], meter: Meter, clock: Any) -> tuple[bool | None, dict[str, str]]:
    """Take steps until the temperature is steady; whether it got so, and why that is unread."""
    seen: deque[tuple[float, int]] = deque()
    until = clock.now() + WARM_LIMIT_S
    why_not: dict[str, str] = {}
    while clock.now() < until:
        step()
        now = clock.now()
        try:
            seen.append((now, meter.temperature_c()))
        except pynvml.NVMLError as error:
            why_not = {"temperature_steady": f"NVML: {first_line(error)}"}
            continue
        while len(seen) > 1 and seen[1][0] <= now - STEADY_S:
            seen.popleft()
        if seen[0][0] <= now - STEADY_S and abs(seen[-1][1] - seen[0][1]) <= STEADY_C:
            return True, {}
    return (None if why_not else False), why_not
