"""Jobs that go wrong in every way a child can, for the tests of the process border."""

import gc
import os
import signal
import sys
import time
from collections.abc import Generator, Iterator
from typing import Any

import torch

from stepcost.measuring.child import enter_phase


class Faulty:
    """A job whose methods misbehave."""

    def __init__(self, fault: str = "") -> None:
        enter_phase("build")
        if fault:
            raise ValueError(fault)

    def answer(self, value: Any) -> Any:
        return value

    def collector(self) -> tuple[bool, int]:
        return gc.isenabled(), len(gc.get_objects())

    def noise(self) -> str:
        print('{"kind": "answer"}')
        sys.stderr.write("noise\n")
        os.write(1, b"raw noise\n")
        return "heard"

    def end(self, code: int) -> None:
        sys.stderr.write("last words\n")
        os._exit(code)

    def be_killed(self, by: str = "SIGKILL") -> None:
        os.kill(os.getpid(), signal.Signals[by])

    def leave(self, code: int) -> None:
        sys.exit(code)

    def fail_in_no_phase(self) -> None:
        raise KeyError("no phase was entered")

    def hang(self) -> None:
        time.sleep(60)

    def run_out(self, message: str, phase: str) -> None:
        enter_phase(phase)
        raise RuntimeError(message)

    def run_out_with_free(self, message: str, free_bytes: int | None) -> None:
        """Fail on a GPU that has that much free; one that does not answer has ``None``."""

        def mem_get_info(device: object = None) -> tuple[int, int]:
            if free_bytes is None:
                raise RuntimeError("CUDA error: device-side assert triggered")
            return free_bytes, 80 << 30

        torch.cuda.is_initialized = lambda: True
        torch.cuda.mem_get_info = mem_get_info
        raise RuntimeError(message)

    def run_out_as_torch(self) -> None:
        enter_phase("backward")
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 80 GiB.")

    def allocate_too_much(self) -> None:
        torch.empty(2**60, dtype=torch.uint8)

    def count(self, to: int) -> Generator[int, None, str]:
        yield from range(to)
        return "counted"

    def die_while_counting(self) -> Iterator[int]:
        yield 1
        os._exit(7)
