"""Questions 3b, 3c and 3d: what do ten epochs reach at each batch size, and how fast?"""

import math

import pytest

EPOCHS_TO_LEARN = 10
"""The question's own number of epochs; after fewer, chance may still be ahead."""
CLOCKS_AGREE = 0.02
"""The epochs' own clocks and the clock around them may differ by this share."""
CLOCKS_AGREE_S = 0.01
"""Or, for each epoch, by these seconds: its record is sent between the two, where a busy host may pause."""


def test_epochs_at_each_batch_size(study, batch_size, seed):
    """3b, 3c, 3d. How accurate is it after each epoch, and how long did the epoch take?"""
    run = study(batch_size=batch_size, seed=seed)
    last = run["epochs"][-1]
    chance, images = run["chance_accuracy"], run["test_images"]
    # Three standard deviations of a constant answer's accuracy on this many images.
    luck = 3 * math.sqrt(chance * (1 - chance) / images)
    apart_s = CLOCKS_AGREE_S * len(run["epochs"])
    adds_up = pytest.approx(run["wall_s"], rel=CLOCKS_AGREE, abs=apart_s)
    assert run["train_s"] == adds_up, "the recorded times add up"
    if len(run["epochs"]) < EPOCHS_TO_LEARN:
        pytest.skip(f"better than chance is asserted from {EPOCHS_TO_LEARN} epochs on")
    assert last["test_accuracy"] > chance + luck, "better than chance"
