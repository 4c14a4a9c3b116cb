"""What a model and its step keep, counted from the tensors."""

import pytest

from stepcost.catalog.models import build_named
from stepcost.prepare import prepare
from stepcost.request import Request
from stepcost.tensors import checkpointed_modules


def test_checkpointed_modules_are_counted_by_their_path():
    """Blocks that are computed again are counted under one path, and nothing is without checkpointing."""
    asked = Request(model="resnet18", optimizer="sgd", batch_size=2, device="cpu", checkpoint="BasicBlock")
    model = prepare(build_named("resnet18", num_classes=10, image_size=32), asked)
    assert checkpointed_modules(model) == {f"layer{number}.*": 2 for number in (1, 2, 3, 4)}
    assert checkpointed_modules(build_named("resnet18", num_classes=10, image_size=32)) == {}


def test_layers_that_transformers_checkpoints_are_counted():
    """Of a language model the layers are counted, and not the model that has the same mark."""
    pytest.importorskip("transformers", reason="language models are transformers'")
    model = build_named("gpt2", num_classes=None, image_size=None)
    assert checkpointed_modules(model) == {}
    asked = Request(
        model="gpt2", optimizer="sgd", batch_size=2, image_size=None, num_classes=None, checkpoint="blocks"
    )
    assert checkpointed_modules(prepare(model, asked)) == {"transformer.h.*": 12}
