"""What each flag changes, in the rows that real runs of the suite store and in what their children did."""

import json
import os
import re
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import numpy as np
import pytest

from stepcost import jobs
from stepcost.failures import ChildHung
from stepcost.measuring.process import Worker
from stepcost.session import Session
from stepcost.settings import FLAGS, settings_of
from tests.command import stepcost
from tests.suite.copied import ENVIRONMENT, copy_suite

MINE = '''
"""An optimizer that writes down what each of its steps was taken at, and one that falls silent."""
import json, os, time
from pathlib import Path
import torch

class Recorder(torch.optim.SGD):
    def __init__(self, params, lr=0.02):
        super().__init__(params, lr=lr)

    def step(self):
        (group,) = self.param_groups
        weight = group["params"][0].detach()
        if weight.device.type == "cpu":  # and not of a prediction, which has no values
            told = {"process": os.getpid(), "rate": group["lr"], "weights": float(weight.sum())}
            with open("steps.jsonl", "a") as file:
                file.write(json.dumps(told) + "\\n")
        super().step()

class Slow(Recorder):
    def step(self):
        super().step()
        silent = Path("silent").exists() and len(Path("steps.jsonl").read_text().splitlines()) == 6
        time.sleep(60 if silent else 0.15)
'''
RATE = 0.02
"""The recorder's own."""
WARM_UP = 3
"""Steps of each size of batch that are taken before a run, and undone."""
ASKED = "footprint or step_at_each or each_optimizer or largest_batch_predicted or epochs_at"
SMALL_CNN = 432 + 4608 + 18432 + 36864 + 2 * (16 + 32 + 64 + 64)
"""Parameters of four 3x3 convolutions (3-16-32-64-64) and their norms, without the last layer."""
RESNET18 = 11_176_512
"""The same of the ResNet-18 of He et al. 2016."""
FEW = (
    *("--model=small-cnn", "--optimizers=mine:Recorder,adam", "--batch-sizes=4,8", "--image-size=16"),
    *("--epochs=2", "--seeds=1,2", "--dataset=few.npz", "--device=cpu", "--gpu=t4"),
    "--benchmark-storage=file://kept",
)
MORE = (
    *("--model=resnet18", "--optimizers=mine:Recorder", "--batch-sizes=8,16", "--epochs=3", "--seeds=7"),
    *("--dataset=more.npz", "--no-scale-lr", "--drop-last", "--schedule=cosine"),
)


def save_images(path, *, train, test, classes):
    """Save a data set whose test images have one class more often than the others."""
    dice = np.random.default_rng(0)
    images = {
        "train_images": dice.integers(0, 256, (train, 3, 8, 8), dtype=np.uint8),
        "train_labels": (np.arange(train) % classes).astype(np.uint8),
        "test_images": dice.integers(0, 256, (test, 3, 8, 8), dtype=np.uint8),
        "test_labels": np.maximum(np.arange(test) - test + classes, 0).astype(np.uint8),
    }
    np.savez(path, **images)


class Ran:
    """A run of the suite that has ended: its rows, what it saved, and the steps that its children took."""

    def __init__(self, folder, *flags):
        copy_suite(folder)
        (folder / "mine.py").write_text(MINE)
        save_images(folder / "few.npz", train=22, test=10, classes=3)
        save_images(folder / "more.npz", train=36, test=12, classes=5)
        command = [sys.executable, "-m", "pytest", "benchmarks/", *flags, "-k", ASKED, "--benchmark-save=one"]
        asked = {"cwd": folder, "env": os.environ | ENVIRONMENT, "timeout": 120}
        ended = subprocess.run(command, check=False, capture_output=True, text=True, **asked)
        assert ended.returncode == 0, ended.stdout
        self.folder = folder
        (self.path,) = folder.glob("*/*/0001_one.json")
        self.saved = json.loads(self.path.read_text())
        self.rows = [bench["extra_info"] for bench in self.saved["benchmarks"]]
        self.trained = [row for row in self.rows if row["question"] == "3b"]
        self.predicted = [row for row in self.rows if row["question"] in ("2a", "3a") and "batch_size" in row]
        told = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
        processes = list(dict.fromkeys(step["process"] for step in told))
        runs = processes[-len(self.trained) :]  # before them a step was tried at each batch size
        self.steps = [[step for step in told if step["process"] == one] for one in runs]
        """Those of each training run, in the order of the rows."""
        assert len(self.steps) == len(self.trained)

    def of(self, question, field):
        return [row.get(field) for row in self.rows if row["question"] == question]


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return Ran(tmp_path_factory.mktemp("few"), *FEW)


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    return Ran(tmp_path_factory.mktemp("more"), *MORE)


def test_model(few, more):
    """--model is the model counted and predicted; so few images of it are trained without a GPU."""
    assert few.of("1a", "parameters") == [SMALL_CNN + 64 * 3 + 3]
    assert more.of("1a", "parameters") == [RESNET18 + 512 * 5 + 5]
    for run, name, parameters in ((few, "small-cnn", SMALL_CNN + 195), (more, "resnet18", RESNET18 + 2565)):
        assert {(row["model"], row["parameters"]) for row in run.predicted} == {(name, parameters)}
    assert {(row["model"], row["stand_in_for"]) for row in few.trained} == {("small-cnn", None)}
    assert {(row["model"], row["stand_in_for"]) for row in more.trained} == {("resnet18", None)}


def test_optimizers(few, more):
    """--optimizers has a row each, with its own state; the first is that of the other questions."""
    state = {row["optimizer"]: row["optimizer_state_bytes"] for row in few.rows if row["question"] == "2a"}
    assert state == {"mine:Recorder": 0, "adam": 2 * 4 * (SMALL_CNN + 195)}
    assert more.of("2a", "optimizer") == ["mine:Recorder"]
    for run in (few, more):
        assert {row["optimizer"] for row in run.rows if row["question"] in ("3a", "3b")} == {"mine:Recorder"}


def test_batch_sizes(few, more):
    """--batch-sizes has a row each in 3a and 3b, whose bytes and steps are those of that many images."""
    sizes = {row["batch_size"]: row["input_bytes"] for row in few.predicted if row["question"] == "3a"}
    assert {size: sizes[size] for size in (4, 8)} == {
        4: 4 * (3 * 16 * 16 * 4 + 8),
        8: 8 * (3 * 16 * 16 * 4 + 8),
    }
    assert few.of("3b", "batch_size") == [4, 4, 8, 8]
    assert few.of("3b", "steps_per_epoch") == [6, 6, 3, 3]
    assert more.of("3b", "batch_size") == [8, 16]


def test_image_size(few, more):
    """--image-size is the size of what is predicted and trained on, 32 where it is not given."""
    assert {row["image_size"] for row in few.rows if "image_size" in row} == {16}
    assert {row["image_size"] for row in more.rows if "image_size" in row} == {32}
    (row,) = [row for row in more.predicted if row["question"] == "2a"]
    assert row["input_bytes"] == row["batch_size"] * (3 * 32 * 32 * 4 + 8)


def test_epochs(few, more):
    """--epochs are trained and stored, in order."""
    for run, epochs in ((few, [1, 2]), (more, [1, 2, 3])):
        assert all([epoch["epoch"] for epoch in row["epochs"]] == epochs for row in run.trained)
    # Of 22 images: 6 batches of 4 and of 2, or 3 of 8 and of 6.
    assert [len(steps) for steps in few.steps] == [2 * WARM_UP + 2 * 6] * 2 + [2 * WARM_UP + 2 * 3] * 2


def test_seeds(few, more):
    """--seeds has a row each: other weights under another seed, the same under the same, other losses."""
    assert few.of("3b", "seed") == [1, 2, 1, 2]
    assert more.of("3b", "seed") == [7, 7]
    first = [steps[0]["weights"] for steps in few.steps]
    assert first[:2] == first[2:]
    assert len({*first, more.steps[0][0]["weights"]}) == 3
    losses = [row["epochs"][0]["train_loss"] for row in few.trained]
    assert len(set(losses)) == 4


def test_dataset(few, more):
    """--dataset is what is trained and tested on, and its classes are the model's."""
    for run, stored in ((few, ("few.npz", 22, 10, 3, 0.8)), (more, ("more.npz", 36, 12, 5, 8 / 12))):
        names = ("dataset", "train_images", "test_images", "num_classes", "chance_accuracy")
        assert {tuple(row[name] for name in names) for row in run.trained} == {stored}
        assert {row["num_classes"] for row in run.predicted} == {stored[3]}
        for row in run.trained:  # of so many images
            right = row["epochs"][-1]["test_accuracy"] * stored[2]
            assert right == pytest.approx(round(right))


def test_card(few, more):
    """--gpu is the card predicted for: what fits, and whose context is known."""
    for run, card in ((few, "t4"), (more, "h100-80gb")):
        assert {row["card"] for row in run.rows if row["question"] in ("2a", "3a")} == {card}
    assert {row["context_bytes"] for row in more.predicted} == {760 * 2**20}
    assert {row["context_bytes"] for row in few.predicted} == {None}
    assert few.saved["stepcost"]["settings"]["card"] == "t4"
    (small,), (large,) = ([row for row in run.rows if row["timed"] == "search"] for run in (few, more))
    assert (small["largest_batch"], large["largest_batch_likely"]) == (None, None)
    assert small["largest_batch_likely"][1] < small["largest_batch_at_most"]
    assert large["largest_batch"] <= large["largest_batch_at_most"]


def test_device(few, more):
    """--device is where it runs; that it was asked for is the reason why there is no GPU."""
    assert few.saved["stepcost"]["device"] == "cpu"
    assert few.saved["stepcost"]["why_no_gpu"] == "--device cpu was given"
    assert "--device" not in (more.saved["stepcost"]["why_no_gpu"] or "")


def test_learning_rate_rule(few, more):
    """The rate grows with the batch from that of 64 images; with --no-scale-lr all batches have one."""
    scaled = [RATE * size / 64 for size in (4, 4, 8, 8)]
    assert few.of("3b", "learning_rate") == pytest.approx(scaled)
    assert few.of("3b", "learning_rate_rule") == ["linear"] * 4
    assert [steps[0]["rate"] for steps in few.steps] == pytest.approx(scaled)
    assert more.of("3b", "learning_rate") == [RATE, RATE]
    assert more.of("3b", "learning_rate_rule") == ["none"] * 2
    assert [steps[0]["rate"] for steps in more.steps] == pytest.approx([RATE, RATE])


def test_drop_last(few, more):
    """With --drop-last an epoch has full batches only: other steps, and other images in its means."""
    # 22 images are 5.5 batches of 4; 36 are 4.5 batches of 8 and 2.25 of 16.
    assert more.of("3b", "steps_per_epoch") == [4, 2]
    assert [len(steps) for steps in more.steps] == [WARM_UP + 3 * 4, WARM_UP + 3 * 2]
    for run, images in ((few, [22] * 4), (more, [32, 32])):
        for row, count in zip(run.trained, images, strict=True):
            for epoch in row["epochs"]:
                right = epoch["train_accuracy"] * count
                assert right == pytest.approx(round(right))
    # of 36 images at least one of the six epochs would not be a whole number of 32nds
    assert few.saved["stepcost"]["settings"]["drop_last"] is False


def test_schedule(few, more):
    """--schedule is how the rate goes: all steps at one, or a cosine that has come down at the last step."""
    assert set(few.of("3b", "schedule")) == {"constant"}
    assert all(len({step["rate"] for step in steps}) == 1 for steps in few.steps)
    assert set(more.of("3b", "schedule")) == {"cosine"}
    for steps, count in zip(more.steps, (12, 6), strict=True):
        expected = [RATE * (1 + np.cos(np.pi * taken / count)) / 2 for taken in range(count)]
        assert [step["rate"] for step in steps[WARM_UP:]] == pytest.approx(expected, rel=1e-6)
        assert steps[-1]["rate"] < 0.07 * RATE


def test_storage_of_the_command(few, monkeypatch, capsys, tmp_path):
    """--storage of the command is where it looks for runs."""
    monkeypatch.chdir(few.folder)
    assert few.path.parts[-3] == "kept"
    for storage, found in (("kept", True), ("elsewhere", False)):
        where = ["--storage", storage]
        assert stepcost(["list", *where]) == 0
        assert (re.search(r"0001 +one +no GPU", capsys.readouterr().out) is not None) is found
        pages = tmp_path / storage
        assert (stepcost(["report", "one", *where, "--out", str(pages)]) == 0) is found
        assert (pages.exists() and "mine:Recorder" in (pages / "report.md").read_text()) is found
        stepcost(["compare", "one", "h100-80gb", *where])
        assert ("no saved run 'one'" not in "".join(capsys.readouterr())) is found


@pytest.fixture
def session_of(tmp_path, monkeypatch):
    """``session_of(**flags)``: a session in a folder with a data set and the optimizers, its server warm."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    save_images(tmp_path / "few.npz", train=8, test=4, classes=2)
    Worker(jobs.INSPECTION).close()
    sessions = []

    def build(**flags):
        given = {name: flag.default if flag.metavar else False for name, flag in FLAGS.items()}
        sessions.append(Session(settings_of((given | flags).__getitem__)))
        return sessions[-1]

    yield build
    for one in sessions:
        one.close()


def test_time_limit_is_of_silence(session_of, tmp_path):
    """A child that says nothing for --time-limit is killed then; one that speaks may take longer in all."""
    one = session_of(
        model="small-cnn",
        device="cpu",
        dataset="few.npz",
        epochs="8",
        optimizers="mine:Slow",
        time_limit_s="1",
    )
    request = one.request(optimizer="mine:Slow", batch_size=8)
    start = time.monotonic()
    assert len(one.training.study(request)["epochs"]) == 8
    assert time.monotonic() - start > 1
    (tmp_path / "steps.jsonl").unlink()
    (tmp_path / "silent").touch()
    told = []
    with pytest.raises(ChildHung, match=r"no answer within 1 s; the child was killed"):
        one.training.study(request, lambda epoch: told.append(time.monotonic()))
    assert 1 <= time.monotonic() - told[-1] < 3
    steps = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert (len(told), len(steps)) == (2, WARM_UP + 3)
    (process,) = {step["process"] for step in steps}
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_download_and_data_dir(tmp_path):
    """--download asks the home of CIFAR-10 for it, and --data-dir is where it is looked for."""
    asked = []

    class Refuses(BaseHTTPRequestHandler):
        def do_CONNECT(self):
            asked.append(self.path)
            self.send_error(403)

        def log_message(self, *_):
            pass

    copy_suite(tmp_path)
    with HTTPServer(("127.0.0.1", 0), Refuses) as proxy:
        Thread(target=proxy.serve_forever, daemon=True).start()
        way = f"http://127.0.0.1:{proxy.server_port}"
        environment = os.environ | ENVIRONMENT | {"https_proxy": way, "HTTPS_PROXY": way, "no_proxy": ""}
        flags = ("--model=small-cnn", "--device=cpu", "--download", "--data-dir=there", "-k", "footprint")
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "benchmarks/", *flags],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            timeout=120,
        )
        proxy.shutdown()
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: --dataset cifar10: there does not hold CIFAR-10 (" in ended.stderr
    assert asked and set(asked) == {"www.cs.toronto.edu:443"}
    assert (tmp_path / "there").is_dir()
