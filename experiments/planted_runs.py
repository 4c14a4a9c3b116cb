"""Run the suite again and again, with a regression planted in some runs, and save all of them.

``python -m experiments.planted_runs FOLDER SECONDS [FLAG ...]``: FLAGs say what each run measures, as for
pytest (``-k step_on --engines fast``). Runs follow each other for SECONDS in the order of `ORDER`, so that a
drift of the host meets all kinds alike, and are saved in FOLDER as ``self1``, ``slow1``, ... for
``python -m experiments.alarms_planted``. What each kind plants stands in ``planted_steps.py``; the notes of a
saved run say that it was planted. One interpreter and one fork server serve all runs; each step is timed in a
fresh process, as ever.
"""

from __future__ import annotations

import io
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from experiments.arguments import parser_of, whole
from stepcost import jobs

ORDER = ("self", "slow", "self", "fat", "self", "slow", "self", "busy")
PLANTS = {
    "slow": {
        "CONFIGURATION": "experiments.planted_steps:Slow",
        "ENGINE_STEP": "experiments.planted_steps:SlowEngine",
    },
    "fat": {"CONFIGURATION": "experiments.planted_steps:Fat"},
    "busy": {"CONFIGURATION": "experiments.planted_steps:Busy"},
}
"""The jobs that children hold instead of the suite's own."""


def main(arguments: list[str] | None = None) -> int:
    """Save runs until the time is up, one line for each; return the exit status."""
    parser = parser_of("planted_runs", __doc__)
    parser.add_argument("folder", type=Path, help="where the runs are saved")
    parser.add_argument("seconds", type=whole, help="for how long to go on")
    options, flags = parser.parse_known_args(arguments)
    storage = f"--benchmark-storage=file://{options.folder.absolute()}"
    for kind, name in in_turn(options.seconds):
        start = time.monotonic()
        code, said = run_suite(kind, ["benchmarks/", "-q", storage, f"--benchmark-save={name}", *flags])
        print(f"{name}: exit code {code}, {time.monotonic() - start:.1f} s; {said}", flush=True)
    return 0


def in_turn(seconds: int, clock: Callable[[], float] = time.monotonic) -> Iterator[tuple[str, str]]:
    """Yield kind and name of the next run as long as the longest one so far would still end in time.

    The first run, which also starts the fork server, does not count as one.
    """
    until, longest_s = clock() + seconds, 0.0
    taken: Counter[str] = Counter()
    for kind in cycle(ORDER):
        start = clock()
        if start + longest_s > until:
            return
        taken[kind] += 1
        yield kind, f"{kind}{taken[kind]}"
        if taken.total() > 1:
            longest_s = max(longest_s, clock() - start)


def run_suite(kind: str, flags: list[str]) -> tuple[int, str]:
    """Run the suite with that kind's plant, or none; return its exit code and the last line it printed."""
    said = io.StringIO()
    planted = PLANTS.get(kind, {})
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        for name, job in planted.items():
            patch.setattr(jobs, name, job)
        code = int(pytest.main(flags, plugins=[Note(job) for job in planted.values()]))
    return code, said.getvalue().strip().splitlines()[-1]


class Note:
    """Says in what is saved that a job was planted."""

    def __init__(self, job: str) -> None:
        self.job = job

    @pytest.hookimpl(trylast=True)
    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        """Add the note to those of the session."""
        session = output_json.setdefault("stepcost", {})
        session["notes"] = [*session.get("notes", []), f"planted: {self.job}"]


if __name__ == "__main__":
    sys.exit(main())
