"""A bad argument of an experiment is one line on standard error, with exit code 2."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from experiments.arguments import configuration
from stepcost.request import Request


def test_a_configuration_is_read_from_its_end() -> None:
    """Model, optimizer and sizes are told apart also where the model's name has a colon."""
    assert configuration("mine:net:adam:64:224") == Request(
        model="mine:net", optimizer="adam", batch_size=64, image_size=224
    )


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("alarms_planted", "the following arguments are required: runs"),
        ("alarms_planted nowhere", "nowhere: fewer than two saved runs called self*"),
        (f"alarms_planted {__file__}", "neither a folder nor an archive of saved runs"),
        ("alarms_resampled fast", "unrecognized arguments: fast"),
        ("planted_runs figures", "the following arguments are required: seconds"),
        ("planted_runs figures soon", "'soon' is not a whole number of 1 or more"),
        ("measured_activations resnet18", "'resnet18' is not MODEL:OPTIMIZER:BATCH:IMAGE_SIZE"),
        ("measured_activations resnet18:sdg:4:32", "unknown optimizer 'sdg'; it takes sgd, "),
        ("measured_activations resnet18:sgd:0:32", "'0' is not a whole number of 1 or more"),
        (
            "measured_activations resnet18:sgd:4:32",
            "no GPU here; stepcost predict --activations does without one",
        ),
        ("energy_repeats", "there is no GPU here"),
        ("energy_repeats --processes none", "'none' is not a whole number of 1 or more"),
        ("record_histories --out x resnet18:sgd:4", "'resnet18:sgd:4' is not MODEL:"),
        ("record_histories --out x resnet18:sgd:4:32", "there is no GPU here"),
    ],
)
def test_bad_arguments_are_one_line(
    command: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command names itself and what is wrong, prints nothing else, and ends with exit code 2."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    name, *arguments = command.split()
    with pytest.raises(SystemExit) as ended:
        import_module(f"experiments.{name}").main(arguments)
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"python -m experiments.{name}: ")
    assert said in shown.err
    assert shown.err.count("\n") == 1
