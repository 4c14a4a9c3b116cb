"""Save what the allocator does in whole training runs on a GPU, to compare the prediction with.

``python -m experiments.record_histories --out DIR resnet152:sgd:64:32 ...`` saves one history for each
configuration (model, optimizer, batch size, image size), each from a fresh process.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import torch

from experiments.arguments import CONFIGURATION, configuration, parser_of
from stepcost.allocator.history import History, save
from stepcost.catalog.optimizers import build_optimizer
from stepcost.failures import MeasureError
from stepcost.measuring.process import Worker
from stepcost.measuring.recording import Recorder, known_kinds
from stepcost.reading import PHASES
from stepcost.request import Request
from stepcost.step import TrainingStep, classify
from stepcost.workload import workload_of

STEPS = 3


class RecordedRun:
    """A whole run, held by a child that has done nothing else on the GPU."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def save(self, path: Path) -> int:
        """Record the run and save it; return the number of the allocator's events."""
        history = record_run(self.request)
        save(history, path)
        return len(history.events)


def record_run(request: Request) -> History:
    """Record a whole run, from the first allocation on the GPU through `STEPS` training steps.

    Marks are ``model``, ``batch``, then ``forward``, ``backward``, ``optimizer step`` and ``done`` of every
    step. It does what the measuring engine does, in the same order.
    """
    device = torch.device(request.device)
    torch.manual_seed(request.seed)
    workload = workload_of(request)
    built = workload.build()
    torch.cuda.init()
    recorder = Recorder(device)
    first = torch.zeros(1, device=device)
    built = built.to(device).train()
    recorder.mark("model")
    batch = workload.batch(request.batch_size, device)
    recorder.mark("batch")
    training_step = TrainingStep(
        model=built, optimizer=build_optimizer(request.optimizer, built), objective=classify
    )
    counters: dict[str, int] = {}
    for step in range(STEPS):
        training_step.optimizer.zero_grad(set_to_none=True)
        torch.cuda.reset_peak_memory_stats(device)

        def after(phase: str, step: int = step) -> None:
            recorder.mark(phase)
            counters[f"{step} {phase}"] = torch.cuda.max_memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)

        training_step(batch, after)
        recorder.mark("done")
        gc.collect()
    torch.cuda.synchronize(device)
    history = recorder.stop()
    history.kinds_after.update(known_kinds(training_step, batch))
    history.about.update(
        model=request.model,
        optimizer=request.optimizer,
        batch_size=request.batch_size,
        image_size=request.image_size,
        steps=STEPS,
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


def main(arguments: list[str] | None = None) -> int:
    """Save one history for each configuration; return the exit status, 1 where one could not be recorded."""
    parser = parser_of("record_histories", __doc__)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the .json.gz files"
    )
    parser.add_argument("configurations", type=configuration, nargs="+", metavar=CONFIGURATION)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("there is no GPU here")
    options.out.mkdir(parents=True, exist_ok=True)
    failed = False
    for one in options.configurations:
        model = one.model.replace(":", "-")
        name = f"{model}-{one.optimizer}-{one.batch_size}-{one.image_size}.json.gz"
        try:
            with Worker("experiments.record_histories:RecordedRun", one) as worker:
                events = worker.call("save", options.out / name)
        except MeasureError as error:
            failed = True
            print(f"{name}: {error}", file=sys.stderr)
        else:
            print(f"{name}: {events} events, {(options.out / name).stat().st_size} bytes")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
