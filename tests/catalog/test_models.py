"""A model that cannot be built is one line that says why."""

import pytest
import torch

from stepcost.catalog import models
from stepcost.catalog.models import build_model, is_prebuilt, prebuild, prebuilt_model

SIZES = {"num_classes": 10, "image_size": 32}


@pytest.fixture
def no_model_is_prebuilt(monkeypatch):
    """In this process, as in one that no server forked, no model is there before it is asked for."""
    monkeypatch.setattr(models, "PREBUILT", {})


@pytest.mark.usefixtures("no_model_is_prebuilt")
def test_a_prebuilt_model_is_what_its_seed_gives():
    """Weights, and what torch draws after them, are the same whether a server built the model or not."""

    def seeded():
        torch.manual_seed(3)
        model = prebuilt_model("squeezenet1_1", **SIZES)
        return model, torch.cat([one.flatten() for one in model.state_dict().values()]), torch.rand(3)

    built, weights, drawn = seeded()
    prebuild("squeezenet1_1", **SIZES, seed=3)
    torch.rand(7)
    taken, same_weights, same_drawn = seeded()
    assert taken is prebuilt_model("squeezenet1_1", **SIZES) is not built
    assert torch.equal(weights, same_weights)
    assert torch.equal(drawn, same_drawn)


@pytest.mark.usefixtures("no_model_is_prebuilt")
def test_a_prebuilt_model_is_of_one_seed():
    """Of another seed, size or type of numbers it is another model, and before it is built there is none."""
    assert not is_prebuilt("small-cnn", **SIZES, seed=3)
    prebuild("small-cnn", **SIZES, seed=3)
    assert is_prebuilt("small-cnn", **SIZES, seed=3)
    assert not is_prebuilt("small-cnn", **SIZES, seed=4)
    assert not is_prebuilt("small-cnn", num_classes=4, image_size=32, seed=3)
    torch.set_default_dtype(torch.float64)
    try:
        assert not is_prebuilt("small-cnn", **SIZES, seed=3)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet512", "unknown model 'resnet512': did you mean resnet152"),
        ("mine:none", "model 'mine:none' cannot be imported: No module named 'mine'"),
        ("os:none", "model 'os:none' cannot be imported: module 'os' has no attribute 'none'"),
        ("os:getcwd", "model 'os:getcwd': called with num_classes=10, it raised TypeError"),
        ("builtins:dict", "model 'builtins:dict' returned dict, not a torch.nn.Module"),
        (
            "vit_b_16",
            "model 'vit_b_16' cannot be built for 30x30 images: Input shape indivisible by patch size!",
        ),
    ],
)
def test_what_cannot_be_built_is_one_line(name, said):
    """The name, and what is wrong with it."""
    with pytest.raises(ValueError, match=r"\A.*\Z") as caught:
        build_model(name, num_classes=10, image_size=30)
    assert str(caught.value).startswith(said)
