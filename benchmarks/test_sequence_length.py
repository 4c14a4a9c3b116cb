"""Question 3a: what does training hold at each sequence length?"""

from itertools import pairwise

import pytest


@pytest.fixture(autouse=True)
def takes_sequences(model):
    """Skip, with the reason, where the model takes none."""
    if model.kind != "tokens":
        pytest.skip(f"{model.name} takes no sequences of tokens")


def test_step_at_each_sequence_length(step_of, sequence_length, settings):
    """3a. What does a step hold, and how long does it take, at each length after the first?

    At the first one the benchmark of the batch sizes asks.
    """
    ask = {"optimizer": settings.batch_optimizer, "batch_size": settings.optimizer_batch_size}
    reading = step_of("3a", **ask, sequence_length=sequence_length, busy=True)
    assert (reading.fits is False) is (reading.reason is not None)


def test_tensor_bytes_grow_with_the_length(measure, settings):
    """3a. Do parameters, state, inputs and activations together grow with the sequence length?"""
    if len(settings.sequence_lengths) == 1:
        pytest.skip("not asked: --sequence-lengths with several compares them")
    ask = {"optimizer": settings.batch_optimizer, "batch_size": settings.optimizer_batch_size}
    readings = {
        length: measure(**ask, sequence_length=length) for length in sorted(settings.sequence_lengths)
    }
    grown = [(length, reading.tensor_bytes) for length, reading in readings.items() if reading.tensor_bytes]
    for (short, fewer), (long, more) in pairwise(grown):
        assert fewer < more, f"{short} tokens hold {fewer:,} bytes of tensors, {long} tokens {more:,}"
