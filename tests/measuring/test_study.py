"""A training run: its clock, its rates and its figures, against a plain loop and against seconds by hand."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from stepcost.catalog import models
from stepcost.catalog.datasets import Dataset
from stepcost.catalog.models import STAND_IN, build_model
from stepcost.catalog.optimizers import OPTIMIZERS
from stepcost.measuring import study as study_module
from stepcost.measuring.study import Study
from stepcost.request import Request

RATE = 0.05
AGREE = 1e-7
"""Of losses in fp64: a rate that a captured step reads is in fp32, and Adam divides it there."""
SCHEDULED = {"constant": lambda done: 1.0, "cosine": lambda done: (1 + np.cos(np.pi * done)) / 2}
SEED = 5
CLASSES = 4
RULES: dict[str, tuple[Any, dict[str, float]]] = {
    "sgd": (torch.optim.SGD, {}),
    "sgd-momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "adam": (torch.optim.Adam, {}),
}


def dice_data(*, train=20, test=300, size=8, flat=False):
    """Images of dice, brighter by class and by channel, so that a few steps change what is answered.

    ``flat`` ones differ by less than a pixel's step from image to image.
    """
    dice = np.random.default_rng(1)

    def part(images):
        labels = dice.integers(0, CLASSES, images, dtype=np.uint8)
        values = dice.integers(0, 120, (images, 3, size, size)) + 30 * labels[:, None, None, None]
        if flat:
            values = values % 2 + labels[:, None, None, None] % 2
        return (values // np.array([1, 2, 3])[:, None, None]).astype(np.uint8), labels

    (train_images, train_labels), (test_images, test_labels) = part(train), part(test)
    train_labels[:CLASSES] = np.arange(CLASSES)
    return Dataset(
        name="dice",
        source="dice",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
    )


@pytest.fixture
def study():
    """``study(data, engine=..., ...)``: a study on the CPU, on one thread; what it sets is set back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a network trains no faster on more

    def build(data, optimizer="sgd", *, engine="eager", image_size=8, schedule="constant", exact=False):
        request = Request(
            model=STAND_IN,
            optimizer=optimizer,
            batch_size=8,
            image_size=image_size,
            num_classes=CLASSES,
            engine=engine,
            device="cpu",
            seed=SEED,
        )
        return Study(request, data, RATE, schedule, exact)

    yield build
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)


@pytest.fixture
def uncaptured_graphs(monkeypatch):
    """Run on the CPU what an engine would capture: a replay is the work itself."""
    warmed, captures = [], []

    def warm_up(work, *, captured):
        warmed.append(captured)
        for _ in range(3):
            work()

    def capture(work):
        captures.append(work)
        return work

    monkeypatch.setattr(study_module, "capture", capture)
    monkeypatch.setattr(study_module, "warm_up", warm_up)
    for name, row in OPTIMIZERS.items():  # counters on the GPU are refused on the CPU
        monkeypatch.setitem(OPTIMIZERS, name, dataclasses.replace(row, capture_options=()))
    return warmed, captures


def ended(run):
    """The records that a run yields, and what it returns at the end."""
    records = []
    while True:
        try:
            records.append(next(run))
        except StopIteration as end:
            return records, end.value


def resized(images, size):
    """Images of another size: each pixel weighs less, linearly, up to the next one's middle, old or new."""
    old = images.shape[-1]
    reach = max(1, old / size)
    middles = (np.arange(size)[:, None] + 0.5) * old / size
    weights = np.maximum(0, 1 - abs(np.arange(old) + 0.5 - middles) / reach)
    weights /= weights.sum(1, keepdims=True)
    return np.einsum("ai,bj,ncij->ncab", weights, weights, images)


def by_hand(data, rule, *, epochs, image_size=8, schedule="constant", drop_last=False, batch=8):
    """Train as a textbook does, in fp64: loss, training and test accuracy of each epoch."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(SEED)
    network = build_model(STAND_IN, num_classes=CLASSES, image_size=image_size)
    make, options = RULES[rule]
    optimizer = make(network.parameters(), lr=RATE, **options)
    pixels = data.train_images.astype(float)
    mean = pixels.mean((0, 2, 3))[:, None, None]
    deviation = np.maximum(pixels.std((0, 2, 3), ddof=1), 1)[:, None, None]
    train, test = (
        torch.from_numpy(
            (part - mean) / deviation
            if image_size == part.shape[-1]
            else resized((part - mean) / deviation, image_size)
        )
        for part in (pixels, data.test_images.astype(float))
    )
    train_labels, test_labels = (
        torch.from_numpy(x.astype(int)) for x in (data.train_labels, data.test_labels)
    )
    order = torch.Generator().manual_seed(SEED)
    images = len(train) // batch * batch if drop_last else len(train)
    steps, taken, records = epochs * -(-images // batch), 0, []
    for _ in range(epochs):
        network.train()
        chosen = torch.randperm(len(train), generator=order)[:images]
        losses = right = 0
        for some in chosen.split(batch):
            rate = RATE * SCHEDULED[schedule](taken / steps)
            optimizer.param_groups[0]["lr"] = RATE if schedule == "constant" else float(np.float32(rate))
            logits = network(train[some])
            loss = torch.nn.functional.cross_entropy(logits, train_labels[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += loss.item() * len(some)
            right += int((logits.argmax(1) == train_labels[some]).sum())
            taken += 1
        network.eval()
        with torch.no_grad():
            hits = int((network(test).argmax(1) == test_labels).sum())
        records.append((losses / images, right / images, hits / len(test)))
    return records


@pytest.mark.parametrize("launched_by", ["eager", "graph"])
@pytest.mark.parametrize(
    ("rule", "asked"),
    [
        ("sgd", {}),
        ("sgd-momentum", {}),
        ("adam", {}),
        ("adam", {"schedule": "cosine"}),
        ("sgd-momentum", {"schedule": "cosine"}),
        ("sgd", {"image_size": 16}),
        ("sgd", {"image_size": 4}),
    ],
)
@pytest.mark.parametrize("drop_last", [False, True])
def test_every_figure_is_that_of_a_plain_loop(
    *, study, uncaptured_graphs, launched_by, rule, asked, drop_last
):
    """Loss and both accuracies of each epoch, in order, are those of a loop without a warm-up."""
    data = dice_data()
    expected = by_hand(data, rule, epochs=4, drop_last=drop_last, **asked)
    one = study(data, rule, engine=launched_by, exact=True, **asked)
    records, outcome = ended(one.run(4, drop_last))
    assert outcome["epochs"] == records
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    for record, (loss, right, hits) in zip(records, expected, strict=True):
        assert record["train_loss"] == pytest.approx(loss, rel=AGREE)
        assert (record["train_accuracy"], record["test_accuracy"]) == (right, hits)


@pytest.mark.parametrize("launched_by", ["eager", "graph"])
def test_a_last_batch_of_one_is_left_out(study, uncaptured_graphs, launched_by):
    """Of 17 images in batches of 8, 16 are trained on and in the means: others in each epoch."""
    data = dice_data(train=17)
    expected = by_hand(data, "sgd", epochs=3, drop_last=True)
    records, _ = ended(study(data, engine=launched_by, exact=True).run(3))
    assert [record["train_accuracy"] for record in records] == [right for _, right, _ in expected]
    assert [record["train_loss"] for record in records] == pytest.approx(
        [loss for loss, _, _ in expected], rel=AGREE
    )


def test_a_fall_in_accuracy_is_reported(study):
    """An epoch's accuracy is its own, also where an earlier epoch had a higher one."""
    data = dice_data()
    hits = [epoch[2] for epoch in by_hand(data, "sgd", epochs=5)]
    assert hits[-1] < max(hits), "or this shows nothing"
    records, _ = ended(study(data, exact=True).run(5))
    assert [record["test_accuracy"] for record in records] == hits


@pytest.mark.parametrize("launched_by", ["eager", "graph"])
@pytest.mark.parametrize("rule", [name for name in OPTIMIZERS if name != "muon"])  # no hidden matrix here
def test_warm_up_is_undone(study, uncaptured_graphs, launched_by, rule):
    """When the first step of a run is taken, weights, buffers and optimizer state are those of the start."""
    if rule == "adamw-8bit":
        pytest.importorskip("bitsandbytes", reason="an extra: pip install 'stepcost[bitsandbytes]'")
    one = study(dice_data(), rule, engine=launched_by)
    seen = []

    def look(*_):
        kept = [value for state in one.step.optimizer.state.values() for value in state.values()]
        tensors = [value.clone() for value in kept if isinstance(value, torch.Tensor)]
        seen.append(({name: value.clone() for name, value in one.model.state_dict().items()}, tensors))

    look()
    one.model.register_forward_pre_hook(look)
    ended(one.run(1))
    (weights, state), (end, _) = seen[0], seen[-1]
    weights_again, state_again = seen[-5]  # three steps and two parts of the evaluation follow
    assert all(torch.equal(value, weights_again[name]) for name, value in weights.items())
    if launched_by == "eager":
        assert len(state) == len(state_again)
        assert all(torch.equal(*pair) for pair in zip(state, state_again, strict=True))
    else:  # in place, for a graph keeps the addresses: NAdam's product starts at one, all else at zero
        assert all(torch.all(value == 0) or torch.all(value == 1) for value in state_again)
        assert any(torch.all(value == 1) for value in state_again) is (rule == "nadam")
    assert any(not torch.equal(value, end[name]) for name, value in weights.items()), "it trained after that"


class Clock:
    """A clock that moves only when it is told to; work on a GPU is waited for when someone synchronises."""

    def __init__(self):
        self.now = self.pending = 0.0

    def perf_counter(self):
        return self.now

    def wait(self):
        self.now += self.pending
        self.pending = 0.0


@pytest.fixture
def clock(monkeypatch):
    """The clock of the study."""
    clock = Clock()
    monkeypatch.setattr(study_module, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


@pytest.mark.parametrize("drop_last", [False, True])
def test_the_clock_runs_while_training_and_only_then(study, clock, drop_last):
    """A step takes 11 s and a part of the evaluation 1,000 s: 3 or 2 steps an epoch are 33 or 22 s."""
    one = study(dice_data())
    one.model.register_forward_hook(
        lambda model, *_: setattr(clock, "now", clock.now + (1 if model.training else 1000))
    )
    one.step.optimizer.register_step_post_hook(lambda *_: setattr(clock, "now", clock.now + 10))
    records, outcome = ended(one.run(3, drop_last))
    epoch_s = 22 if drop_last else 33
    assert [record["train_seconds"] for record in records] == [epoch_s] * 3
    assert outcome["wall_s"] == 3 * epoch_s


@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_the_clock_waits_for_the_gpu(study, clock, monkeypatch):
    """Steps that a GPU has still to do when they are launched are on the clock of their own epoch."""
    one = study(dice_data())
    one.on_gpu = True
    monkeypatch.setattr(torch.cuda, "synchronize", clock.wait)

    def launched(model, *_):
        if model.training:
            clock.pending += 1
        else:  # which reads its answer, so it waits
            clock.wait()
            clock.now += 1000

    one.model.register_forward_hook(launched)
    records, outcome = ended(one.run(2))
    assert [record["train_seconds"] for record in records] == [3, 3]
    assert outcome["wall_s"] == 6


@pytest.mark.parametrize(
    ("schedule", "drop_last", "factors"),
    [
        ("constant", False, [1, 1, 1, 1, 1, 1]),
        # half of one plus the cosine of 0, 30, 60, 90, 120 and 150 degrees
        ("cosine", False, [1, 0.9330127, 0.75, 0.5, 0.25, 0.0669873]),
        # of 0, 45, 90 and 135 degrees
        ("cosine", True, [1, 0.8535534, 0.5, 0.1464466]),
    ],
)
def test_rate_of_each_step(study, schedule, drop_last, factors):
    """The optimizer takes each step of two epochs at the rate that the schedule's formula gives."""
    one = study(dice_data(), schedule=schedule)
    rates = []
    one.step.optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.append(float(optimizer.param_groups[0]["lr"]))
    )
    ended(one.run(2, drop_last))
    warm_up, taken = rates[: -len(factors)], rates[-len(factors) :]
    assert taken == pytest.approx([RATE * factor for factor in factors], rel=1e-6)
    # one that moves is rounded as fused kernels read it, one that does not is as it was asked for
    assert taken[0] == (RATE if schedule == "constant" else float(np.float32(RATE)))
    assert set(warm_up) == {taken[0]}


def test_single_steps_are_those_of_an_epoch(study):
    """The losses of single steps average to the loss of the epoch, and end near no rate under a cosine."""
    data = dice_data()
    rates = []
    one = study(data, schedule="cosine", exact=True)
    one.step.optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.append(float(optimizer.param_groups[0]["lr"]))
    )
    losses = one.losses()["losses"]
    ((expected, _, _),) = by_hand(data, "sgd", epochs=1, schedule="cosine")
    assert (8 * losses[0] + 8 * losses[1] + 4 * losses[2]) / 20 == pytest.approx(expected, rel=AGREE)
    assert rates[-3:] == pytest.approx([RATE, 0.75 * RATE, 0.25 * RATE], rel=1e-6)


@pytest.mark.parametrize("launched_by", ["eager", "graph"])
@pytest.mark.parametrize(("rule", "counted"), [("adam", 3), ("sgd", None)])
def test_single_steps_are_counted(study, uncaptured_graphs, launched_by, rule, counted):
    """What a batch norm and an optimizer count is the three steps of an epoch, without the warm-up."""
    said = study(dice_data(), rule, engine=launched_by).losses()
    assert set(said) == {"losses", "norm_steps", "optimizer_steps"}
    assert len(said["losses"]) == 3
    assert (said["norm_steps"], said["optimizer_steps"]) == (3, counted)


def test_phases_are_named_as_they_begin(study, monkeypatch):
    """What runs out of memory or hangs is said by its phase: build, warm-up, each epoch, single steps."""
    phases = []
    monkeypatch.setattr(study_module, "enter_phase", phases.append)
    ended(study(dice_data()).run(2))
    assert phases == ["build", "warm-up", "epoch 1", "epoch 2"]
    study(dice_data()).losses()
    assert phases[4:] == ["build", "epoch of single steps"]


def test_flat_images_are_not_blown_up(study):
    """Where pixels differ by less than one step of 255, the deviation counts as one step."""
    data = dice_data(flat=True)
    (expected,) = by_hand(data, "sgd", epochs=1)
    torch.set_default_dtype(torch.float32)
    (record,), _ = ended(study(data, exact=True).run(1))
    assert record["train_loss"] == pytest.approx(expected[0], rel=AGREE)


def test_what_is_captured(study, uncaptured_graphs):
    """A captured engine warms up and captures a step of each size of batch; an eager one captures none."""
    warmed, captures = uncaptured_graphs
    ended(study(dice_data(), engine="graph").run(1))
    assert (warmed, len(captures)) == ([True, True], 2)
    ended(study(dice_data(train=16), engine="graph").run(1))
    assert (warmed, len(captures)) == ([True] * 3, 3)
    ended(study(dice_data()).run(1))
    assert (warmed[3:], len(captures)) == ([False, False], 3)


def test_a_prebuilt_model_trains_as_one_that_is_built(study, monkeypatch):
    """Built from the seed of the run it is taken, with the same figures to the bit; from another not."""
    monkeypatch.setattr(models, "PREBUILT", {})
    sizes = {"num_classes": CLASSES, "image_size": 8}
    built = [one | {"train_seconds": 0} for one in ended(study(dice_data()).run(2))[0]]
    for seed, is_taken in ((SEED + 1, False), (SEED, True)):
        models.prebuild(STAND_IN, **sizes, seed=seed)
        trained = study(dice_data())
        assert (trained.model is models.PREBUILT[STAND_IN, CLASSES, 8].model) == is_taken
        assert [one | {"train_seconds": 0} for one in ended(trained.run(2))[0]] == built


def test_only_exact_runs_are_in_fp64(study):
    """A training run computes in fp32; the losses that engines are held by are in fp64."""
    assert study(dice_data(), exact=True).model.state_dict()["0.weight"].dtype == torch.float64
    torch.set_default_dtype(torch.float32)
    plain = Study(study(dice_data()).request, dice_data(), RATE, "constant")
    assert {one.dtype for one in plain.model.parameters()} == {torch.float32}
