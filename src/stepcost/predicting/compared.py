"""Operators whose allocations agree with a GPU's; a prediction says on which others it rests."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

FILE = Path(__file__).parent / "tables" / "compared-operators.json"
"""``gpu`` and ``torch`` of the comparison, and for each dtype the names of ``operators``."""
SHOWN = 3


@functools.cache
def compared() -> frozenset[str]:
    """Operators that were compared, as ``name_of`` names them."""
    found = json.loads(FILE.read_text())["operators"]
    return frozenset(f"{name} ({dtype})" for dtype, names in found.items() for name in names)


@functools.cache
def is_plain(func: Any) -> bool:
    """Say whether what ``func`` allocates needs no comparison: nothing, or its output, value by value."""
    return torch.Tag.pointwise in func.tags or func.namespace == "c10d"


def name_of(func: Any, args: Iterable[Any]) -> str | None:
    """Name an operator with the floating dtype that it works in; ``None`` where it takes no tensor of one."""
    dtype = next((one.dtype for one in _tensors(args) if one.is_floating_point()), None)
    return None if dtype is None else f"{func} ({str(dtype).removeprefix('torch.')})"


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def rests_on(uncompared: Iterable[str]) -> str | None:
    """Say in one line on which operators that nobody compared a prediction rests; ``None`` where on none."""
    names = sorted(uncompared)
    if not names:
        return None
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    allocate = "allocates" if len(names) == 1 else "allocate"
    return f"it rests on what no GPU was asked: how {', '.join(names[:SHOWN])}{more} {allocate}"
