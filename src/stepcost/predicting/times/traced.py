"""The operators of a captured step, in their order, from its trace on meta tensors."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import nn

from stepcost.activations import LOSS
from stepcost.operators import Operator, describe
from stepcost.predicting.attention import ON_HOPPER, Attention
from stepcost.predicting.tape import Tape
from stepcost.predicting.trace import in_a_line, trace_steps
from stepcost.prepare import batch_of, memory_format, optimizer_of, prepare, step_of
from stepcost.reading import BACKWARD, FORWARD
from stepcost.request import Request
from stepcost.step import TrainingStep
from stepcost.workload import workload_of

UNRECORDED = re.compile(r"f64|complex\d+")
"""Numbers of which cards make products at rates of their own, and no step was recorded."""
OPTIMIZER = "(optimizer)"
"""Whose the operators of an optimizer's step are."""


class Traced(NamedTuple):
    """An operator of a step, and whose it is."""

    operator: Operator
    phase: str
    module: str


class _Whose:
    """Of which module an operator is: in backward, of the one whose forward made autograd's node."""

    def __init__(self) -> None:
        self._modules: dict[int, str] = {}

    def __call__(self, tape: Tape) -> str:
        if tape.phase == FORWARD:
            number: int = torch._C._autograd._get_sequence_nr() - 1
            self._modules.setdefault(number, tape.owner.module)  # the first after autograd made that node
            return tape.owner.module
        if tape.phase == BACKWARD:
            node: Any = torch._C._current_autograd_node()
            return LOSS.module if node is None else self._modules.get(node._sequence_nr(), LOSS.module)
        return OPTIMIZER


def operators_of(request: Request, attention: Attention = ON_HOPPER) -> list[Traced]:
    """Trace a captured step and list its operators; raises ``ValueError`` with one line where it cannot."""
    workload = workload_of(request)
    model = prepare(workload.build_on_meta(), request)
    found: list[Traced] = []
    whose = _Whose()

    def step(model: nn.Module) -> TrainingStep:
        if memory_format(request) == torch.channels_last:
            model = model.to(memory_format=torch.channels_last)
        return step_of(request, model, workload, optimizer_of(request, model))

    @contextlib.contextmanager
    def listing(tape: Tape) -> Iterator[None]:
        def called(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any) -> None:
            module = whose(tape)
            operator = describe(func, args, kwargs, made)
            if operator is not None:
                found.append(Traced(operator, tape.phase, module))

        tape.called = called
        try:
            yield
        finally:
            tape.called = None

    capturing = mock.patch.object(torch.cuda, "is_current_stream_capturing", return_value=True)
    with capturing, in_a_line(request, workload):
        trace_steps(
            model,
            lambda: batch_of(workload, request, "meta"),
            step,
            2,  # the first makes the optimizer's state
            attention=attention,
            last_step=listing,
        )
    for operator, *_ in found:
        if operator.flops and (numbers := UNRECORDED.search(operator.key)) is not None:
            raise ValueError(f"no products in {numbers.group()} were recorded: what they take is not known")
    return found
