"""What a child says that refuses, told from one that breaks."""

import pytest

from stepcost.failures import ChildFailed, OutOfMemory, Refused, classify
from stepcost.measuring.measurements import Measurements
from stepcost.request import Request


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("no such block"), "refused", "no such block"),
        (RuntimeError("shapes differ"), "error", "RuntimeError: shapes differ"),
        (KeyError("x"), "error", "KeyError: 'x'"),
        (ValueError("can't allocate memory: 8 GB"), "out of memory", "can't allocate memory: 8 GB"),
    ],
)
def test_only_a_line_of_ours_is_a_refusal(error, kind, message):
    """A ValueError is a refusal in our own words, unless it is of memory; anything else is a fault."""
    found = classify(error, "build")
    assert (found.kind, found.message) == (kind, message)


def test_a_refusal_crosses_the_process_border():
    """The child's own line arrives as a refusal, which is no running out of memory."""
    with (
        Measurements(60).worker("stepcost.predicting.job:Prediction") as worker,
        pytest.raises(Refused, match="unknown optimizer 'none'") as caught,
    ):
        worker.call(
            "predict",
            Request(model="small-cnn", optimizer="none", batch_size=2, device="cpu"),
            "h100-80gb",
        )
    assert isinstance(caught.value, ChildFailed)
    assert not isinstance(caught.value, OutOfMemory)
    assert caught.value.reason.startswith("unknown optimizer 'none'")
