"""The energy of a step, read of a counter that is simulated: what it costs is known by hand."""

import pynvml
import pytest

from stepcost.measuring.child import STARTED
from stepcost.measuring.configuration import Configuration
from stepcost.measuring.energy import FIELDS, energy_of
from stepcost.request import Request

REFUSED = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


class Card:
    """A card on a clock of its own: it draws one power in steps and another at rest, and counts both.

    The counter moves every ``period_s``; ``heats_until_s`` it gets a degree warmer every tenth of a second.
    """

    def __init__(self, *, step_s=0.01, power_w=300.0, idle_w=75.0, period_s=0.1, heats_until_s=0.0):
        self.step_s, self.power_w, self.idle_w = step_s, power_w, idle_w
        self.period_s, self.heats_until_s = period_s, heats_until_s
        self.at_s = self.drawn_j = self.shown_j = 0.0
        self.steps = 0
        self.moves_s = period_s

    def _go_on(self, seconds, power_w):
        end = self.at_s + seconds
        while self.moves_s <= end:
            self.drawn_j += power_w * (self.moves_s - self.at_s)
            self.at_s, self.shown_j = self.moves_s, self.drawn_j
            self.moves_s += self.period_s
        self.drawn_j += power_w * (end - self.at_s)
        self.at_s = end

    def step(self):
        self.steps += 1
        self._go_on(self.step_s, self.power_w)

    def now(self):
        return self.at_s

    def wait(self, seconds):
        self._go_on(seconds, self.idle_w)

    def energy_mj(self):
        return round(1000 * self.shown_j)

    def temperature_c(self):
        return 30 + int(10 * min(self.at_s, self.heats_until_s) + 1e-6)


def measured(card):
    """What is read of a card, and what is not."""
    return energy_of(card.step, card, card)


@pytest.mark.parametrize(
    ("step_s", "power_w", "period_s", "step_j"),
    [(0.01, 300, 0.1, 3.0), (0.0083, 400, 0.1, 3.32), (0.065, 200, 0.1, 13.0), (0.7, 500, 0.1, 350.0),
     (0.01, 300, 0.02, 3.0), (0.01, 300, 0.9, 3.0)],
)  # fmt: skip
def test_joules_of_a_step(step_s, power_w, period_s, step_j):
    """A step of 10 ms at 300 W costs 3 J, and the interval holds that, however the counter moves."""
    found, unread = measured(Card(step_s=step_s, power_w=power_w, period_s=period_s))
    assert unread == {}
    assert set(found) == set(FIELDS)
    low, high = found["energy_interval_j"]
    assert low <= step_j <= high, found
    assert found["energy_j"] == pytest.approx(step_j, rel=0.05)
    assert found["power_w"] == pytest.approx(power_w, rel=0.05)
    assert found["idle_power_w"] == pytest.approx(75, rel=0.02)
    assert len(found["energy_windows_j"]) == 4


def test_where_windows_end_is_in_the_interval():
    """Steps of 10 ms, whose ends the counter meets: the interval is one step of 2 s, 0.5 %, on each side."""
    found, _ = measured(Card())
    low, high = found["energy_interval_j"]
    assert found["energy_windows_j"] == pytest.approx([3.0] * 4, rel=1e-6)
    assert (high - low) / 2 == pytest.approx(3.0 * 0.01 / 2.0, rel=0.01)


def test_long_steps_are_resolved_by_the_counter():
    """Four steps of 0.7 s: the counter moves in each, so that the ends are known to 0.1 s of 2.8 s."""
    found, _ = measured(Card(step_s=0.7, power_w=100))
    low, high = found["energy_interval_j"]
    assert (high - low) / 2 >= 70 * 0.1 / 2.8 * 0.99
    assert high - low < 70 / 2


def test_windows_that_differ_widen_the_interval():
    """Where every other half second draws a third more, the interval says so."""

    class Uneven(Card):
        def step(self):  # the first window begins at 2.2 s
            self.power_w = 300.0 if (self.at_s - 2.2) % 1.0 < 0.5 else 400.0
            super().step()

    found, _ = measured(Uneven())
    low, high = found["energy_interval_j"]
    # Windows of 3, 4, 3 and 4 J deviate by 0.577: 3.182 x 0.577 / 2 = 0.92 J.
    assert (high - low) / 2 == pytest.approx(0.92 + 0.0175, abs=0.06)
    assert found["energy_j"] == pytest.approx(3.5, abs=0.1)


def test_a_steady_card_is_measured_at_once():
    """A temperature that does not move is steady after a second of steps: 1 s, then 2 s of windows."""
    card = Card()
    found, _ = measured(card)
    assert found["temperature_steady"] is True
    assert card.steps == pytest.approx(310, abs=15)


def test_a_card_that_gets_warm_is_waited_for():
    """Where it warms for 2.5 s by ten degrees a second, windows begin a second after it stopped."""
    card = Card(heats_until_s=2.5)
    found, _ = measured(card)
    assert found["temperature_steady"] is True
    assert card.at_s == pytest.approx(2.5 + 1.0 + 2.0, abs=0.25)


def test_a_card_that_does_not_get_steady_is_said():
    """A card that goes on warming is measured after three seconds, and the row says so."""
    card = Card(heats_until_s=60)
    found, unread = measured(card)
    assert (found["temperature_steady"], unread) == (False, {})
    assert found["energy_j"] == pytest.approx(3.0, rel=0.01)
    assert card.steps == pytest.approx(510, abs=15)


def test_without_a_temperature_energy_is_read():
    """Where NVML refuses the temperature only, that alone is unread, and why."""
    card = Card()

    def refuse():
        raise REFUSED

    card.temperature_c = refuse
    found, unread = measured(card)
    assert found["energy_j"] == pytest.approx(3.0, rel=0.01)
    assert found["temperature_steady"] is None
    assert unread == {"temperature_steady": "NVML: Not Supported"}


def test_a_counter_that_is_refused_is_unread():
    """Where the driver refuses the counter every field is unread, with NVML's own words."""
    card = Card()

    def refuse():
        raise REFUSED

    card.energy_mj = refuse
    assert measured(card) == ({}, dict.fromkeys(FIELDS, "NVML: Not Supported"))
    assert card.steps == 0


@pytest.mark.parametrize(
    ("shown_mj", "why"),
    [(lambda at_s: 0, "did not move within 2 s"), (lambda at_s: 10**9 - int(1000 * at_s), "went backwards")],
)
def test_a_counter_that_cannot_be_is_unread(shown_mj, why):
    """A counter that stands still, or goes backwards, gives a reason and no joules."""
    card = Card()
    card.energy_mj = lambda: shown_mj(card.at_s)
    found, unread = measured(card)
    assert found == {}
    assert set(unread) == set(FIELDS)
    assert all(why in reason and "\n" not in reason for reason in unread.values())


def test_a_processor_has_no_joules(monkeypatch):
    """On the CPU energy is unread, with the reason, and no step is taken for it."""
    for name in ("requested_at", "forked_at"):
        monkeypatch.setitem(STARTED, name, 0.0)
    held = Configuration(Request(model="small-cnn", optimizer="sgd", batch_size=2, device="cpu"))
    held.step = None
    assert held.energy() == ({}, dict.fromkeys(FIELDS, "no GPU: what a processor draws is not read"))
