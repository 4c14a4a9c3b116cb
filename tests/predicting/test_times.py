"""Seconds of captured steps without a GPU, against steps that an H100 took."""

from __future__ import annotations

import pytest

from stepcost.catalog.cards import find_card
from stepcost.predicting.times import RECORDED, predict_time
from stepcost.request import step_named

H100 = find_card("h100-80gb")
RESNET18_GRAPH_S, VGG19_FAST_S = 14.174e-3, 25.466e-3
"""Medians of replays on one H100 with torch 2.11; the VGG-19 contributed nothing to the table."""


@pytest.mark.parametrize(
    ("step", "measured_s", "recorded_share"),
    [("resnet18:sgd:64:224:graph", RESNET18_GRAPH_S, 0.99), ("vgg19:sgd:32:224:fast", VGG19_FAST_S, 0.9)],
)
def test_step_of_recorded_shapes_is_within_its_interval(step, measured_s, recorded_share):
    """Where its operators were recorded with their shapes, a step is predicted within 4 %."""
    found = predict_time(step_named(step), H100)
    assert found.step_s == pytest.approx(measured_s, rel=0.04)
    assert found.low_s <= measured_s <= found.high_s
    assert found.high_s < 1.1 * found.low_s
    assert found.basis == RECORDED and found.recorded_share >= recorded_share


def test_contributors_add_up_to_the_step_less_what_lies_between():
    """By operator and by module the same seconds are listed, the largest first, the optimizer's own."""
    found = predict_time(step_named("resnet18:adam:64:224:fast"), H100)
    by_operator, by_module = (
        sum(one.seconds for one in each) for each in (found.contributors, found.modules)
    )
    assert by_operator == pytest.approx(by_module)
    assert 0.95 * found.step_s < by_operator < found.step_s
    assert found.contributors[0].name == "convolution_backward"
    modules = {one.name: one for one in found.modules}
    assert modules["layer1.0.conv2"].seconds > modules["layer4.1.bn2"].seconds
    assert modules["(optimizer)"].seconds > 4 * 11.7e6 * 4 / 3.4e12  # reads at least four tensors


def test_without_cudnn_the_answer_says_so_where_it_matters():
    """Shapes that were recorded need none; of others it is said that none was asked, and it is less sure."""
    assert predict_time(step_named("resnet18:sgd:64:224:graph"), H100).unasked is None
    found = predict_time(step_named("resnet18:sgd:80:224:graph"), H100)
    assert found.unasked is not None and found.unasked.startswith("cuDNN 9.19")
    assert found.high_s > 1.15 * found.step_s


@pytest.mark.parametrize(
    ("step", "card", "why"),
    [
        ("resnet18:sgd:64:32:eager", "h100-80gb", "the processor's"),
        ("resnet18:sgd:64:32:fast-compiled", "h100-80gb", "no kernels were recorded"),
        ("resnet18:sgd:64:32:fast", "l4", "no operators' times were recorded on NVIDIA L4"),
    ],
)
def test_what_cannot_be_said_says_why(step, card, why):
    """An engine or a card of which nothing is known is refused in one line."""
    with pytest.raises(ValueError, match=why) as refused:
        predict_time(step_named(step), find_card(card))
    assert "\n" not in str(refused.value)
