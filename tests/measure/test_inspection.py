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


def try_model(monkeypatch, model):
    """Inspect a model of the user's own on the CPU."""
    mine = ModuleType("mine")
    mine.build = lambda num_classes: model
    monkeypatch.setitem(sys.modules, "mine", mine)
    inspection = Inspection()
    inspection.model("mine:build", CLASSES, SIZE)
    inspection.try_model("mine:build", CLASSES, SIZE, "cpu")


def runs_out_of_memory(logits):
    """What torch raises where a GPU is full."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


@pytest.mark.parametrize(
    "change", [lambda logits: logits, lambda logits: SimpleNamespace(logits=logits), runs_out_of_memory]
)
def test_model_that_trains_is_taken(monkeypatch, change):
    """Logits, alone or beside other heads, are what is asked for; out of memory is left to the rows."""
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
