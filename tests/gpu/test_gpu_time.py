"""What is timed, profiled and trained on a GPU, against events, bounds by hand and the CPU."""

from dataclasses import replace
from pathlib import Path

import pytest

from stepcost import jobs
from stepcost.catalog.datasets import load_dataset
from stepcost.measuring.instrument import Instrument
from stepcost.measuring.training_runs import TrainingRuns
from stepcost.settings import FLAGS, settings_of

pytestmark = pytest.mark.gpu

ADDS, COPIED_BYTES = 5, 64 * 2**20
FASTEST_LINK = 200e9
"""Bytes per second: more than PCI Express 6 with 16 lanes, or a link to a host's own processor, carries."""


@pytest.fixture(scope="module")
def adds(planted, machine):
    """A child whose step is five kernels of one kind."""
    with planted("Adds").worker("", machine.device) as worker:
        yield worker


def test_kernels_are_counted_and_timed_as_events_time_them(adds):
    """Five additions are five kernels, busy for as long as CUDA events say, and nothing is copied."""
    found, by_events_s = adds.call("profiled", False), adds.call("by_events")
    assert found["kernels"] == ADDS, found
    assert found["gpu_busy_s"] == pytest.approx(by_events_s, rel=0.15), found
    assert found["kernel_s"] == pytest.approx(found["gpu_busy_s"], rel=0.02), found
    assert found["transfer_s"] == 0, found


def test_events_are_those_of_the_profiler(adds):
    """What is read of a profile is what torch's own objects of it say: five kernels and a copy at least."""
    read, by_torch = adds.call("events_both_ways")
    assert read == by_torch
    assert len(read) > ADDS


def test_copy_from_the_host_is_no_work_of_the_gpu(adds):
    """A copy from the host is a transfer, as long at least as the fastest link needs, and no kernel."""
    plain, found = adds.call("profiled", False), adds.call("profiled", True)
    assert found["kernels"] == ADDS, found
    assert found["transfer_s"] >= COPIED_BYTES / FASTEST_LINK, found
    assert found["gpu_busy_s"] == pytest.approx(plain["gpu_busy_s"], rel=0.15), (plain, found)


def test_busy_share_of_a_step(planted, request_of, rounds):
    """The GPU computes for a share of a step between 0 and 1, its busy seconds by the median step's."""
    reading, fields = planted(None).timed_step(request_of("resnet18", "sgd", 64), rounds, busy=True)
    assert reading.fits, reading
    assert reading.unread == {}
    assert 0 < fields["gpu_busy_share"] <= 1, fields
    assert fields["gpu_busy_s"] <= fields["kernel_s"] * (1 + 1e-9), fields
    median_s = sorted(rounds.seconds)[len(rounds.seconds) // 2]
    assert fields["gpu_busy_share"] == pytest.approx(fields["gpu_busy_s"] / median_s)
    assert 20 <= len(rounds.seconds) <= 100
    assert fields["clocks"]["sm_mhz"] > 0, fields


def test_busy_share_falls_with_a_planted_fault(planted, request_of):
    """A batch that is copied from the host in each step lowers the share of a captured step."""
    request = request_of("resnet18", "sgd", 256, engine="fast")
    shares = Instrument(planted(None)).busy_shares(request)
    assert all(0 < share <= 1.02 for share in shares.values()), shares
    assert shares["study with copy"] < 0.9 * shares["study"], shares


def test_operators_of_a_captured_step_add_up_to_its_kernels(planted, request_of, machine, rounds):
    """Operators, by name as predicted, take what the profiler says of all kernels; convolutions the most."""
    request = request_of("resnet18", "sgd", 64, engine="fast")
    runs = planted(None)
    step = runs.engine_step(request, rounds)
    assert "by_operator_s" not in step["unread"], step["unread"]
    with runs.worker(jobs.PREDICTION) as worker:
        found = worker.call("beside", request, machine.gpu, step["in_place"])
    taken, predicted = found["by_operator_s"], found["predicted_step"]["by_operator_s"]
    assert sum(taken.values()) == pytest.approx(step["kernel_s"], rel=0.05), (taken, step)
    assert next(iter(taken)) == "convolution_backward", taken
    assert set(list(taken)[:5]) <= set(predicted), (taken, predicted)


@pytest.fixture(scope="module")
def runs(planted):
    """Training runs on 200 digits, in steps of 64 and a last one of 8."""
    digits = load_dataset("digits", Path("data"), download=False)
    few = replace(digits, train_images=digits.train_images[:200], train_labels=digits.train_labels[:200])
    settings = settings_of({**{name: flag.default for name, flag in FLAGS.items()}, "dataset": "digits"}.get)
    return TrainingRuns(planted(None), settings, few, {})


@pytest.mark.parametrize("rule", ["sgd-momentum", "adam"])
@pytest.mark.parametrize("way", ["graph", "fast"])
def test_engines_give_the_eager_losses(runs, request_of, way, rule):
    """In fp64 a captured engine has the eager one's loss in each step, the last partial one included."""
    found = runs.compared_losses(request_of("small-cnn", rule, 64, engine=way))
    assert found["fits"], found
    assert found["steps"] == len(found["losses"]) == 4, found
    assert len(set(found["losses"])) == 4, found
    assert (found["norm_steps"], found["optimizer_steps"]) == (4, 4 if rule == "adam" else None), found
    assert found["loss_difference"] < 1e-9, found


def test_losses_are_those_of_the_cpu(runs, request_of):
    """In fp64 the GPU has the losses of the same run on the CPU."""
    request = request_of("small-cnn", "sgd-momentum", 64)
    ours, theirs = runs.losses(request)["losses"], runs.losses(replace(request, device="cpu"))["losses"]
    assert ours == pytest.approx(theirs, rel=1e-9)
