"""What an hour costs, as it is given, and what seconds then cost."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcost.price import price_of, run_prices


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


@pytest.mark.parametrize(
    ("text", "here", "a10"),
    [("2.50/h", "2.50/h", None), ("a10=$0.60", None, "$0.60/h"), ("a10=1, 2/h", "2/h", "1/h")],
)
def test_prices_are_of_the_gpu_and_of_cards(text, here, a10):
    """Money for an hour is of the run's GPU, what has a card's name of that card, which may be the GPU."""
    prices = run_prices(text)
    assert (prices.here and prices.here.given) == here
    assert {name: price.given for name, price in prices.cards.items()} == ({"a10": a10} if a10 else {})
    by_gpu = prices.of_gpu("NVIDIA A10")
    assert by_gpu is not None
    assert by_gpu.given == (here or a10)
    assert (prices.of_gpu("another") is None) == (here is None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1/h,2/h", "'1/h,2/h' has 2 prices of the GPU; it takes one, such as 2.50/h"),
        ("h1000=2", "'h1000' is none of the cards asked about; it takes t4, "),
        ("2.50/h,a10", "has 2 prices of the GPU"),
        ("a10=2,a10=3", "a10 has two prices; it takes one"),
    ],
)
def test_wrong_prices_of_a_run_are_refused(text, says):
    """What is no price of the GPU or of a card is refused in a line that shows what would be right."""
    with pytest.raises(ValueError, match=re.escape(says)):
        run_prices(text)
