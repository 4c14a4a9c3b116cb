"""Arguments of an operator from the flat list of short texts that ``experiments.operators`` writes down."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

TENSOR = re.compile(r"([a-z]+[0-9]*)\[([0-9,]*)(?:\|([0-9,]*))?\]")
"""Dtype, shape, and strides where it is not contiguous."""
SHORT = 12
"""So many arguments of a call are written down, which may be too few."""


def operator(name: str) -> Any:
    """Return an operator by its name, such as ``aten.sum.default``."""
    _, packet, overload = name.split(".")
    return getattr(getattr(torch.ops.aten, packet), overload)


def made(value: Any) -> Any:
    """Return the argument itself, tensors on the meta device."""
    if isinstance(value, list):
        return [made(one) for one in value]
    found = TENSOR.fullmatch(value) if isinstance(value, str) else None
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


def _tensor(text: Any) -> re.Match[str] | None:
    return TENSOR.fullmatch(text) if isinstance(text, str) else None


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


def arguments_of(name: str, leaves: list[str]) -> tuple[list[Any], dict[str, Any]]:
    """Put a flat list of arguments into the places that the operator has for them: the first that runs.

    Raises ``LookupError`` where none does.
    """
    function = operator(name)
    schema = list(function._schema.arguments)
    for found in _placements(schema, leaves, len(leaves) >= SHORT):
        arguments: list[Any] = []
        options = {}
        for one, value in found:
            if one.kwarg_only or len(arguments) < schema.index(one):
                options[one.name] = value
            else:
                arguments.append(value)
        arguments += _rest(name, arguments, len(leaves))
        given = [made(value) for value in arguments], {name: made(value) for name, value in options.items()}
        with contextlib.suppress(Exception):
            function(*given[0], **given[1])
            return arguments, options
    raise LookupError("its arguments are not understood")


def _rest(name: str, arguments: list[Any], leaves: int) -> list[Any]:
    """Return what was not written down of a call with many arguments, as its step has it."""
    if leaves < SHORT or not arguments or "foreach" in name:
        return []
    if "efficient_attention_backward" in name:
        arguments[-1] += [True, False]
        return [False]
    if "cudnn_attention_backward" in name:
        return [arguments[-1], 0.0, False]  # as many keys as queries
    return ["uint64[2]", "uint64[]"] if "flash_attention_backward" in name else []


def _placements(schema: list[Any], leaves: list[str], short: bool) -> Iterator[list[tuple[Any, Any]]]:
    """Ways to give each argument its leaves, from the left; one with a default may have none."""
    if not leaves and (short or not schema):
        yield []
    if not schema or (short and not leaves):
        return
    first, *rest = schema
    for taken, value in _values(first, leaves, short):
        for placed in _placements(rest, leaves[taken:], short):
            yield [(first, value), *placed]
    if first.has_default_value():
        yield from _placements(rest, leaves, short)


def _values(argument: Any, leaves: list[str], short: bool) -> Iterator[tuple[int, Any]]:
    """Values that an argument may have, and how many leaves each takes."""
    kind = str(argument.real_type)
    if kind.startswith("Optional["):
        kind = kind[len("Optional[") : -1]
        if leaves[:1] == ["None"]:
            yield 1, None
    if not kind.startswith("List["):
        with contextlib.suppress(LookupError):
            if leaves:
                yield 1, _leaf(kind, leaves[0])
        return
    kind, fixed = kind[len("List[") : -1], argument.N or 1
    for size in range(len(leaves), -1, -1):
        if fixed > 1 and size != fixed and not (short and size == len(leaves)):
            continue
        if kind != "Tensor" or all(map(_tensor, leaves[:size])):
            with contextlib.suppress(LookupError):
                yield size, [_leaf(kind, one) for one in leaves[:size]]


def _leaf(kind: str, text: str) -> Any:
    if kind.startswith("Optional["):
        return None if text == "None" else _leaf(kind[len("Optional[") : -1], text)
    if kind == "Tensor" and _tensor(text) is None:  # a number, or None where another kernel has a tensor
        return None if text == "None" else _number(text)
    if kind not in TAKES:
        raise LookupError(f"nothing is known of {kind}")
    return TAKES[kind](text)
