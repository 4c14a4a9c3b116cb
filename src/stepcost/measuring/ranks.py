"""One request on several GPUs: a process each, called at once and ended at once. Imports no torch."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any

from stepcost import jobs
from stepcost.failures import ChildFailed, ChildHung, MeasureError
from stepcost.measuring.process import START, Worker
from stepcost.reading import as_one
from stepcost.request import Request

CAUSE_S = 1.0
"""Where a rank fails, for so long one is looked for that ended before it, so that its collective failed."""


class Group:
    """The processes of one request, a rank each; used as the one worker of a request for one GPU is.

    They find each other through a file that only this user can read. Whatever goes wrong with one of them
    ends all of them.
    """

    def __init__(self, job: str, request: Request, *arguments: Any, time_limit_s: float) -> None:
        """Start a process a GPU and wait until all have joined; ``job`` is what one GPU would hold.

        Raises as ``Worker`` does; the message names the rank.
        """
        self.time_limit_s = time_limit_s
        self._folder = tempfile.mkdtemp(prefix="stepcost-ranks-")
        self._workers: list[Worker] = []
        meeting = str(Path(self._folder) / "meeting")
        try:
            for rank in range(request.gpus):
                asked = (request, rank, meeting, *arguments)
                self._workers.append(
                    Worker(jobs.OF_RANKS[job], *asked, time_limit_s=time_limit_s, waits=False)
                )
            self._received(START)
        except BaseException:
            self.close(kill=True)
            raise

    @property
    def pids(self) -> list[int | None]:
        """Process id of each rank."""
        return [worker.pid for worker in self._workers]

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method in all ranks at once; return their answers as one (``AS_ONE``).

        Raises as ``Worker.call`` does, the message naming the rank; then all ranks are gone.
        """
        return AS_ONE[method](self.call_each(method, *arguments))

    def call_each(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method in all ranks at once; return their answers in order. Raises as ``call`` does."""
        try:
            for rank, worker in enumerate(self._workers):
                try:
                    worker.send(method, *arguments)
                except MeasureError as error:
                    raise _of_rank(rank, error, len(self._workers)) from error
            return self._received(method)
        except BaseException:
            self.close(kill=True)
            raise

    def close(self, *, kill: bool = False) -> None:
        """End all ranks, and wait until they are gone; ``kill`` where one may wait for another for ever."""
        if kill:
            for worker in self._workers:
                worker.kill()
        for worker in self._workers:
            worker.close()
        self._workers = []
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Group:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(kill=error is not None)

    def _received(self, method: str) -> list[Any]:
        """Receive the answers of all ranks, whichever comes first."""
        answers: dict[int, Any] = {}
        waiting = dict(enumerate(self._workers))
        failed: tuple[int, MeasureError] | None = None
        until = time.perf_counter() + self.time_limit_s
        while waiting:
            left_s = max(0.0, until - time.perf_counter())
            pipes: list[Any] = [*waiting.values()]
            ready: Sequence[Any] = wait(pipes, left_s)
            if not ready:
                break
            for rank in [rank for rank, worker in waiting.items() if worker in ready]:
                try:
                    answers[rank] = waiting.pop(rank).receive(method, left_s)
                except MeasureError as error:
                    # What a rank raises may only be that another is gone; any other end is the cause.
                    if failed is None or (_is_fault(failed[1]) and not _is_fault(error)):
                        failed = rank, error
                        until = time.perf_counter() + (CAUSE_S if _is_fault(error) else 0.0)
        if failed is not None:
            raise _of_rank(*failed, len(self._workers)) from failed[1]
        if waiting:
            silent = ", ".join(map(str, waiting))
            raise ChildHung(
                f"rank {silent} of {len(self._workers)}: {method}: no answer within {self.time_limit_s:g} s; "
                "all ranks are killed"
            )
        return [answers[rank] for rank in sorted(answers)]


def _is_fault(error: MeasureError) -> bool:
    """Whether a rank raised an error of its own, which a rank that ended before it may have caused."""
    return isinstance(error, ChildFailed)


def _of_rank(rank: int, error: MeasureError, ranks: int) -> MeasureError:
    """Return the error with the rank that it is of."""
    said = type(error)(f"rank {rank} of {ranks}: {error}")
    if isinstance(error, ChildFailed) and isinstance(said, ChildFailed):
        said.reason = error.reason
    return said


def _slowest(seconds: Sequence[Sequence[float]]) -> list[float]:
    """Return the seconds of each step, of the rank that took longest over it."""
    return [max(one) for one in zip(*seconds, strict=True)]


def _throttled_first(clocks: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Return the clocks of the first card that is held back, which the others wait for; else of the first."""
    return next((one for one in clocks if one and one.get("throttle_reasons")), clocks[0])


def _mean_losses(losses: Sequence[Sequence[float]]) -> list[float]:
    """Return the loss of each step over the batches of all ranks, which are of one size."""
    return [sum(one) / len(one) for one in zip(*losses, strict=True)]


def _waits_least(profiles: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the profile of the GPU that communicates shortest: in those of the others it is waited for."""
    return min(profiles, key=lambda one: one.get("communication_s", 0.0))


AS_ONE: dict[str, Callable[[Sequence[Any]], Any]] = {
    "reading": as_one,
    "step": lambda answers: None,
    "timed_steps": _slowest,
    "clocks": _throttled_first,
    "profiled": _waits_least,
    "losses": _mean_losses,
}
"""What the answers of all ranks to a call are together."""
