"""Save what the allocator does in whole runs on a GPU, to compare the prediction with.

``python -m experiments.record_histories --out DIR resnet152:sgd:64:32 ...`` saves histories
(model:optimizer:batch:image size), each from a fresh process.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
from pathlib import Path

import torch

from stepcost.allocator.history import History, save
from stepcost.catalog.optimizers import build_optimizer
from stepcost.measure.recording import Recorder, known_kinds
from stepcost.reading import PHASES
from stepcost.step import TrainingStep
from stepcost.workload import Workload


def record_run(model: str, optimizer: str, batch_size: int, image_size: int, steps: int = 3) -> History:
    """Record a whole run, from the first allocation on the GPU through ``steps`` training steps.

    Marks are ``model``, ``batch``, then ``forward``, ``backward``, ``optimizer step`` and ``done`` of every
    step. It does what the measuring engine does, in the same order.
    """
    device = torch.device("cuda:0")
    torch.manual_seed(0)
    workload = Workload(model=model, num_classes=10, image_size=image_size)
    built = workload.build()
    torch.cuda.init()
    recorder = Recorder(device)
    first = torch.zeros(1, device=device)
    built = built.to(device).train()
    recorder.mark("model")
    images, labels = workload.batch(batch_size, device)
    recorder.mark("batch")
    training_step = TrainingStep(built, build_optimizer(optimizer, built.parameters()))
    counters: dict[str, int] = {}
    for step in range(steps):
        training_step.optimizer.zero_grad(set_to_none=True)
        torch.cuda.reset_peak_memory_stats(device)

        def after(phase: str, step: int = step) -> None:
            recorder.mark(phase)
            counters[f"{step} {phase}"] = torch.cuda.max_memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)

        training_step(images, labels, after)
        recorder.mark("done")
        gc.collect()
    torch.cuda.synchronize(device)
    history = recorder.stop()
    history.kinds_after.update(known_kinds(training_step, (images, labels)))
    history.about.update(
        model=model,
        optimizer=optimizer,
        batch_size=batch_size,
        image_size=image_size,
        steps=steps,
        phase_peak_bytes=counters,
        peak_reserved_bytes=torch.cuda.max_memory_reserved(device),
        gpu=torch.cuda.get_device_name(device),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        phases=PHASES,
    )
    del first
    return history


def _record_and_save(row: str, out: str) -> None:
    model, optimizer, batch_size, image_size = row.rsplit(":", 3)
    history = record_run(model, optimizer, int(batch_size), int(image_size))
    path = Path(out) / f"{row.replace(':', '-')}.json.gz"
    save(history, path)
    sys.stdout.write(f"{path.name}: {len(history.events)} events, {path.stat().st_size} bytes\n")


def main(arguments: list[str] | None = None) -> int:
    """Save one history for each configuration on the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.record_histories", description=__doc__)
    parser.add_argument("--out", required=True, help="folder for the .json.gz files")
    parser.add_argument("rows", nargs="+", metavar="MODEL:OPTIMIZER:BATCH:IMAGE_SIZE")
    options = parser.parse_args(arguments)
    Path(options.out).mkdir(parents=True, exist_ok=True)
    # A fresh process for each: cached segments and workspaces of the one before would show.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torchvision"])
    failed = 0
    for row in options.rows:
        process = context.Process(target=_record_and_save, args=(row, options.out))
        process.start()
        process.join()
        failed += process.exitcode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
