"""``stepcost cards``: one step on every card, without a GPU."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stepcost.catalog.cards import CARDS, Card
from stepcost.predicting import traces, which_card
from stepcost.predicting.times import FROM_RATES, RECORDED, StepTime
from stepcost.predicting.trace import Trace, trace_run
from stepcost.request import Request
from tests.command import stepcost

ASKED = ["cards", "small-cnn", "--image-size", "224", "--torch", "2.11"]
TIMES_S = {"h100-80gb": (0.009, 0.010, 0.011), "h200-141gb": (0.007, 0.008, 0.0085), "t4": (0.1, 0.2, 0.3)}
"""Low, likely and high of a made-up step."""


@pytest.fixture
def with_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say so of three cards, and of the others that nothing was recorded."""

    def time_on(request: Request, card: Card) -> StepTime:
        if card.name not in TIMES_S:
            raise ValueError("no table and no rates")
        assert request.engine == "graph"
        low, step, high = TIMES_S[card.name]
        basis = RECORDED if card.name == "h100-80gb" else FROM_RATES
        return StepTime(step_s=step, low_s=low, high_s=high, basis=basis, contributors=())

    monkeypatch.setattr(which_card, "time_on", time_on)


def cards_of(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, dict[str, Any]]:
    """Return what is said of each card, by its name."""
    stepcost([*ASKED, "--json", *more])
    return {one["card"]: one for one in json.loads(capsys.readouterr().out)["cards"]}


def test_every_card_is_answered_for(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """A measured card has a number, any other a bound and a likely range; none takes a trace of its own."""
    made = []

    def counted(request: Request, **options: Any) -> Trace:
        made.append(request.batch_size)
        return trace_run(request, **options)

    monkeypatch.setattr(traces, "trace_run", counted)
    cards = cards_of(capsys)
    assert cards.keys() == CARDS.keys()
    assert [one["source"] for one in cards.values()] == ["predicted"] * len(CARDS)
    for name, one in cards.items():
        if CARDS[name].is_measured:
            assert one["largest_batch"] > 0
        else:
            low, high = one["largest_batch_likely"]
            assert one["largest_batch"] is None
            assert low <= high <= one["largest_batch_at_most"]
    assert len(made) < len(CARDS)


def test_fits_is_not_said_on_unknown_ground(capsys: pytest.CaptureFixture[str]) -> None:
    """Below its likely range a batch likely fits, above its bound it does not, as the object says too."""
    most = cards_of(capsys, "--gpu", "t4")["t4"]["largest_batch_at_most"]
    for batch, words, fits in ((64, "likely", None), (2 * most, "no", False)):
        one = cards_of(capsys, "--gpu", "t4,h100-80gb", "--batch-size", str(batch))
        assert (one["t4"]["fits"], one["t4"]["fits_in_words"]) == (fits, words)
        assert (one["h100-80gb"]["fits"], one["h100-80gb"]["fits_in_words"]) in (
            (True, "yes"),
            (None, "unknown"),
        )
    assert stepcost([*ASKED, "--gpu", "t4"]) == 1, "it is said to fit no card"
    assert "It is said to fit no card; likely t4." in capsys.readouterr().out


@pytest.mark.usefixtures("with_times")
def test_time_and_money_of_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    """1,030 images in batches of 64 are 17 steps; of a card without a time it is said why."""
    ask = ("--epoch", "1030", "--price", "h100-80gb=3.60,h200-141gb=$7.20/h")
    cards = cards_of(capsys, *ask)
    h100 = cards["h100-80gb"]
    assert (h100["step_low_s"], h100["step_s"], h100["step_high_s"]) == TIMES_S["h100-80gb"]
    assert (h100["step_basis"], cards["t4"]["step_basis"]) == (RECORDED, FROM_RATES)
    assert h100["examples_per_s"] == pytest.approx(6400)
    assert h100["epoch_s"] == pytest.approx(0.17)
    assert h100["epoch_price"] == pytest.approx(0.00017)
    assert cards["h200-141gb"]["epoch_price"] == pytest.approx(17 * 0.008 * 7.2 / 3600)
    assert "epoch_price" not in cards["t4"]
    assert cards["a10"]["step_s"] is None
    assert cards["a10"]["unread"]["step_s"] == "no table and no rates"


@pytest.mark.usefixtures("with_times")
def test_the_answer_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    """What it fits, which card is fastest and which cheapest, and what cannot be told apart from these."""
    assert stepcost([*ASKED, "--epoch", "640", "--price", "h100-80gb=2,h200-141gb=2.4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("It fits h200-141gb and h100-80gb; likely b200")
    assert lines[2] == "Fastest: h200-141gb, 8.00 ms a step (from rates)."
    assert lines[3] == (
        "Cheapest: h200-141gb, 0.000053 an epoch (from rates); not to be told apart from h100-80gb."
    )
    assert any("No time of b200" in line and "no table and no rates" in line for line in lines)


@pytest.mark.parametrize(
    ("asked", "said", "why"),
    [
        (["--engine", "fast-bf16"], {"t4": "fits"}, "has no arithmetic for bfloat16"),
        (["--optimizer", "adafactor"], {"t4": "step_s", "h100-80gb": "step_s"}, "cannot be captured"),
    ],
)
def test_what_an_engine_cannot_run_has_no_time(
    capsys: pytest.CaptureFixture[str], asked: list[str], said: dict[str, str], why: str
) -> None:
    """Neither in a precision that the card has not, nor with an optimizer that decides on the host."""
    cards = cards_of(capsys, "--gpu", "t4,h100-80gb", *asked)
    for card, field in said.items():
        assert cards[card].get("step_s") is None
        assert why in cards[card]["unread"][field]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--price", "h100-80gb"], "--price: 'h100-80gb' is no price of a card; it takes h100-80gb=2.50"),
        (["--price", "a100=2"], "--price: 'a100' is none of the cards asked about; it takes t4, "),
        (["--price", "t4=1,t4=2"], "--price: t4 has two prices; it takes one"),
        (["--price", "t4=cheap"], "--price: 't4=cheap' is no price of a card; it takes h100-80gb=2.50"),
        (["--price", ","], "--price: ',' names no price; it takes h100-80gb=2.50"),
        (["--batch-size", "8,16"], "2 steps are asked about; cards takes one"),
        (["--engine", "eager"], "unknown name 'eager'"),
        (["--epoch", "0"], "not a whole number of 1 or more"),
        (["--gpu", "h1000"], "unknown name 'h1000'"),
    ],
)
def test_a_wrong_request_is_one_line(capsys: pytest.CaptureFixture[str], more: list[str], says: str) -> None:
    """It names what is wrong, on standard error, with exit code 2."""
    assert stepcost([*ASKED, *more]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert says in err


@pytest.mark.parametrize("command", ["predict", "cards"])
def test_help_names_engines_whose_time_is_predicted(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Captured ones, of which kernels were recorded: none that is compiled, tuned or launched in turn."""
    assert stepcost([command, "--help"]) == 0
    said = "".join(capsys.readouterr().out.split())  # which breaks names at their hyphens
    assert "foritstime:graph,graph-channels-last,graph-fused,fast,fast-bf16(default:" in said
