"""A captured training step, timed in place kernel by kernel, held by a child process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median
from typing import Any
from unittest import mock

import torch

from stepcost.measuring.child import enter_phase
from stepcost.measuring.configuration import Configuration
from stepcost.measuring.kernels import Call, calls, launched, replayed
from stepcost.measuring.launch import capture, warm_up
from stepcost.operators import Operator
from stepcost.request import Request

TIMED_S = 0.3
"""A step is timed for about so long, within these numbers of rounds."""
FEWEST_ROUNDS, MOST_ROUNDS = 15, 100
REPLAYS = 5


class TimedStep(Configuration):
    """A captured step: what it takes, and what each of its kernels takes in place."""

    def __init__(self, request: Request) -> None:
        """Build it on the GPU: on the processor, weights of large models alone take seconds."""
        with torch.device(request.device):
            super().__init__(request)

    def times(self) -> dict[str, Any]:
        """Time the captured step, then profile its kernels in place, then learn their operators.

        ``step_s`` is the median of steps without the profiler; ``span_s`` that from the begin of the first
        kernel to the end of the last, with it; ``unmatched`` how many kernels have no partner in the step
        that was launched in turn.
        """
        enter_phase("warm-up")
        warm_up(self._work, captured=True)
        self._synchronize()
        torch.cuda.empty_cache()
        enter_phase("capture")
        self._launch = capture(self._work)
        enter_phase("timed steps")
        first = median(self.timed_steps(5))
        rounds = max(FEWEST_ROUNDS, min(MOST_ROUNDS, int(TIMED_S / first)))
        seconds = self.timed_steps(rounds)
        kernels = kernels_in_place(self.step, self._work)
        return {
            "step_s": median(seconds),
            "rounds": rounds,
            "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
        } | kernels


def kernels_in_place(replay: Callable[[], object], work: Callable[[], object]) -> dict[str, Any]:
    """Profile the kernels of a captured step in place, then learn their operators from ``work`` in turn.

    Returns ``span_s`` and ``unmatched`` (``TimedStep.times``) with the calls of ``compact``. ``replay`` must
    wait for the device. Raises ``ValueError`` with one line where the profiler does not see enough.
    """
    enter_phase("profiled replays")
    in_place, span_s = replayed(replay, REPLAYS)

    def work_and_wait() -> None:
        work()
        torch.cuda.synchronize()

    enter_phase("profiled step")
    with mock.patch.object(torch.cuda, "is_current_stream_capturing", return_value=True):
        # Models ask for that, and do otherwise: transformers makes masks that it leaves out elsewhere.
        operators, in_turn = launched(work_and_wait)
    found, unmatched = calls(operators, in_turn, in_place)
    return {"span_s": span_s, "unmatched": unmatched} | compact(found)


def compact(found: Iterable[Call]) -> dict[str, Any]:
    """Write calls as plain data: ``[operator, [[kernel, nanoseconds], ...]]`` by index, -1 for none."""
    operators: dict[Operator | None, int] = {None: -1}
    names: dict[str, int] = {}
    rows = [
        [
            operators.setdefault(call.operator, len(operators) - 1),
            [[names.setdefault(name, len(names)), round(1e9 * seconds)] for name, seconds in call.kernels],
        ]
        for call in found
    ]
    return {
        "operators": [list(one) for one in operators if one is not None],
        "kernels": list(names),
        "calls": rows,
    }
