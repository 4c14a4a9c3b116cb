"""What an hour costs, as it is given, and what seconds then cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcost.price import price_of


@pytest.mark.parametrize(
    ("text", "seconds", "money"),
    [
        ("2.50/h", 3600, "2.50"),
        ("$2.50/h", 36, "$0.025"),
        ("$2.50/h", 0.00909, "$0.0000063"),
        ("$2.50/h", 24 * 3600, "$60.00"),
        (" CHF 12 / h ", 360, "CHF1.20"),
        ("1800/h", 7200, "3,600.00"),
        ("3600/h", 0.9999, "1.0"),
        ("3600/h", 0, "0.0"),
    ],
)
def test_money_of_seconds(text, seconds, money):
    """At 2.50 an hour, 36 s are a hundredth of an hour and cost 0.025; the currency is as it was given."""
    price = price_of(text)
    assert price.of(seconds) == money
    assert price.given == text.strip()


@pytest.mark.parametrize(
    "text", ["", "2.50", "2,50/h", "-1/h", "0/h", "0.0/h", "$/h", "2.5/d", "1e3/h", "nan/h"]
)
def test_what_is_no_price_is_refused(text):
    """Anything but money for an hour is refused in one line that shows what would be right."""
    with pytest.raises(
        ValueError, match=r"is not a price; it takes money for an hour: 2\.50/h or \$2\.50/h$"
    ):
        price_of(text)


@given(st.text())
def test_any_text_is_a_price_or_refused(text):
    """Whatever is given either costs something for an hour, or is refused."""
    try:
        price = price_of(text)
    except ValueError:
        return
    assert price.an_hour > 0
