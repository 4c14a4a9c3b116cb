"""What runs in a child: it builds its job, answers calls to its methods, and says what went wrong."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from multiprocessing.connection import Connection
from typing import Any

from stepcost.failures import classify

STARTED: dict[str, Any] = {}
"""In the child: when it was requested and forked (clock of ``time.perf_counter``), and its phase."""


def serve(pipe: Connection, log: str, job: str, arguments: tuple[Any, ...], requested_at: float) -> None:
    """Run in the child: build the job, then answer calls until the pipe closes."""
    with open(log, "wb", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # Interrupts belong to the parent, which closes the pipe and so ends this loop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What the server imported stays for good: the collector need not go through it in the middle of
    # a timed step. (Not in the server: its exit would report all of it as leaked.)
    gc.freeze()
    gc.enable()
    STARTED.update(requested_at=requested_at, forked_at=time.perf_counter())
    built: Any = None

    def send(message: tuple[str, Any]) -> None:
        pipe.send_bytes(pickle.dumps(message))

    try:
        module, _, name = job.partition(":")
        built = getattr(importlib.import_module(module), name)(*arguments)
        send(("answer", None))
        while True:
            method, values = pickle.loads(pipe.recv_bytes())
            enter_phase(method.replace("_", " "))
            answer = getattr(built, method)(*values)
            if isinstance(answer, Generator):
                answer = yield_from(answer, lambda value: send(("progress", value)))
            send(("answer", answer))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except (Exception, SystemExit) as error:
        with contextlib.suppress(OSError):
            send(("failure", classify(error, STARTED.get("phase", "start"), free_gpu_bytes())))
    finally:
        sys.stdout.flush()
        # A context in which CUDA failed can hang in its own tear-down; the driver frees all on exit.
        os._exit(0)


def enter_phase(phase: str) -> None:
    """Say, in the child, what it does from now on: a failure names it. A call begins as its method's name."""
    STARTED["phase"] = phase


def free_gpu_bytes() -> int | None:
    """Return what is free on this process's GPU; ``None`` without one, or where CUDA is broken."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    try:
        return int(torch.cuda.mem_get_info()[0])
    except RuntimeError:  # after a failed assertion on the GPU nothing can be asked any more
        return None


def yield_from(generator: Iterator[Any], report: Callable[[Any], None]) -> Any:
    """Run ``generator`` to its end, report what it yields, and return what it returns."""
    while True:
        try:
            report(next(generator))
        except StopIteration as stop:
            return stop.value
