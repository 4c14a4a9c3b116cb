"""A run that is killed half way, and the one that goes on from there: real processes."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from stepcost.journal import KEPT, load_journal
from tests.suite.copied import ENVIRONMENT, copy_suite, saved_run

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
ENDED_S = 120
"""A run that takes longer has hung."""


def copy_with_two_more(folder):
    """Copy the suite into a folder, with the two tests above."""
    copy_suite(folder)
    (folder / "benchmarks" / "test_a_flaky.py").write_text(FLAKY)
    (folder / "benchmarks" / "test_n_hangs.py").write_text(HANGS)


def start(folder, *flags):
    """Start the suite in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "benchmarks/", *FLAGS, *CHOSEN, *flags],
        cwd=folder,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder, *flags):
    """Run the suite to its end; returns the exit code and all it said."""
    with start(folder, *flags) as process:
        try:
            said, _ = process.communicate(timeout=ENDED_S)
        finally:
            process.kill()
    return process.returncode, said


def journal_in(folder):
    """Where a copy of the suite keeps the journal of a run that has not ended."""
    return folder / ".benchmarks" / "unfinished.jsonl"


@pytest.fixture
def fresh(tmp_path):
    """A folder with a copy of the suite and the two tests above, of which neither waits or fails."""
    copy_with_two_more(tmp_path)
    (tmp_path / "go").touch()
    return tmp_path


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder in which the suite was killed after three rows."""
    folder = tmp_path_factory.mktemp("killed")
    copy_with_two_more(folder)
    with start(folder) as process:
        try:
            end = time.monotonic() + ENDED_S
            while not (journal := load_journal(journal_in(folder))) or len(journal.kept) < 3:
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < end, "no three rows in time"
                time.sleep(0.05)
        finally:
            process.kill()
    return folder


@pytest.fixture
def interrupted(killed, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(killed, tmp_path, dirs_exist_ok=True)


def test_killed_run_goes_on(interrupted):
    """After kill -9 the rows measured are kept as they are; what failed and the rest are run and saved."""
    path = journal_in(interrupted)
    kept = load_journal(path).kept
    assert not list(interrupted.glob(".benchmarks/*/*.json"))
    with path.open("a") as file:
        file.write('{"row": {"name": "cut sho')
    (interrupted / "go").touch()

    _, said = run(interrupted, "--resume", "-rs", "-v")
    assert "stepcost: note: resumed: 3 rows kept from the interrupted run" in said
    assert f"SKIPPED [2] benchmarks/test_batch_size_memory.py: {KEPT}" in said
    assert "test_flaky PASSED" in said
    assert "test_more_state_means_a_higher_peak PASSED" in said
    assert "no interrupted run" not in said

    saved = saved_run(interrupted)
    rows = {bench["fullname"]: bench for bench in saved["benchmarks"]}
    assert len(rows) == len(saved["benchmarks"]) == 8  # 2 batch sizes, 3 optimizers, size, flaky, hangs
    for name, one in kept.items():
        assert json.dumps(rows[name]["extra_info"]) == json.dumps(one.row["extra_info"])
        figures = {name: value for name, value in one.row["stats"].items() if name != "data"}
        assert rows[name] == one.row | {"stats": figures}
    assert any(note.startswith("resumed: 3 rows kept") for note in saved["stepcost"]["notes"])
    assert not [skip for skip in saved["stepcost"]["skipped"] if skip["reason"] == KEPT]
    assert not path.exists()


def test_run_goes_on_without_a_journal(fresh):
    """Where no journal can be written the run warns once and is saved as ever."""
    journal_in(fresh).mkdir(parents=True)
    code, said = run(fresh, "-k", "footprint or flaky")
    assert code == 0, said
    assert said.count("no journal, --resume cannot go on from this run") == 1
    assert saved_run(fresh)["benchmarks"]


@pytest.mark.parametrize(
    ("flags", "differs"),
    [
        (("--batch-sizes", "8"), r"batch_sizes 8,64, here it is 8;"),
        (("-k", "footprint"), r"tests selected \d+ .*, here it is 1 "),
    ],
)
def test_another_run_is_not_gone_on_with(interrupted, flags, differs):
    """With other settings or tests one line names what differs, and what was measured stays where it is."""
    before = journal_in(interrupted).read_bytes()
    code, said = run(interrupted, *flags, "--resume")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert re.search(f"^ERROR: --resume: the interrupted run had {differs}", said, re.MULTILINE)
    assert "Traceback" not in said
    assert journal_in(interrupted).read_bytes() == before
