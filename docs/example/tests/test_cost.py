"""What a training step costs, and that it does not grow unseen."""

from train import Model, loss, make_batch


def test_a_step_fits_and_does_not_grow(stepcost):
    """At most 1 GB on the training machine's card and torch, and no more than in the baseline."""
    cost = stepcost(
        Model(), make_batch, loss, optimizer="adamw", batch_size=64, gpu="h100-80gb", torch_version="2.11"
    )
    assert cost.peak_reserved_bytes < 1e9
    cost.compare()
