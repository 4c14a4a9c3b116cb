"""Each rule of question 6 holds of real ranks, by gloo on the CPU, and is seen to fail on a planted fault."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from stepcost import jobs
from stepcost.ledger import Ledger
from stepcost.measuring.process import Worker
from stepcost.measuring.ranks import Group
from stepcost.reading import Rank, Reading
from stepcost.request import Request
from tests.suite.test_relations import benchmark_module, measure

gpus = benchmark_module("test_several_gpus")
LIMIT_S = 120
CONVOLUTIONS = ((3, 16), (16, 32), (32, 64), (64, 64))
SHAPES = (
    *(shape for i, o in CONVOLUTIONS for shape in ((o, i, 3, 3), (o,), (o,))),
    (10, 64),
    (10,),
)
"""Of small-cnn: four convolutions with batch norm, and a linear layer; none of 16, 64 and 10 is 3 times
something."""
MODEL = SimpleNamespace(parameters=61_338, parameter_shapes=SHAPES)


def request(parallel, **more):
    """A request of three processes on the CPU, or of one."""
    plain = {"model": "small-cnn", "optimizer": "adam", "batch_size": 2, "device": "cpu"}
    return Request(**plain | {"parallel": parallel, "gpus": 1 if parallel == "none" else 3} | more)


@pytest.fixture(scope="module")
def alone():
    """What one GPU holds: the same step, traced here."""
    return measure(optimizer="adam", batch_size=2)


@pytest.fixture(scope="module")
def held():
    """What each of three ranks holds after two steps, by strategy."""
    found = {}
    for parallel in ("ddp", "zero1", "fsdp2"):
        with Group(jobs.CONFIGURATION, request(parallel), time_limit_s=LIMIT_S) as group:
            found[parallel] = tuple(group.call_each("counted", 2))
    return found


def ask(parallel, ranks, alone):
    """Ask whether these ranks hold what the rule of a strategy says."""
    shared = Reading(source="measured", fits=True, ranks=ranks)
    readings = {parallel: shared, "none": alone}
    gpus.test_each_gpu_holds_its_share(readings.__getitem__, parallel, MODEL)


@pytest.mark.parametrize("strategy", ["ddp", "zero1", "fsdp2"])
def test_real_ranks_follow_the_rule(held, alone, strategy):
    """What torch's own strategies leave on three ranks is what the rules say."""
    ask(strategy, held[strategy], alone)


def test_parts_by_hand(held):
    """Of 61,338 numbers in 4 bytes: ranks of fsdp2 hold thirds of each first dimension, rounded up."""
    # 16, 32, 64, 64 rows of convolutions and of what batch norm scales and adds; 10 rows of the last layer
    numbers = [27 + 2, 144 + 2, 288 + 2, 576 + 2, 64 + 1]
    rows = [(6, 6, 4), (11, 11, 10), (22, 22, 20), (22, 22, 20), (4, 4, 2)]
    expected = [4 * sum(r[place] * n for r, n in zip(rows, numbers, strict=True)) for place in range(3)]
    assert [rank.parameter_bytes for rank in held["fsdp2"]] == expected
    assert sum(expected) == 4 * 61_338
    assert {rank.bucket_bytes for rank in held["ddp"]} == {4 * 61_338}
    assert sum(rank.optimizer_state_bytes for rank in held["zero1"]) == 8 * 61_338


@pytest.mark.parametrize(
    ("strategy", "fault"),
    [
        ("ddp", {"optimizer_state_bytes": 1000}),
        ("ddp", {"bucket_bytes": 0}),
        ("zero1", {"optimizer_state_bytes": 8 * 61_338}),
        ("zero1", {"gradient_bytes": 4}),
        ("fsdp2", {"parameter_bytes": 4 * 61_338}),
        ("fsdp2", {"gradient_bytes": 4 * 20_446}),
    ],
)
def test_a_rank_that_holds_otherwise_is_caught(held, alone, strategy, fault):
    """One rank with other bytes than its share turns the rule of its strategy red."""
    first, *others = held[strategy]
    with pytest.raises(AssertionError):
        ask(strategy, (*others, replace(first, **fault)), alone)


def test_buckets_that_the_ledger_lacks_are_caught(held, alone):
    """What the ledger says of buckets is no less than their bytes."""
    ledger = Ledger(parallel_bytes=1000)
    with pytest.raises(AssertionError, match="a bucket"):
        ask("ddp", tuple(replace(rank, ledger=ledger) for rank in held["ddp"]), alone)


def test_a_state_on_one_rank_is_caught(held, alone):
    """States that add up, but lie all on one rank, are no shares."""
    sizes = (8 * 61_338, 0, 0)
    ranks = zip(held["zero1"], sizes, strict=True)
    with pytest.raises(AssertionError):
        ask("zero1", tuple(replace(rank, optimizer_state_bytes=size) for rank, size in ranks), alone)


def test_peaks_may_differ_by_what_is_shared_unevenly():
    """Peaks apart by more than the tensors held, and a twentieth of all tensors, are no agreement."""

    def agree(*peaks, states=(0, 0)):
        ranks = tuple(
            Rank(
                parameter_bytes=10, gradient_bytes=10, optimizer_state_bytes=state, peak_allocated_bytes=peak
            )
            for peak, state in zip(peaks, states, strict=True)
        )
        parts = dict.fromkeys(("parameter_bytes", "buffer_bytes", "optimizer_state_bytes", "input_bytes"), 0)
        shared = Reading(source="measured", fits=True, ranks=ranks, activation_bytes=100, **parts)
        gpus.test_gpus_agree(lambda name: shared, "zero1")

    agree(105, 100)
    agree(125, 100, states=(20, 0))
    for peaks, states in (((106, 100), (0, 0)), ((100, 126), (0, 20))):
        with pytest.raises(AssertionError, match="which hold"):
            agree(*peaks, states=states)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """A small language model with dropout, blocks, and an embedding that is the head's too."""
    path = tmp_path_factory.mktemp("model") / "config.json"
    sizes = {"n_layer": 2, "n_embd": 24, "n_head": 2, "vocab_size": 101, "n_positions": 32}
    path.write_text(json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]} | sizes))
    return {"model": str(path), "image_size": None, "num_classes": None, "sequence_length": 16}


def losses(parallel, job=jobs.LOSSES, **more):
    """Losses of three ranks with two examples each, or of one process with six."""
    if parallel == "none":
        with Worker(jobs.LOSSES, request("none", **more | {"batch_size": 6}), "evaluation") as worker:
            return worker.call("losses", 2)
    with Group(job, request(parallel, **more), "evaluation", time_limit_s=LIMIT_S) as group:
        return group.call("losses", 2)


def ask_losses(shared, alone):
    """Ask whether losses are those of one process."""
    gpus.test_losses_are_those_of_one_process(lambda name: (shared, alone), "ddp")


def test_losses_of_a_classifier_with_batch_norm():
    """In evaluation mode all strategies give the losses of one process on the whole batch."""
    alone = losses("none")
    for parallel in ("ddp", "zero1", "fsdp2"):
        ask_losses(losses(parallel), alone)


def test_losses_of_a_language_model(language_model):
    """So do those of a model with dropout and tied weights, with micro-batches and checkpointed blocks."""
    more = {"accumulate": 2, "checkpoint": "blocks", **language_model}
    alone = losses("none", **more)
    assert alone != [float(np.float32(one)) for one in alone], "the model casts its loss to float32"
    ask_losses(losses("fsdp2", **more), alone)


def test_replicas_that_are_never_summed_are_caught(monkeypatch):
    """Ranks that train their own replicas differ from the second step on."""
    monkeypatch.setitem(jobs.OF_RANKS, "unwrapped", "tests.measuring.faulty_ranks:UnwrappedLosses")
    shared, alone = losses("ddp", "unwrapped"), losses("none")
    assert shared[0] == pytest.approx(alone[0], rel=1e-12)
    with pytest.raises(AssertionError):
        ask_losses(shared, alone)
