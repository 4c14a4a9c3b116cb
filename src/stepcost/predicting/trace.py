"""A training step on meta tensors: every allocation and free that CUDA would make, in order.

The step is the real one. Meta tensors have shapes, dtypes and lifetimes but no memory, so it
runs in a second on any machine. Where CUDA does otherwise than the meta device, it is said
and done here: the optimizers' foreach and fused kernels, fused attention and dropout,
gradients summed in place, cuDNN's layouts, and the moments at which cuDNN and cuBLAS want
a workspace.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from stepcost.activations import Owner, watched
from stepcost.catalog.optimizers import build_optimizer, find_optimizer, takes
from stepcost.ledger import BUFFER, GRADIENT, INPUT, PARAMETER, STATE
from stepcost.parallel import bucket_bytes
from stepcost.predicting.as_on_cuda import as_on_cuda
from stepcost.predicting.attention import ON_HOPPER, Attention
from stepcost.predicting.rules import RULES
from stepcost.predicting.tape import GEMM, WORKSPACE, Event, Rule, Tape
from stepcost.prepare import batch_of, memory_format, prepare, step_of
from stepcost.reading import FORWARD
from stepcost.request import Request
from stepcost.step import TrainingStep, state_of, tensors_in
from stepcost.tensors import count_step
from stepcost.workload import ImageClassifier, Workload, workload_of

CUBLAS, CUDNN = "cuBLAS", "cuDNN"
STEPS = 3
"""Two to warm up and the steady one that is read, as on a GPU."""
MODEL_LOADED, BATCH_LOADED, STEP_BEGINS, STEP_DONE = (
    "model loaded",
    "batch loaded",
    "step begins",
    "step done",
)


@dataclass(kw_only=True)
class Trace:
    """What a run asks of memory, from the first allocation to the end of the steady step."""

    events: list[Event]
    kinds: dict[int, str]
    """Allocation id to what is known to live there."""
    libraries: frozenset[str] = frozenset()
    """Those of ``CUBLAS`` and ``CUDNN`` that the steps call: each that is loaded makes the context larger."""
    owners: dict[int, Owner] = field(default_factory=dict)
    """Allocation id to the module in whose forward it was made."""
    streams: dict[int, int] = field(default_factory=dict)
    """Allocation id to the stream it is made on, where that is not the main one."""
    counted: dict[str, Any] = field(default_factory=dict)
    """What ``count_step`` counts of the tensors: not rounded."""
    uncompared: frozenset[str] = frozenset()
    """Operators, by name and dtype, whose allocations were never compared with a GPU's."""
    bucket_bytes: int | None = None
    """What the buckets of DDP hold; ``None`` where there are none."""
    otherwise: Sequence[list[Event]] = ()
    """The same events as they may come as well, where time decides in which order."""
    why_otherwise: str = ""
    """On what that depends, to be read after these words."""


class Alone:
    """A GPU that shares its step with no other; what it does otherwise among several is in ``ranks.py``."""

    rules: Mapping[Any, Rule] = {}
    """For operators that only such a GPU calls."""

    def around(self, tape: Tape) -> contextlib.AbstractContextManager[None]:
        """Let torch do on the meta device what it does on such a GPU."""
        return contextlib.nullcontext()

    def join(self) -> None:
        """Join the other GPUs."""

    def place(self, model: nn.Module, tape: Tape) -> nn.Module:
        """Put the model on the GPU as ``model.to(device)`` does: each parameter once, by modules in order."""
        moved: nn.Module = model._apply(tape.moved)
        return moved

    def share(self, step: TrainingStep, tape: Tape) -> TrainingStep:
        """Return the step as the GPUs share it."""
        return step

    def after_first_step(self, step: TrainingStep) -> None:
        """Do what the first step leaves to be done before the next."""

    def finish(self, trace: Trace) -> None:
        """Take the trace, at its end."""


def trace_run(
    request: Request,
    steps: int = STEPS,
    *,
    workload: Workload | None = None,
    attention: Attention = ON_HOPPER,
    gpu: Alone | None = None,
) -> Trace:
    """Trace the configuration; raises ``ValueError`` with one line where it cannot be built or traced.

    ``workload`` is what is trained; by default, what the request names. ``attention`` chooses its kernels,
    ``gpu`` is that of one of several.
    """
    workload = workload or workload_of(request)
    if workload.make_optimizer is None:
        takes(find_optimizer(request.optimizer), "lr")  # a class that cannot be imported says so by itself
    if request.engine != "eager":
        raise ValueError(f"engine {request.engine} cannot be predicted, only eager")
    if min(request.batch_size, request.image_size or 1, request.num_classes or 1) < 1:
        raise ValueError("batch size, image size and number of classes start at 1")
    model = prepare(workload.build_on_meta(), request)
    with in_a_line(request, workload):
        return _trace(model, workload, request, steps, attention=attention, gpu=gpu)


@contextlib.contextmanager
def in_a_line(request: Request, workload: Workload) -> Iterator[None]:
    """Raise what tracing a step raises inside as ``ValueError`` with one line that names the step."""
    try:
        yield
    except (Exception, SystemExit) as error:  # the model's own code runs here, and may raise anything
        line = next(iter(str(error).strip().splitlines()), "")
        if not isinstance(error, (RuntimeError, ValueError)):  # 'x' says less than KeyError: 'x'
            line = f"{type(error).__name__}: {line}".removesuffix(": ")
        sized = f" and image size {request.image_size}" if isinstance(workload, ImageClassifier) else ""
        raise ValueError(
            f"{request.model} with batch size {request.batch_size}{sized} cannot be traced: {line}"
        ) from error


def _trace(
    model: nn.Module,
    workload: Workload,
    request: Request,
    steps: int,
    **how: Any,
) -> Trace:
    make = workload.make_optimizer

    def step(model: nn.Module) -> TrainingStep:
        if memory_format(request) == torch.channels_last:
            model = model.to(memory_format=torch.channels_last)
        optimizer = build_optimizer(request.optimizer, model) if make is None else make(model.parameters())
        return step_of(request, model, workload, optimizer)

    def batch() -> Any:
        return batch_of(workload, request, "meta")

    return trace_steps(model, batch, step, steps, **how)


def trace_steps(
    model: nn.Module,
    make_batch: Callable[[], Any],
    step_of: Callable[[nn.Module], TrainingStep],
    steps: int = STEPS,
    *,
    attention: Attention = ON_HOPPER,
    last_step: Callable[[Tape], contextlib.AbstractContextManager[Any]] = lambda _: contextlib.nullcontext(),
    gpu: Alone | None = None,
) -> Trace:
    """Trace ``steps`` training steps of a model on the meta device; ``last_step`` is entered around the last.

    ``make_batch()`` makes the batch on the meta device, ``step_of(model)`` the step of the model that is
    handed to it, which has memory on the tape. ``gpu`` is that of one of several.
    """
    gpu = gpu or Alone()
    tape = Tape({**RULES, **gpu.rules})
    collecting = gc.isenabled()
    gc.disable()  # a collection in the middle would free at a random moment
    try:
        with as_on_cuda(tape, attention), gpu.around(tape), tape:
            first = torch.empty(1, device="meta")  # the engine's first allocation, on every GPU
            gpu.join()
            _refuse_compiled(model)
            model = gpu.place(model, tape).train()
            tape.mark(MODEL_LOADED)
            batch = make_batch()
            tape.mark(BATCH_LOADED)
            step = gpu.share(step_of(model), tape)  # which may put weights into another layout
            tape.know(PARAMETER, model.parameters())
            tape.know(BUFFER, model.buffers())
            tape.know(INPUT, tensors_in(batch))
            tape.micro_batches = step.accumulate
            for number in range(steps):
                if number == 1:
                    gpu.after_first_step(step)
                # As before the step that is read on a GPU: old gradients are not counted in its forward.
                step.optimizer.zero_grad(set_to_none=True)
                tape.mark(STEP_BEGINS)
                tape.phase = FORWARD
                around = last_step(tape) if number == steps - 1 else contextlib.nullcontext()
                with watched(model, tape.enter), around:
                    step(batch, tape.after)
                tape.mark(STEP_DONE)
                tape.know(GRADIENT, (parameter.grad for parameter in model.parameters()))
                states = state_of(step.optimizer).values()
                tape.know(STATE, (value for state in states for value in state.values()))
        trace = Trace(events=tape.events, kinds=tape.kinds, owners=tape.owners, streams=tape.streams)
        trace.counted = count_step(step, batch)
        trace.bucket_bytes = bucket_bytes(step)
        trace.libraries = _libraries(tape)
        trace.uncompared = frozenset(tape.uncompared)
        gpu.finish(trace)
        tape.events = []  # what is freed from here on is the tracing's own end
        del first
        return trace
    finally:
        if collecting:
            gc.enable()


def _refuse_compiled(model: nn.Module) -> None:
    """Raise ``ValueError`` for what ``torch.compile`` made of a module: it would be traced as plain."""
    for module in model.modules():
        if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None):
            raise ValueError("it is compiled (torch.compile), and what that takes is not predicted")


def _libraries(tape: Tape) -> frozenset[str]:
    asked = {action for action, _, _ in tape.events}
    called = ((CUBLAS, GEMM in asked), (CUDNN, WORKSPACE in asked or tape.loads_cudnn))
    return frozenset(name for name, is_called in called if is_called)
