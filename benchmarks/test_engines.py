"""Question 4: what does the way a step is run cost, and do all ways train the same?"""

LOSSES_AGREE = 1e-9
"""Largest relative difference of a step's loss from the eager engine's, both in fp64."""


def test_step_on_each_engine(engine_step, engine, batch_size):
    """4. How long does a step take on each engine, and how far is that from what bounds it?"""
    step = engine_step(engine=engine, batch_size=batch_size)
    assert 0 < step["least_s"] < step["gpu_busy_s"] <= step["kernel_s"] * (1 + 1e-9)


def test_engines_train_the_same(same_losses, engine):
    """4. From one seed, does an engine give the eager engine's losses, step by step?"""
    trained = same_losses(engine=engine)
    assert trained["norm_steps"] in (None, trained["steps"])
    assert trained["optimizer_steps"] in (None, trained["steps"])
    assert trained["loss_difference"] < LOSSES_AGREE
