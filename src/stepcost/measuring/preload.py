"""Imported once by the fork server, so that no child pays for it. It must not touch CUDA."""

from __future__ import annotations

import contextlib
import gc
import os
import signal

# Interrupts belong to the parent, which ends this server; it must not print a traceback of its own.
signal.signal(signal.SIGINT, signal.SIG_IGN)

# Of what is imported nearly all stays, and going through it again and again would take a quarter of the time.
# Each child turns the collector on again.
gc.disable()

import torch
import torch._dynamo  # the first optimizer.step() would import it: 1 to 2 s in each child
import torch.utils.data
import torchvision
from threadpoolctl import threadpool_limits

import stepcost.measuring.configuration
import stepcost.measuring.inspection
import stepcost.measuring.study
from stepcost.catalog.models import prebuild

PREBUILD = "STEPCOST_PREBUILD"
"""Environment variable: the model to build before forking, as ``name,num_classes,image_size,seed``; the
sizes are empty for a language model."""

__all__ = ["PREBUILD", "stepcost", "torch", "torchvision"]


def _prebuild(what: str) -> None:
    name, *sizes, seed = what.rsplit(",", 3)
    num_classes, image_size = (int(size) if size else None for size in sizes)
    torch.get_num_threads()  # torch reads the number once, here, before it is limited
    # Threads do not survive a fork, and OpenMP hangs where it believes they did. Not by
    # torch.set_num_threads: a child that then starts threads fails in torch's own check (2.11).
    # A model that cannot be built is reported by the first child that asks for it.
    with threadpool_limits(1), contextlib.suppress(Exception):
        prebuild(name, num_classes=num_classes, image_size=image_size, seed=int(seed))


if os.environ.get(PREBUILD):
    _prebuild(os.environ[PREBUILD])
