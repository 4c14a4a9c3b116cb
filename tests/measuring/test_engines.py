"""The engines: what a row of the catalog does to a step, on the CPU as far as it goes."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from stepcost.catalog.datasets import Dataset
from stepcost.catalog.engines import ENGINES, UNCOMPILED_BY_SPEED
from stepcost.catalog.models import STAND_IN, build_model
from stepcost.catalog.optimizers import OPTIMIZERS
from stepcost.catalog.schedules import SCHEDULES
from stepcost.measuring import launch
from stepcost.measuring.engine_step import least_bytes
from stepcost.measuring.limits import Limits
from stepcost.measuring.measurements import least_s
from stepcost.measuring.profiling import covered, events_on, summed
from stepcost.measuring.study import Study
from stepcost.prepare import memory_format
from stepcost.request import Request

RATE = 1e-6
"""So small that what a step changes does not multiply, and far above rounding in fp64."""
AGREE = 1e-9
"""As ``benchmarks/test_engines.py`` asserts it."""


@pytest.fixture(autouse=True)
def one_thread():
    """So small a network trains no faster on more threads, and far slower where others compute too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def step_on(monkeypatch):
    """``step_on(**traits)``: the step of an uncaptured engine with these traits, and a batch for it."""

    def build(optimizer="sgd", **traits):
        plain = ENGINES["eager"]
        monkeypatch.setitem(ENGINES, "tried", dataclasses.replace(plain, name="tried", **traits))
        torch.manual_seed(0)
        request = Request(model=STAND_IN, optimizer=optimizer, batch_size=8, engine="tried", device="cpu")
        model = build_model(STAND_IN, num_classes=10, image_size=32).train()
        images = torch.randn(8, 3, 32, 32).contiguous(memory_format=memory_format(request))
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
            other = why_not.rpartition("; ")[2].removesuffix(" can run it")
            assert ENGINES[other].why_not(name) is None


def test_channels_last_changes_layout_and_not_the_loss(step_on):
    """Channels last reorders weights and images in memory and gives the plain loss."""
    plain, images, labels = step_on()
    expected, _ = plain((images, labels))
    step, images, labels = step_on(channels_last=True)
    weight = next(p for p in step.model.parameters() if p.dim() == 4 and p.shape[1] > 3)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(step((images, labels))[0], expected, rtol=1e-5)


def test_bf16_keeps_weights_and_loss_in_fp32(step_on):
    """Under autocast the arithmetic is bfloat16; weights and loss are fp32."""
    plain, images, labels = step_on()
    expected, _ = plain((images, labels))
    step, images, labels = step_on(precision="bf16")
    loss, logits = step((images, labels))
    assert {loss.dtype} | {p.dtype for p in step.model.parameters()} == {torch.float32}
    assert logits.dtype == torch.bfloat16
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


def dice_data():
    """Twenty images of dice."""
    dice = np.random.default_rng(0)
    images = dice.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    labels = dice.integers(0, 10, 20, dtype=np.uint8)
    return Dataset(
        name="tried",
        source="dice",
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
    )


def losses_on(engine, optimizer="sgd", *, schedule="cosine", exact=True):
    """What ``Study.losses`` reads of the small network on that engine: 20 images in batches of 8."""
    request = Request(model=STAND_IN, optimizer=optimizer, batch_size=8, engine=engine, device="cpu")
    try:
        return Study(request, dice_data(), RATE, schedule, exact).losses()
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


@pytest.mark.parametrize(
    ("name", "rule", "scheduled", "fused"),
    [
        ("graph", "adam", False, False),
        ("graph", "adam", True, False),  # what is compared is what is timed
        ("graph", "sgd", False, False),
        ("graph", "sgd", True, True),  # foreach SGD cannot read a rate on the GPU under capture
        ("fast", "adam", False, True),
        ("eager", "sgd", True, False),
    ],
)
def test_only_a_row_that_says_so_is_fused(name, rule, scheduled, fused):
    """The optimizer is fused where the engine is, and for SGD under a schedule; nowhere else."""
    request = Request(model=STAND_IN, optimizer=rule, batch_size=8, engine=name, device="cpu")
    model = build_model(STAND_IN, num_classes=10, image_size=32)
    built = launch.build_step(request, model, scheduled=scheduled).optimizer
    assert bool(built.defaults["fused"]) is fused
    assert isinstance(built.param_groups[0]["lr"], torch.Tensor) is (scheduled and name != "eager")


def test_all_engines_have_the_same_rates_under_a_schedule():
    """A rate that fp32 cannot hold is the same number for a plain optimizer as for a captured one."""
    rates = []
    for engine in ("eager", "graph"):
        request = Request(model=STAND_IN, optimizer="sgd", batch_size=8, engine=engine, device="cpu")
        model = build_model(STAND_IN, num_classes=10, image_size=32)
        step = launch.build_step(request, model, learning_rate=0.1, scheduled=True)
        rates.append(float(step.optimizer.param_groups[0]["lr"]))
        launch.set_learning_rate(step.optimizer, 0.3)
        rates.append(float(step.optimizer.param_groups[0]["lr"]))
    assert rates[:2] == rates[2:]
    assert rates[0] != 0.1


def test_unknown_precision_is_refused(step_on):
    """An engine whose precision is not known is refused, never run in another one."""
    with pytest.raises(KeyError, match="fp8"):
        step_on(precision="fp8")


def test_profile_tells_kernels_from_transfers():
    """Copies between host and GPU are not busy time; the union of serial kernels is their sum, to the bit."""
    spans = [(0.1 * place, 0.1 * place + 0.07) for place in range(400)]
    events = [("kernel", start, end) for start, end in spans]
    figures = summed([*events, ("Memcpy HtoD (Pageable -> Device)", 50.0, 90.0)])
    assert figures["gpu_busy_s"] == pytest.approx(figures["kernel_s"], rel=1e-12)
    assert figures["kernel_s"] == pytest.approx(400 * 0.07e-6)
    assert figures["transfer_s"] == pytest.approx(40e-6)
    assert figures["kernels"] == 400


def test_profile_tells_communication_that_is_not_hidden():
    """NCCL runs from 5 to 9 and from 20 to 24; kernels from 0 to 7 and 23 to 30: 2 and 3 are not hidden."""
    nccl = [("ncclDevKernel_AllReduce_Sum_f32_RING_LL", 5.0, 9.0), ("ncclDevKernel_Generic", 20.0, 24.0)]
    figures = summed([("kernel", 0.0, 7.0), *nccl, ("kernel", 23.0, 30.0)])
    assert figures["communication_s"] == pytest.approx(8e-6)
    assert figures["exposed_communication_s"] == pytest.approx(5e-6)
    assert figures["gpu_busy_s"] == pytest.approx(19e-6)
    assert "communication_s" not in summed([("kernel", 0.0, 7.0)]), "one GPU has none"


def test_events_are_those_of_the_profiler():
    """Names and times are those that torch's own objects have, of one type of device alone."""
    model, images = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU()), torch.rand(4, 8)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        model(images)
    found = sorted(events_on("CPU", profiler))
    expected = [(one.name, one.time_range.start, one.time_range.end) for one in profiler.events()]
    assert found == sorted(expected)
    assert {"aten::addmm", "aten::relu"} <= {name for name, _, _ in found}
    assert list(events_on("CUDA", profiler)) == []


def test_operations_are_those_of_the_shapes():
    """Forward and backward of the small network: three products a convolution but the first, two of that."""
    sizes = ((3, 16, 16), (16, 32, 8), (32, 64, 4), (64, 64, 2))  # channels in and out, height after stride 2
    forward = [2 * inputs * outputs * 9 * side**2 for inputs, outputs, side in sizes] + [2 * 64 * 10]
    expected = 3 * sum(forward) - forward[0]  # the images need no gradient
    assert Limits().step_flops(Request(model=STAND_IN, optimizer="sgd", batch_size=8)) == expected


def test_groups_see_their_own_channels_alone(tmp_path, monkeypatch):
    """Each output of a convolution in 3 groups is of 9 products; 32x32 images need no gradient."""
    (tmp_path / "groups.py").write_text(
        "from torch import nn\n"
        "def build(num_classes):\n"
        "    last = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, num_classes)\n"
        "    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, groups=3), *last)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    expected = 2 * (2 * 6 * 9 * 32**2) + 3 * (2 * 6 * 10)
    assert Limits().step_flops(Request(model="groups:build", optimizer="sgd", batch_size=8)) == expected


def test_least_bytes_counts_every_pass():
    """Weights move four times, gradients, state and activations twice, images once."""
    assert least_bytes(weights=1000, state=0, kept=0, images=0) == 6000
    assert least_bytes(weights=0, state=100, kept=10, images=1) == 221


def test_least_seconds_are_the_slower_bound():
    """The larger of the two times bounds the step; where operations are not counted, bytes alone do."""
    rates = {"copy_bytes_per_s": 100.0, "matrix_flops_per_s": 1000.0}
    assert least_s(200, rates | {"step_flops": 5000}) == 5.0
    assert least_s(800, rates | {"step_flops": 5000}) == 8.0
    assert least_s(800, rates | {"step_flops": None}) == 8.0
