"""One training step as an engine runs it, held by a child process."""

from __future__ import annotations

import time
from typing import Any

import torch

from stepcost.catalog.engines import ENGINES
from stepcost.measuring.child import enter_phase
from stepcost.measuring.configuration import Configuration
from stepcost.measuring.launch import capture, warm_up
from stepcost.measuring.timed_step import kernels_in_place
from stepcost.reading import FORWARD
from stepcost.step import bytes_of, tensors_in
from stepcost.tensors import count_step


class EngineStep(Configuration):
    """A configuration whose step is the engine's: warmed up, and captured where the engine captures."""

    def prepare(self) -> dict[str, Any]:
        """Warm up and capture; say how long that took, and the bytes that the step then holds.

        The peaks are of the steps after the warm-up, with the warm-up's cached blocks returned:
        ``peak_allocated_bytes`` and ``peak_reserved_bytes`` by the caching allocator's counters,
        ``process_bytes`` by NVML.
        """
        engine = ENGINES[self.request.engine]
        start = time.perf_counter()
        enter_phase("warm-up")
        warm_up(self._work, captured=engine.captured)
        self._synchronize()
        kept_bytes = self._kept_by_forward()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        if engine.captured:
            enter_phase("capture")
            self._launch = capture(self._work)
        enter_phase("step")
        self.step()
        ready_s = time.perf_counter() - start
        last, process_bytes_from = self._moment("training step")
        return {
            "prepare_s": ready_s,
            "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
            "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
            "process_bytes": last.process_bytes,
            "process_bytes_from": process_bytes_from,
            "context_bytes": last.context_bytes,
            "least_bytes": self._least_bytes(kept_bytes),
            "unread": dict(self.unread),
        }

    def kernels(self) -> tuple[dict[str, Any] | None, str | None]:
        """Time each kernel of the captured step in place, with the operator that launched it in turn.

        Returns what ``kernels_in_place`` does, or ``None`` and why the profiler could not tell.
        """
        try:
            return kernels_in_place(self.step, self._work), None
        except ValueError as error:
            return None, str(error)

    def _kept_by_forward(self) -> int:
        """Bytes that forward leaves allocated for backward."""
        kept = 0
        self.training_step.optimizer.zero_grad(set_to_none=True)
        before = torch.cuda.memory_allocated()

        def after(phase: str) -> None:
            nonlocal kept
            if phase == FORWARD and not kept:  # of the first micro-batch
                kept = torch.cuda.memory_allocated() - before

        self.training_step(self.batch, after)
        return kept

    def _least_bytes(self, kept_bytes: int) -> int:
        """Return the bytes that this step must move between the GPU and its memory, whatever its kernels.

        Parameters that get a gradient are read in forward, in backward and by the optimizer, and written;
        gradients, optimizer state and what forward keeps for backward are written and read; images are
        read.
        """
        counted = count_step(self.training_step, self.batch)
        weights, state = counted["gradient_bytes"], counted["optimizer_state_bytes"]
        return least_bytes(weights, state, kept_bytes, bytes_of(tensors_in(self.batch)[:1]))


def least_bytes(weights: int, state: int, kept: int, images: int) -> int:
    """Sum of what is moved, from the bytes of each; gradients weigh what weights do."""
    return 4 * weights + 2 * weights + 2 * state + 2 * kept + images
