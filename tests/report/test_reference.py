"""The runs committed as reference: what they hold, and what they must not hold."""

import json
import re

import pytest

from stepcost.report.answers import answers
from stepcost.report.find import REFERENCE
from stepcost.report.load import load
from stepcost.report.scrub import scrubbed

FILES = sorted(REFERENCE.glob("*.json"))
MEASURED_FIELDS = (
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "process_bytes",
    "phase_peak_bytes",
    "ledger",
)


def steps(path):
    """The memory rows of a saved run by configuration."""
    rows = [bench["extra_info"] for bench in json.loads(path.read_text())["benchmarks"]]
    return {
        (row["question"], row["optimizer"], row["batch_size"]): row
        for row in rows
        if row.get("peak_allocated_bytes") and row["question"] in ("2a", "3a")
    }


def test_there_are_reference_runs():
    """There is a reference run of an H100 and one of an H200."""
    assert {"h100-80gb.json", "h200-141gb.json"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_owner_is_named(path):
    """A reference run names no host and no path."""
    text = path.read_text()
    assert not {"node", "release"} & json.loads(text)["machine_info"].keys()
    assert not re.search(r'"[^"]*(/home/|/root/|/work/|/Users/|file://)', text)


@pytest.mark.parametrize(
    "pair",
    [
        ("h100-80gb", "h100-80gb-again"),
        ("h100-80gb", "h100-80gb-fast"),
        ("h100-80gb-fast-before", "h100-80gb-fast"),
        ("h100-80gb-fast", "h100-80gb-torch2.11"),
        ("h200-141gb", "h200-141gb-again"),
        ("h100-80gb", "h200-141gb"),
    ],
)
def test_bytes_repeat_between_runs_and_cards(pair):
    """Two runs, and an H100 and an H200 with the same libraries, measured the same bytes."""
    first, second = (steps(REFERENCE / f"{name}.json") for name in pair)
    assert first.keys() & second.keys()
    for key in first.keys() & second.keys():
        for name in MEASURED_FIELDS:
            assert first[key][name] == second[key][name], (key, name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_ledgers_add_up(path):
    """In every measured row the parts add up to the peak, and all of it to the process, to the byte."""
    for row in steps(path).values():
        if row["ledger"] is None:
            continue
        parts = dict(row["ledger"])
        slack, context = parts.pop("slack_bytes"), parts.pop("context_bytes")
        assert sum(parts.values()) == row["peak_allocated_bytes"]
        assert sum(parts.values()) + slack == row["peak_reserved_bytes"]
        if context is not None:
            assert sum(parts.values()) + slack + context == row["process_bytes"]


def test_scrubbing_takes_names_and_leaves_readings():
    """Scrubbing removes host, storage and folders, and touches no reading."""
    run = {
        "machine_info": {"node": "host", "release": "6.1-mine", "gpu": "NVIDIA H100"},
        "commit_info": {"project": "secret"},
        "benchmarks": [{"extra_info": {"peak_allocated_bytes": 1}}],
        "stepcost": {
            "command": [
                "benchmarks/",
                "--benchmark-storage=file:///home/me",
                "--dataset",
                "/home/me/mine.npz",
            ],
            "settings": {"dataset": "/home/me/mine.npz", "epochs": 10},
        },
    }
    clean = scrubbed(run)
    assert clean["machine_info"] == {"gpu": "NVIDIA H100"}
    assert clean["stepcost"]["command"] == ["benchmarks/", "--dataset", "mine.npz"]
    assert clean["stepcost"]["settings"] == {"dataset": "mine.npz", "epochs": 10}
    assert clean["benchmarks"] == run["benchmarks"]
    assert "home" not in json.dumps(clean)


def test_fastest_batch_is_explained_by_the_plain_loop():
    """3c of a run trained by CUDA graph also gives the eager steps of that run, with their busy share."""
    run = load(REFERENCE / "h100-80gb.json")
    (answer,) = [one for one in answers(run.rows, run.machine) if one.question == "3c"]
    steps = {
        row["batch_size"]: row
        for row in run.rows
        if row.get("timed") == "training step" and row["question"] == "3a"
    }
    for batch in (4, 256):
        assert f"{steps[batch]['stats']['median'] * 1e3:.1f} ms at batch {batch}" in answer.text
        assert f"{steps[batch]['gpu_busy_share']:.1%}".replace("%", " %") in answer.text
