"""A model that cannot be built is one line that says why."""

import pytest

from stepcost.catalog.models import build_model


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
