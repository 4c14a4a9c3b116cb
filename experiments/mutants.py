"""Find small faults in the rules that decide which no test sees: the table of docs/notes/mutants.md.

``tox -e mutants`` or ``python -m experiments.mutants``, with patterns such as ``'stepcost.search*'`` or all.

mutmut makes the faults, of the modules and for the tests that ``[tool.mutmut]`` of pyproject.toml names. They
are judged here, since mutmut collects the tests anew for each fault. Here they are collected once; each fault
gets a fork that runs the tests that reach its function, first those that have found most of its faults.
Verdicts are kept where mutmut keeps its own, so that ``mutmut show NAME`` shows a fault; what was found
before is not judged again unless its function has changed (``rm -r mutants`` starts anew).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import scipy.stats  # noqa: F401 (imported late by what it tests, it would be in each fork anew)
from mutmut import __main__ as mutmut
from mutmut.configuration import config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.utils.file_utils import walk_mutatable_files

LEFT, FOUND, NO_TESTS, HUNG = 0, 1, 33, 36
"""Verdicts, as mutmut writes them. A fault that makes a test hang is found."""
AT_LEAST_S = 20
TIMES_AS_LONG = 10
"""A fork is ended after so long, and so many times what its tests take."""


class Judge:
    """A pytest plugin that runs the collected tests once for each fault, in a fork."""

    def __init__(self, faults: dict[str, SourceFileMutationData]) -> None:
        """``faults`` are names to the file's verdicts."""
        self._faults = faults
        self._finds: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure."""
        self._failed |= report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Learn which tests reach which function, then judge every fault."""
        items = {item.nodeid: item for item in session.items}
        reached, took_s, failed = _answer_of_fork(lambda: self._look(items))
        if failed:
            raise pytest.UsageError(f"these fail without any fault: {', '.join(failed)}")
        gc.freeze()  # what a fork goes through, it copies
        for place, name in enumerate(self._faults, 1):
            function = name.partition("__mutmut_")[0]
            tests, finds = reached.get(function, []), self._finds[function]
            ordered = sorted(tests, key=lambda one: (-finds[one], took_s[one]))
            limit_s = AT_LEAST_S + TIMES_AS_LONG * sum(took_s[one] for one in tests)
            verdict, by = self._judge(name, [items[one] for one in ordered], limit_s)
            finds.update(by)
            self._faults[name].exit_code_by_key[name] = verdict
            self._faults[name].save()
            print(f"\r{place} of {len(self._faults)}", end="", file=sys.stderr)
        return True

    def _look(
        self, items: dict[str, pytest.Item]
    ) -> tuple[dict[str, list[str]], dict[str, float], list[str]]:
        """Run all tests without a fault: functions to the tests that reach them, seconds, and what failed."""
        set_mutant_under_test("stats")
        reached: defaultdict[str, list[str]] = defaultdict(list)
        took_s, failed = {}, []
        for name, item in items.items():
            state()._stats.clear()
            start = time.perf_counter()
            if self._fails(item):
                failed.append(name)
            took_s[name] = time.perf_counter() - start
            for function in state()._stats:
                reached[function].append(name)
        return reached, took_s, failed

    def _fails(self, item: pytest.Item) -> bool:
        self._failed = False
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return self._failed

    def _judge(self, fault: str, items: list[pytest.Item], limit_s: float) -> tuple[int, list[str]]:
        """Return the verdict on a fault, and the test that found it."""
        if not items:
            return NO_TESTS, []

        def first_to_fail() -> list[str]:
            set_mutant_under_test(fault)
            return next(([item.nodeid] for item in items if self._fails(item)), [])

        try:
            by: list[str] = _answer_of_fork(first_to_fail, limit_s)
        except TimeoutError:
            return HUNG, []
        except EOFError:  # the fault ended the process
            return FOUND, []
        return (FOUND if by else LEFT), by


def _answer_of_fork(ask: Callable[[], Any], limit_s: float = 600) -> Any:
    """Return what ``ask`` returns in a fork, as JSON carries it. Raises ``EOFError`` or ``TimeoutError``."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            answer = json.dumps(ask())
            with os.fdopen(writes, "w") as pipe:
                pipe.write(answer)
        finally:  # whatever a fault raised: without an answer it is found
            os._exit(0)
    os.close(writes)
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(child, signal.SIGKILL))
    start = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    with os.fdopen(reads) as pipe:
        text = pipe.read()
    signal.setitimer(signal.ITIMER_REAL, 0)
    os.waitpid(child, 0)
    if not text:
        raise EOFError if time.monotonic() - start < limit_s else TimeoutError
    return json.loads(text)


@contextmanager
def _without_output() -> Iterator[None]:
    """Let what this process and its forks print go nowhere; errors are shown."""
    shown, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    yield
    sys.stdout.flush()
    os.dup2(shown, 1)


def faults_of(patterns: list[str]) -> dict[str, SourceFileMutationData]:
    """Make the faults whose names fit; those without a verdict, or that no test found, to their files."""
    set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir(exist_ok=True)
    with redirect_stdout(StringIO()):
        mutmut.copy_src_dir()
        mutmut.copy_also_copy_files()
        mutmut.setup_source_paths()
        mutmut.create_mutants(os.cpu_count() or 1)
    chosen = {}
    for file in files():
        for name, verdict in file.exit_code_by_key.items():
            if verdict not in (FOUND, HUNG) and any(fnmatchcase(name, one) for one in patterns):
                chosen[name] = file
    return chosen


def files() -> list[SourceFileMutationData]:
    """Return the verdicts of each file as they are stored."""
    found = [SourceFileMutationData(path=path) for path in sorted(walk_mutatable_files())]
    for file in found:
        file.meta_path = file.meta_path.absolute()  # tests are run in a folder of their own
        file.load()
    return [file for file in found if file.exit_code_by_key]


def main(arguments: list[str]) -> int:
    """Judge the faults and print the table by file, with the names of those that are left."""
    # The parser of the other experiments would import the library before its mutants are there.
    name, layout = "python -m experiments.mutants", argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(name, argparse.SUPPRESS, __doc__, formatter_class=layout)
    parser.add_argument("patterns", nargs="*", default=["*"], help="of the faults' names; all unless given")
    chosen = faults_of(parser.parse_args(arguments).patterns)
    here = Path.cwd()
    if chosen:
        set_mutant_under_test("")
        os.chdir("mutants")
        asked = ["--rootdir=.", "--tb=no", *config().pytest_add_cli_args]
        with _without_output():
            code = pytest.main(
                [*asked, *config().pytest_add_cli_args_test_selection], plugins=[Judge(chosen)]
            )
        os.chdir(here)
        if code:
            return int(code)
    print("\n| file | faults | found | left | |\n|---|---:|---:|---:|---:|")
    left = []
    for file in files():
        verdicts = Counter(file.exit_code_by_key.values())
        if None in verdicts:  # not asked for
            continue
        left += [name for name, one in file.exit_code_by_key.items() if one not in (FOUND, HUNG)]
        every, found = verdicts.total(), verdicts[FOUND] + verdicts[HUNG]
        path = str(file.path).removeprefix("src/stepcost/")
        print(f"| {path} | {every} | {found} | {every - found} | {100 * found / every:.0f} % |")
    print("", *left, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
