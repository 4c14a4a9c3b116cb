"""What recording times writes, with children that answer by hand."""

import gzip
import json
from dataclasses import asdict

import pytest

from stepcost.failures import ChildDied
from stepcost.machine import Machine
from stepcost.measuring import times
from stepcost.request import name_of_step, step_named

GRAPH, FAST = step_named("resnet18:sgd:2:64:graph"), step_named("resnet18:sgd:4:64:fast:bf16")
RATES = {"copy_bytes_per_s": 3e12}
ANSWER = {"step_s": 2e-3, "unmatched": 0, "operators": [["mm(...)", 48, 16]], "calls": [[0, [[0, 1000]]]]}


class Child:
    """Answers as a child would; one whose batch is 2 dies in its step."""

    def __init__(self, job, *arguments, time_limit_s):
        self.request = arguments[0] if arguments else None

    def call(self, method, *arguments):
        if method == "machine":
            known = {"torch": "2.11.0", "torchvision": "0.26", "cuda": "13.0", "cudnn": "9.19.0"}
            return Machine(device="cuda:0", why_no_gpu=None, gpu="a card", **known)
        if method == "rates":
            return RATES
        if self.request.batch_size == 2:
            raise ChildDied("TimedStep.times: the child was killed by SIGSEGV")
        return dict(ANSWER)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(times, "Worker", Child)
    monkeypatch.setattr(times, "warm_up_server", lambda _: None)

    def record(*requests, limit_s=60.0):
        path = tmp_path / "times.jsonl.gz"
        count = times.record_times(requests, path, limit_s=limit_s)
        with gzip.open(path, "rt") as file:
            return count, [json.loads(line) for line in file]

    return record


def test_step_that_fails_costs_its_own_row(recorded):
    """A child that dies leaves its reason, and the step after it is recorded."""
    count, (about, died, kept) = recorded(GRAPH, FAST)
    assert count == 1
    assert about["about"]["gpu"] == "a card" and about["about"]["rates"] == RATES
    assert "SIGSEGV" in died["reason"] and "step_s" not in died
    assert kept["step_s"] == 2e-3 and kept["request"]["engine"] == "fast"
    assert kept["request"]["precision"] == "bf16" and "device" not in kept["request"]


def test_engine_that_captures_nothing_is_not_recorded(recorded):
    """The plain loop has no graph to replay, and its row says so."""
    count, (_, row) = recorded(step_named("resnet18:sgd:4:64:eager"))
    assert count == 0 and "captures no step" in row["reason"]


def test_no_step_begins_after_the_limit(recorded):
    """At the limit recording ends quietly; what is there stays."""
    count, rows = recorded(FAST, limit_s=-1.0)
    assert count == 0 and len(rows) == 1


def test_step_is_named_in_one_line():
    """A step's text gives the request, a sequence's size its tokens; what it is not is said in a line."""
    assert (GRAPH.num_classes, GRAPH.image_size, GRAPH.sequence_length) == (1000, 64, None)
    text = step_named("gpt2:adamw:8:512:fast:bf16")
    assert (text.sequence_length, text.image_size, text.precision) == (512, None, "bf16")
    for wrong in (
        "resnet18",
        "resnet18:sgd:x:64:graph",
        "resnet18:sgd:2:64:quick",
        "resnet18:sgd:2:64:graph:int4",
    ):
        with pytest.raises(ValueError, match="is not MODEL:OPTIMIZER") as said:
            step_named(wrong)
        assert "\n" not in str(said.value)
    with pytest.raises(ValueError, match="cannot be captured"):
        step_named("resnet18:adagrad:2:64:graph")


@pytest.mark.parametrize("name", ["resnet50:sgd:64:224:fast:bf16", "gpt2:adamw:4:512:graph:fp32"])
def test_a_step_is_named_as_it_is_read(name):
    """The name that is printed of a step, of images or of tokens, asks for the same step again."""
    assert name_of_step(asdict(step_named(name))) == name
