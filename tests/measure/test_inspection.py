"""A model of the user's own that cannot be trained: one line at the start, from the inspection."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from stepcost.measure.inspection import Inspection

CLASSES, SIZE = 10, 8
PIXELS = 3 * SIZE * SIZE


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
    return inspection, inspection.model("mine:build", CLASSES, SIZE)


def try_model(monkeypatch, model):
    """Try a model of the user's own on the CPU."""
    inspected(monkeypatch, model)[0].try_model("mine:build", CLASSES, SIZE, "cpu")


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
