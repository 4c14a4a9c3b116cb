"""``python -m experiments.operator_calls MEASURED [OUT]``: hold the rules against what each operator allocated.

MEASURED is what ``experiments.operators`` wrote on a GPU. Each distinct call of it is made on the meta device, as a
prediction makes it; those that allocate otherwise are listed, most bytes first. OUT gets the distinct calls with
what they allocated: what ``tests/predicting`` replays.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from stepcost.catalog.cards import find_card
from stepcost.predicting.as_on_cuda import as_on_cuda
from stepcost.predicting.rules import RULES
from stepcost.predicting.simulate import simulate
from stepcost.predicting.tape import ALLOC, FREE, Tape
from stepcost.predicting.trace import Trace
from stepcost.predicting.workspaces import workspaces_on
from stepcost.reading import BACKWARD

TENSOR = re.compile(r"([a-z]+[0-9]*)\[([0-9,]*)(?:\|([0-9,]*))?\]")
SHORT = 12
"""So many arguments of a call are written down, which may be too few."""
Changes = list[int]
"""Bytes as requested, in order: allocated, or freed where negative."""


class Call(NamedTuple):
    """One call of an operator; tensors among its arguments are text such as ``float32[2,3|3,1]``."""

    name: str
    arguments: list[Any]
    options: dict[str, Any]
    changes: Changes

    @property
    def function(self) -> Any:
        """The operator."""
        _, packet, overload = self.name.split(".")
        return getattr(getattr(torch.ops.aten, packet), overload)

    @property
    def dtypes(self) -> set[str]:
        """Dtypes of the tensors that it takes."""
        return {
            found[1] for one in _flat([self.arguments, *self.options.values()]) if (found := _tensor(one))
        }


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for one in value:
            yield from _flat(one)
    else:
        yield value


def _tensor(text: Any) -> re.Match[str] | None:
    return TENSOR.fullmatch(text) if isinstance(text, str) else None


def calls_of(measured: Path) -> Iterator[Call]:
    """Distinct calls that allocated, with their arguments as the operator takes them."""
    seen = set()
    with measured.open() as file:
        for line in file:
            for name, leaves, changes in json.loads(line).get("operators", []):
                key = (name, *leaves)
                if not changes or key in seen or not name.startswith("aten."):
                    continue
                seen.add(key)
                # Of a long list of tensors, those that are written down.
                listed = "_foreach_" in name and len(leaves) == SHORT
                call = Call(name, [], {}, changes[:SHORT] if listed else changes)
                try:
                    yield call._replace(**_arguments(call, leaves))
                except LookupError as error:
                    print(f"{name} {leaves}: {error}", file=sys.stderr)


Take = Callable[[str], Any]


def _number(text: str) -> Any:
    if re.fullmatch(r"-?(\d+|inf|nan)", text) and "n" not in text:
        return int(text)
    if re.fullmatch(r"-?(inf|[\d.]+(e[-+]?\d+)?)", text):
        return float(text)
    raise LookupError(f"{text} is no number")


def _one_of(*texts: str) -> Take:
    def take(text: str) -> Any:
        if text in texts:
            return {"True": True, "False": False}.get(text, text)
        raise LookupError(f"{text} is none of {texts}")

    return take


def _text_of_tensor(text: str) -> str:
    if _tensor(text) is None:
        raise LookupError(f"{text} is no tensor")
    return text


def _start(start: str, whole: Sequence[str] = ()) -> Take:
    def take(text: str) -> str:
        if not text.startswith(start) or (whole and not any(one.startswith(text) for one in whole)):
            raise LookupError(f"{text} does not start with {start}")
        return next((one for one in whole if one.startswith(text)), text)

    return take


FORMATS = ("torch.contiguous_format", "torch.preserve_format", "torch.channels_last")
TAKES: dict[str, Take] = {
    "Tensor": _text_of_tensor,
    "int": lambda text: int(_number(text)),
    "SymInt": lambda text: int(_number(text)),
    "float": _number,
    "bool": _one_of("True", "False"),
    "number": lambda text: text == "True" if text in ("True", "False") else _number(text),
    "ScalarType": _start(
        "torch.",
        [f"torch.{n}{b}" for n in ("float", "int", "uint") for b in (8, 16, 32, 64)]
        + ["torch.bool", "torch.bfloat16"],
    ),
    "Layout": _one_of("torch.strided"),
    "Device": lambda text: _start("device(")(text) and "meta",
    "MemoryFormat": _start("torch.", FORMATS),
    "str": lambda text: _start("'")(text).strip("'"),
}


def _arguments(call: Call, leaves: list[str]) -> dict[str, Any]:
    """Put the flat list of arguments into the places that the operator has for them: the first that runs."""
    schema = list(call.function._schema.arguments)
    for found in _placements(schema, leaves, len(leaves) >= SHORT):
        arguments: list[Any] = []
        options = {}
        for one, value in found:
            if one.kwarg_only or len(arguments) < schema.index(one):
                options[one.name] = value
            else:
                arguments.append(value)
        arguments += _rest(call.name, arguments, len(leaves))
        given = [_made(value) for value in arguments], {name: _made(value) for name, value in options.items()}
        with contextlib.suppress(Exception):
            call.function(*given[0], **given[1])
            return {"arguments": arguments, "options": options}
    raise LookupError("its arguments are not understood")


def _rest(name: str, arguments: list[Any], leaves: int) -> list[Any]:
    """What was not written down of a call with many arguments, as its step has it."""
    if leaves < SHORT or not arguments or "foreach" in name:
        return []
    if "efficient_attention_backward" in name:
        arguments[-1] += [True, False]
        return [False]
    if "cudnn_attention_backward" in name:
        return [_sizes(arguments[2])[2], 0.0, False]
    if "flash_attention_backward" in name:
        return ["uint64[2]", "uint64[]"]
    if name == "aten.convolution.default":
        return [_sizes(arguments[0])[1] // _sizes(arguments[1])[1]]
    if name == "aten.convolution_backward.default":
        arguments[-1] += [0] * (2 - len(arguments[-1]))
        return [_sizes(arguments[1])[1] // _sizes(arguments[2])[1], [True, True, arguments[3] is not None]]
    return []


def _sizes(tensor: str) -> list[int]:
    return [int(one) for one in TENSOR.fullmatch(tensor)[2].split(",")]


SIZES = {"stride": 2, "padding": 2, "dilation": 2, "bias_sizes": 1}
"""Of a convolution over images, lists that stand in a row."""


def _placements(schema: list[Any], leaves: list[str], short: bool) -> Iterator[list[tuple[Any, Any]]]:
    """Ways to give each argument its leaves, from the left; one with a default may have none."""
    if not schema or (short and not leaves):
        if not leaves:
            yield []
        return
    first, rest = schema[0], schema[1:]
    kind = str(first.real_type)
    if kind.startswith("Optional["):
        kind = kind[len("Optional[") : -1]
        if leaves[:1] == ["None"]:
            for placed in _placements(rest, leaves[1:], short):
                yield [(first, None), *placed]
    if kind.startswith("List["):
        for size in range(len(leaves), -1, -1):
            fixed = SIZES.get(first.name, first.N or 1)
            if fixed > 1 and size != fixed and not (short and size == len(leaves)):
                continue
            with contextlib.suppress(LookupError):
                values = [_leaf(kind[5:-1], one) for one in leaves[:size]]
                if kind[5:-1] == "Tensor" and not all(map(_tensor, leaves[:size])):
                    continue
                for placed in _placements(rest, leaves[size:], short):
                    yield [(first, values), *placed]
    elif leaves:
        with contextlib.suppress(LookupError):
            value = _leaf(kind, leaves[0])
            for placed in _placements(rest, leaves[1:], short):
                yield [(first, value), *placed]
    if first.has_default_value():
        yield from _placements(rest, leaves, short)


def _leaf(kind: str, text: str) -> Any:
    if kind.startswith("Optional["):
        return None if text == "None" else _leaf(kind[len("Optional[") : -1], text)
    if kind == "Tensor" and _tensor(text) is None:  # a number, or None where another kernel has a tensor
        return None if text == "None" else _number(text)
    if kind not in TAKES:
        raise LookupError(f"nothing is known of {kind}")
    return TAKES[kind](text)


def _made(value: Any) -> Any:
    """The argument itself, tensors on the meta device."""
    if isinstance(value, list):
        return [_made(one) for one in value]
    found = _tensor(value)
    if found is not None:
        dtype = getattr(torch, found[1])
        shape = [int(one) for one in found[2].split(",") if one]
        if found[3] is None:
            return torch.empty(shape, dtype=dtype, device="meta")
        strides = [int(one) for one in found[3].split(",") if one]
        values = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        return torch.empty(values, dtype=dtype, device="meta").as_strided(shape, strides)
    if isinstance(value, str) and value.startswith("torch."):
        return getattr(torch, value.removeprefix("torch."))
    return value


def replay(call: Call) -> Changes:
    """What a prediction for an H100 and torch 2.11 has the call allocate and free."""
    tape = Tape(RULES)
    with as_on_cuda(tape), tape:
        arguments, options = _made(call.arguments), {name: _made(one) for name, one in call.options.items()}
        tape.events = []
        made = call.function(*arguments, **options)
    events = tape.events
    tape.events = []  # what is made dies later
    del made
    # In a steady step cuBLAS has its workspaces.
    workspaces = dataclasses.replace(
        workspaces_on(find_card("h100-80gb"), (2, 11)), cublas_bytes=0, cublaslt_bytes=0
    )
    requests = simulate(Trace(events=events, kinds={}), workspaces, None).requests
    return [size if action == ALLOC else -size for action, size in requests]


def main() -> None:
    """List what differs; write down what was measured."""
    differing: dict[tuple[str, str], list[tuple[int, Call, Any]]] = defaultdict(list)
    calls = list(calls_of(Path(sys.argv[1])))
    for call in calls:
        try:
            predicted: Any = replay(call)
        except Exception as error:
            predicted = f"{type(error).__name__}: {error}".splitlines()[0]
        if predicted != call.changes:
            most = max((abs(one) for one in call.changes), default=0)
            differing[call.name, " ".join(sorted(call.dtypes))].append((most, call, predicted))
    for (name, dtypes), found in sorted(differing.items(), key=lambda one: -max(most for most, *_ in one[1])):
        of = sum(call.name == name and " ".join(sorted(call.dtypes)) == dtypes for call in calls)
        print(f"\n{name} ({dtypes}): {len(found)} of {of} differ")
        for _, call, predicted in sorted(found, key=lambda one: -one[0])[:3]:
            print(
                f"  {call.arguments} {call.options}\n    measured  {call.changes[:16]}\n    predicted {predicted[:200] if isinstance(predicted, str) else predicted[:16]}"
            )
    print(f"\n{sum(map(len, differing.values()))} of {len(calls)} calls differ")
    if len(sys.argv) > 2:
        text = json.dumps([list(call) for call in calls], separators=(",", ":"))
        Path(sys.argv[2]).write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
