"""The estimates of noise, each with numbers worked out by hand: its error, its freedom, its drift."""

from __future__ import annotations

import math

import pytest

from stepcost.report.compare.noise import (
    UNKNOWN_DRIFT,
    Estimate,
    HostNoise,
    ProcessNoise,
    Samples,
    estimate,
    estimate_together,
    process_noise,
)

NOBODY = HostNoise(None, None)
DRIFT = math.log1p(UNKNOWN_DRIFT)
TENTH = ProcessNoise(0.01, 4)


def sampled(base: tuple[float, ...], new: tuple[float, ...]) -> Samples:
    """A row by the logarithms of its seconds in the runs of each side."""
    return Samples(*({run: math.exp(log) for run, log in enumerate(side)} for side in (base, new)))


ROWS = [sampled((0.0,), (log,)) for log in (0.1, 0.0, 0.02, 0.04)]


def test_noise_from_the_spread_over_the_other_rows() -> None:
    """The others are at 0.02 and 0.02 to either side: sqrt(2 * 0.0002 / 2) * sqrt(2) = 0.02, 2 degrees."""
    first = estimate(ROWS, NOBODY, None)[0]
    assert first.log_ratio == pytest.approx(0.1)
    assert first.error == pytest.approx(0.02)
    assert (first.source, first.freedom, first.drift) == ("rows", 2, DRIFT)
    width = 4.302653 * 0.02 + DRIFT
    assert first.interval() == pytest.approx((math.exp(0.1 - width), math.exp(0.1 + width)), rel=1e-6)
    for way, sign in ((True, 1), (False, -1)):
        at = (sign * 0.1 - DRIFT) / 0.02
        assert first.chance(slower=way) == pytest.approx(0.5 - at / (2 * math.sqrt(2 + at**2)))
    # t of 0.99 and of 0.95 at 2 degrees
    assert first.would_catch(0.05, 5) == pytest.approx(math.expm1((6.964557 + 2.919986) * 0.02 + DRIFT))


def test_two_other_rows_tell_nothing() -> None:
    """With fewer than three others nothing is known of the noise, so nothing is called."""
    for one in estimate(ROWS[:3], NOBODY, None):
        assert (one.error, one.source, one.freedom, one.drift) == (None, "rows", 1, DRIFT)
        assert one.interval() is None
        assert one.would_catch(0.01, 1) is None
        assert (one.chance(slower=True), one.chance(slower=False)) == (1.0, 1.0)


def test_noise_of_what_the_rows_have_in_common() -> None:
    """Mean 0.04; squares 0.0056 / 2 over 3 degrees, times sqrt(2) of a run each, over sqrt(4) rows."""
    together = estimate_together(ROWS, NOBODY, None)
    assert together is not None
    assert together.log_ratio == pytest.approx(0.04)
    assert together.error == pytest.approx(math.sqrt(0.0028 / 3) * math.sqrt(2) / 2)
    assert (together.source, together.freedom, together.drift) == ("rows", 3, DRIFT)
    assumed = estimate_together(ROWS, NOBODY, 0.007)
    assert assumed is not None
    assert assumed.error == pytest.approx(0.007 * math.sqrt(2))
    assert (assumed.source, assumed.drift) == ("assumed", 0)
    assert estimate_together(ROWS[:1], NOBODY, None) is None


@pytest.mark.parametrize(
    ("base", "new", "host", "error", "freedom"),
    [
        # twice the variance of processes: 2e-4 over the runs of each side; (total)**2 over squares by degrees
        (2, 1, HostNoise(TENTH, TENTH), 3e-4, 7.2),
        (1, 2, HostNoise(TENTH, TENTH), 3e-4, 7.2),
        (1, 1, HostNoise(TENTH, TENTH), 4e-4, 8),
        (1, 1, HostNoise(TENTH, None), 4e-4, 4),
        (1, 1, HostNoise(None, TENTH), 4e-4, 4),
        (1, 1, HostNoise(TENTH, ProcessNoise(0.02, 8)), 10e-4, 100 / (4 / 4 + 64 / 8)),
        (1, 1, HostNoise(ProcessNoise(0.0, 4), None), 1e-6, 4),  # no error below 0.1 % is believed
    ],
)
def test_noise_from_fresh_processes(
    base: int, new: int, host: HostNoise, error: float, freedom: float
) -> None:
    """With too few runs the variance is that of the hosts' processes, with Welch's degrees of freedom."""
    (one,) = estimate([sampled((0.0,) * base, (0.1,) * new)], host, 0.007)
    assert one.error == pytest.approx(math.sqrt(error))
    assert one.freedom == pytest.approx(freedom)
    assert (one.source, one.drift) == ("processes", 0)


def test_processes_are_pooled_around_their_own_means() -> None:
    """Readings of two steps, each around its own: (1 + 1 + 4 + 4) * 1e-4 over 4 degrees; zeros left out."""
    one, other = ([math.exp(log) for log in logs] for logs in ((0.99, 1.0, 1.01), (2.98, 3.0, 3.02)))
    found = process_noise([one, [0.0], [*other, 0.0]])
    assert found is not None
    assert found.deviation == pytest.approx(math.sqrt(10e-4 / 4))
    assert found.freedom == 4
    least = process_noise([one, other[1:]])
    assert least is not None
    assert least.deviation == pytest.approx(math.sqrt(4e-4 / 3))
    assert least.freedom == 3
    assert process_noise([one, other[:1]]) is None
    assert process_noise([[1.0] * 5]) == ProcessNoise(0.001, 4)


def test_how_small_a_slow_down_would_be_caught() -> None:
    """z of 1 - 0.05 / 5 and of 0.95, times the error; a hopeless error ends at exp(50)."""
    known = Estimate(-0.1, 0.05, "runs")
    assert known.would_catch(0.05, 5) == pytest.approx(math.expm1((2.326348 + 1.644854) * 0.05), rel=1e-6)
    assert known.chance(slower=False) == pytest.approx(0.0227501, rel=1e-5)
    assert known.chance(slower=True) == pytest.approx(0.9772499, rel=1e-5)
    assert Estimate(0.0, 1e6, "runs").would_catch(0.05, 1) == math.expm1(50)
