"""Answers 3b to 4 and of the instrument, each number under its label and in its unit, worked out by hand."""

from __future__ import annotations

from stepcost.report.answers import answers
from tests.report.handmade import NET, answer, cell, trained

# 3b to 3d


def test_accuracy_and_its_tie() -> None:
    """3b gives the share of test images right at the last epoch."""
    rows = [trained(2, (4.0, 4.2, 4.4)), trained(32, (1.0, 1.1, 1.2))]
    rows[1]["epochs"][-1]["test_accuracy"] = 0.625
    found = answer("3b", rows)
    assert "highest is batch 32 (62.5 % of the test images right after 3 epochs)" in found.text
    assert cell(found, "mean", "2") == "50.0 %"


def test_the_last_epoch_and_not_the_best() -> None:
    """3b ranks batch sizes by what they reach at the end, whatever they reached before it."""
    rows = [trained(2, (4.0, 4.0, 4.0)), trained(32, (1.0, 1.0, 1.0))]
    for row, reached in zip(rows, ((0.3, 0.9, 0.4), (0.3, 0.5, 0.6)), strict=True):
        for epoch, accuracy in zip(row["epochs"], reached, strict=True):
            epoch["test_accuracy"] = accuracy
    found = answer("3b", rows)
    assert "highest is batch 32 (60.0 % of the test images right after 3 epochs)" in found.text
    columns = ("mean", "lowest", "highest")
    assert [cell(found, column, "2") for column in columns] == ["40.0 %"] * 3
    assert [cell(found, column, "32") for column in columns] == ["60.0 %"] * 3


def test_one_epoch_is_one_epoch() -> None:
    """A run of one epoch is not said to have '1 epochs'."""
    said = answers([trained(2, (4.0,)), trained(32, (1.0,))])
    text = " ".join([one.text + (one.table.caption if one.table else "") for one in said])
    assert "1 epoch" in text
    assert "1 epochs" not in text


def test_fastest_by_its_median_epoch() -> None:
    """3c gives the median epoch, steps, milliseconds a step, and the measured total."""
    rows = [trained(2, (4.0, 4.2, 4.1)), trained(25, (1.0, 1.04, 1.02))]
    found = answer("3c", rows)
    assert found.text.startswith(
        "Batch 25: 1.02 s an epoch (the median of 3, 4 steps an epoch, 255 ms a step)"
    )
    assert (
        "slowest is batch 2 with 4.10 s an epoch (the median of 3, 50 steps an epoch, 82.0 ms a step)"
        in found.text
    )
    assert "12 times the images of a step of batch 2 in 3.1 times the time" in found.text
    assert "Epochs differ" not in found.text
    assert cell(found, "training time", "25") == "3.06 s"
    assert cell(found, "median epoch", "2") == "4.10 s"
    assert cell(found, "time a step", "2") == "82.0 ms"


def test_a_slow_first_epoch_does_not_name_the_winner() -> None:
    """A first epoch 25 times as long as the others is said, and does not decide which batch is fastest."""
    rows = [trained(4, (17.85, 0.71, 0.7)), trained(25, (1.4, 1.45, 1.5))]
    found = answer("3c", rows)
    assert found.text.startswith("Batch 4: 710 ms an epoch (the median of 3, 25 steps an epoch, 28.4 ms")
    assert "slowest is batch 25 with 1.45 s an epoch" in found.text
    assert "Epochs differ: at batch 4 epoch 1 took 17.9 s" in found.text
    assert cell(found, "training time", "4") == "19.3 s"
    assert cell(found, "median epoch", "4") == "710 ms"


def test_times_close_to_each_other_are_a_tie() -> None:
    """Two batch sizes within five percent of each other, one run each, are not told apart."""
    assert answer("3c", [trained(4, (1.0,)), trained(25, (1.04,))]).text.startswith(
        "Too close to call between batch 4 and 25."
    )
    assert answer("3c", [trained(4, (1.0,)), trained(25, (1.06,))]).text.startswith("Batch 4")


def test_accuracy_over_time() -> None:
    """3d gives the seconds of training until each batch reached what all of them reached."""
    rows = [trained(2, (4.0, 4.5)), trained(25, (1.0, 1.25))]
    rows[0]["epochs"][0]["train_accuracy"] = 0.3
    text = answer("3d", rows).text
    assert (
        "reached 60.0 % (the most that every run reached) at batch 2 after 8.50 s and batch 25 after 1.00 s"
        in text
    )


# 4


def test_steps_by_engine() -> None:
    """4 gives each engine's step, its speed against eager, its kernels and its lower bound."""
    steps = [
        NET | {"question": "4", "timed": "engine step", "batch_size": 20, "engine": engine,
               "kernel_s": kernel, "least_s": least, "stats": {"median": median}}
        for engine, median, kernel, least in (("eager", 0.08, 0.02, 0.005), ("fast", 0.016, 0.015, 0.004))
    ]  # fmt: skip
    found = answer("4", steps)
    assert "batch 20 fast (16.0 ms, 5.0 times as fast as eager)" in found.text
    columns = ("step ms", "images /s", "x eager", "kernels", "/ kernels", "least", "/ least")
    assert [cell(found, name, "20", "fast") for name in columns] == [
        "16.0", "1,250", "5.00", "15.0", "1.07", "4.00", "4.00"]  # fmt: skip


# instrument


def test_cost_of_measuring() -> None:
    """The border, the spread over processes, both starts and the busy shares keep their labels and units."""
    rows = [
        {"question": "instrument", "source": "measured"} | fields
        for fields in (
            {"border_s": 0.000412, "border_share": 0.006},
            {"spread_share": 0.17, "engine": "eager"},
            {"warm_start_s": 1.5, "fresh_start_s": 14.25},
            {"busy_shares": {"sound": 0.905, "copied": 0.5}},
        )
    ]
    text = answer("instrument", rows).text
    assert "adds 0.412 ms to a step (0.6 %)" in text
    assert "in fresh processes differs by 17.0 % (eager)" in text
    assert "A configuration starts in 1.50 s, a fresh interpreter in 14.2 s" in text
    assert "busy for 90.5 % (sound) and 50.0 % (copied) of a step" in text
    assert (
        answer("instrument", rows[1:2]).text == "The same step in fresh processes differs by 17.0 % (eager)."
    )
