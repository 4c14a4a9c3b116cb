"""What is read of a card of which every byte is known: the code that measures, without a GPU."""

from __future__ import annotations

import contextlib
import gc
import time
from dataclasses import replace
from functools import cache

import pytest
import torch

from stepcost import jobs
from stepcost.failures import classify
from stepcost.ledger import Ledger
from stepcost.measuring import configuration
from stepcost.measuring.activations import kept_by_module, record_by_module
from stepcost.measuring.child import STARTED, free_gpu_bytes
from stepcost.measuring.configuration import Configuration
from stepcost.measuring.engine_step import EngineStep
from stepcost.measuring.measurements import Measurements
from stepcost.measuring.recording import record_step
from stepcost.predicting import predict
from stepcost.predicting.prediction import predict_in_full
from stepcost.predicting.simulate import simulate
from stepcost.predicting.trace import trace_run
from stepcost.predicting.workspaces import workspaces_on
from stepcost.reading import Moment, Reading
from stepcost.request import Request
from tests.measuring.simulated_card import H100, MIB, SimulatedCard
from tests.measuring.simulated_torch import DEVICE, simulated_card

MODELS = ("small-cnn", "resnet18")
OPTIMIZERS = ("sgd", "sgd-momentum", "adam")
VERSIONS = {4: (2, 11), 64: (2, 15)}
"""Batch size to the torch that it is read with: cuBLAS keeps its workspace in the one, not in the other."""
OWN = "tests.measuring.simulated_torch"


@pytest.fixture(autouse=True, scope="module")
def child():
    """As a child that was just forked: what was imported is not gone through again at each collection."""
    now = time.perf_counter()
    before = dict(STARTED)
    STARTED.update(requested_at=now, forked_at=now, phase="start")
    gc.freeze()
    yield
    gc.unfreeze()
    STARTED.clear()
    STARTED.update(before)


def asked(model: str, optimizer: str, batch_size: int) -> Request:
    return Request(model=model, optimizer=optimizer, batch_size=batch_size, device=DEVICE)


@cache
def measured(model: str, optimizer: str, batch_size: int) -> Reading:
    with simulated_card(torch_version=VERSIONS[batch_size]):
        return Configuration(asked(model, optimizer, batch_size)).reading()


@cache
def uneven() -> Reading:
    with simulated_card(bare=True):
        return Configuration(asked(f"{OWN}:Uneven", "sgd", 2)).reading()


@pytest.mark.parametrize("size", VERSIONS)
@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_the_reading_is_the_prediction(model, rule, size):
    """Each figure that is read of a card, and each part of its ledger, is the predicted one to the byte."""
    reading = measured(model, rule, size)
    version = "{}.{}".format(*VERSIONS[size])
    predicted = predict(asked(model, rule, size), H100, torch_version=version)
    assert (reading.source, reading.unread, reading.process_bytes_from) == ("measured", {}, "nvml process")
    assert reading.ledger is not None
    for other in ("source", "process_bytes_from", "moments", "seconds", "unread"):
        reading = replace(reading, **{other: getattr(predicted, other)})
    assert reading == predicted


# Parameters, their tensors, and bytes of buffers.
COUNTED = {
    # 3x3 convolutions of 3-16-32-64-64 channels, 2 x 176 of batch norm, 64 x 10 + 10; 4 + 8 + 2 tensors;
    # 2 x 176 statistics of 4 bytes and 4 counters of 8.
    "small-cnn": (9 * (3 * 16 + 16 * 32 + 32 * 64 + 64 * 64) + 352 + 650, 14, 352 * 4 + 4 * 8),
    # As published, with a head of 512 x 10 + 10; 20 convolutions, 20 batch norms of 4,800 channels.
    "resnet18": (11_181_642, 62, 9600 * 4 + 20 * 8),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("rule", "states"), [*zip(OPTIMIZERS, (0, 1, 2), strict=True)])
def test_tensors_are_counted_as_by_hand(model, rule, states):
    """Parameters, gradients, state, counters, buffers and the batch each stand under their own name."""
    reading = measured(model, rule, 4)
    parameters, tensors, buffer_bytes = COUNTED[model]
    assert reading.parameters == reading.trainable_parameters == parameters
    assert reading.parameter_bytes == reading.gradient_bytes == 4 * parameters
    assert reading.optimizer_state_bytes == states * 4 * parameters
    assert reading.optimizer_scalar_bytes == (4 * tensors if rule == "adam" else 0)
    assert reading.buffer_bytes == buffer_bytes
    assert reading.input_bytes == 4 * (3 * 32 * 32 * 4 + 8)
    assert (reading.frozen_parameters, reading.without_gradient_bytes) == (0, 0)


BASE = 12 * MIB + 122_880 + 24_576 + 9 * 512
"""What an uneven model has between steps without gradients and leaks, in whole blocks: its frozen weights,
those of its last layer, images, and in a block each the first allocation, the unused weights, weight, bias
and three buffers of the norm, the last layer's bias, the labels."""


def test_each_figure_is_of_its_own_step():
    """Where no step is like another, by hand: the first's peak, the third's figures, and two to warm up."""
    reading = uneven()
    assert reading.steps_before_reading == 2
    assert reading.first_step_peak_allocated_bytes == BASE + 80 * MIB
    # The third step begins with the second's leak, and takes 50 MiB; nothing later in it needs as much.
    assert reading.peak_allocated_bytes == BASE + 512 + 50 * MIB
    assert reading.peak_moment == "forward"
    assert reading.leaked_bytes == 1024
    # Kept: the norm's output and two statistics, logits and their logarithms, loss, its weight, the leak.
    assert reading.activation_bytes == 24_576 + 6 * 512 + 1024
    # After the update: gradients of four tensors, logits and loss, and all leaks so far.
    gradients = 122_880 + 3 * 512
    assert reading.phase_peak_bytes["optimizer step"] == BASE + gradients + 2 * 512 + 512 + 1024


def test_phases_of_an_uneven_model_are_the_predicted_ones():
    """Backward's peak too, which is no sum that a hand adds up, is that of the third step."""
    predicted = predict(asked(f"{OWN}:Uneven", "sgd", 2))
    assert uneven().phase_peak_bytes == predicted.phase_peak_bytes
    assert uneven().phase_peak_bytes["forward"] > uneven().phase_peak_bytes["backward"]


def test_reserved_and_process_are_those_after_the_third_step():
    """Segments by hand: 2 MiB of small ones, 12 of frozen weights, 40, 40, then 50; the context has grown."""
    reading = uneven()
    assert reading.peak_reserved_bytes == (2 + 12 + 40 + 40 + 50) * MIB
    assert reading.context_bytes == 760 * MIB
    assert reading.process_bytes == (760 + 144) * MIB
    assert reading.moments == tuple(
        Moment(
            moment=moment,
            process_bytes=(context + reserved) * MIB,
            reserved_bytes=reserved * MIB,
            context_bytes=context * MIB,
        )
        for moment, context, reserved in (
            ("first allocation", 754, 2),
            ("model loaded", 754, 14),
            ("training step", 760, 144),
        )
    )


def test_frozen_and_unused_weights_are_told_apart():
    """Of 12 MiB frozen, five values that get no gradient, and the rest, each is counted where it belongs."""
    reading = uneven()
    used = 3 + 3 + 3072 * 10 + 10
    assert (reading.parameters, reading.frozen_parameters) == (3 * MIB + 5 + used, 3 * MIB)
    assert reading.trainable_parameter_bytes == (5 + used) * 4
    assert reading.parameter_bytes == 12 * MIB + (5 + used) * 4
    assert (reading.without_gradient_bytes, reading.gradient_bytes) == (20, used * 4)
    assert reading.buffer_bytes == 3 * 4 + 3 * 4 + 8


def test_the_ledger_is_of_one_more_step():
    """By hand: at the peak of the fourth step there is no gradient, and two pieces of 60 MiB are taken."""
    assert uneven().ledger == Ledger(
        parameter_bytes=12 * MIB + 122_880 + 4 * 512,
        buffer_bytes=3 * 512,
        gradient_bytes=0,
        optimizer_state_bytes=0,
        input_bytes=24_576 + 512,
        activation_bytes=0,
        parallel_bytes=0,
        workspace_bytes=120 * MIB + 512 + 512 + 1024,  # the first allocation and what the steps before leaked
        slack_bytes=(144 + 120) * MIB - BASE - 120 * MIB - 512 - 1024,
        context_bytes=760 * MIB,
    )


def test_the_process_is_read_from_the_device_where_none_is_listed():
    """Where NVML lists no process, the rise since before the context is taken: a neighbour is not in it."""
    with simulated_card(bare=True) as card:
        card.lists_processes = False
        reading = Configuration(asked(f"{OWN}:Uneven", "sgd", 2)).reading()
    assert reading.process_bytes_from == "nvml device difference"
    assert (reading.process_bytes, reading.context_bytes) == (904 * MIB, 760 * MIB)


@contextlib.contextmanager
def garbage():
    """Leave 12 MiB on the card that only a collection frees, and let none start by itself."""
    gc.disable()
    cycle = [torch.empty(3 * MIB, device=DEVICE)]
    cycle.append(cycle)
    del cycle
    try:
        yield
    finally:
        gc.enable()


def test_what_was_there_before_the_first_step_is_in_no_figure():
    """What was given back before is in no peak, and garbage in a cycle is in none either, and no leak."""
    expected = measured("small-cnn", "sgd", 4)
    with simulated_card():
        held = Configuration(asked("small-cnn", "sgd", 4))
        given_back = torch.empty(200 * MIB, device=DEVICE)
        del given_back
        with garbage():
            reading = held.reading()
    assert reading.phase_peak_bytes == expected.phase_peak_bytes
    assert reading.first_step_peak_allocated_bytes < 200 * MIB
    assert reading.leaked_bytes == 0


def test_a_recording_is_of_its_step_alone():
    """What is recorded of the third step has its peak, not the first's nor garbage, and what it keeps."""
    with simulated_card(bare=True):
        held = Configuration(asked(f"{OWN}:Uneven", "sgd", 2))
        held.step()
        held.step()
        with garbage():
            history = record_step(held.training_step, held.batch, torch.device(DEVICE))
    assert history.about == {
        "peak_allocated_bytes": BASE + 512 + 50 * MIB,
        "peak_reserved_bytes": 144 * MIB,
        "activation_bytes": 24_576 + 6 * 512 + 1024,
    }
    ((name, before),) = history.marks
    assert name == "forward"
    assert 0 < before < len(history.events)


def test_an_attempt_tells_the_peak_of_both_steps():
    """Two steps are taken, and the higher peak is told, here the first's."""
    with simulated_card(bare=True):
        held = Configuration(asked(f"{OWN}:Uneven", "sgd", 2))
        peak, seconds = held.attempt()
    assert peak == BASE + 80 * MIB
    assert seconds > 0
    assert held.training_step.model.steps == 2
    assert held.training_step.model.training  # which its builder left in evaluation
    with simulated_card():
        peak, _ = Configuration(asked("small-cnn", "adam", 4)).attempt()
    assert peak == measured("small-cnn", "adam", 4).peak_allocated_bytes


@pytest.mark.parametrize(("retries", "steps"), [((3, 3), 2), ((0, 1, 2, 2), 4), (range(20), 8)])
def test_an_attempt_goes_on_while_cached_memory_is_given_back(monkeypatch, retries, steps):
    """It ends with the first step that found room without, after eight at most."""
    with simulated_card():
        held = Configuration(asked("small-cnn", "sgd", 2))
        counts, taken = iter(retries), []
        monkeypatch.setattr("torch.cuda.memory_stats", lambda: {"num_alloc_retries": next(counts)})
        monkeypatch.setattr(held, "training_step", taken.append)
        held.attempt()
    assert len(taken) == steps


def test_a_prepared_step_is_read_after_warm_up():
    """By hand: after four steps what is cached is given back, and the fifth step is read alone."""
    with simulated_card(bare=True):
        prepared = EngineStep(asked(f"{OWN}:Uneven", "sgd", 2)).prepare()
    assert prepared["peak_allocated_bytes"] == BASE + 512 + 1024 + 2048 + 30 * MIB
    assert prepared["peak_reserved_bytes"] == (2 + 12 + 30) * MIB
    assert prepared["context_bytes"] == 764 * MIB  # grown in five steps
    assert prepared["process_bytes"] == (764 + 44) * MIB
    assert (prepared["process_bytes_from"], prepared["unread"]) == ("nvml process", {})
    # Weights that get a gradient move six times, what the fourth step kept twice, images once.
    weights, kept = 4 * (3 + 3 + 3072 * 10 + 10), 24_576 + 6 * 512 + 2048
    assert prepared["least_bytes"] == 6 * weights + 2 * kept + 24_576


def test_a_prepared_step_of_an_even_model_peaks_as_predicted():
    """With optimizer state and workspaces: the predicted peak, and the state's two ways in what must move."""
    request = asked("small-cnn", "adam", 64)
    with simulated_card():
        prepared = EngineStep(request).prepare()
    predicted = predict(request, H100, torch_version="2.11")
    assert prepared["peak_allocated_bytes"] == predicted.peak_allocated_bytes
    weights, images = 4 * COUNTED["small-cnn"][0], 64 * 3 * 32 * 32 * 4
    assert prepared["least_bytes"] == (6 + 2 * 2) * weights + 2 * predicted.activation_bytes + images


def test_modules_keep_what_is_predicted():
    """What forward leaves, recorded event by event, belongs to the modules that the prediction names."""
    request = asked("resnet18", "sgd", 4)
    with simulated_card():
        held = Configuration(request)
        held.step()
        recorded = record_by_module(held.training_step, held.batch, torch.device(DEVICE))
    found = kept_by_module(*recorded)
    assert len(found) > 30
    assert sorted(found, key=str) == sorted(
        predict_in_full(request, H100, torch_version="2.11").kept, key=str
    )


def fill_at(held: Configuration, card: SimulatedCard, where: str, step: int) -> None:
    """Let the card be full from where the ``step``-th step of a configuration comes to ``where``."""
    passed = []

    def come(*_: object) -> None:
        passed.append(where)
        card.full = len(passed) == step

    model = held.training_step.model
    if where == "forward":
        model.register_forward_pre_hook(come)
    elif where == "backward":
        list(model.parameters())[-1].register_hook(come)
    else:
        held.training_step.optimizer.register_step_pre_hook(come)


@pytest.mark.parametrize(
    ("method", "where", "step", "phase"),
    [
        ("reading", "forward", 1, "first step"),
        ("reading", "backward", 1, "first step"),
        ("reading", "update", 1, "first step"),
        ("reading", "forward", 2, "warm-up"),
        ("reading", "update", 2, "warm-up"),
        ("reading", "forward", 3, "forward"),
        ("reading", "backward", 3, "backward"),
        ("reading", "update", 3, "optimizer step"),
        ("reading", "forward", 4, "step whose allocator history is recorded"),
        ("reading", "update", 4, "step whose allocator history is recorded"),
        ("attempt", "update", 1, "first step"),
        ("attempt", "forward", 2, "second step"),
        ("prepare", "backward", 3, "warm-up"),
        ("prepare", "forward", 5, "step"),
    ],
)
def test_running_out_of_memory_names_its_phase(method, where, step, phase):
    """Wherever the card is full, the outcome is 'out of memory' in the phase that was under way."""
    kind = EngineStep if method == "prepare" else Configuration
    with simulated_card() as card:
        held = kind(asked("small-cnn", "adam", 4))
        fill_at(held, card, where, step)
        with pytest.raises(torch.OutOfMemoryError) as caught:
            getattr(held, method)()
        failure = classify(caught.value, STARTED["phase"], free_gpu_bytes())
    assert (failure.kind, failure.phase) == ("out of memory", phase)
    assert failure.message.startswith("CUDA out of memory. Tried to allocate")


@pytest.mark.parametrize(
    ("room_bytes", "kind"), [(511 * MIB, "out of memory"), (512 * MIB, "error"), (8192 * MIB, "error")]
)
def test_a_library_that_fails_is_out_of_memory_only_on_a_full_card(room_bytes, kind):
    """cuBLAS says the same after any fault: what is free on the card tells them apart."""
    with simulated_card(bare=True) as card:
        held = Configuration(asked("small-cnn", "sgd", 4))
        card.allocator.capacity_bytes = card.allocator.reserved_bytes + room_bytes

        def fail(*_: object) -> None:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

        held.training_step.model.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError) as caught:
            held.attempt()
        failure = classify(caught.value, STARTED["phase"], free_gpu_bytes())
    assert (failure.kind, failure.phase) == (kind, "first step")


def test_an_attempt_fits_where_the_prediction_fits():
    """On cards of every size around what is needed, two steps run out of memory just where predicted."""
    request = asked("small-cnn", "adam", 64)
    traced = trace_run(request, steps=2)
    needed = simulate(traced, workspaces_on(H100, (2, 11)), None).allocator.peak_reserved_bytes
    outcomes = []
    for capacity in range(2 * MIB, needed + 4 * MIB, 6 * MIB):
        predicted = simulate(traced, workspaces_on(H100, (2, 11)), capacity).out_of_memory_in is None
        with simulated_card(capacity_bytes=capacity):
            try:
                Configuration(request).attempt()
                fits = True
            except torch.OutOfMemoryError:
                fits = False
        assert fits == predicted, capacity
        outcomes.append(fits)
    assert outcomes == sorted(outcomes)
    assert 3 < outcomes.index(True) < len(outcomes) - 1


@pytest.fixture
def measurements(monkeypatch):
    """Measures in children that have a simulated card."""
    monkeypatch.setattr(jobs, "CONFIGURATION", f"{OWN}:OnSimulatedCard")
    return Measurements(60)


def test_a_reading_crosses_the_process_border_whole(measurements):
    """What a child reads is what is read here."""
    reading = measurements.measured(asked("small-cnn", "adam", 4))
    assert replace(reading, seconds=0.0) == replace(measured("small-cnn", "adam", 4), seconds=0.0)


@pytest.mark.parametrize(
    ("model", "size", "where"),
    [
        (f"{OWN}:Huge", 2, "model to the device"),
        ("small-cnn", 10_000_000, "batch to the device"),
        ("small-cnn", 4_000_000, "first step"),
    ],
)
def test_what_does_not_fit_is_a_reading_that_says_where(measurements, model, size, where):
    """Out of memory in a child is no error but a reading without bytes, and a trial that does not fit."""
    request = asked(model, "sgd", size)
    reading, trial = measurements.measured(request), measurements.trial(request)
    assert (reading.fits, trial.fits) == (False, False)
    assert (reading.peak_allocated_bytes, reading.parameters) == (None, None)
    for outcome in (reading, trial):
        assert outcome.reason.startswith(f"out of memory in {where}: CUDA out of memory. Tried to allocate")


def test_reserved_is_the_peak_of_the_step():
    """Where segments are given back within the step, what was reserved before that is still its peak.

    After forward only the segments of what is alive stay: 2 MiB of small blocks and 12 of frozen weights. The
    third step takes 50 MiB on top of these.
    """
    with simulated_card(bare=True) as card:
        one = Configuration(asked(f"{OWN}:Uneven", "sgd", 2))
        one.training_step.model.register_forward_hook(lambda *_: card.allocator.empty_cache())
        reading = one.reading()
    assert reading.peak_reserved_bytes == (2 + 12 + 50) * MIB
    assert reading.moments[-1].reserved_bytes == (2 + 12) * MIB


def test_timed_steps_wait_for_the_card(monkeypatch):
    """A step is launched in 1 s and done after 10: each of its times is 11 s, none is the next one's."""
    clock = {"now": 0.0, "pending": 0.0}

    def synchronize(*_):
        clock.update(now=clock["now"] + clock["pending"], pending=0.0)

    def launched(*_):
        clock.update(now=clock["now"] + 1, pending=clock["pending"] + 10)

    with simulated_card(bare=True):
        one = Configuration(asked(f"{OWN}:Uneven", "sgd", 2))
        one.training_step.model.register_forward_hook(launched)
        monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
        monkeypatch.setattr(configuration.time, "perf_counter", lambda: clock["now"])
        assert one.timed_steps(3) == [11, 11, 11]
