from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import predict


def test_json_is_one_object_with_the_names_of_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is one JSON object and nothing else, under the stored names."""
    assert (
        predict(["small-cnn", "--optimizer", "adam", "--batch-size", "8", "--gpu", "h100-80gb", "--json"])
        == 0
    )
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert err == ""
    assert answer["source"] == "predicted"
    assert answer["fits"] is True
    assert (answer["model"], answer["optimizer"], answer["batch_size"]) == ("small-cnn", "adam", 8)
    for name in ("peak_allocated_bytes", "peak_reserved_bytes", "process_bytes", "tensor_bytes", "seconds"):
        assert answer[name] > 0
    assert sum(answer["ledger"].values()) == answer["process_bytes"]


def test_the_error_to_expect_is_said_where_runs_can_tell(capsys: pytest.CaptureFixture[str]) -> None:
    """On the card and torch that were compared a range around zero; on any other nothing."""
    where = [
        "resnet18",
        "--batch-size",
        "8",
        "--image-size",
        "224",
        "--gpu",
        "h100-80gb",
        "--json",
        "--torch",
    ]
    predict([*where, "2.15.0+cu132"])
    assert json.loads(capsys.readouterr().out)["expected_error"] is None
    predict([*where, "2.11.0+cu130"])
    low, high = json.loads(capsys.readouterr().out)["expected_error"]["peak_allocated_bytes"]
    assert low <= 0 <= high
    predict(["small-cnn", "--batch-size", "8", "--gpu", "t4", "--json"])
    assert json.loads(capsys.readouterr().out)["expected_error"] is None


def test_an_estimate_has_a_wider_range_the_more_is_estimated(capsys: pytest.CaptureFixture[str]) -> None:
    """Recorded workspaces, those of another batch size and those of other convolutions, in this order."""
    widths = []
    for model, batch in (("resnet18", "8"), ("resnet18", "9"), ("small-cnn", "8")):
        predict([model, "--batch-size", batch, "--gpu", "h100-80gb", "--torch", "2.11", "--json"])
        low, high = json.loads(capsys.readouterr().out)["expected_error"]["peak_allocated_bytes"]
        widths.append(high - low)
    assert widths == sorted(set(widths))


def test_the_table_says_which_mb(capsys: pytest.CaptureFixture[str]) -> None:
    """What people read has its unit."""
    assert predict(["small-cnn", "--batch-size", "8"]) == 0
    assert "10**6" in capsys.readouterr().out


def test_the_largest_batch_is_named_or_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    """On a measured card it is a number; on another it is null, with a bound and a likely range."""
    ask = ["small-cnn", "--image-size", "224", "--largest-batch", "--json", "--gpu"]
    predict([*ask, "h100-80gb"])
    answer = json.loads(capsys.readouterr().out)
    assert 0 < answer["largest_batch"] <= answer["largest_batch_at_most"]
    predict([*ask, "t4"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["largest_batch"] is None
    low, high = answer["largest_batch_likely"]
    assert 0 < low < high < answer["largest_batch_at_most"]
    predict(["small-cnn", "--image-size", "224", "--largest-batch", "--gpu", "t4"])
    assert (
        f"at most {answer['largest_batch_at_most']:,}; likely {low:,} to {high:,}" in capsys.readouterr().out
    )


def test_the_end_of_the_search_keeps_the_prediction(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where more images fit than the search looks at, it says at least how many, and all else too."""
    monkeypatch.setattr("stepcost.predicting.largest.MOST", 128)
    assert predict(["small-cnn", "--batch-size", "8", "--gpu", "h100-80gb", "--largest-batch"]) == 0
    out, err = capsys.readouterr()
    assert "at least 128, where the search ends" in out
    assert "peak reserved" in out
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "fits"),
    [
        (["--gpu", "h100-80gb"], 0, True),
        (["--gpu", "h100-80gb", "--batch-size", "100000000"], 1, False),
        (["--gpu", "rtx4090"], 1, None),
        ([], 0, None),
    ],
)
def test_the_exit_code_says_whether_it_fits(
    arguments: list[str], code: int, fits: bool | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 where it fits or no card is named, 1 where it does not or that cannot be said."""
    assert predict(["small-cnn", "--batch-size", "8", *arguments, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["fits"] is fits


def test_the_context_that_was_never_measured_is_not_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A step that takes all of an unmeasured card is not said to fit; the sentence says what is unknown."""
    step = ["resnet50", "--optimizer", "adam", "--image-size", "224", "--batch-size", "292"]
    assert predict([*step, "--gpu", "rtx4090"]) == 1
    out = capsys.readouterr().out
    assert "It fits" not in out
    line = next(line for line in out.splitlines() if "cannot be said" in line)
    assert "context" in line
    assert "cuDNN's workspaces" in line


@pytest.mark.parametrize(
    ("card", "said"),
    [("h100-80gb", "It fits."), ("a10", "It fits where the context is in its likely range.")],
)
def test_what_it_fits_by_a_range_says_so(
    card: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a card that nobody measured the same sentence says on what it rests."""
    path = tmp_path / "linear.py"
    layers = "nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))"
    path.write_text(f"from torch import nn\ndef build(num_classes=10):\n    return {layers}\n")
    assert predict([f"{path}:build", "--batch-size", "8", "--gpu", card]) == 0
    assert said in capsys.readouterr().out.splitlines()


def test_the_first_line_says_what_it_was_validated_with(capsys: pytest.CaptureFixture[str]) -> None:
    """Card, torch and cuDNN of the runs; of another torch that it was not, and what changed since."""
    ask = ["small-cnn", "--batch-size", "8", "--gpu", "h100-80gb", "--torch"]
    predict([*ask, "2.11"])
    first = capsys.readouterr().out.splitlines()[0]
    who = "image classifiers in fp32 or bf16 on NVIDIA H100 80GB HBM3"
    assert first == f"Validated with runs of {who}, torch 2.11 and cuDNN 9.19."
    predict([*ask, "2.15"])
    first = capsys.readouterr().out.splitlines()[0]
    for part in ("torch 2.11 and cuDNN 9.19", "not with torch 2.15", "gives its workspaces back"):
        assert part in first
    predict([*ask, "2.15", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["validated"] is False
    assert answer["validated_with"]["torch"] == "2.11"
    assert len(answer["changed_since_validated"]) == 1


def test_bf16_classifiers_have_the_range_of_runs_that_asked_cudnn(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In bf16 and channels-last a step is like those that ran; of fp16 or micro-batches nothing is known."""
    ask = ["small-cnn", "--batch-size", "8", "--gpu", "h100-80gb", "--torch", "2.11", "--json"]
    ran, others = (
        (["--precision", "bf16", "--channels-last"],),
        (["--precision", "fp16"], ["--accumulate", "2"]),
    )
    for more in (*ran, *others):
        predict([*ask, *more])
        assert json.loads(capsys.readouterr().out)["validated"] is (more in ran)


def test_no_narrow_range_where_it_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """A step that ends before its first convolution has the range of its estimates, not the tightest."""
    ask = [
        "resnet18",
        "--image-size",
        "224",
        "--gpu",
        "h100-80gb",
        "--torch",
        "2.11",
        "--json",
        "--batch-size",
    ]
    lows = []
    for size in ("8", "3000000"):
        predict([*ask, size])
        lows.append(json.loads(capsys.readouterr().out)["expected_error"]["peak_reserved_bytes"][0])
    assert lows[1] < lows[0] == 0


def test_what_a_model_prints_does_not_spoil_the_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Standard output is one JSON object, whatever a model prints and how it does."""
    (tmp_path / "talker.py").write_text(
        "import os\n"
        "from stepcost.catalog.models import build_model\n"
        "print('imported')\n"
        "def build(num_classes):\n"
        "    os.write(1, b'building')\n"
        "    return build_model('small-cnn', num_classes=num_classes, image_size=32)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert predict(["talker:build", "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["model"] == "talker:build"
    assert "imported" in err
    assert "building" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet999"], "unknown model 'resnet999'"),
        (["small-cnn", "--optimizer", "sdg"], "unknown optimizer 'sdg'"),
        (["small-cnn", "--gpu", "h100"], "did you mean h100-80gb?"),
        (["small-cnn", "--batch-size", "0"], "'0' is not a whole number of 1 or more"),
        (["small-cnn", "--batch-size", "many"], "'many' is not a whole number"),
        (["small-cnn", "--largest-batch"], "--largest-batch needs --gpu"),
        (["small-cnn", "--torch", "new"], "'new' is not a torch version"),
        (["small-cnn", "--torch", "1.0"], "it takes 2.6 to 2.15"),
        (["small-cnn", "--torch", "99.0"], "it takes 2.6 to 2.15"),
        (["vgg16", "--image-size", "8"], "cannot be traced"),
        (["alexnet", "--image-size", "17", "--gpu", "h100-80gb", "--engine", "graph"], "cannot be traced"),
        (["small-cnn", "--gpu", "t4", "--engine", "fast-bf16"], "--precision bf16 is not predicted for"),
        (
            ["small-cnn", "--parallel", "none,ddp", "--gpus", "2", "--fsdp-precision", "bf16"],
            "--fsdp-precision: it is of --parallel fsdp2",
        ),
    ],
)
def test_nonsense_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong request gets one clear line on standard error, nothing on standard output, and exit 2."""
    assert predict(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err


def test_lists_are_answered_together(capsys: pytest.CaptureFixture[str]) -> None:
    """Several optimizers, batch sizes and cards are one object with a prediction for each combination."""
    asked = ["small-cnn", "--optimizers", "sgd,adam", "--batch-sizes", "4,8", "--gpu", "h100-80gb,h200-141gb"]
    assert predict([*asked, "--torch", "2.11", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["predictions"]
    told = [(one["optimizer"], one["batch_size"], one["gpu"]) for one in found]
    assert len(set(told)) == len(told) == 8
    assert all(one["peak_reserved_bytes"] > 0 for one in found)


def test_own_models_and_optimizers_are_found_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model in a file and an optimizer in a module are taken from the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_model.py").write_text(
        "from torch import nn\n"
        "def build(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))\n"
    )
    (tmp_path / "mine_lion.py").write_text(
        "import torch\n"
        "class Lion(torch.optim.Optimizer):\n"
        "    def __init__(self, params, lr=1e-4): super().__init__(params, {'lr': lr})\n"
        "    @torch.no_grad()\n"
        "    def step(self):\n"
        "        for group in self.param_groups:\n"
        "            for p in group['params']:\n"
        "                m = self.state[p].setdefault('m', torch.zeros_like(p))\n"
        "                p.sub_(torch.sign(m * 0.9 + p.grad * 0.1), alpha=group['lr'])\n"
        "                m.mul_(0.99).add_(p.grad, alpha=0.01)\n"
    )
    asked = ["./mine_model.py:build", "--image-size", "8", "--batch-size", "2", "--json"]
    assert predict([*asked, "--optimizer", "mine_lion:Lion"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameter_bytes"] == 4 * (3 * 8 * 8 * 10 + 10)
    assert found["optimizer_state_bytes"] == found["parameter_bytes"]  # one moment each


def test_several_gpus_are_a_list_of_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    """``ranks`` is in order under the stored names; each strategy with each number is a prediction."""
    ask = ["small-cnn", "--optimizer", "adam", "--batch-size", "8", "--gpu", "h100-80gb", "--torch", "2.11"]
    assert predict([*ask, "--parallel", "none,zero1", "--gpus", "2,3", "--json"]) == 0
    alone, *shared = json.loads(capsys.readouterr().out)["predictions"]
    assert [(one["parallel"], one["gpus"], len(one["ranks"])) for one in (alone, *shared)] == [
        ("none", 1, 0),
        ("zero1", 2, 2),
        ("zero1", 3, 3),
    ]
    for one in shared:
        states = [rank["optimizer_state_bytes"] for rank in one["ranks"]]
        assert sum(states) == alone["optimizer_state_bytes"]
        assert one["peak_reserved_bytes"] == max(rank["peak_reserved_bytes"] for rank in one["ranks"])


def test_alike_ranks_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Eight replicas are one line of the table, and what nobody read of NCCL is unknown."""
    asked = ["small-cnn", "--batch-size", "8", "--gpu", "h100-80gb", "--torch", "2.11"]
    assert predict([*asked, "--parallel", "ddp", "--gpus", "8"]) == 0
    out = capsys.readouterr().out
    assert "What each GPU holds, predicted, in MB (10**6 bytes)" in out
    (line,) = (line for line in out.splitlines() if line.startswith("│ 0 to 7"))
    assert "unknown" in line
    assert "not with such a step" in out.splitlines()[0]


def test_time_of_a_captured_engine_is_predicted_with_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    """Seconds with their ends, operators, modules, an epoch and its price; memory stays that of eager."""
    asked = ["resnet18", "--batch-size", "64", "--image-size", "224", "--num-classes", "1000", "--json"]
    where = ["--gpu", "h100-80gb", "--engine", "graph", "--price", "h100-80gb=3.60", "--epoch", "6400"]
    assert predict([*asked, *where]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["step_low_s"] < 14.174e-3 < answer["step_high_s"]  # measured on an H100
    assert (answer["engine"], answer["step_engine"]) == ("eager", "graph")
    assert answer["step_recorded_with"].startswith("2.11")  # whatever torch is installed here
    assert answer["step_by_operator"][0]["name"] == "convolution_backward"
    assert sum(one["seconds"] for one in answer["step_by_module"]) < answer["step_s"]
    assert answer["examples_per_s"] == pytest.approx(64 / answer["step_s"])
    assert answer["epoch_price"] == pytest.approx(100 * answer["step_s"] * 3.60 / 3600)


def test_time_that_is_not_known_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    """The plain loop's time is the processor's: no number, a reason; without a card it is a wrong request."""
    assert predict(["small-cnn", "--gpu", "h100-80gb", "--engine", "eager", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["step_s"] is None and "the processor's" in answer["unread"]["step_s"]
    assert 0 < answer["gpu_busy_low_s"] < answer["gpu_busy_s"] < answer["gpu_busy_high_s"]
    assert predict(["small-cnn", "--gpu", "a10", "--engine", "eager"]) in (0, 1)
    assert "kernels run" not in capsys.readouterr().out, "no table of that card"
    assert predict(["small-cnn", "--engine", "graph"]) == 2
    assert "--engine needs --gpu" in capsys.readouterr().err
    assert predict(["small-cnn", "--gpu", "h100-80gb", "--price", "h100-80gb=1"]) == 2
    assert "--price needs --engine" in capsys.readouterr().err
    assert predict(["small-cnn", "--price", "h100-80gb=1"]) == 2
    assert "--price needs --gpu: the price of which card?" in capsys.readouterr().err


def test_no_error_is_expected_of_what_no_gpu_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An operator whose memory was not compared leaves no range of errors, and the largest batch says so."""
    (tmp_path / "swish.py").write_text(
        "from torch import nn\n"
        "layers = nn.Flatten(), nn.Linear(3072, 10), nn.Hardswish()\n"
        "def build(num_classes): return nn.Sequential(*layers)\n"
    )
    monkeypatch.chdir(tmp_path)
    predict(["./swish.py:build", "--gpu", "h100-80gb", "--torch", "2.11", "--largest-batch", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["expected_error"] is None
    assert "hardswish_backward" in answer["largest_batch_rests_on"]


@pytest.mark.parametrize("numbers", ["double", "cfloat"])
def test_products_in_other_numbers_have_no_time(
    numbers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cards make those in double precision at another rate, and none were recorded: bytes alone are told."""
    (tmp_path / f"in_{numbers}.py").write_text(
        f"import torch\n"
        f"def loss(model, batch): return model(batch).abs().mean()\n"
        f"def batch(n): return torch.randn(n, 16, dtype=torch.{numbers})\n"
        f"def step(): return torch.nn.Linear(16, 4, bias=False, dtype=torch.{numbers}), batch, loss\n"
    )
    monkeypatch.chdir(tmp_path)
    predict([f"./in_{numbers}.py:step", "--gpu", "h100-80gb", "--engine", "graph", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["step_s"] is None and answer["peak_allocated_bytes"] > 0
    assert answer["unread"]["step_s"].startswith("no products in ")


def test_an_engine_decides_in_what_memory_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """An engine that computes in bf16 has the bytes and the validation of a step in bf16."""
    ask = ["resnet18", "--gpu", "h100-80gb", "--json"]
    found = []
    for more in (["--precision", "bf16"], ["--engine", "fast-bf16"], []):
        predict([*ask, *more])
        answer = json.loads(capsys.readouterr().out)
        found.append((answer["precision"], answer["peak_allocated_bytes"], answer["validated"]))
    assert found[0] == found[1] != found[2]


def test_what_does_not_fit_takes_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    """No seconds, no largest operator and no epoch are told of a step that has no room."""
    ask = ["small-cnn", "--batch-size", "1000000", "--image-size", "64", "--gpu", "t4", "--engine", "graph"]
    assert predict([*ask, "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["fits"], answer["step_s"]) == (False, None)
    assert answer["unread"]["step_s"] == "it does not fit"
    assert "epoch_s" not in answer
