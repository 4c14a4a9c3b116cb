"""A run that is killed half way, and the one that goes on from there: real processes."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fixtures import resume
from stepcost.journal import KEPT, Journal, Kept, load_journal
from stepcost.request import Request

ROOT = Path(__file__).parents[2]
FLAGS = ("--model", "small-cnn", "--device", "cpu", "--batch-sizes", "8,64", "--benchmark-save=run1")
CHOSEN = ("-k", "step_at or footprint or flaky or hangs or each_optimizer or higher_peak")
# Between the questions of the suite: one that fails and one that hangs until a file 'go' is there.
FLAKY = (
    "from pathlib import Path\n"
    "def test_flaky(benchmark):\n"
    "    benchmark.pedantic(int)\n"
    "    assert Path('go').exists()\n"
)
HANGS = (
    "import time\nfrom pathlib import Path\n"
    "def test_hangs(benchmark):\n"
    "    def wait():\n"
    "        while not Path('go').exists(): time.sleep(0.1)\n"
    "    benchmark.pedantic(wait)\n"
)
STARTED_S = 120


@pytest.fixture
def suite(tmp_path):
    """A copy of the suite's top level with the two tests above; ``suite(*flags)`` starts it there."""
    shutil.copytree(
        ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "benchmarks" / "test_a_flaky.py").write_text(FLAKY)
    (tmp_path / "benchmarks" / "test_n_hangs.py").write_text(HANGS)
    started = []

    def start(*flags):
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "benchmarks/", *FLAGS, *CHOSEN, *flags],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def kept_in(path, rows):
    """Wait for so many rows in the journal, and return it."""
    end = time.monotonic() + STARTED_S
    while time.monotonic() < end:
        journal = load_journal(path)
        if journal is not None and len(journal.kept) >= rows:
            return journal
        time.sleep(0.05)
    raise AssertionError(f"no {rows} rows within {STARTED_S} s")


def test_killed_run_goes_on(suite, tmp_path):
    """After kill -9 the rows measured are kept as they are; what failed and the rest are run and saved."""
    path = tmp_path / ".benchmarks" / "unfinished.jsonl"
    first = suite()
    kept = kept_in(path, 3).kept
    first.kill()
    first.communicate()
    assert not list(tmp_path.glob(".benchmarks/*/*.json"))
    with path.open("a") as file:
        file.write('{"row": {"name": "cut sho')
    (tmp_path / "go").touch()

    said, _ = suite("--resume", "-rs", "-v").communicate()
    assert "stepcost: note: resumed: 3 rows kept from the interrupted run" in said
    assert f"SKIPPED [2] benchmarks/test_batch_size_memory.py: {KEPT}" in said
    assert "test_flaky PASSED" in said
    assert "test_more_state_means_a_higher_peak PASSED" in said
    assert "no interrupted run" not in said

    (saved,) = tmp_path.glob(".benchmarks/*/0001_run1.json")
    run = json.loads(saved.read_text())
    rows = {bench["fullname"]: bench for bench in run["benchmarks"]}
    assert len(rows) == len(run["benchmarks"]) == 8  # 2 batch sizes, 3 optimizers, size, flaky, hangs
    for name, one in kept.items():
        assert json.dumps(rows[name]["extra_info"]) == json.dumps(one.row["extra_info"])
        figures = {name: value for name, value in one.row["stats"].items() if name != "data"}
        assert rows[name] == one.row | {"stats": figures}
    assert any(note.startswith("resumed: 3 rows kept") for note in run["stepcost"]["notes"])
    assert not [skip for skip in run["stepcost"]["skipped"] if skip["reason"] == KEPT]
    assert not path.exists()


def test_run_goes_on_without_a_journal(suite, tmp_path):
    """Where no journal can be written the run warns once and is saved as ever."""
    (tmp_path / ".benchmarks" / "unfinished.jsonl").mkdir(parents=True)
    (tmp_path / "go").touch()
    process = suite("-k", "footprint or flaky")
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert said.count("no journal, --resume cannot go on from this run") == 1
    assert len(list(tmp_path.glob(".benchmarks/*/0001_run1.json"))) == 1


def test_another_run_is_not_gone_on_with(suite, tmp_path):
    """Rows of other settings are not mixed in: one line names what differs, and they stay where they are."""
    path = tmp_path / ".benchmarks" / "unfinished.jsonl"
    path.parent.mkdir()
    about = {"stepcost": {"schema_version": 1}, "settings": {"model": "resnet18"}}
    path.write_text(json.dumps({"stepcost_journal": 1, "about": about}) + "\n")
    process = suite("--resume")
    said, _ = process.communicate()
    assert process.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: --resume: the interrupted run had model resnet18, here it is small-cnn" in said
    assert "Traceback" not in said
    assert isinstance(load_journal(path), Journal)


def test_another_selection_is_not_gone_on_with(suite, tmp_path):
    """With other tests selected the rest of the interrupted run would be lost: one line says so."""
    path = tmp_path / ".benchmarks" / "unfinished.jsonl"
    first = suite()
    kept_in(path, 1)
    first.kill()
    first.communicate()
    process = suite("-k", "footprint", "--resume")
    said, _ = process.communicate()
    assert process.returncode == pytest.ExitCode.USAGE_ERROR
    assert re.search(r"ERROR: --resume: the interrupted run had tests selected \d+ .*, here it is 1 ", said)
    assert load_journal(path).kept


class Suite:
    """A suite that was told to resume; its session keeps readings, and measures nothing."""

    def __init__(self, storage):
        self.options = {"benchmark_storage": f"file://{storage}", "--resume": True}
        self.config = SimpleNamespace(getoption=self.options.__getitem__)
        self.rows, self.skipped, self.notes, self.readings = [], [], [], {}
        self.session = SimpleNamespace(request=Request, remember=self.readings.__setitem__)


def test_relations_take_readings_from_kept_rows(monkeypatch, tmp_path):
    """After a resume a reading of a kept row is there, and why a kept test was skipped is in the record."""
    names = {"model": "small-cnn", "optimizer": "sgd", "batch_size": 8}
    extra = {"question": "3a", "source": "measured", "fits": False, "reason": "no room", **names}
    row = {"name": "t", "fullname": "b.py::t", "extra_info": extra, "options": {}}
    row["stats"] = {"data": [0.5], "iterations": 1}
    monkeypatch.setattr(resume, "about_run", lambda session: {})
    monkeypatch.setattr(resume, "hand_to_pytest_benchmark", lambda config, row: None)
    journal = Journal(tmp_path / "unfinished.jsonl", {"selection": resume.selection([])})
    journal.add(Kept(row, "an answer without bytes"))
    suite = Suite(tmp_path)
    assert "1 row kept" in resume.RunJournal(suite, []).note
    assert suite.readings[Request(**names)].reason == "no room"
    assert suite.skipped == [{"test": "b.py::t", "reason": "an answer without bytes"}]
    assert suite.rows[0]["reason"] == "no room"
