"""Live steps measured on a GPU, against what is predicted of them and what their tensors are."""

import copy
import subprocess
import sys
from functools import partial

import pytest
import torch

import stepcost
from experiments.own_steps import STEPS
from stepcost.catalog.cards import CARDS
from stepcost.predicting.torch_versions import installed_torch, version_of
from stepcost.predicting.validation import were_run

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("machine")]

measure = partial(stepcost.measure, optimizer="adamw", batch_size=64)
CLASSIFIES = ("perceptrons", "tied attention", "checkpointed attention")


@pytest.mark.parametrize("name", CLASSIFIES)
def test_the_prediction_is_the_reading(name):
    """Peaks, activations and modules of a live step, to the byte."""
    build, make_batch, loss = STEPS[name]
    measured = measure(build(), make_batch, loss)
    card = next((one for one in CARDS.values() if one.gpu == measured.gpu), None)
    if not were_run(card, version_of(installed_torch())):
        pytest.skip(f"no run was compared with {measured.gpu} and torch {installed_torch()}")
    predicted = stepcost.predict(build(), make_batch, loss, optimizer="adamw", batch_size=64, gpu=card.name)
    for figure in ("peak_allocated_bytes", "peak_reserved_bytes", "activation_bytes", "parameter_bytes"):
        assert getattr(measured, figure) == getattr(predicted, figure), figure
    assert measured.kept_by_modules == predicted.kept_by_modules


@pytest.mark.parametrize("rule", ["adamw-fused", "adafactor", "adamw-8bit", "muon"])
def test_optimizers_keep_what_was_predicted(rule):
    """State by shape, in 8 bits and by module: bytes and peak of a live step are those predicted."""
    if rule == "adamw-8bit":
        pytest.importorskip("bitsandbytes", reason="an extra: pip install 'stepcost[bitsandbytes]'")
    if rule == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("Muon came with torch 2.9")
    build, make_batch, loss = STEPS["tied attention"]
    asked = {"optimizer": rule, "batch_size": 64}
    measured = stepcost.measure(build(), make_batch, loss, **asked)
    card = next((one for one in CARDS.values() if one.gpu == measured.gpu), None)
    if not were_run(card, version_of(installed_torch())):
        pytest.skip(f"no run was compared with {measured.gpu} and torch {installed_torch()}")
    predicted = stepcost.predict(build(), make_batch, loss, gpu=card.name, **asked)
    for figure in ("optimizer_state_bytes", "optimizer_scalar_bytes", "peak_allocated_bytes"):
        assert getattr(measured.reading, figure) == getattr(predicted.reading, figure), figure


def test_what_is_measured_is_left_as_it_was():
    """A model on the GPU keeps its weights and its device, and gets no gradient; lambdas can be sent."""
    model = torch.nn.Linear(16, 8).cuda()
    before = copy.deepcopy(model.state_dict())
    cost = measure(model, lambda n: torch.randn(n, 16), lambda model, batch: model(batch).square().mean())
    assert (cost.source, cost.parameter_bytes, cost.optimizer_state_bytes) == ("measured", 544, 1088)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    assert all(p.grad is None for p in model.parameters())


def test_out_of_memory_is_an_answer():
    """A batch of a terabyte: the step does not fit, and a peak is not known."""
    cost = measure(
        torch.nn.Linear(16, 8),
        lambda n: torch.empty(1, 16),
        lambda model, _: model(torch.empty(2**34, 16, device="cuda")).sum(),
    )
    assert cost.fits is False
    with pytest.raises(stepcost.NotKnown, match="does not fit: out of memory in"):
        _ = cost.peak_allocated_bytes


def test_a_script_without_a_guard_measures_once(tmp_path):
    """What is defined in a script goes to the process that measures, which does not run the script again."""
    (tmp_path / "script.py").write_text(
        "import stepcost, torch\n"
        "class Model(torch.nn.Linear):\n"
        "    pass\n"
        "rows, mean = lambda n: torch.randn(n, 16), lambda model, x: model(x).square().mean()\n"
        "cost = stepcost.measure(Model(16, 8), rows, mean, optimizer='adamw', batch_size=4)\n"
        "print(cost.source, cost.parameter_bytes)\n"
    )
    command = [sys.executable, "script.py"]
    found = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert (found.stdout, found.returncode) == ("measured 544\n", 0), found.stderr
