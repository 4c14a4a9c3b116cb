"""The process border: each configuration in its own process, forked from a warm server.

The server (the standard library's *forkserver*) has torch and torchvision imported and
has never touched CUDA, so that each child gets a fresh CUDA context without a fresh
import. Requests and answers are plain data over a private pipe; what a child prints
goes to a log of its own, whose last line is quoted where the child dies. What runs in
the child is ``stepcost.measuring.child``.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import select
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from stepcost.failures import (
    ChildDied,
    ChildFailed,
    ChildHung,
    ChildKilled,
    Failure,
    OutOfMemory,
    Refused,
    first_line,
)
from stepcost.measuring.child import serve

START_LIMIT_S = 180.0
"""Time limit of the first answer: a cold machine may spend a minute importing torch."""
END_LIMIT_S = 10.0
"""Time limit of a killed child's end: one that waits inside the driver may never end."""

START = "start"
"""What a child answers first, as if it were a call."""
Progress = Callable[[Any], None]


def warm_up_server(prebuild: tuple[str, int | str, int | str, int] | None = None) -> None:
    """Start the fork server in the background, if it is not running yet.

    It imports ``stepcost.measuring.preload`` once, and builds the model ``prebuild`` (name,
    classes, image size, seed; sizes are empty for a language model) once for all children.
    """
    if prebuild is not None:
        os.environ["STEPCOST_PREBUILD"] = ",".join(map(str, prebuild))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stepcost.measuring.preload"])
    from multiprocessing import forkserver  # noqa: PLC0415 (POSIX only)

    with _no_main():
        forkserver.ensure_running()


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Let a child import nothing of the program that asks: a script without a guard would ask again in it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class Worker:
    """A child process that holds one ``job`` object and answers calls to its methods.

    ``job`` is a class as ``package.module:name``, so that only the child imports it; it is
    called there with ``arguments``. A method that is a generator reports progress: what it yields is
    handed to ``on_progress``, what it returns is the answer.
    """

    def __init__(
        self, job: str, *arguments: Any, time_limit_s: float = START_LIMIT_S, waits: bool = True
    ) -> None:
        """Start the child and wait until the job is built; if not ``waits``, the maker receives that answer.

        Raises ``OutOfMemory``, ``ChildFailed``, ``ChildDied`` or ``ChildHung``.
        """
        self.name = job.partition(":")[2]
        self.time_limit_s = time_limit_s
        warm_up_server()
        context = multiprocessing.get_context("forkserver")
        self._pipe, theirs = context.Pipe()
        # Made once: after a step the caches are cold, and each line on the way to the clock costs.
        self._ready = select.poll()
        self._ready.register(self._pipe, select.POLLIN)
        log, self._log = tempfile.mkstemp(prefix="stepcost-child-", suffix=".log")
        os.close(log)
        self.requested_at = time.perf_counter()
        self._process = context.Process(
            target=serve, args=(theirs, self._log, job, arguments, self.requested_at), daemon=True
        )
        try:
            with _no_main():
                self._process.start()
            theirs.close()
            if waits:
                self.receive(START, time_limit_s)
        except (EOFError, OSError) as error:  # the server that should have forked is gone
            self.close()
            raise ChildDied(f"{self.name}: no child could be started: {first_line(error)}") from error
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._process.pid

    def call(
        self,
        method: str,
        *arguments: Any,
        time_limit_s: float | None = None,
        on_progress: Progress | None = None,
    ) -> Any:
        """Call ``job.method(*arguments)`` in the child and return its answer.

        ``time_limit_s`` bounds the silence between two messages (default: as given at the start). Raises
        ``OutOfMemory``, ``ChildFailed``, ``ChildDied`` or ``ChildHung``, each with one line.
        """
        self.send(method, *arguments)
        return self.receive(method, time_limit_s or self.time_limit_s, on_progress)

    def send(self, method: str, *arguments: Any) -> None:
        """Ask for ``job.method(*arguments)``, whose answer is received later. Raises ``ChildDied``."""
        try:
            self._pipe.send_bytes(pickle.dumps((method, arguments)))
        except OSError:
            raise self._died(method) from None

    def fileno(self) -> int:
        """Return what can be waited on until there is something to receive."""
        return self._pipe.fileno()

    def kill(self) -> None:
        """End the child where it stands, inside a call too; ``close`` then finds it gone."""
        if self._process.is_alive():
            self._process.kill()

    def close(self) -> None:
        """End the child, wait until it is gone, and remove its log; warns where it would not end."""
        self._pipe.close()
        if self._process.pid is not None:
            self._process.join(timeout=5)
            if not self._kill():
                warnings.warn(f"{self.name}: {self._would_not_end}", RuntimeWarning, stacklevel=2)
        Path(self._log).unlink(missing_ok=True)

    def _kill(self) -> bool:
        """Kill the child; whether it has ended within ``END_LIMIT_S``."""
        if self._process.is_alive():
            self._process.kill()
            self._process.join(timeout=END_LIMIT_S)
        if not self._process.is_alive():
            return True
        # At exit multiprocessing waits without limit for every child that it knows.
        multiprocessing.process._children.discard(self._process)  # type: ignore[attr-defined]
        return False

    @property
    def _would_not_end(self) -> str:
        return f"process {self.pid} was killed and would not end; it may still hold memory of the GPU"

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def receive(self, method: str, time_limit_s: float, on_progress: Progress | None = None) -> Any:
        """Wait for the answer to a call of ``method`` and return it; raises as ``call`` does."""
        while True:
            try:
                if not self._ready.poll(time_limit_s * 1e3):
                    end = "the child was killed" if self._kill() else self._would_not_end
                    raise ChildHung(f"{self.name}.{method}: no answer within {time_limit_s:g} s; {end}")
                kind, value = pickle.loads(self._pipe.recv_bytes())
            except (EOFError, OSError):
                raise self._died(method) from None
            if kind == "answer":
                return value
            if kind == "progress":
                if on_progress is not None:
                    on_progress(value)
                continue
            failure: Failure = value
            if failure.kind == "out of memory":
                raise OutOfMemory(f"out of memory in {failure.phase}: {failure.message}")
            kind_of = Refused if failure.kind == "refused" else ChildFailed
            error = kind_of(f"{self.name}.{method}, in {failure.phase}: {failure.message}")
            error.reason = failure.message
            raise error

    def _died(self, method: str) -> ChildDied:
        self._process.join(timeout=10)
        code = self._process.exitcode
        kind = ChildDied
        if code == -signal.SIGKILL:
            kind, how = ChildKilled, "was killed by SIGKILL (the system kills so where host memory runs out)"
        elif code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"ended by itself with exit code {code}"
        last = _last_line(self._log)
        return kind(f"{self.name}.{method}: the child {how}" + (f"; its last line: {last}" if last else ""))


def _last_line(path: str) -> str:
    """Return the last non-empty line of a child's log, or an empty string."""
    try:
        with open(path, "rb") as log:
            log.seek(max(0, os.path.getsize(path) - 4096))
            lines = log.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""
