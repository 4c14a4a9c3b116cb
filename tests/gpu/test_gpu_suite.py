"""``pytest benchmarks/`` on a GPU: interrupted and gone on with, twice at once, with faults."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from stepcost.journal import load_journal
from tests.suite.copied import ENVIRONMENT, copy_suite

pytestmark = pytest.mark.gpu

ENDED_S = 150
"""A run that takes longer has hung."""
INTERRUPTED = 2
"""Pytest's exit code."""


def start(folder, *flags):
    """Start the suite in a folder, in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "benchmarks/", "-p", "no:cacheprovider", *flags],
        cwd=folder,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def said_by(process):
    """Wait for the end of a run; return all that it said."""
    try:
        return process.communicate(timeout=ENDED_S)[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def group_lives(process):
    """Whether any process of a run is left, a few seconds after its end."""
    for _ in range(50):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    return True


def rows_of(path):
    """Rows of a saved run by the test's name: what it stores, without what differs from run to run."""
    return {bench["name"]: bench["extra_info"] for bench in json.loads(path.read_text())["benchmarks"]}


@pytest.fixture
def suite(tmp_path):
    """A folder with a copy of the suite."""
    copy_suite(tmp_path)
    return tmp_path


def wait_for_rows(path, count, process):
    """Wait until a run has written so many rows to its journal."""
    end = time.monotonic() + ENDED_S
    while not (journal := load_journal(path)) or len(journal.kept) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, f"no {count} rows in time"
        time.sleep(0.05)


FEW = (
    "--model=resnet18",
    "--optimizers=sgd",
    "--batch-sizes=8,16,32,64,128",
    "-k",
    "step_at_each or footprint",
)


def test_ctrl_c_and_resume(suite, machine, card):
    """After Ctrl-C in the middle the rows are kept, the card is free, and --resume measures the others."""
    flags = (*FEW, f"--device={machine.device}", "--benchmark-save=run")
    path = suite / ".benchmarks" / "unfinished.jsonl"
    with card.left_as_it_was():
        process = start(suite, *flags)
        try:
            wait_for_rows(path, 2, process)
            time.sleep(0.5)  # in the middle of the third
            os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=60)
            left = group_lives(process)
        finally:
            said = said_by(process)
    assert process.returncode == INTERRUPTED, said
    assert not left, "a process of the run lives on"
    kept = load_journal(path).kept
    assert 2 <= len(kept) < 6, said
    assert re.search(rf"interrupted: {len(kept)} rows kept; .*--resume", said), said
    assert "Traceback" not in said, said

    again = start(suite, *flags, "--resume")
    said = said_by(again)
    assert again.returncode == 0, said
    assert f"resumed: {len(kept)} rows kept" in said
    assert not path.exists()
    newest = max(suite.glob(".benchmarks/*/*_run.json"))
    rows = {bench["fullname"]: bench["extra_info"] for bench in json.loads(newest.read_text())["benchmarks"]}
    assert len(rows) == 6, sorted(rows)
    for name, one in kept.items():
        assert rows[name] == one.row["extra_info"], name


def test_two_runs_at_once_give_the_same_bytes(suite, machine):
    """Two runs of the suite at the same moment on one card read the same bytes, and each saves its own."""
    flags = (
        "--model=resnet18",
        "--optimizers=sgd,adam",
        "-k",
        "with_each_optimizer",
        f"--device={machine.device}",
    )
    both = [start(suite, *flags, f"--benchmark-json=run{number}.json") for number in (1, 2)]
    for process, said in [(process, said_by(process)) for process in both]:
        assert process.returncode == 0, said
    first, second = (rows_of(suite / f"run{number}.json") for number in (1, 2))
    assert len(first) == 2
    assert first.keys() == second.keys()
    names = (
        "peak_allocated_bytes",
        "peak_reserved_bytes",
        "activation_bytes",
        "phase_peak_bytes",
        "process_bytes",
    )
    for test, row in first.items():
        assert row["fits"] is True
        own = row["process_bytes_from"] == "nvml process"  # else it is the device's memory, of both runs
        for name in names if own else names[:-1]:
            assert row[name] == second[test][name], (test, name)


def test_each_fault_costs_its_own_row(suite, machine, card):
    """Children that are killed, hang and crash fail in one line each; the rows around them are saved."""
    flags = (
        "--model=tests.gpu.planted_jobs:deadly",
        "--optimizers=sgd",
        "--batch-sizes=4,5,6,7,8",
        "--time-limit=20",
        f"--device={machine.device}",
        "--benchmark-json=run.json",
    )
    with card.left_as_it_was():
        process = start(suite, *flags, "-k", "step_at_each")
        said = said_by(process)
    assert process.returncode == 1, said
    assert re.search(r"3 failed, 2 passed", said), said
    for line in ("SIGKILL", "no answer within 20 s; the child was killed", "SIGSEGV"):
        assert re.search(rf"^\S*Configuration\.\w+: .*{re.escape(line)}", said, re.MULTILINE), said
    assert "Traceback" not in said, said
    rows = rows_of(suite / "run.json")
    assert {name: row["batch_size"] for name, row in rows.items() if row.get("fits")} == {
        "test_step_at_each_batch_size[batch4]": 4,
        "test_step_at_each_batch_size[batch8]": 8,
    }
