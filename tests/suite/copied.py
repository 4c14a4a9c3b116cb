"""A copy of the suite that tests can run, change and interrupt, as its users would."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    "PYTEST_ADDOPTS": "",
    # So small a model trains no faster on more threads, and several times slower where others compute too.
    "OMP_NUM_THREADS": "1",
}
"""What a process needs to run the copy."""


def copy_suite(folder: Path) -> None:
    """Copy the suite's top level into a folder."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks", ignore=ignored)
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)


def saved_run(folder: Path) -> dict[str, Any]:
    """Read the only run that was saved in a folder."""
    (saved,) = folder.glob(".benchmarks/*/0001_*.json")
    run: dict[str, Any] = json.loads(saved.read_text())
    return run
