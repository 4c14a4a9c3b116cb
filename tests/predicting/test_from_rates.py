"""Operators of a recorded card on another: by hand, from the published rates of both."""

from __future__ import annotations

from statistics import median

import pytest

from experiments.from_rates import estimated, steps_of
from stepcost.catalog.cards import CARDS
from stepcost.operators import Operator
from stepcost.predicting.times import FROM_RATES, Part, StepTime
from stepcost.predicting.times.from_rates import from_rates, on_other

H100, H200, A100, T4 = (CARDS[name] for name in ("h100-80gb", "h200-141gb", "a100-80gb", "t4"))
MS, US = 1e-3, 1e-6


def timed(operator: Operator, seconds: float, kernels: int) -> Part:
    """Return a recorded operator of the first layer."""
    return Part(operator, "layer", seconds, kernels, "recorded")


COPY = timed(Operator("copy_(f32[1],f32[1])", 3_009_000_000, 0), 1 * MS, 1)
"""At the H100's own rate of copying, 3,009 GB/s."""
PRODUCT = timed(Operator("mm(f32[1],f32[1])", 0, 67_000_000_000), 1 * MS, 1)
"""At its 67 TFLOP/s."""
SHORT = timed(Operator("add(i64[],i64[])", 0, 0), 2 * US, 1)
SLOW = timed(Operator("sort(f32[1])", 0, 0), 1002 * US, 1)
"""Far from any bound: 1 ms and the latency of a kernel."""


@pytest.mark.parametrize(
    ("part", "card", "seconds"),
    [
        (COPY, H200, MS * 3009 / 4221),
        (COPY, A100, MS * 3009 / (2039 * 0.89)),
        (PRODUCT, H200, 1 * MS),
        (PRODUCT, A100, MS * 67 / 19.5),
        (SHORT, A100, 2 * US * 1980 / 1410),
        (SLOW, H200, 1002 * US),
    ],
)
def test_an_operator_scales_as_what_bounds_it(part: Part, card: object, seconds: float) -> None:
    """Bytes scale by bandwidth, operations by their rate, short kernels by the clock; no interval is left."""
    low, likely, high = on_other(part, H100, card)  # type: ignore[arg-type]
    assert low == pytest.approx(seconds)
    assert likely == pytest.approx(seconds)
    assert high == pytest.approx(seconds)


def test_the_rate_is_that_of_the_precision() -> None:
    """Convolutions of fp32 are TF32 where there is TF32, 16-bit products of the 16-bit rate."""
    operations = 495_000_000_000
    convolution = timed(Operator("convolution(f32[1],f32[1])", 0, operations), 1 * MS, 1)
    assert on_other(convolution, H100, A100)[1] == pytest.approx(MS * 495 / 156)
    assert on_other(convolution, H100, T4)[1] == pytest.approx(MS * 495 / 8.1)
    half = timed(Operator("mm(bf16[1],bf16[1])", 0, 989_000_000_000), 1 * MS, 1)
    assert on_other(half, H100, A100)[1] == pytest.approx(MS * 989 / 312)


def test_what_is_far_from_its_bound_has_an_interval() -> None:
    """An operator at half its bandwidth scales by bandwidth or by multiprocessors, and lies between."""
    part = timed(COPY.operator, 2 * MS, 0)
    low, likely, high = on_other(part, H100, A100)
    by_bandwidth, by_all, by_lanes = 3009 / (2039 * 0.89), 132 * 1980 / (108 * 1410), 67 / 19.5
    assert low == pytest.approx(MS * (by_bandwidth + by_bandwidth))
    assert high == pytest.approx(MS * (by_bandwidth + by_lanes))
    assert likely == pytest.approx(MS * (by_bandwidth + (by_bandwidth + by_all) / 2))


def test_what_no_rate_bounds_scales_as_multiprocessors() -> None:
    """An A100 has 108 at 1,410 MHz for 132 at 1,980; that each has half the fp32 lanes makes the interval."""
    low, likely, high = on_other(SLOW, H100, A100)
    latency_s = 2 * US * 1980 / 1410
    assert low == likely == pytest.approx(MS * 132 * 1980 / (108 * 1410) + latency_s)
    assert high == pytest.approx(MS * 67 / 19.5 + latency_s)


def test_a_step_is_labelled_and_keeps_its_doubt() -> None:
    """The sum and what lies between kernels; the interval of the recorded card and what a card adds to it."""
    parts = [COPY, PRODUCT]
    step = StepTime(
        step_s=2.5 * MS, low_s=2.25 * MS, high_s=3 * MS, basis="recorded on this card", contributors=()
    )
    found = from_rates(parts, step, H100, H200)
    expected = MS * (3009 / 4221 + 1 + 0.5)
    assert found.basis == FROM_RATES
    assert found.step_s == pytest.approx(expected)
    assert found.low_s == pytest.approx(expected * 0.95 * 2.25 / 2.5)
    assert found.high_s == pytest.approx(expected * 1.05 * 3 / 2.5)
    assert [one.name for one in found.contributors] == ["mm", "copy_"]
    assert [(one.name, one.kernels) for one in found.modules] == [("layer", 2)]
    other = from_rates(parts, step, H100, A100)
    assert other.high_s / other.step_s > found.high_s / found.step_s, "an A100 is another chip"


def test_steps_of_an_h200_from_those_of_an_h100() -> None:
    """Of all that both recorded half are within 5 %, the worst within 15 %; nine of ten intervals held."""
    first, second = steps_of(H100), steps_of(H200)
    both = first.keys() & second.keys()
    assert len(both) > 140
    found = [(estimated(first[name], H100, H200), second[name].step_s) for name in both]
    errors = [abs(one.step_s / measured_s - 1) for one, measured_s in found]
    assert median(errors) < 0.05 and max(errors) < 0.15
    assert sum(one.low_s <= measured_s <= one.high_s for one, measured_s in found) > 0.9 * len(both)
