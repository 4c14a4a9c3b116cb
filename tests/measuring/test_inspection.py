"""What the inspection says at the start: which GPU, and why a model of the user's own cannot be trained."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from stepcost.measuring import inspection
from stepcost.measuring.inspection import Inspection
from stepcost.request import Request

CLASSES, SIZE = 10, 8
PIXELS = 3 * SIZE * SIZE
ASKED = Request(
    model="mine:build",
    optimizer="sgd",
    batch_size=4,
    num_classes=CLASSES,
    image_size=SIZE,
    device="cpu",
)


class Model(nn.Module):
    """A linear classifier whose answer goes through ``change``."""

    def __init__(self, change=lambda logits: logits, classes=CLASSES, pixels=PIXELS, trains=True):
        super().__init__()
        self.change = change
        self.head = nn.Linear(pixels, classes).requires_grad_(trains)

    def forward(self, images):
        return self.change(self.head(images.flatten(1)))


def inspected(monkeypatch, model):
    """Inspect a model of the user's own on the CPU; returns the inspection and what it counted."""
    mine = ModuleType("mine")
    mine.build = lambda num_classes: model
    monkeypatch.setitem(sys.modules, "mine", mine)
    inspection = Inspection()
    return inspection, inspection.model(ASKED)


def try_model(monkeypatch, model):
    """Try a model of the user's own on the CPU."""
    inspected(monkeypatch, model)[0].try_model(ASKED)


def test_frozen_parameters_are_counted_and_told_apart(monkeypatch):
    """A frozen backbone is part of the model's size, and not of what is trained."""
    mine = Model(trains=False)
    mine.second = nn.Linear(4, 2)
    _, info = inspected(monkeypatch, mine)
    frozen, trainable = PIXELS * CLASSES + CLASSES, 4 * 2 + 2
    assert (info.parameters, info.trainable_parameters) == (frozen + trainable, trainable)
    assert info.frozen_parameters == frozen
    assert (info.parameter_bytes, info.trainable_parameter_bytes) == (4 * (frozen + trainable), 4 * trainable)


def leaves(logits):
    """A model that ends its process."""
    sys.exit(3)


def test_model_that_ends_its_process_is_one_line(monkeypatch):
    """``sys.exit`` in a forward pass is a fault of the model, said in one line."""
    with pytest.raises(ValueError, match=r"^model 'mine:build' cannot take .*: sys\.exit\(3\) was called$"):
        try_model(monkeypatch, Model(leaves))


def runs_out_of_memory(logits):
    """What torch raises where a GPU is full."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


@pytest.mark.parametrize(
    "change", [lambda logits: logits, lambda logits: SimpleNamespace(logits=logits), runs_out_of_memory]
)
def test_model_that_trains_is_taken(monkeypatch, change):
    """Logits, alone or next to other heads, are what is asked for; out of memory is left to the rows."""
    try_model(monkeypatch, Model(change))


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (Model(trains=False), "has no trainable parameters: there is nothing to train"),
        (nn.Identity(), "has no trainable parameters: there is nothing to train"),
        (Model(pixels=5), r"cannot take 2 images of 8x8: RuntimeError: [^\n]*"),
        (
            Model(classes=7),
            r"gives float32 of shape \(2, 7\) for 2 images of 8x8; it takes logits of shape \(2, 10\), .*",
        ),
        (Model(lambda logits: logits.mean()), r"gives float32 of shape \(\) for [^\n]*"),
        (Model(lambda logits: logits.long()), r"gives int64 of shape \(2, 10\) for [^\n]*"),
        (Model(lambda logits: (logits,)), r"gives a tuple for 2 images of 8x8; [^\n]*"),
        (Model(lambda logits: {"logits": logits}), r"gives a dict for 2 images of 8x8; [^\n]*"),
        (Model(lambda logits: logits.detach()), "gives logits that no trainable parameter takes part in"),
    ],
)
def test_model_that_cannot_be_trained_is_one_line(monkeypatch, model, line):
    """Nothing to train, a forward pass that fails, and an answer that is not (N, classes) are told apart."""
    with pytest.raises(ValueError, match=rf"^model 'mine:build' {line}$"):
        try_model(monkeypatch, model)


@pytest.fixture
def two_gpus(monkeypatch):
    """Two GPUs of 80 and 90 GB of memory; NVML knows the second, and 1 GB more of it."""
    driver = SimpleNamespace(
        memory=lambda: {"total_bytes": 91 * 10**9, "reserved_bytes": 10**9},
        driver=lambda: "580.1",
        clocks=lambda: {"sm_mhz": 1980},
        neighbours=list,
    )
    known = {"one": (driver, None), "zero": (None, "NVML: refused")}
    monkeypatch.setattr(inspection.nvml, "open_gpu", known.__getitem__)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", "card {}".format)

    def properties(index):
        size = (80 + 10 * index) * 10**9
        return SimpleNamespace(
            name=f"card {index}", uuid=("zero", "one")[index], major=9, minor=index, total_memory=size
        )

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_the_first_gpu_unless_another_is_named(two_gpus, device):
    """Its memory is torch's; what NVML would tell is unknown where it refuses, and a note says why."""
    found = Inspection().machine(device)
    assert (found.device, found.gpu, found.compute_capability) == ("cuda:0", "card 0", "9.0")
    assert (found.gpu_total_bytes, found.gpu_nvml_total_bytes, found.driver) == (80 * 10**9, None, None)
    assert found.notes == ("NVML: refused: totals, process and context bytes cannot be read",)


def test_a_gpu_by_its_number(two_gpus):
    """The second GPU is told by all that torch and NVML say of it; a third is refused with what is there."""
    found = Inspection().machine("cuda:1")
    assert (found.device, found.gpu, found.compute_capability) == ("cuda:1", "card 1", "9.1")
    assert (found.gpu_total_bytes, found.gpu_nvml_total_bytes) == (90 * 10**9, 91 * 10**9)
    assert (found.gpu_nvml_reserved_bytes, found.driver, found.notes) == (10**9, "580.1", ())
    assert (found.clocks, found.neighbours, found.why_no_gpu) == ({"sm_mhz": 1980}, (), None)
    with pytest.raises(ValueError, match=r"^--device cuda:2: no such GPU; .* cuda:0 \(card 0\), cuda:1 "):
        Inspection().machine("cuda:2")
