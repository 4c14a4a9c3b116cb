"""Recording workspaces, as far as it goes without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepcost.predicting.convolution import Convolution
from stepcost.predicting.record import convolutions_named
from stepcost.predicting.record_nccl import communicator_here
from tests.command import stepcost


def test_convolutions_are_listed_and_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The list that is printed is a file of keys, and names each convolution once."""
    assert stepcost(["record", "--list", "small-cnn:32", "small-cnn:32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    keys = tmp_path / "keys.txt"
    keys.write_text("\n".join(lines))
    assert convolutions_named([], keys) == [Convolution.from_key(line) for line in lines]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet18"], "'resnet18' is not MODEL:IMAGE_SIZE"),
        (["--keys", "missing.txt"], "missing.txt is no file of convolutions"),
        (["small-cnn:32", "--batch-sizes", "4,x"], "'x'"),
        (["small-cnn:32"], "needs a GPU"),
    ],
)
def test_a_wrong_request_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be recorded is one line on standard error and status 2."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert stepcost(["record", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_model_that_cannot_be_traced_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """The others are listed, and a line says which model was left out and why."""
    assert len(convolutions_named(["vgg16:8", "small-cnn:32"])) == 4
    assert capsys.readouterr().err.startswith("vgg16:8: ")


class _Ranks:
    """Stand in for two processes; the last one is listened to."""

    def __init__(self, read: list[dict[str, Any]]) -> None:
        self.read = read

    def __enter__(self) -> _Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: object, ranks: range, folders: list[str]) -> list[list[dict[str, Any]]]:
        return [[], self.read]


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (
            [{"context_bytes": 520 << 20}, {"context_bytes": 900 << 20}],
            {"communicator_bytes": 380 << 20, "nccl": "2.28.9"},
        ),
        (
            [{"context_unread": "NVML does not list this process"}, {"context_bytes": 1}],
            {"communicator_unread": "NVML does not list this process"},
        ),
    ],
)
def test_what_nccl_takes_is_the_growth_of_the_context(
    read: list[dict[str, Any]], said: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From before two GPUs join to after their collectives; what NVML does not tell has its reason."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.nccl.version", lambda: (2, 28, 9))
    monkeypatch.setattr("stepcost.predicting.record_nccl.ProcessPoolExecutor", lambda *_: _Ranks(read))
    assert communicator_here() == said


def test_one_gpu_says_nothing_of_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started where there is nobody to join."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert communicator_here() == {}
