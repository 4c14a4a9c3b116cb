"""NeuSight's own steps beside predictions of them, on a made clone of one small model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.neusight import DEVICE, GPU, Measured, here, main
from stepcost.catalog.cards import CARDS
from stepcost.predicting.times import predict_time
from stepcost.predicting.times.table import Step, table_of
from stepcost.request import Request

GPT2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
SMALL = {**GPT2, "n_layer": 1, "n_embd": 64, "n_head": 2, "vocab_size": 1000, "n_positions": 64}
ROUTED = {
    "model_type": "switch_transformers",
    "architectures": ["SwitchTransformersForConditionalGeneration"],
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Make a clone with a step of each kind: 3 ms measured, 2 ms predicted by NeuSight."""
    pytest.importorskip("transformers", reason="an extra: pip install 'stepcost[transformers]'")
    home = tmp_path / "scripts" / "asplos"
    for name in ("small-train-64-2", "small-train-64-4-dp2", "routed-train-64-2", "small-inf-64-2"):
        for folder, ms in ((f"label/{DEVICE}", 3.0), (f"results/prediction/{DEVICE}/neusight", 2.0)):
            path = home / folder / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"e2e_latency": ms}))
    configs = home / "data" / "DLmodel_configs"
    configs.mkdir(parents=True)
    for name, config in (("small", SMALL), ("routed", ROUTED)):
        (configs / f"{name}.json").write_text(json.dumps(config))
    return tmp_path


def test_training_steps_of_one_gpu_are_compared(clone, capsys):
    """A step of several GPUs and one without backward are left out; one that is refused says why."""
    assert main([str(clone)]) == 0
    out, err = capsys.readouterr()
    steps = [line for line in out.splitlines() if " x 64 |" in line]
    assert len(steps) == 1
    assert steps[0].startswith("| small 2 x 64 | 3.0 | -33.3 | ")
    assert "| NeuSight | 1 | 33.3 | 33.3 | 33.3 | -33.3 | 100 |  |" in out
    assert err.startswith("routed 2 x 64: model ")


def test_it_is_a_step_without_its_optimizer_whose_gradients_are_added(tmp_path):
    """Of 118,208 parameters, counted by hand, two float32 are read and one written; SGD is left out."""
    pytest.importorskip("transformers", reason="an extra: pip install 'stepcost[transformers]'")
    table = table_of(CARDS[GPU])
    config = tmp_path / "config.json"
    config.write_text(json.dumps(SMALL | {"attn_implementation": "eager"}))
    request = Request(model=str(config), optimizer="sgd", batch_size=2, sequence_length=64, engine="graph")
    whole = predict_time(request, CARDS[GPU])
    (sgd,) = (one for one in whole.contributors if "_foreach_" in one.name or "_fused_" in one.name)
    added_s = 118_208 * 12 / table.about["rates"]["copy_bytes_per_s"]
    expected_s = whole.step_s - sgd.seconds - table.gap_s * sgd.kernels + added_s
    one = Measured("m", SMALL, 2, 64, Step(request={}, step_s=1.0, entries=()), 1.0)
    half_a_kernel_s = table.gap_s / 2  # their number is rounded
    assert here(one, table).predicted_s == pytest.approx(expected_s, abs=half_a_kernel_s)


def test_another_folder_is_one_line(tmp_path, capsys):
    """A folder that is no clone of NeuSight ends with exit code 2 and one line."""
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path)])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
