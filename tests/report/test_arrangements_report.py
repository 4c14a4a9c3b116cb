"""What is said of a step that several GPUs share, on each card: rows with numbers worked out by hand."""

from __future__ import annotations

import pytest

from stepcost.price import prices_of
from stepcost.report.answers.arrangements import cheapest, sentences, table_of, with_hours
from stepcost.report.answers.cards import fits_said
from tests.report.handmade import NET, Fields

MB = 10**6
LEFT_AT_WORST = 15360 * 2**20 - 2000 * MB - 644_939_776
"""On a T4 whose context takes 2 GB at most, and whose driver keeps no more than the H200's: 13.46 GB."""
PRICES = prices_of("h100-80gb=$2.5,a10=$0.5,t4=$0.4", ["h100-80gb", "a10", "t4"])


def row(card: str, parallel: str = "none", gpus: int = 1, **more: object) -> Fields:
    """A predicted row of a step that GPUs share, 100 MB in each and 1,000 MB of context."""
    held = {"peak_allocated_bytes": 90 * MB, "peak_reserved_bytes": 100 * MB, "context_bytes": 1000 * MB}
    asked = {"source": "predicted", "optimizer": "adam", "batch_size": 8, "card": card}
    return NET | asked | {"parallel": parallel, "gpus": gpus, "fits": True} | held | more


LIKELY: Fields = {"fits": None, "context_bytes": None, "context_likely_bytes": [1000 * MB, 2000 * MB]}
NO_BYTES: Fields = {"peak_allocated_bytes": None, "peak_reserved_bytes": None}


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"peak_reserved_bytes": LEFT_AT_WORST}, "likely"),
        ({"peak_reserved_bytes": LEFT_AT_WORST + 1}, "unknown"),
        ({"peak_reserved_bytes": 15_100 * MB, "peak_allocated_bytes": 15_100 * MB}, "likely not"),
        ({"ranks": [{"peak_reserved_bytes": 1, "peak_reserved_likely_bytes": [1, 14_000 * MB]}]}, "unknown"),
        ({"context_bytes": 1, "context_likely_bytes": None}, "unknown"),
        ({"fits": True}, "in range"),
        (NO_BYTES, "refused"),
    ],
)
def test_whether_it_fits_follows_from_the_room_that_is_likely(held: Fields, said: str) -> None:
    """Likely if all that a GPU may reserve is left at worst; likely not if tensors exceed the best."""
    assert fits_said(row("t4", "ddp", 8, **LIKELY | held)) == said


def test_the_cheapest_is_named_by_what_is_known_of_it() -> None:
    """What fits first, then what is cheaper and likely fits; never what does not fit or has no price."""
    rows = [
        row("h200-141gb"),
        row("h100-80gb", fits=False, **NO_BYTES),
        row("t4", "ddp", 2, fits=False, **NO_BYTES),
        row("h100-80gb", "ddp", 2),
        row("h100-80gb", "zero1", 2),
        row("a10", "fsdp2", 8, **LIKELY),
        row("a10", "fsdp2", 16, **LIKELY),
    ]
    assert cheapest(rows, PRICES) == (
        "Cheapest that fits: ddp on 2 h100-80gb or zero1 on 2 h100-80gb, $5.00 an hour; "
        "cheaper, and likely fits: fsdp2 on 8 a10, $4.00 an hour."
    )
    assert cheapest(rows[5:], PRICES) == "Cheapest that likely fits: fsdp2 on 8 a10, $4.00 an hour."
    dearer = [row("t4"), row("t4", "ddp", 2, **LIKELY)]
    assert cheapest(dearer, PRICES) == "Cheapest that fits: 1 t4, $0.40 an hour."
    assert cheapest(rows[:3], PRICES) == "No arrangement with a price is said to fit, or likely to."
    assert cheapest(rows, {}).startswith("Which is the cheapest takes prices")


def test_the_batch_and_the_missing_times_are_said_with_the_cheapest() -> None:
    """The last sentence says on how many examples each GPU works, and that no epoch was compared."""
    last = sentences([row("h100-80gb"), row("h100-80gb", "ddp", 2)], PRICES)[-1]
    assert last.startswith("Cheapest that fits: 1 h100-80gb, $2.50 an hour.")
    assert "The batch is of 8 on each GPU" in last
    assert "Times of several GPUs are not predicted" in last


def test_alike_arrangements_are_one_sentence() -> None:
    """Numbers of GPUs of which the same is said stand together."""
    rows = [row("t4", way, gpus, **LIKELY) for way, gpus in (("none", 1), ("ddp", 2), ("ddp", 4))]
    assert (
        sentences(rows, PRICES)[0] == "1 GPU and ddp on 2 and 4 GPUs: it is said to fit no card; likely t4."
    )


def test_figures_are_of_the_fullest_gpu_with_their_ranges() -> None:
    """Reserved up to the most of any, the process over its likely contexts; a bound is marked."""
    ranks = [{"peak_reserved_bytes": 100 * MB, "peak_reserved_likely_bytes": [100 * MB, 130 * MB]}]
    bound = {"unread": {"peak_reserved_bytes": "no workspaces", "process_bytes": "context"}}
    rows = [
        row("h100-80gb", "ddp", 2, ranks=ranks),
        row("t4", "ddp", 2, **LIKELY | bound),
        row("a10", "ddp", 2, fits=False, **NO_BYTES),
    ]
    table = table_of(rows, PRICES)
    assert table.rows == (
        ("h100-80gb", "ddp on 2 GPUs", "yes", "100.0 to 130.0", "1,100.0 to 1,130.0", "$5.00"),
        ("t4", "ddp on 2 GPUs", "likely", "100.0*", "1,100.0 to 2,100.0*", "$0.80"),
        ("a10", "ddp on 2 GPUs", "no", "-", "-", "$1.00"),
    )
    assert "MB (10**6 bytes)" in table.caption
    assert "ddp" not in table.caption
    assert "* is a bound or an estimate: no workspaces." in sentences(rows, PRICES)
    assert table_of(rows, {}).columns[-1] == "process"


def test_programs_get_the_price_of_all_gpus() -> None:
    """An hour of eight is eight times that of one; without a price there is no such field."""
    a10, h200 = with_hours([row("a10", "ddp", 8), row("h200-141gb", "ddp", 8)], PRICES)
    assert (a10["hour_price"], a10["fits_in_words"]) == (pytest.approx(4.0), "yes")
    assert "hour_price" not in h200
