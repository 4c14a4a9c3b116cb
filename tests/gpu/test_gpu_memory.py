"""Memory read on a GPU, against a second way to read it, numbers by hand, a committed run, the prediction."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from stepcost import jobs
from stepcost.catalog.cards import CARDS
from stepcost.predicting.torch_versions import version_of
from stepcost.predicting.validation import VALIDATED_CUDNN, were_run

pytestmark = pytest.mark.gpu

REFERENCE = Path(__file__).parents[2] / "reports" / "reference" / "h100-80gb-fast.json"
OPTIMIZERS = ("sgd", "adam")
MIB = 2**20
PERCEPTRON = "tests.gpu.planted_jobs:perceptron"
FOLLOWS_DRIVER = ("process_bytes", "context_bytes")


def figures(fields):
    """Every number of bytes among fields, flat, those of moments and of the ledger too."""
    found = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            parts = {f"{name}.{key}": size for key, size in value.items()}
        elif name == "moments":
            parts = {
                f"{one['moment']}.{key}": size
                for one in value
                for key, size in one.items()
                if key != "moment"
            }
        else:
            parts = {name: value} if name.endswith("_bytes") else {}
        found |= {key: size for key, size in parts.items() if isinstance(size, int)}
    return found


def differences(ours, theirs):
    """What two sets of figures have in common and do not agree on."""
    return {
        name: (ours[name], theirs[name]) for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]
    }


@pytest.mark.parametrize("name", ["resnet18", PERCEPTRON])
@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_ledger_adds_up(read, name, rule):
    """The parts of the peak add up to allocated, with slack to reserved, with context to the process."""
    reading = read(name, rule, 64)
    assert reading.unread == {}
    parts = asdict(reading.ledger)
    slack, context = parts.pop("slack_bytes"), parts.pop("context_bytes")
    assert min(slack, context, *parts.values()) >= 0, parts
    assert sum(parts.values()) == reading.peak_allocated_bytes, parts
    assert sum(parts.values()) + slack == reading.peak_reserved_bytes, parts
    assert sum(parts.values()) + slack + context == reading.process_bytes, parts


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_peak_and_reserved_a_second_way(planted, request_of, rule):
    """The highest phase is the peak of a step seen as a whole; reserved is the sum of the segments."""
    asked = planted("SecondWay").asked("reading", "read", jobs.CONFIGURATION, request_of("resnet18", rule, 8))
    with asked as (worker, reading):
        assert set(reading.phase_peak_bytes) == {"forward", "backward", "optimizer step"}
        whole = worker.call("peak_of_a_whole_step")
        assert max(reading.phase_peak_bytes.values()) == whole == reading.peak_allocated_bytes
        assert reading.phase_peak_bytes[reading.peak_moment] == whole
        if rule == "sgd":  # which takes nothing more for its update, while backward still held activations
            assert reading.phase_peak_bytes["optimizer step"] < reading.phase_peak_bytes["backward"], reading
        assert worker.call("segment_bytes") == reading.peak_reserved_bytes


@pytest.mark.parametrize(("rule", "state", "counters"), [("sgd", 0, 0), ("adam", 2, 4)])
def test_tensors_of_a_perceptron_by_hand(read, rule, state, counters):
    """Weights, gradients, state, batch and what forward keeps are those worked out by hand."""
    reading = read(PERCEPTRON, rule, 64)
    weights = 4 * (3072 * 1024 + 1024 + 1024 * 10 + 10)
    assert reading.parameter_bytes == reading.gradient_bytes == weights
    assert reading.optimizer_state_bytes == state * weights
    assert reading.optimizer_scalar_bytes == counters * 4
    assert reading.buffer_bytes == 0
    batch = 64 * 3 * 32 * 32 * 4 + 64 * 8
    assert reading.input_bytes == reading.ledger.input_bytes == batch
    # The last bias takes 512 bytes; the others are multiples of that.
    assert reading.ledger.parameter_bytes == weights - 40 + 512
    # The hidden layer; logits and their log-softmax, 64 x 10 each; the loss and the sum of its weights.
    assert reading.activation_bytes == 64 * 1024 * 4 + 2 * 64 * 10 * 4 + 2 * 512
    assert reading.leaked_bytes == 0
    assert reading.steps_before_reading == 2


def test_first_step_of_adam_lacks_its_state(read):
    """The first step of Adam peaks lower than the steady one: its state is made at that step's end."""
    reading = read("resnet18", "adam", 64)
    assert reading.first_step_peak_allocated_bytes < reading.peak_allocated_bytes


@pytest.mark.parametrize("leaked_bytes", [3 * MIB, -MIB])
def test_leak_has_its_size_and_sign(planted, request_of, leaked_bytes):
    """A step that keeps 3 MiB leaks them, and one that gives 1 MiB back leaks less than nothing."""
    reading = planted("Leaks", leaked_bytes).measured(request_of("small-cnn", "sgd", 8))
    assert reading.leaked_bytes == leaked_bytes, reading


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_a_second_fresh_process_gives_the_same_bytes(read, planted, request_of, rule):
    """Two fresh processes read the same configuration to the byte."""
    again = planted(None).measured(request_of("resnet18", rule, 64))
    ours, theirs = (figures(asdict(one)) for one in (read("resnet18", rule, 64), again))
    assert len(ours) > 20
    assert ours.keys() == theirs.keys()
    assert differences(ours, theirs) == {}


def test_two_children_at_once_give_the_same_bytes(read, planted, request_of):
    """Two processes that train at the same moment read what one alone reads."""
    workers = [
        planted(None).worker(jobs.CONFIGURATION, request_of("resnet18", name, 64)) for name in OPTIMIZERS
    ]
    try:
        with ThreadPoolExecutor(2) as pool:
            at_once = list(pool.map(lambda worker: worker.call("reading"), workers))
    finally:
        for worker in workers:
            worker.close()
    for name, reading in zip(OPTIMIZERS, at_once, strict=True):
        alone = figures(asdict(read("resnet18", name, 64)))
        apart = differences(alone, figures(asdict(reading)))
        if reading.process_bytes_from != "nvml process":  # the device's memory is that of both
            apart = {key: pair for key, pair in apart.items() if not key.endswith(FOLLOWS_DRIVER)}
        assert apart == {}, name


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_bytes_of_the_reference_run(read, machine, rule):
    """On the card and libraries of the committed run ResNet-152 has the bytes that it had there."""
    run = json.loads(REFERENCE.read_text())
    then = run["machine_info"]
    names = ("compute_capability", "torch", "cudnn")
    differ = [f"{n}: {getattr(machine, n)}, there {then[n]}" for n in names if getattr(machine, n) != then[n]]
    if differ:
        pytest.skip(f"not the card and libraries of the reference run: {'; '.join(differ)}")
    (stored,) = [
        figures(bench["extra_info"])
        for bench in run["benchmarks"]
        if bench["extra_info"].get("question") == "2a" and bench["extra_info"]["optimizer"] == rule
    ]
    assert stored["peak_allocated_bytes"] > stored["parameter_bytes"] > 0
    apart = differences(figures(asdict(read("resnet152", rule, 64))), stored)
    if machine.driver != then["driver"]:
        apart = {key: pair for key, pair in apart.items() if not key.endswith(FOLLOWS_DRIVER)}
    assert apart == {}


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_prediction_is_the_reading_to_the_byte(read, planted, request_of, machine, rule):
    """What is predicted for this card is what is read on it, ledger, phases and process included."""
    cards = [one for one in CARDS.values() if one.gpu == machine.gpu]
    version = version_of(machine.torch)
    if not cards or not were_run(cards[0], version) or not machine.cudnn.startswith(f"{VALIDATED_CUDNN}."):
        pytest.skip(f"not validated: {machine.gpu}, torch {machine.torch}, cuDNN {machine.cudnn}")
    with planted(None).worker(jobs.PREDICTION) as worker:
        predicted = worker.call("predict", request_of("resnet152", rule, 64), cards[0].name)
    assert predicted.unread == {}
    measured = read("resnet152", rule, 64)
    ours, theirs = figures(asdict(measured)), figures(asdict(predicted))
    assert len(ours.keys() & theirs.keys()) > 20
    apart = differences(ours, theirs)
    # The context was measured with one version of the driver; with others it is another.
    if not machine.driver.startswith(cards[0].measured_with.removeprefix("driver ").partition(",")[0]):
        apart = {key: pair for key, pair in apart.items() if not key.endswith(FOLLOWS_DRIVER)}
    assert apart == {}, f"measured, predicted on {machine.gpu} with driver {machine.driver}"
    assert predicted.peak_moment == measured.peak_moment


def test_captured_step_holds_its_pool(read, planted, request_of):
    """The bytes of a captured step hold its private pool, and what an eager step keeps for backward."""
    eager = read("resnet18", "sgd", 64)
    request = request_of("resnet18", "sgd", 64, engine="graph")
    with planted("Pool").asked("prepare", "prepare", jobs.ENGINE_STEP, request) as (worker, held):
        found = worker.call("segments")
    assert found["private"] > eager.activation_bytes, (found, held)
    assert held["peak_reserved_bytes"] == found["all"], (found, held)
    assert eager.tensor_bytes <= held["peak_allocated_bytes"] <= held["peak_reserved_bytes"], (eager, held)
    assert held["process_bytes"] - held["context_bytes"] == found["all"], (found, held)
    assert held["context_bytes"] >= eager.moments[0].context_bytes, (eager, held)
