"""What reports say of a step on other cards: rows with numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepcost.catalog.cards import CARDS
from stepcost.price import price_of, run_prices
from stepcost.report.answers.cards import sentences, steps_on_cards, table_of
from stepcost.report.load import Run
from stepcost.report.page.drawing import Plot
from stepcost.report.page.plots_cards import largest_batch_by_card, step_time_by_card
from tests.report.handmade import NET, Fields, answer, cell


def row(card: str, **more: object) -> Fields:
    """A step of question 7 on a card, with batch 50."""
    return (
        NET
        | {"question": "7", "source": "predicted", "optimizer": "adam", "batch_size": 50, "card": card}
        | more
    )


def took(low_ms: float, likely_ms: float, high_ms: float, basis: str = "from rates") -> Fields:
    """The fields of a predicted time."""
    ends = {"step_low_s": low_ms / 1000, "step_s": likely_ms / 1000, "step_high_s": high_ms / 1000}
    return ends | {"step_basis": basis, "step_engine": "graph"}


H100 = row("h100-80gb", fits=True, largest_batch=900, **took(9, 10, 11, "recorded on this card"))
H200 = row("h200-141gb", fits=True, largest_batch=1800, largest_batch_rests_on="x", **took(7, 8, 9.5))
A10 = row("a10", fits=None, largest_batch_at_most=240, largest_batch_likely=[220, 230], **took(30, 40, 60))
T4 = row("t4", fits=False, largest_batch_at_most=40, unread={"step_s": "it does not fit"})
V100 = row("v100-16gb", fits=None, unread={"fits": "no bfloat16"})
ROWS = [T4, H100, V100, A10, H200]


def test_what_fits_comes_first_then_what_is_fastest() -> None:
    """Measured cards by name, likely ones as such, then the fastest with what cannot be told from it."""
    found = answer("7", ROWS)
    assert found.source == "predicted"
    assert found.text == (
        "It fits h200-141gb and h100-80gb; likely a10; not t4; no prediction for v100-16gb. "
        "Fastest: h200-141gb, 8.00 ms a step (from rates); not to be told apart from h100-80gb. "
        "v100-16gb: no bfloat16. No time of t4: it does not fit."
    )


def test_what_fits_in_the_worst_likely_case_is_told_from_what_is_known() -> None:
    """Of a card that nobody measured it is never a bare yes."""
    found = answer("7", [H100, A10 | {"fits": True, "context_likely_bytes": [1, 2]}])
    assert found.text.startswith("It fits h100-80gb; a10 too where the context is in its likely range.")
    assert cell(found, "fits", "a10", "in range") == "in range"


def test_a_card_is_likely_to_fit_only_within_what_is_likely() -> None:
    """Between its likely ends and its bound nothing is said; above them it likely does not fit."""
    for batch, said in ((220, "yes a10"), (225, "cannot be said of a10"), (235, "likely not a10")):
        text = answer("7", [A10 | {"batch_size": batch}]).text
        assert said.replace("yes", "likely") in text
        assert "It is said to fit no card" in text


def test_the_table_has_every_card_with_its_interval() -> None:
    """Most memory first; examples a second and an epoch of 50,000 follow from the time."""
    found = answer("7", ROWS)
    assert found.table is not None
    assert [line[0] for line in found.table.rows] == ["h200-141gb", "h100-80gb", "a10", "v100-16gb", "t4"]
    assert cell(found, "ms a step", "h100-80gb") == "10.0 (9.00 to 11.0)"
    assert cell(found, "images /s", "h100-80gb") == "5,000"
    assert cell(found, "epoch", "h100-80gb") == "10.0 s"
    assert cell(found, "time", "h100-80gb") == "recorded"
    assert cell(found, "largest batch", "h200-141gb") == "about 1,800"
    assert cell(found, "largest batch", "a10") == "likely 220 to 230"
    assert cell(found, "largest batch", "t4") == "at most 40"
    assert cell(found, "ms a step", "t4") == "-"
    assert "GB = 10**9 bytes" in found.table.caption


def test_tokens_are_counted_where_there_are_sequences() -> None:
    """50 sequences of 100 tokens in 10 ms are 500,000 tokens a second; an epoch counts sequences."""
    found = answer("7", [H100 | {"image_size": None, "sequence_length": 100}])
    assert cell(found, "tokens /s", "h100-80gb") == "500,000"
    assert cell(found, "epoch", "h100-80gb") == "10.0 s"


def test_without_times_it_says_why_once() -> None:
    """The table has no empty columns; the reason is that of the first card."""
    rows = [
        row(card, fits=True, largest_batch=9, unread={"step_s": f"nothing recorded on {card}"})
        for card in ("h100-80gb", "h200-141gb")
    ]
    found = answer("7", rows)
    assert found.text.endswith("No times: nothing recorded on h200-141gb.")
    assert found.table is not None
    assert found.table.columns == ("card", "fits", "memory GB", "largest batch")


def test_times_that_are_less_sure_say_why() -> None:
    """A card that has a time and a reason beside it is not one without a time."""
    less = took(8, 10, 12, "recorded on this card") | {"unread": {"step_s": "cuDNN was not asked"}}
    found = answer("7", [row("h100-80gb", fits=True, **less)])
    assert "Times of h100-80gb are less sure: cuDNN was not asked." in found.text
    assert "No time" not in found.text


def test_money_follows_from_time_and_price() -> None:
    """1,000 examples are 20 steps of 10 ms; the cheapest is named, with the cards near it."""
    prices = {"h100-80gb": price_of("$3.60/h"), "a10": price_of("$0.36/h")}
    steps = steps_on_cards(ROWS)
    said = sentences(steps, prices, 1000)
    assert "Cheapest: a10, $0.000080 an epoch (from rates)." in said
    table = table_of(steps, prices, 1000)
    price = table.columns.index("price")
    assert {line[0]: line[price] for line in table.rows} == {
        "h200-141gb": "-",
        "h100-80gb": "$0.00020",
        "a10": "$0.000080",
        "v100-16gb": "-",
        "t4": "-",
    }


def test_the_page_has_money_where_a_price_was_given() -> None:
    """50,000 examples are 1,000 steps of 10 ms; the price of the run's GPU is that of the card it is."""
    asked = {"machine": {"gpu": CARDS["h100-80gb"].gpu}}
    found = answer("7", ROWS, prices=run_prices("$3.60/h,a10=$0.36"), **asked)
    assert found.text.endswith("Cheapest: a10, $0.0040 an epoch (from rates).")
    assert cell(found, "price", "h100-80gb", "yes") == "$0.010"
    assert cell(found, "price", "a10", "likely") == "$0.0040"
    assert cell(found, "price", "h200-141gb", "yes") == "-"
    plain = answer("7", ROWS, **asked)
    assert plain.table is not None
    assert "price" not in plain.table.columns
    for without in ("$3.60/h", "b200=2"):  # of no card among them
        assert answer("7", ROWS, prices=run_prices(without)) == plain


def test_it_is_not_asked_without_rows() -> None:
    """Without a row of a card the question is open, and says how it is asked."""
    assert answer("7", []).source == "skipped"
    assert "--cards all" in answer("7", [row("h100-80gb") | {"batch_size": None}]).text


def test_plots_draw_intervals_and_what_is_known_of_the_largest_batch() -> None:
    """A bar a card with a time, with a line from low to high; of unmeasured cards the least likely batch."""
    run = Run(name="cards", path=Path("cards.json"), rows=tuple(ROWS))
    times, sizes = step_time_by_card(run), largest_batch_by_card(run)
    assert isinstance(times, Plot)
    assert isinstance(sizes, Plot)
    axes: Any
    other: Any
    (axes,), (other,) = times.figure.axes, sizes.figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.008, 0.010, 0.040]
    assert [tuple(line.get_xdata()) for line in axes.lines] == [(0.007, 0.0095), (0.009, 0.011), (0.03, 0.06)]
    assert [bar.get_width() for bar in other.patches] == [1800, 900, 220, 40]
    assert "a10 (fits: likely)" in {text.get_text() for text in axes.texts}
    empty = Run(name="cards", path=Path("cards.json"), rows=())
    assert isinstance(step_time_by_card(empty), str)
    assert isinstance(largest_batch_by_card(empty), str)
