"""Joules and money in the answers, each worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepcost.price import run_prices
from tests.command import stepcost
from tests.report.handmade import NET, answer, trained

GPU = {"gpu": "Made-up GPU"}
REFERENCE = Path(__file__).parents[2] / "reports" / "reference"


def step(engine: str, median: float, **more: Any) -> dict[str, Any]:
    """A row of a timed step of 64 images."""
    row = {"question": "4", "timed": "engine step", "batch_size": 64, "stats": {"median": median}}
    return NET | row | {"engine": engine} | more


READ = {"energy_j": 2.304, "energy_interval_j": [2.28, 2.328], "power_w": 256.0, "idle_power_w": 64.0}


def test_least_joules_an_image() -> None:
    """2.304 J over 64 images are 36 mJ an image, and 64 of 256 W leave three quarters above idle."""
    found = answer("4", [step("fast", 0.009, **READ), step("eager", 0.006, energy_j=6.4)])
    assert (
        "Least energy an image: batch 64 fast, of the whole card: 2.30 J a step (2.28 J to 2.33 J), "
        "36.0 mJ an image, 75.0 % of it above idle." in found.text
    )


def test_one_step_alone_is_no_fastest() -> None:
    """Where nothing was compared, the step is not called the fastest."""
    text = answer("4", [step("fast", 0.009, **READ)]).text
    assert text.startswith(
        "The only step timed: batch 64 fast (9.00 ms). Energy, of the whole card: 2.30 J a step (2.28 J"
    )


def test_a_card_that_still_warms_is_said() -> None:
    """Joules that were read before the temperature was steady say so."""
    text = answer("4", [step("fast", 0.009, **READ, temperature_steady=False)]).text
    assert "above idle, not yet at a steady temperature." in text
    assert "temperature" not in answer("4", [step("fast", 0.009, **READ, temperature_steady=True)]).text


def test_unread_energy_says_why() -> None:
    """Where the driver refuses, the answer has its reason; rows from before the field say nothing."""
    row = step("fast", 0.009, energy_j=None, unread={"energy_j": "NVML: Not Supported"})
    found = answer("4", [row])
    assert "Energy is unread: NVML: Not Supported." in found.text
    assert "nergy" not in answer("4", [step("fast", 0.009)]).text


def test_money_of_a_step() -> None:
    """9 ms at 4 dollars an hour are 0.00001 dollars; the price is said as it was given."""
    rows = [step("fast", 0.009), step("eager", 0.06)]
    text = answer("4", rows, machine=GPU, prices=run_prices("$4/h")).text
    assert text.endswith("At $4/h a step costs: batch 64 fast $0.000010.")


def test_money_of_an_epoch_and_a_run() -> None:
    """At 3.60 an hour a second costs 0.001: of the faster batch size its step, median epoch and whole run."""
    rows = [trained(2, (4.0, 4.2, 4.1)), trained(25, (1.0, 1.04, 1.02))]
    text = answer("3c", rows, machine=GPU, prices=run_prices("3.60/h")).text
    assert text.endswith(
        "At 3.60/h batch 25 costs 0.00026 a step, 0.0010 an epoch and 0.0031 for 3 epochs of training."
    )


@pytest.mark.parametrize(
    ("machine", "more"),
    [({"gpu": None}, {}), ({}, {}), (GPU, {"stand_in_for": "resnet152"}), (GPU, {"source": "predicted"})],
)
def test_times_of_another_device_are_not_priced(machine: dict[str, Any], more: dict[str, Any]) -> None:
    """Times of a processor, of a model trained in place of another, or predicted ones cost no money."""
    rows = [trained(2, (4.0, 4.2), **more), step("fast", 0.009, **more)]
    for question in ("3c", "4"):
        plain, priced = (
            answer(question, rows, machine=machine, prices=prices) for prices in (None, run_prices("2.50/h"))
        )
        assert plain == priced


def test_no_price_is_invented() -> None:
    """Without a price nothing is said of money."""
    rows = [trained(2, (4.0,)), step("fast", 0.009)]
    assert not any("cost" in answer(question, rows, machine=GPU).text for question in ("3c", "4"))


def test_money_in_the_report_of_a_saved_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``stepcost report --price`` writes into the page what it was given; a wrong price is one line."""
    asked = ["report", str(REFERENCE / "h100-80gb-fast.json"), "--out", str(tmp_path)]
    assert stepcost([*asked, "--price", "$2/h"]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "At $2/h batch 256 costs $" in page
    capsys.readouterr()
    assert stepcost([*asked, "--price", "2"]) == 2
    said = capsys.readouterr()
    assert said.err.endswith("--price: '2' is not a price; it takes money for an hour: 2.50/h or $2.50/h\n")
    assert said.err.count("\n") == 1
