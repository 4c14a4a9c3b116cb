"""What is kept for backward, by module: predicted on meta tensors, measured from made-up events."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from stepcost.activations import (
    LOSS,
    ModuleActivations,
    Owner,
    alike_together,
    by_module,
    print_activations,
    watched,
)
from stepcost.allocator.history import History, HistoryUnavailable
from stepcost.catalog.cards import CARDS
from stepcost.measuring import activations as measured
from stepcost.predicting.prediction import predict_in_full
from stepcost.request import Request
from tests.command import predict

MIB = 2**20
CONV, BN = Owner("conv", "Conv2d"), Owner("bn", "BatchNorm2d")


def recorded(activation_bytes: int) -> History:
    """One step: 3 MiB kept and 2 MiB of scratch, then 4 MiB kept, then a loss; backward makes 1 MiB."""
    base = 1 << 30
    events = [
        ("segment_alloc", base, 20 * MIB),
        ("alloc", base, 3 * MIB),
        ("alloc", base + 3 * MIB, 2 * MIB),
        ("free", base + 3 * MIB, 2 * MIB),
        ("alloc", base + 3 * MIB, 4 * MIB),
        ("segment_alloc", 2 * base, 2 * MIB),
        ("alloc", 2 * base, 4),
        ("alloc", 2 * base + 512, MIB),
    ]
    peak = 8 * MIB + 512
    about = {"peak_allocated_bytes": peak, "activation_bytes": activation_bytes}
    return History(segments=[], events=events, marks=[("forward", 7)], about=about)


CHANGES = [(0, LOSS), (0, Owner("(model)", "Net")), (0, CONV), (2, BN), (3, LOSS), (5, LOSS)]


def test_recorded_allocations_belong_to_the_innermost_running_module() -> None:
    """Between two changes everything is the first one's; what died in forward or came later is nobody's."""
    assert measured.kept_by_module(recorded(7 * MIB + 512), CHANGES) == [
        ModuleActivations(module="bn", class_name="BatchNorm2d", bytes=4 * MIB),
        ModuleActivations(module="conv", class_name="Conv2d", bytes=3 * MIB),
        ModuleActivations(module="(loss)", class_name="cross_entropy", bytes=512),
    ]


def test_a_sum_that_the_allocator_did_not_count_is_refused() -> None:
    """Where the modules do not add up to the allocator's own counter there is no table."""
    with pytest.raises(HistoryUnavailable, match="the allocator counted 512"):
        measured.kept_by_module(recorded(512), CHANGES)


def test_a_recording_that_lacks_allocations_is_refused() -> None:
    """Where the allocator counted more than were recorded there is no table."""
    with pytest.raises(HistoryUnavailable, match="5 allocations are recorded, the allocator counted 6"):
        measured.kept_by_module(recorded(7 * MIB + 512), [*CHANGES, (6, LOSS)])


def test_modules_that_differ_in_numbers_stand_together() -> None:
    """Two layers' same part is one line of both their bytes, of two classes two; one alone keeps its path."""
    parts = [("0.fc1", "Linear", 5), ("0.fc2", "Linear", 1), ("1.fc1", "Linear", 6), ("1.fc2", "Fused", 9)]
    found = [
        ModuleActivations(module=f"layers.{path}", class_name=name, bytes=size) for path, name, size in parts
    ]
    assert [(one.module, one.class_name, one.modules, one.kept_bytes) for one in alike_together(found)] == [
        ("layers.*.fc1", "Linear", 2, 11),
        ("layers.1.fc2", "Fused", 1, 9),
        ("layers.0.fc2", "Linear", 1, 1),
    ]


def test_the_innermost_module_is_known_at_every_moment() -> None:
    """Entering and leaving forwards, nested and shared, gives the owner in turn; the hooks are gone after."""
    inner = nn.ReLU()
    model = nn.Sequential(nn.Sequential(inner), inner)
    seen: list[str] = []
    with watched(model, lambda owner: seen.append(owner.module)):
        model(torch.zeros(1))
    nested = ["(model)", "0", "0.0", "0", "(model)"]
    assert seen == ["(loss)", *nested, "0.0", "(model)", "(loss)"]
    model(torch.zeros(1))
    assert len(seen) == 9


def test_sums_come_most_first() -> None:
    """Storages of one module are added up."""
    assert [(one.module, one.bytes) for one in by_module([(BN, 1), (CONV, 2), (BN, 4)])] == [
        ("bn", 5),
        ("conv", 2),
    ]


@pytest.mark.parametrize("model", ["small-cnn", "resnet18", "mobilenet_v2", "vit_b_16", "swin_t"])
@pytest.mark.parametrize("card", [None, "h100-80gb"])
def test_predicted_modules_add_up_to_the_activation_bytes(model: str, card: str | None) -> None:
    """Nothing that forward leaves is without a module, and nothing is counted twice."""
    request = Request(model=model, optimizer="adam", batch_size=2, image_size=224)
    prediction = predict_in_full(request, None if card is None else CARDS[card])
    reading, found = prediction.reading, prediction.kept
    assert sum(one.bytes for one in found) == reading.activation_bytes
    assert sum(one.kept_bytes for one in reading.kept_by_modules or ()) == reading.activation_bytes
    assert len({one.module for one in found}) == len(found) > 3


def test_a_layer_keeps_its_output() -> None:
    """ResNet-18's first convolution leaves its output, its batch norm another and two rows of statistics."""
    request = Request(model="resnet18", optimizer="sgd", batch_size=2, image_size=224)
    found = {one.module: one for one in predict_in_full(request).kept}
    assert found["conv1"] == ModuleActivations(module="conv1", class_name="Conv2d", bytes=2 * 64 * 112**2 * 4)
    assert found["bn1"].bytes == 2 * 64 * 112**2 * 4 + 2 * 512
    assert "relu" not in found
    assert "maxpool" in found


def test_what_does_not_fit_has_no_modules() -> None:
    """A step that runs out of memory keeps nothing that could be shown."""
    request = Request(model="small-cnn", optimizer="sgd", batch_size=4_000_000)
    assert predict_in_full(request, CARDS["t4"]).kept == []
    assert predict_in_full(replace(request, batch_size=4), CARDS["t4"]).kept


@pytest.mark.parametrize(
    ("paths", "kinds"),
    [
        (["h.0.fc1", "h.11.fc1", "h.0.fc2"], {"h.*.fc1", "h.0.fc2"}),
        (["layers.layer_0.mlp", "layers.layer_10.mlp"], {"layers.layer_*.mlp"}),
        (["fc1", "fc2", "conv2d", "block3.a1"], {"fc1", "fc2", "conv2d", "block3.a1"}),
    ],
)
def test_a_number_of_its_own_tells_alike_modules_apart(paths: list[str], kinds: set[str]) -> None:
    """A part of a path that is a number, or ends in one after an underscore; not a digit of a name."""
    found = by_module((Owner(path, "Linear"), 8) for path in paths)
    assert {one.module for one in alike_together(found)} == kinds


def test_the_command_lists_modules_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    """In JSON all of them, which add up; without the flag nothing of them."""
    arguments = ["resnet18", "--batch-size", "2", "--json"]
    predict([*arguments, "--activations"])
    answer = json.loads(capsys.readouterr().out)
    assert sum(one["kept_bytes"] for one in answer["activations_by_module"]) == answer["activation_bytes"]
    assert answer["activations_by_module"][0].keys() == {"module", "class", "kept_bytes"}
    predict(arguments)
    assert "activations_by_module" not in json.loads(capsys.readouterr().out)


def test_the_table_shows_ten_kinds_and_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    """Thirteen kinds are ten rows, one row for the others, and the sum; alike modules are one kind."""
    alike = [(Owner(f"layers.{n}.fc", "Linear"), 10 * 10**6) for n in range(3)]
    others = [(Owner(f"m{n}", "Conv2d"), (20 - n) * 10**6) for n in range(12)]
    print_activations(by_module([*alike, *others]), "predicted")
    out = " ".join(capsys.readouterr().out.split())
    assert "layers.*.fc x 3 │ Linear │ 30.000 │ 14.7 %" in out
    assert "m8 │ Conv2d │ 12.000" in out
    assert "m9 " not in out
    assert "the other 3 kinds │ │ 30.000" in out  # 11, 10 and 9
    assert "sum │ │ 204.000" in out
    assert "predicted" in out
    assert "10**6" in out
