"""Answers 3b to 3d where runs differ: seeds, ragged epochs, ties, epochs of which little was read."""

from __future__ import annotations

from typing import Any

import pytest

from tests.report.handmade import NET, Fields, answer, cell, memory, trained


def reached(batch: int, seed: int, test: float | None, **more: Any) -> Fields:
    """A run of one epoch that ends with this share of the test images right."""
    row = trained(batch, (1.0,), seed, **more)
    row["epochs"][0]["test_accuracy"] = test
    return row


def of_seeds(accuracies: dict[int, tuple[float, ...]], **more: Any) -> list[Fields]:
    """Rows by batch size, one a seed."""
    return [
        reached(batch, seed, share, **more)
        for batch, shares in accuracies.items()
        for seed, share in enumerate(shares)
    ]


# 3b


def test_the_most_accurate_where_seeds_and_test_set_agree() -> None:
    """3b names a winner with its mean and the chance of it: of C(6, 3) = 20 cases 2, of C(8, 4) = 70 too."""
    few: dict[int, tuple[float, ...]] = {5: (0.80, 0.81, 0.82), 2: (0.5, 0.51, 0.52)}
    found = answer("3b", of_seeds(few, test_images=10_000))
    assert found.text.startswith(
        "A tie: highest is batch 5 (81.0 % of the test images right after 1 epoch), "
    )
    assert (
        "but with 3 seeds each for 2 batch sizes chance alone would set one apart in 10.0 % of cases; "
        "the test set resolves 1.1 points at best." in found.text
    )
    third = of_seeds({4: (0.5, 0.51, 0.52, 0.53)}, test_images=10_000)
    found = answer("3b", [*of_seeds({1200: (0.80, 0.81, 0.82, 0.83)}, test_images=10_000), *third])
    assert found.text == (
        "Batch 1,200 (81.5 % of the test images right after 1 epoch): its worst of 4 seeds beats the best "
        "seed of every other batch size, which chance alone would do in 2.9 % of cases."
    )
    assert found.source == "measured"
    assert found.table is not None
    assert found.table.columns == ("batch size", "seeds", "mean", "lowest", "highest")
    assert found.table.rows == (
        ("4", "4", "51.5 %", "50.0 %", "53.0 %"),
        ("1,200", "4", "81.5 %", "80.0 %", "83.0 %"),
    )
    assert found.table.caption == (
        "Test accuracy after 1 epoch: net, Adam, 16x16 images, fp32, eager; measured; "
        "percent of the test images"
    )


def test_why_the_most_accurate_is_not_named() -> None:
    """3b says whether seeds are too few, overlap, or are within what the test set resolves."""
    one = answer("3b", of_seeds({2: (0.5,), 5: (0.6,)}, test_images=None)).text
    assert one.endswith("but with one seed the spread over seeds is unknown, and one seed separates nothing.")
    two = answer("3b", of_seeds({2: (0.5, 0.7), 5: (0.6, 0.9), 10: (0.1, 0.2)}, test_images=None)).text
    assert two.endswith("but the 2 seeds or the test set do not separate it from batch 2.")
    # 1.96 * sqrt((0.75 * 0.25 + 0.75 * 0.25) / 100) = 0.12 for the best alone
    close = answer("3b", of_seeds({2: (0.70, 0.71), 5: (0.74, 0.76)}, test_images=100)).text
    assert close.endswith("from batch 2; the test set resolves 12.0 points at best.")
    alone = answer("3b", of_seeds({2: (0.5, 0.7)})).text
    assert (
        alone == "Only one batch size was trained: batch 2 (60.0 % of the test images right after 1 epoch)."
    )


def test_accuracy_that_was_not_read_is_left_out() -> None:
    """3b leaves out a run whose last epoch was not tested, also where an earlier one was."""
    rows = of_seeds({2: (0.5,), 5: (0.6,)})
    rows[1]["epochs"] = [{"epoch": 1, "test_accuracy": 0.9}, {"epoch": 2, "train_accuracy": 0.9}]
    assert answer("3b", rows).text.startswith("Only one batch size was trained: batch 2 (50.0 %")
    del rows[0]["epochs"][0]["test_accuracy"]
    assert answer("3b", rows).text == "No row of this run answers it."


def test_chance_is_told_where_it_is_known() -> None:
    """3b says what always guessing one class scores, a zero too, as soon as one row has it."""
    rows = of_seeds({2: (0.5,), 5: (0.6,)})
    said = "Always guessing the most frequent class scores"
    assert said not in answer("3b", rows).text
    rows[1]["chance_accuracy"] = 0.0
    assert answer("3b", rows).text.endswith(f" {said} 0.0 %.")
    rows[0]["chance_accuracy"] = 0.103
    assert answer("3b", rows).text.endswith(f" {said} 10.3 %.")


@pytest.mark.parametrize(
    ("batch", "steps", "images", "last"),
    [
        (1000, 2, 1499, "499"),
        (1000, 2, 1500, None),  # half a batch is no small one
        (1000, 2, 2000, None),
        (1000, 1, 300, None),  # the only step is no last one
        (1000, 3, 2001, "1"),
        (1000, None, 1499, None),
        (1000, 2, None, None),
    ],
)
def test_a_last_batch_below_half_a_batch(
    batch: int, steps: int | None, images: int | None, last: str | None
) -> None:
    """3b points out an epoch that ends with less than half a batch, and how to leave it out."""
    text = answer("3b", [reached(batch, 0, 0.5, steps_per_epoch=steps, train_images=images)]).text
    if last is None:
        assert "last step" not in text
        return
    assert text.endswith(
        f" The last step of an epoch is on {last} images at batch 1,000, at the rate of a full batch, and "
        "accuracy is taken right after it: it can be far below what it was before (--drop-last leaves such "
        "batches out)."
    )


def test_runs_of_several_lengths() -> None:
    """Where runs have different numbers of epochs, 3b and 3c say from how many to how many."""
    rows = [trained(4, (2.0, 2.0, 2.0)), trained(25, (1.0,) * 1200)]
    assert "right after 3 to 1,200 epochs)" in answer("3b", rows).text
    table = answer("3c", rows).table
    assert table is not None
    assert table.caption.startswith(
        "Training time of 3 to 1,200 epochs as measured, evaluation off the clock"
    )


# 3d


def test_accuracy_over_time_by_hand() -> None:
    """3d sums seconds until each seed got there, and takes the mean of seeds, batch sizes in order."""
    rows = [trained(1200, (1.0, 2.0, 4.0), seed) for seed in (0, 1)] + [trained(2, (8.0, 8.0, 16.0))]
    for row, shares in zip(rows, ((0.1, 0.5, 0.9), (0.1, 0.2, 0.5), (0.5, 0.4, 0.3)), strict=True):
        for epoch, share in zip(row["epochs"], shares, strict=True):
            epoch["train_accuracy"] = share
    found = answer("3d", rows)
    assert found.text == (
        "Training accuracy reached 50.0 % (the most that every run reached) at batch 2 after 8.00 s and "
        "batch 1,200 after 5.00 s of training, counted in whole epochs with evaluation off the clock."
    )
    assert (found.source, found.table) == ("measured", None)
    del rows[2]["epochs"][0]["train_accuracy"]
    assert "reached 40.0 %" in answer("3d", rows).text
    assert "batch 2 after 16.0 s" in answer("3d", rows).text
    never = trained(8, (1.0,))
    del never["epochs"][0]["train_accuracy"]
    assert answer("3d", [never, *rows]).text == answer("3d", rows).text
    for row in rows:
        del row["epochs"][0]["train_seconds"]
    assert answer("3d", rows).text == "Training accuracy was recorded, but not its time."


# 3c


def eager_step(batch: int, median_s: float | None, busy: float | None = None, **more: Any) -> Fields:
    """A timed eager step, of the model that is trained."""
    timed = {"timed": "training step", "stats": {"median": median_s}, "gpu_busy_share": busy}
    return memory("3a", "adam", batch, (1, 2, 3)) | timed | more


def test_a_captured_training_is_explained_by_eager_steps() -> None:
    """3c gives steps, times a step, and of eager steps of the same training their time and busy share."""
    rows = [trained(4, (2.0, 2.0), engine="graph"), trained(25, (1.0, 1.0), engine="graph")]
    others = [
        eager_step(4, 9.0, 0.9, **other)
        for other in ({"model": "b"}, {"optimizer": "sgd"}, {"image_size": 8}, {"precision": "bf16"},
                      {"engine": "fast"}, {"timed": "prediction"}, {"stats": None})
    ]  # fmt: skip
    steps = [eager_step(4, 0.05, 0.2), eager_step(25, 0.06, 0.3)]
    found = answer("3c", [*rows, *others, *steps])
    assert found.text == (
        "Batch 25: 1.00 s an epoch (the median of 2, 4 steps an epoch, 250 ms a step); slowest is batch 4 "
        "with 2.00 s an epoch (the median of 2, 25 steps an epoch, 80.0 ms a step). A step of batch 25 does "
        "6.2 times the images of a step of batch 4 in 3.1 times the time. An eager step takes 50.0 ms at "
        "batch 4 and 60.0 ms at batch 25, and the GPU is busy for 20.0 % and 30.0 % of it."
    )
    assert found.source == "measured"
    assert found.table is not None
    assert found.table.columns == (
        "batch size", "training time", "median epoch", "steps per epoch", "time a step", "eager step",
        "GPU busy in it",
    )  # fmt: skip
    assert found.table.rows == (
        ("4", "4.00 s", "2.00 s", "25", "80.0 ms", "50.0 ms", "20.0 %"),
        ("25", "2.00 s", "1.00 s", "4", "250 ms", "60.0 ms", "30.0 %"),
    )
    assert found.table.caption == (
        "Training time of 2 epochs as measured, evaluation off the clock, and the median epoch with its "
        "steps: net, Adam, 16x16 images, fp32, graph; measured; s = seconds, ms = milliseconds"
    )
    found = answer("3c", [*rows, *others, steps[0], eager_step(25, 0.06)])
    assert found.text.endswith(" An eager step takes 50.0 ms at batch 4 and 60.0 ms at batch 25.")
    found = answer("3c", [*rows, *others, steps[0]])
    assert "eager" not in found.text
    assert [cell(found, name, "25") for name in ("eager step", "GPU busy in it")] == ["not read"] * 2
    without = answer("3c", [*rows, *others]).table
    assert without is not None
    assert "eager step" not in without.columns


def test_an_eager_training_is_explained_by_its_own_steps() -> None:
    """3c of an eager training gives the busy share of the same step, and 'not read' where there is none."""
    rows = [trained(1200, (2.0,), steps_per_epoch=None), trained(25, (1.0,))]
    decoys = [
        eager_step(1200, 9.0, 0.9, **other)
        for other in ({"model": "b"}, {"optimizer": "sgd"}, {"image_size": 8}, {"precision": "bf16"},
                      {"engine": "fast"}, {"batch_size": 7})
    ]  # fmt: skip
    found = answer("3c", [*rows, *decoys, eager_step(1200, 0.5), eager_step(1200, 0.5, 0.25)])
    assert found.text == (
        "Batch 25: 1.00 s an epoch (4 steps an epoch, 250 ms a step); slowest is batch 1,200 with 2.00 s an "
        "epoch (the GPU busy 25.0 % of the step)."
    )
    assert found.table is not None
    assert found.table.columns[-1] == "GPU busy"
    assert found.table.rows == (
        ("25", "1.00 s", "1.00 s", "4", "250 ms", "not read"),
        ("1,200", "2.00 s", "2.00 s", "not read", "not read", "25.0 %"),
    )
    alone = answer("3c", [rows[1] | {"steps_per_epoch": None}])
    assert alone.text == "Only one batch size was trained. Batch 25: 1.00 s an epoch."


def test_epochs_that_were_not_timed_one_by_one() -> None:
    """3c takes the mean epoch of the whole training, and of it all where no whole is stored, the sum."""
    whole = trained(4, (1.0, 1.0, 1.0), train_s=6.0)
    del whole["epochs"][1]["train_seconds"]
    found = answer("3c", [whole])
    assert "Batch 4: 2.00 s an epoch" in found.text
    assert cell(found, "training time", "4") == "6.00 s"
    summed = answer("3c", [trained(4, (1.0, 2.0, 4.0), train_s=None)])
    assert cell(summed, "training time", "4") == "7.00 s"
    assert cell(summed, "median epoch", "4") == "2.00 s"
    whole["train_s"] = None
    assert answer("3c", [whole]).text == "No row of this run answers it."


def test_epochs_of_two_are_the_shorter() -> None:
    """Of an even number of epochs the lower one in the middle is the median; of seeds the mean counts."""
    assert "Batch 4: 1.00 s an epoch (the median of 2," in answer("3c", [trained(4, (1.0, 1.04))]).text
    seeds = [trained(4, (1.0, 1.0)), trained(4, (3.0, 3.0), seed=1, train_s=8.0)]
    found = answer("3c", seeds)
    assert "Batch 4: 2.00 s an epoch" in found.text
    assert cell(found, "training time", "4") == "5.00 s"


@pytest.mark.parametrize(
    ("quick", "slow", "level"),
    [
        ((1.0,), (1.05,), True),
        ((1.0,), (1.051,), False),
        ((1.0, 1.2), (1.2, 1.3), True),  # the seeds' ranges meet
        ((1.0, 1.2), (1.201, 1.3), False),  # and do not, however near
        ((1.0, 1.2), (1.26,), True),  # one seed is not a range
        ((1.0, 1.2), (1.261,), False),
        ((1.0,), (1.05, 1.9), True),
        ((1.0, 1.1), (1.5, 1.6), False),
    ],
)
def test_when_two_batch_sizes_are_too_close(
    quick: tuple[float, ...], slow: tuple[float, ...], level: bool
) -> None:
    """With a seed each within 5 %, and with several where their ranges meet, neither is called faster."""
    rows = [
        trained(batch, (epoch_s,), seed)
        for batch, epochs_s in ((4, quick), (25, slow))
        for seed, epoch_s in enumerate(epochs_s)
    ]
    assert answer("3c", rows).text.startswith("Too close to call between batch 4 and 25. Batch 4") is level


def test_a_larger_batch_that_is_slower_is_not_explained() -> None:
    """What a step of more images buys is said only where the larger batch is the faster one."""
    assert "times the images" not in answer("3c", [trained(4, (1.0,)), trained(25, (2.0,))]).text
    assert (
        "times the images"
        not in answer("3c", [trained(4, (2.0,)), trained(25, (1.0,), steps_per_epoch=None)]).text
    )
    assert (
        "times the images"
        not in answer("3c", [trained(4, (2.0,), steps_per_epoch=None), trained(25, (1.0,))]).text
    )


def test_epochs_that_differ_are_told() -> None:
    """3c names the slow epoch where the whole is over 5 % off the median epochs; of seeds the slowest one."""
    even = [trained(4, (2.0,) + (1.0,) * 19), trained(25, (1.0,) * 1200)]  # 21 of 20: exactly 5 %
    assert "Epochs differ" not in answer("3c", even).text
    seeds = [
        trained(4, (2.0, 2.0, 2.0)),
        trained(4, (2.0, 2.5, 2.0), seed=1),
        trained(25, (1.0, 0.2, 1.0)),
        trained(25, (0.9, 0.9, 0.9), seed=1),
    ]
    assert answer("3c", seeds).text.endswith(
        " Epochs differ: at batch 4 epoch 2 took 2.50 s, the median 2.00 s, and the whole 6.50 s; "
        "at batch 25 epoch 1 took 1.00 s, the median 1.00 s, and the whole 2.20 s."
    )


def test_times_while_throttled_are_named_in_the_caption() -> None:
    """3c and 4 name what was timed while throttled, and why."""
    hot: Fields = {"clocks": {"throttle_reasons": ["power cap"]}, "throttled": True}
    table = answer("3c", [trained(1200, (2.0,), **hot), trained(25, (1.0,))]).table
    assert table is not None
    assert table.caption.endswith("; taken while throttled: batch 1,200 (power cap)")
    rows = [trained(25, (1.0,), engine="graph"), eager_step(1200, 0.05, **hot)]
    table = answer("3c", rows).table
    assert table is not None
    assert table.caption.endswith("; taken while throttled: batch 1,200 (power cap)")
    step = NET | {"question": "4", "timed": "engine step", "batch_size": 1200, "stats": {"median": 0.1}}
    table = answer("4", [step | hot]).table
    assert table is not None
    assert table.caption.endswith(
        "Least: the step's bytes or operations at the card's measured rates, whichever takes longer. "
        "'/ kernels' and '/ least': the step divided by that; taken while throttled: batch 1,200, eager "
        "(power cap)"
    )
