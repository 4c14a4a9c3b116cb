"""Question 3a: what does training hold at each batch size?"""

from itertools import pairwise


def test_step_at_each_batch_size(step_of, batch_size, settings):
    """3a. What does a training step hold, how long does it take, and how busy is the GPU meanwhile?"""
    reading = step_of("3a", optimizer=settings.batch_optimizer, batch_size=batch_size, busy=True)
    assert (reading.fits is False) is (reading.reason is not None)


def test_tensor_bytes_grow_with_the_batch(measure, settings):
    """3a. Do parameters, state, inputs and activations together grow with the batch?"""
    readings = {
        size: measure(optimizer=settings.batch_optimizer, batch_size=size)
        for size in sorted(settings.batch_sizes)
    }
    grown = [(size, reading.tensor_bytes) for size, reading in readings.items() if reading.tensor_bytes]
    for (small, fewer), (large, more) in pairwise(grown):
        assert fewer < more, f"batch {small} holds {fewer:,} bytes of tensors, batch {large} holds {more:,}"
