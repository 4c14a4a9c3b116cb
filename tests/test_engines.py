"""The engines: what a row of the catalog does to a step, on the CPU as far as it goes."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fixtures.catalog.datasets import Dataset
from fixtures.catalog.engines import ENGINES, UNCOMPILED_BY_SPEED
from fixtures.catalog.models import STAND_IN, build_model
from fixtures.catalog.optimizers import OPTIMIZERS
from fixtures.catalog.schedules import SCHEDULES
from fixtures.measure import launch
from fixtures.measure.profiling import covered
from fixtures.measure.request import Request
from fixtures.measure.study import Study

RATE = 1e-6
"""So small that what a step changes does not multiply, and far above rounding in fp64."""
AGREE = 1e-9
"""As ``benchmarks/test_engines.py`` asserts it."""


@pytest.fixture
def step_on(monkeypatch):
    """``step_on(**traits)``: the step of an uncaptured engine with these traits, and a batch for it."""

    def build(optimizer="sgd", **traits):
        plain = ENGINES["eager"]
        monkeypatch.setitem(ENGINES, "tried", dataclasses.replace(plain, name="tried", **traits))
        torch.manual_seed(0)
        request = Request(model=STAND_IN, optimizer=optimizer, batch_size=8, engine="tried", device="cpu")
        model = build_model(STAND_IN, num_classes=10, image_size=32).train()
        images = launch.arranged(torch.randn(8, 3, 32, 32), "tried")
        return launch.build_step(request, model), images, torch.arange(8)

    return build


def test_catalog_rows_are_keyed_by_name_and_differ():
    """Every engine is under its own name, and no two rows ask for the same."""
    assert all(name == row.name for name, row in ENGINES.items())
    traits = [dataclasses.astuple(dataclasses.replace(e, name="", description="")) for e in ENGINES.values()]
    assert len(set(traits)) == len(ENGINES)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_has_an_engine(name):
    """The study finds an engine for every optimizer; what cannot run it names one that can."""
    assert any(ENGINES[engine].why_not(name) is None for engine in UNCOMPILED_BY_SPEED)
    for engine in ENGINES.values():
        why_not = engine.why_not(name)
        if why_not:
            assert ENGINES[why_not.rpartition("--engine ")[2]].why_not(name) is None


def test_channels_last_changes_layout_and_not_the_loss(step_on):
    """Channels last reorders weights and images in memory and gives the plain loss."""
    plain, images, labels = step_on()
    expected, _ = plain(images, labels)
    step, images, labels = step_on(channels_last=True)
    weight = next(p for p in step.model.parameters() if p.dim() == 4 and p.shape[1] > 3)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(step(images, labels)[0], expected, rtol=1e-5)


def test_bf16_keeps_weights_and_loss_in_fp32(step_on):
    """Under autocast the arithmetic is bfloat16; weights, logits and loss are fp32."""
    plain, images, labels = step_on()
    expected, _ = plain(images, labels)
    step, images, labels = step_on(precision="bf16")
    loss, logits = step(images, labels)
    assert {loss.dtype, logits.dtype} | {p.dtype for p in step.model.parameters()} == {torch.float32}
    assert loss != expected
    assert torch.allclose(loss, expected, rtol=0.05)


def test_autotuning_is_set_and_unset(step_on):
    """An engine leaves no setting behind for the next one in the process."""
    step_on(autotuned=True)
    assert torch.backends.cudnn.benchmark
    step_on()
    assert not torch.backends.cudnn.benchmark


def test_rate_is_changed_in_place_where_it_is_a_tensor():
    """A captured step reads its rate from a tensor, which must stay the same one."""
    parameter = torch.nn.Parameter(torch.ones(1))
    rate = torch.tensor(0.5)
    captured = torch.optim.Adam([parameter], lr=rate, capturable=False)
    launch.set_learning_rate(captured, 0.25)
    assert captured.param_groups[0]["lr"] is rate
    assert rate == 0.25
    plain = torch.optim.SGD([parameter], lr=0.5)
    launch.set_learning_rate(plain, 0.25)
    assert plain.param_groups[0]["lr"] == 0.25


def test_cosine_is_torchs():
    """The cosine schedule gives the rates of torch's own."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for step in range(20):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * SCHEDULES["cosine"](step / 20))
        optimizer.step()
        torchs.step()


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20))))
def test_busy_time_is_the_union(spans):
    """Busy time counts every moment once, however the kernels overlap."""
    spans = sorted((start, start + length) for start, length in spans)
    moments = {moment for start, end in spans for moment in range(start, end)}
    assert covered(spans) == len(moments)


def losses_on(engine, optimizer="sgd", *, schedule="cosine", exact=True):
    """What ``Study.losses`` reads of the small network on that engine: 20 images in batches of 8."""
    dice = np.random.default_rng(0)
    images = dice.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    labels = dice.integers(0, 10, 20, dtype=np.uint8)
    data = Dataset(
        name="tried",
        source="dice",
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
    )
    request = Request(model=STAND_IN, optimizer=optimizer, batch_size=8, engine=engine, device="cpu")
    try:
        return Study(request, data, RATE, schedule, exact).losses()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_losses_agree_in_fp64(monkeypatch, name):
    """Engines that add in another order agree in fp64, and count every step, the partial one included."""
    monkeypatch.setitem(ENGINES, "tried", dataclasses.replace(ENGINES["eager"], channels_last=True))
    plain, other = losses_on("eager", name), losses_on("tried", name)
    assert plain["losses"] == pytest.approx(other["losses"], rel=AGREE)
    assert len(other["losses"]) == other["norm_steps"] == 3
    assert other["optimizer_steps"] == (3 if name == "adam" else None)


def test_losses_show_a_wrong_rate_and_fp32():
    """The same comparison shows a rate that was not changed between steps, and tells fp32 from fp64."""
    right = losses_on("eager")["losses"]
    assert losses_on("eager", schedule="constant")["losses"] != pytest.approx(right, rel=AGREE)
    assert losses_on("eager", exact=False)["losses"] != pytest.approx(right, rel=AGREE)
