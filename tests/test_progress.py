"""How far long work is, on standard error."""

import sys

from stepcost import progress as shown
from stepcost.progress import progress
from tests.command import stepcost

STEP = ["small-cnn", "--gpu", "h100-80gb,t4", "--torch", "2.11"]


def test_without_a_terminal_each_part_is_a_line(capsys, monkeypatch):
    """Parts are counted, and out of how many where that is known; nothing goes to standard output."""
    monkeypatch.setattr(shown, "EVERY_S", 0.0)
    for total in (2, None):
        with progress("cards", total) as begin:
            begin("t4")
            begin("a10")
    assert capsys.readouterr() == ("", "cards: 1 of 2, t4\ncards: 2 of 2, a10\ncards: 1, t4\ncards: 2, a10\n")


def test_quick_work_says_nothing(capsys):
    """What is done within seconds leaves a log as it is."""
    with progress("cards", 1) as begin:
        begin("t4")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_has_a_bar_that_goes_away(capsys, monkeypatch):
    """There no line is left behind."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("cards", 2) as begin:
        begin("t4")
    said = capsys.readouterr().err
    assert "cards" in said
    assert "\n" not in said


def test_long_commands_say_how_far_they_are(capsys, monkeypatch):
    """Cards by name, and each batch and length that a search looks at, of several GPUs too."""
    monkeypatch.setattr(shown, "EVERY_S", 0.0)
    stepcost(["cards", *STEP, "--json"])
    assert capsys.readouterr().err.splitlines() == ["cards: 1 of 2, h100-80gb", "cards: 2 of 2, t4"]
    shared = ["--parallel", "ddp", "--gpus", "2"]
    stepcost(["predict", "small-cnn", "--gpu", "t4", *shared, "--largest-batch", "--json"])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 2
    assert all(
        line.startswith(f"largest batch: {place}, batch ") for place, line in enumerate(lines, start=1)
    )
