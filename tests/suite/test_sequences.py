"""A run of the suite for what takes no images: its rows, its answers and its page are of what it takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command import stepcost
from tests.own.test_asked_steps import EXAMPLE_BYTES, PARAMETERS, TWO
from tests.suite.copied import ENVIRONMENT, copy_suite, saved_run


def run(folder: Path, *flags: str) -> tuple[list[dict[str, Any]], str]:
    """Run the suite in a folder without a GPU; return the rows that it saved and what it printed."""
    copy_suite(folder)
    command = [sys.executable, "-m", "pytest", "benchmarks/", "--device=cpu", "--benchmark-save=one", *flags]
    asked: dict[str, Any] = {"cwd": folder, "env": os.environ | ENVIRONMENT, "timeout": 240}
    ended = subprocess.run(command, check=False, capture_output=True, text=True, **asked)
    assert ended.returncode == 0, ended.stdout
    return [bench["extra_info"] for bench in saved_run(folder)["benchmarks"]], ended.stdout


def test_a_language_model_over_its_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each length is a row of 3a once, is answered and drawn, and no word is of images."""
    pytest.importorskip("transformers", reason="an extra: pip install 'stepcost[transformers]'")
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 500, "n_positions": 64}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", **sizes}))
    rows, said = run(
        tmp_path,
        "--model=config.json",
        "--optimizers=adamw,sgd",
        "--batch-sizes=1,2",
        "--sequence-lengths=16,32,64",
        "-m=not instrument",
    )
    steps = [row for row in rows if row["question"] == "3a" and row["timed"] == "prediction"]
    assert sorted((row["batch_size"], row["sequence_length"]) for row in steps) == [
        (1, 16),
        (2, 16),
        (2, 32),
        (2, 64),
    ]
    assert all(row["input_bytes"] == 2 * 8 * row["batch_size"] * row["sequence_length"] for row in steps)
    assert all(row["image_size"] is None for row in rows if "image_size" in row)
    assert "sequences of 16, 32, 64 tokens" in said
    answers = said.partition("= answers =")[2]
    assert "image" not in answers
    monkeypatch.chdir(tmp_path)
    assert stepcost(["report", "one", "--out", "out"]) == 0
    page = (tmp_path / "out/report.md").read_text()
    assert "Memory over sequence length" in page
    assert "MB at 32 tokens and" in page
    skipped = "takes no images: only classifiers are trained on a data set"
    assert "image" not in page.replace(skipped, "")


def test_a_workload_of_ones_own(tmp_path: Path) -> None:
    """Two inputs and two losses from a file outside of the repository: rows of their bytes."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "suite").mkdir()
    file = tmp_path / "elsewhere/train_two_more.py"
    file.write_text(TWO)
    rows, said = run(
        tmp_path / "suite",
        f"--model={file}:workload",
        "--optimizers=adamw",
        "--batch-sizes=8,16",
        "-k=footprint or step_at_each_batch or each_optimizer or state_follows or sequence",
    )
    steps = {row["batch_size"]: row for row in rows if row["question"] == "3a"}
    assert {size: row["input_bytes"] for size, row in steps.items()} == {
        8: 8 * EXAMPLE_BYTES,
        16: 16 * EXAMPLE_BYTES,
    }
    assert all(row["parameters"] == PARAMETERS for row in steps.values())
    assert "a workload of its own" in said
