"""What the flags that need a GPU change: a real session whose children only say what they were asked."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.suite.copied import ENVIRONMENT, copy_suite

CONFTEST = '''
import json
from dataclasses import asdict

from stepcost import session
from stepcost.machine import Machine, ModelInfo
from stepcost.reading import Reading

pytest_plugins = ["fixtures.suite", "fixtures.options", "fixtures.session", "fixtures.rows",
                  "fixtures.memory", "fixtures.training", "fixtures.engines", "fixtures.savers",
                  "fixtures.parallel"]
session.warm_up_server = lambda prebuild: None


class Child:
    """Answers as a child on a card would, and writes down what it was asked."""

    def __init__(self, job, *arguments):
        self.job = job.partition(":")[2]
        self.told = [asdict(arguments[0]), *arguments[2:]] if arguments else []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    close = __exit__

    def call(self, method, *arguments, on_progress=None):
        with open("asked.jsonl", "a") as file:
            file.write(json.dumps([self.job, method, self.told, arguments], default=vars) + "\\n")
        return getattr(self, method, lambda *_: None)(*arguments)

    def machine(self, device):
        found = {"auto": "cuda:0", "cuda": "cuda:0"}.get(device, device)
        return Machine(device=found, why_no_gpu=None, torch="2.11", torchvision="0.26", cuda="13.0",
                       cudnn="9.19", gpu="stand-in", gpu_total_bytes=10**9, gpus=2)

    def model(self, *_):
        return ModelInfo(name="m", kind="images", dtypes=("float32",), parameters=1,
                         trainable_parameters=1, frozen_parameters=0,
                         parameters_closed_form=None, parameter_bytes=4, trainable_parameter_bytes=4,
                         buffers=0, buffer_bytes=0, parameter_shapes=((1,),))

    def rates(self, device):
        return {"copy_bytes_per_s": 1e12, "matrix_flops_per_s_fp32": 1e14, "matrix_flops_per_s_bf16": 2e14}

    def step_flops(self, *_):
        return 10**6

    def reading(self):
        names = ("gradient", "trainable_parameter", "peak_allocated", "peak_reserved", "activation")
        none = ("without_gradient", "leaked", "parameter", "buffer", "optimizer_state", "input")
        return Reading(source="measured", fits=True, phase_peak_bytes={},
                       **{f"{name}_bytes": 1 for name in names}, **{f"{name}_bytes": 0 for name in none})

    def prepare(self):
        return {"least_bytes": 1000, "unread": {}}

    def timed_steps(self, count):
        return [1.0] * count

    def energy(self):
        return {"energy_j": 2.5, "energy_interval_j": [2.4, 2.6], "power_w": 300.0, "idle_power_w": 75.0}, {}

    def profiled(self):
        return {"gpu_busy_s": 1e-3, "kernel_s": 1e-3, "kernels": 1.0, "transfer_s": 0.0}

    def kernels(self):
        return None, "a stand-in has no kernels"

    def beside(self, *_):
        return {}

    def run(self, epochs, drop_last):
        one = {"train_seconds": 1.0, "train_loss": 1.0, "train_accuracy": 0.5, "test_accuracy": 0.5}
        return {"epochs": [{"epoch": epoch + 1, **one} for epoch in range(epochs)], "wall_s": float(epochs)}

    def losses(self):
        return {"losses": [2.0, 1.0], "norm_steps": 2, "optimizer_steps": 2}


session.Session.worker = lambda self, job, *arguments: Child(job, *arguments)
'''
FLAGS = ("--model=resnet18", "--batch-sizes=8,24", "--epochs=2", "--benchmark-json=run.json")
ASKED = ("-k", "epochs_at or engine")


@pytest.fixture
def run(tmp_path):
    """``run(*flags)``: rows of the questions 3b and 4, and what each child was asked."""
    copy_suite(tmp_path)
    (tmp_path / "conftest.py").write_text(CONFTEST)

    def ran(*flags):
        command = [sys.executable, "-m", "pytest", "benchmarks/", *FLAGS, *ASKED, *flags]
        asked = {"cwd": tmp_path, "env": os.environ | ENVIRONMENT, "timeout": 60}
        ended = subprocess.run(command, check=False, capture_output=True, text=True, **asked)
        assert ended.returncode == 0, ended.stdout
        (tmp_path / "said").write_text(ended.stdout)
        saved = json.loads((tmp_path / "run.json").read_text())
        told = [json.loads(line) for line in (tmp_path / "asked.jsonl").read_text().splitlines()]
        return [bench["extra_info"] for bench in saved["benchmarks"]], told

    return ran


def test_engine_engines_and_device(run):
    """--engine is what epochs run on, --engines what question 4 compares, --device where all of it is."""
    rows, told = run("--engine=graph", "--engines=eager,fast-bf16", "--device=cuda:1", "--optimizers=adam")
    trained = [row for row in rows if row["question"] == "3b"]
    assert [(row["engine"], row["model"], row["stand_in_for"]) for row in trained] == [
        ("graph", "resnet18", None)
    ] * 2
    steps = [(row["engine"], row["batch_size"]) for row in rows if row["timed"] == "engine step"]
    assert sorted(steps) == [("eager", 8), ("eager", 24), ("fast-bf16", 8), ("fast-bf16", 24)]
    losses = [row["engine"] for row in rows if row["timed"] == "epoch of single steps"]
    assert losses == ["eager"]  # bf16 rounds otherwise

    assert ["Inspection", "machine", [], ["cuda:1"]] in told
    assert ["Limits", "rates", [], ["cuda:1"]] in told
    requests = [(job, method, asked[0]) for job, method, asked, _ in told if asked]
    assert {request["device"] for _, _, request in requests} == {"cuda:1"}
    studied = [request["engine"] for job, method, request in requests if (job, method) == ("Study", "run")]
    assert studied == ["graph", "graph"]
    prepared = [request["engine"] for _, method, request in requests if method == "prepare"]
    assert sorted(prepared) == ["eager", "eager", "fast-bf16", "fast-bf16"]


@pytest.mark.parametrize(
    ("rule", "fastest"), [("adam", "fast"), ("rmsprop", "graph-channels-last"), ("adagrad", "eager")]
)
def test_engine_unless_told(run, rule, fastest):
    """On a GPU epochs run on the fastest engine for the first optimizer; question 4 is of one step of it."""
    rows, told = run(f"--optimizers={rule},sgd")
    assert {(row["optimizer"], row["engine"]) for row in rows} == {(rule, fastest)}
    (step,) = [row for row in rows if row["question"] != "3b"]
    assert (step["question"], step["batch_size"], step["energy_j"]) == ("4", 24, 2.5)
    assert "profiled" not in [method for _, method, _, _ in told]
    studied = [asked for job, method, asked, _ in told if (job, method) == ("Study", "run")]
    assert {(request["engine"], request["device"]) for request, *_ in studied} == {(fastest, "cuda:0")}


def test_engines_all(run):
    """--engines all has a row for each engine that can run the optimizer."""
    rows, _ = run("--engines=all", "--optimizers=rmsprop")
    compared = {row["engine"] for row in rows if row["timed"] == "engine step"}
    assert compared == {"eager", "graph", "graph-channels-last"}


def test_savers(run):
    """--savers measures and times the plain step and each way to save memory, each in its own process."""
    asked = ("-k", "step_with_each_saver", "--optimizers=adam")
    rows, told = run("--savers=bf16,accumulate+checkpoint", *asked)
    assert [(row["saver"], row["source"], row["timed"]) for row in rows] == [
        (name, "measured", "training step") for name in ("plain", "bf16", "accumulate+checkpoint")
    ]
    read = [asked[0] for _, method, asked, _ in told if method == "reading"]
    names = ("batch_size", "precision", "accumulate", "checkpoint")
    assert [tuple(request[name] for name in names) for request in read] == [
        (24, "fp32", 1, None),
        (24, "bf16", 1, None),
        (6, "fp32", 4, "blocks"),
    ]
    timed = [asked[0]["precision"] for _, method, asked, _ in told if method == "timed_steps"]
    assert timed == ["fp32", "bf16", "fp32"]


def test_processes_that_memory_takes(run):
    """What two benchmarks read in two fresh processes repeats by these; any other step is read once more."""
    _, told = run("--optimizers=sgd,adam", "-k", "step_at_each or step_with_each or repeats")
    requests = [asked[0] for _, method, asked, _ in told if method == "reading"]
    read = Counter((request["optimizer"], request["batch_size"]) for request in requests)
    assert read == {("sgd", 8): 1, ("sgd", 24): 2, ("adam", 24): 2}


def test_price(run, tmp_path):
    """--price says what the times of this GPU cost, as it was given; without it there is no word of money."""
    for flags, times in ((["--price=$3600/h"], 2), ([], 0)):
        run("--engines=fast", "--optimizers=adam", *flags)
        said = " ".join((tmp_path / "said").read_text().split())
        assert said.count("At $3600/h") == times
        assert ("$1.00 an epoch and $2.00 for 2 epochs of training" in said) == bool(times)
