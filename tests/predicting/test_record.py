"""Recording workspaces, as far as it goes without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepcost.predicting.convolution import Convolution
from stepcost.predicting.record import convolutions_named
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
