"""Adding a metric is one field and the line that fills it: seen in a copy of the project."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DECLARED = (
    "src/stepcost/reading.py",
    "    seconds: float | None = stored(",
    '    warmth_j: float | None = stored("energy that the room gains in a step")\n',
)
FILLED = (
    "src/stepcost/predicting/prediction.py",
    "        leaked_bytes=simulation.leaked_bytes,",
    '        warmth_j=float(__import__("os").environ["WARMTH"]),\n',
)
FLAGS = ("--device", "cpu", "--model", "small-cnn", "--optimizers", "sgd", "--batch-sizes", "8")


@pytest.fixture
def project(tmp_path):
    """A copy of the project with one field more, and one line that fills it."""
    for name in ("src", "fixtures", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for path, before, line in (DECLARED, FILLED):
        text = (tmp_path / path).read_text()
        assert text.count(before) == 1
        (tmp_path / path).write_text(text.replace(before, line + before))
    return tmp_path


def run(project, *command, warmth):
    """Run a module of the copy; return what it says."""
    where = f"{project / 'src'}{os.pathsep}{project}"
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env=os.environ | {"PYTHONPATH": where, "WARMTH": str(warmth)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_field_reaches_file_loader_comparison_and_page(project):
    """A field that is declared and filled is saved, loaded, compared, shown and documented, in its unit."""
    for name, warmth in (("cold", 1.25), ("warm", 7.5)):
        ask = ("pytest", "benchmarks/", *FLAGS, "-k", "step_with", f"--benchmark-save={name}")
        run(project, *ask, warmth=warmth)
    (saved,) = project.glob(".benchmarks/*/0001_cold.json")
    (bench,) = json.loads(saved.read_text())["benchmarks"]
    assert bench["extra_info"]["warmth_j"] == 1.25
    compared = run(project, "stepcost", "compare", "cold", "warm", warmth=0)
    (line,) = [line for line in compared.splitlines() if "warmth_j" in line]
    assert "1.25 J" in line
    assert "7.50 J" in line
    run(project, "stepcost", "report", "cold", "--out", "page", warmth=0)
    page = (project / "page" / "report.md").read_text()
    heading = next(line for line in page.splitlines() if "warmth" in line)
    place = [cell.strip() for cell in heading.split("|")].index("warmth (J)")
    rows = page[page.index(heading) :].splitlines()
    assert rows[2].split("|")[place].strip() == "1.250"
    assert "| `warmth_j` | J | energy that the room gains in a step |" in run(
        project, "stepcost.row", warmth=0
    )
