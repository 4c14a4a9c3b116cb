"""How numbers are written."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stepcost.units import (
    count,
    counted,
    duration,
    gb,
    joules,
    listed,
    mb,
    mb_number,
    ms,
    percent,
    points,
    seconds,
    significant,
)


@given(value=st.floats(1, 1e7), digits=st.integers(1, 5), sign=st.sampled_from((-1, 1)))
@example(9.666, 3, 1)
@example(99.7, 3, 1)
@example(9.996, 3, -1)
def test_significant_digits(value: float, digits: int, sign: int) -> None:
    """As many digits as asked (whole numbers keep all of theirs), and the number that rounding gives."""
    shown = significant(sign * value, digits)
    assert sum(letter.isdigit() for letter in shown) == max(digits, len(f"{value:.0f}"))
    step = 10.0 ** -len(shown.partition(".")[2])
    assert float(shown.replace(",", "")) == pytest.approx(sign * value, abs=step / 2 + 1e-9)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.0123, "0.0123"), (9.666, "9.67"), (9.996, "10.0"), (62.7, "62.7"), (99.7, "99.7"),
     (99.96, "100"), (0.9996, "1.00"), (12_500, "12,500"), (2.5e-6, "2.5e-06"), (1e-4, "0.000100"),
     (9.9e-5, "9.9e-05"), (0.5, "0.500"),
     (-0.5, "-0.500"), (-9.9e-5, "-9.9e-05"), (1, "1.00")],
)  # fmt: skip
def test_examples(value: float, shown: str) -> None:
    """Small, rolled over and large numbers are written as a reader expects."""
    assert significant(value) == shown


def test_each_kind_of_number_has_its_unit() -> None:
    """Bytes by 10**6, 2**20 and 10**9, seconds, joules, shares, and counts with what they count."""
    assert mb(12_345_678_901) == "12,345.7 MB"
    assert mb(12_345_678, 3) == "12.346 MB"
    assert mb_number(12_345_678_901) == "12,345.7"
    assert gb(1_234_567_000_000, 2) == "1,234.57 GB"
    assert (ms(0.0627), seconds(118.2), joules(7.5)) == ("62.7 ms", "118 s", "7.50 J")
    assert [duration(value) for value in (0.9994, 1, 61.5)] == ["999 ms", "1.00 s", "61.5 s"]
    assert (percent(0.9123), points(0.0256)) == ("91.2 %", "2.6 points")
    assert (count(58_164_298), counted(1, "epoch"), counted(0, "epoch"), counted(1200, "epoch")) == (
        "58,164,298", "1 epoch", "0 epochs", "1,200 epochs"
    )  # fmt: skip
    assert [listed(list(parts)) for parts in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
