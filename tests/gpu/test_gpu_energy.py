"""Joules of a step, by the counter of a real card."""

import pytest

from stepcost import jobs
from stepcost.measuring.energy import FIELDS

pytestmark = pytest.mark.gpu

SPIN_CYCLES = 20_000_000
"""At 2 GHz, 10 ms."""
LEAST_SPIN_S = 0.009
REPEATS = 0.02
"""By which two processes may differ beyond what each says."""


def test_joules_repeat_and_grow_with_the_work(planted, request_of):
    """Two fresh processes agree within 2 % and their intervals; a GPU kept busy longer costs more joules."""
    request = request_of("resnet18", "adam", 64, engine="fast")
    read = []
    for _ in range(2):
        with planted("Spins").asked("prepare", "prepare", jobs.ENGINE_STEP, request) as (worker, _held):
            read.append(worker.call("energy"))
            if len(read) == 2:
                worker.call("spin", SPIN_CYCLES)
                busy, _ = worker.call("energy")
    (first, unread), (second, _) = read
    if not first:
        pytest.skip(f"energy is unread: {unread['energy_j']}")
    assert set(first) == set(FIELDS), unread
    apart = sum((high - low) / 2 for low, high in (one["energy_interval_j"] for one in (first, second)))
    assert abs(first["energy_j"] - second["energy_j"]) <= apart + REPEATS * first["energy_j"], read
    assert 0 < first["idle_power_w"] < first["power_w"], first
    more_j = busy["energy_j"] - second["energy_j"]
    assert more_j > LEAST_SPIN_S * second["idle_power_w"], (second, busy)
