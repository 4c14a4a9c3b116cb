"""Question 4: what does the way a step is run cost, and do all ways train the same?"""

import pytest

from stepcost.catalog.engines import ENGINES

LOSSES_AGREE = 1e-9
"""Largest relative difference of a step's loss from the eager engine's, both in fp64."""


def test_step_on_each_engine(engine_step, engine, batch_size):
    """4. How long does a step take on each engine, and how far is that from what bounds it?"""
    step = engine_step(engine=engine, batch_size=batch_size)
    assert 0 < step["least_s"] < step["gpu_busy_s"] <= step["kernel_s"] * (1 + 1e-9)


def test_step_of_the_study(engine_step, session, settings):
    """4. How long does the step of questions 3b to 3d last, and how many joules does it cost?"""
    if settings.engines:
        pytest.skip("--engines compares others")
    batch_size = settings.optimizer_batch_size
    step = engine_step(engine=session.study_engine, batch_size=batch_size, bounds=False)
    if step.get("energy_j") is None:
        pytest.skip(f"energy is unread: {step['unread']['energy_j']}")
    assert step["energy_interval_j"][0] <= step["energy_j"] <= step["energy_interval_j"][1]
    if ENGINES[session.study_engine].captured:
        assert step["idle_power_w"] < step["power_w"], "a card that works draws more"


def test_engines_train_the_same(same_losses, engine):
    """4. From one seed, does an engine give the eager engine's losses, step by step?"""
    trained = same_losses(engine=engine)
    assert trained["norm_steps"] in (None, trained["steps"])
    assert trained["optimizer_steps"] in (None, trained["steps"])
    assert trained["loss_difference"] < LOSSES_AGREE
