"""Ranks that go wrong while the others wait for them in a collective."""

import os
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import torch
import torch.distributed as dist

from stepcost.ledger import Ledger
from stepcost.measuring import rank
from stepcost.measuring.child import enter_phase
from stepcost.measuring.configuration import Configuration
from stepcost.measuring.launch import build_step
from stepcost.measuring.rank import Rank, RankLosses, device_of, join
from stepcost.parallel import bucket_bytes
from stepcost.reading import Moment, Reading


class FaultyRank:
    """Joins the others as a rank does; the last one misbehaves, the others wait for it in an all-reduce."""

    def __init__(self, request, rank, meeting):
        self._device = device_of(request, rank)
        join(replace(request, device=self._device), rank, meeting)
        self._is_last = rank == request.gpus - 1

    def _in_a_collective(self, fault):
        enter_phase("all-reduce")
        if self._is_last:
            time.sleep(0.3)  # the others are waiting by now
            fault()
        dist.all_reduce(torch.zeros(1, device=self._device))
        if self._device != "cpu":
            torch.cuda.synchronize()

    def well(self):
        """Nothing goes wrong."""
        self._in_a_collective(lambda: None)

    def be_killed(self):
        self._in_a_collective(lambda: os.kill(os.getpid(), signal.SIGKILL))

    def fail_and_be_killed(self):
        """The others raise first, as in a collective with one that is going; then the last one is gone."""
        if not self._is_last:
            raise RuntimeError("Connection closed by peer")
        time.sleep(0.4)
        os.kill(os.getpid(), signal.SIGKILL)

    def hang(self):
        self._in_a_collective(lambda: time.sleep(60))

    def end(self):
        self._in_a_collective(lambda: os._exit(3))

    def run_out(self):
        def fault():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 is full.")

        self._in_a_collective(fault)

    def take_all(self):
        """Run out of memory on a real GPU."""
        self._in_a_collective(lambda: torch.empty(2**45, device=self._device))

    def fail(self):
        def fault():
            raise KeyError("no such thing")

        self._in_a_collective(fault)


class Recorded(Rank):
    """A rank whose allocator is said to have done what a test says."""

    def noted(self, events):
        """Take a step, note the buckets, take another; return what is known, unread, and their bytes."""

        class Recorder:
            def __init__(self, device):
                pass

            def stop(self):
                return SimpleNamespace(events=events)

        rank.Recorder = Recorder
        self.step()
        self.note_buckets()
        self.step()
        return self.training_step.known, self.unread, bucket_bytes(self.training_step)

    def reading(self):
        """Read what a GPU would tell, of which this rank reserves 1000 bytes more than the one before."""
        moments = [Moment(moment=name, context_bytes=size) for name, size in (("a", 700), ("b", 1000))]
        self.moments += moments
        Configuration.reading = lambda self: Reading(
            source="measured",
            fits=True,
            peak_reserved_bytes=1000 * self._rank,
            parameter_bytes=1,
            ledger=Ledger(parallel_bytes=self._rank),
        )
        return super().reading()


class KilledWhileJoining:
    """The last rank is gone before the others have found it."""

    def __init__(self, request, rank, meeting):
        if rank == request.gpus - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        join(request, rank, meeting)


class UnwrappedLosses(RankLosses):
    """Each rank trains its replica alone."""

    def _step(self, request, model, workload, rate):
        return build_step(request, model, workload, learning_rate=rate)
