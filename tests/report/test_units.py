"""How numbers are written."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stepcost.report.units import significant


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
     (99.96, "100"), (0.9996, "1.00"), (12_500, "12,500"), (2.5e-6, "2.5e-06")],
)  # fmt: skip
def test_examples(value: float, shown: str) -> None:
    """Small, rolled over and large numbers are written as a reader expects."""
    assert significant(value) == shown
