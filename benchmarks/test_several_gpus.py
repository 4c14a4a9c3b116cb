"""Question 6: what does each of several GPUs hold, and how long does a step take, by how it is shared?"""

import math

import pytest

ALONE = "none"
ROUNDING = 0.05
"""By this share of the tensors' bytes two peaks may differ that hold the same, of two GPUs or of two steps:
memory that waits for another stream is free now sooner, now later."""
LOSSES_AGREE = 1e-9
"""Largest relative difference of a step's loss from that of one process, both in fp64."""


def test_step_with_each_strategy(step_of, with_parallel, parallel):
    """6. What does each GPU hold with each way to share a step, and how long does the step take?

    Each GPU has a batch of its own (weak scaling).
    """
    asked = with_parallel(parallel)
    reading = step_of("6", busy=True, **asked)
    if reading.fits is False:
        pytest.skip(f"an answer without bytes: {reading.reason}")
    assert len(reading.ranks) == (0 if parallel == ALONE else asked["gpus"])
    for rank in reading.ranks:
        assert rank.peak_reserved_bytes >= rank.peak_allocated_bytes
        if rank.ledger is not None:  # of the next step
            apart = abs(rank.ledger.allocated_bytes - rank.peak_allocated_bytes)
            assert apart <= ROUNDING * reading.tensor_bytes, f"a ledger of a peak {apart:,} bytes apart"


def test_batch_split_between_gpus(step_of, with_parallel, parallel):
    """6. How long does a step take if the batch of one GPU is split between them (strong scaling)?"""
    if parallel == ALONE:
        pytest.skip("one GPU has the whole batch")
    reading = step_of("6", busy=True, **with_parallel(parallel, split=True))
    if reading.fits is False:
        pytest.skip(f"an answer without bytes: {reading.reason}")
    assert reading.activation_bytes > 0


def test_each_gpu_holds_its_share(measure_parallel, parallel, model):
    """6. Does each GPU hold of parameters, gradients and state what the rule of the strategy says?

    The rules stand in ``RULES``; each is asked of what the GPUs hold and what one GPU holds.
    """
    if parallel == ALONE:
        pytest.skip("one GPU shares nothing")
    RULES[parallel](measure_parallel(parallel), measure_parallel(ALONE), model)


def test_gpus_agree(measure_parallel, parallel):
    """6. Do the GPUs peak alike, up to what is shared unevenly between them?"""
    if parallel == ALONE:
        pytest.skip("one GPU has nothing to agree with")
    reading = measure_parallel(parallel)
    peaks = [rank.peak_allocated_bytes for rank in reading.ranks]
    held = [rank.parameter_bytes + rank.gradient_bytes + rank.optimizer_state_bytes for rank in reading.ranks]
    room = max(held) - min(held) + ROUNDING * reading.tensor_bytes
    assert max(peaks) - min(peaks) <= room, f"peaks of {peaks}, which hold {held}"


def test_losses_are_those_of_one_process(losses_parallel, parallel):
    """6. In fp64, is the mean loss of all GPUs that of one process on the whole batch, step by step?

    The model is in evaluation mode: in training dropout and batch norm do otherwise on each GPU.
    """
    if parallel == ALONE:
        pytest.skip("it is what the others are compared with")
    shared, alone = losses_parallel(parallel)
    assert len({*alone}) == len(alone), "each step changes the loss, or nothing is compared"
    assert shared == pytest.approx(alone, rel=LOSSES_AGREE, abs=0)


def is_a_replica(shared, alone, _model):
    """Each GPU holds all that one does, and buckets of the gradients' bytes, in which they are summed."""
    for rank in shared.ranks:
        for name in ("parameter_bytes", "gradient_bytes", "optimizer_state_bytes"):
            assert getattr(rank, name) == getattr(alone, name), name
        has_buckets(rank)


def has_buckets(rank):
    """What is in buckets are all gradients."""
    assert rank.bucket_bytes == rank.gradient_bytes
    if rank.ledger is not None and rank.ledger.parallel_bytes:
        assert rank.ledger.parallel_bytes >= rank.bucket_bytes, "rounded up to 512 bytes a bucket"


def shares_the_state(shared, alone, model):
    """Parameters and gradients are replicas; each parameter's state is on one GPU.

    ``ZeroRedundancyOptimizer`` gives each parameter, the largest first, to the GPU that has fewest numbers so
    far. So the states add up to that of one GPU, and differ at the most by that of the largest parameter.
    """
    for rank in shared.ranks:
        for name in ("parameter_bytes", "gradient_bytes"):
            assert getattr(rank, name) == getattr(alone, name), name
        has_buckets(rank)
    states = [rank.optimizer_state_bytes for rank in shared.ranks]
    assert sum(states) == alone.optimizer_state_bytes
    numbers = [math.prod(shape) for shape in shapes_of(alone, model)]
    assert (max(states) - min(states)) * sum(numbers) <= alone.optimizer_state_bytes * max(numbers)


def shares_all(shared, alone, model):
    """Parameters, gradients and state are 1/N, up to padding: each is cut into N along its first dimension.

    Of R rows the GPUs hold R/N each, rounded up, the last ones what is left of them or nothing.
    """
    gpus = len(shared.ranks)
    shapes = shapes_of(alone, model)
    numbers = sum(map(math.prod, shapes))
    for place, rank in enumerate(shared.ranks):
        held = sum(math.prod((rows_of(shape[0], gpus, place), *shape[1:])) for shape in shapes)
        for name in ("parameter_bytes", "gradient_bytes", "optimizer_state_bytes"):
            assert getattr(rank, name) * numbers == getattr(alone, name) * held, f"{name} of rank {place}"


def rows_of(rows, gpus, place):
    """How many of the rows are on the GPU at that place."""
    chunk = -(-rows // gpus)
    return max(0, min(chunk, rows - place * chunk))


def shapes_of(alone, model):
    """Shapes of the parameters, all of which are trained; skips where they are not."""
    if alone.trainable_parameters != model.parameters or alone.without_gradient_bytes:
        pytest.skip("the rule is of a model all of whose parameters are trained")
    if alone.optimizer_state_bytes % alone.parameter_bytes:
        pytest.skip("the rule is of an optimizer whose state has the shapes of the parameters")
    return model.parameter_shapes


RULES = {"ddp": is_a_replica, "zero1": shares_the_state, "fsdp2": shares_all}
"""What each GPU must hold with each way to share a step; by its name."""
