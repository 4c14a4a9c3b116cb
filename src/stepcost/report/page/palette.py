"""Colours, dashes, markers and hatches: one for each thing, the same on every plot.

Colours are Okabe and Ito's, told apart by colour-blind readers; hatches,
dashes and markers tell the same things apart in grey.
"""

from __future__ import annotations

import math
from typing import NamedTuple

BLUE, SKY, GREEN, YELLOW = "#0072B2", "#56B4E9", "#009E73", "#F0E442"
ORANGE, RED, PINK, BLACK, GREY = "#E69F00", "#D55E00", "#CC79A7", "#000000", "#8C8C8C"
INK = "#222222"
"""Text and axes."""


class Part(NamedTuple):
    """One layer of the memory stack."""

    label: str
    fields: tuple[str, ...]
    """Fields of the ledger that it sums; the tiny ones share a layer with what they belong to."""
    color: str
    hatch: str


STACK = (
    Part("context", ("context_bytes",), GREY, ""),
    Part("parameters, buffers", ("parameter_bytes", "buffer_bytes"), BLUE, "//"),
    Part("gradients", ("gradient_bytes",), SKY, ""),
    Part("optimizer state", ("optimizer_state_bytes",), RED, "xx"),
    Part("activations, inputs", ("activation_bytes", "input_bytes"), GREEN, ".."),
    Part("workspace, temporaries", ("workspace_bytes",), YELLOW, "--"),
    Part("allocator slack", ("slack_bytes",), "#FFFFFF", ""),
)
"""Layers of a process's memory, from the bottom."""


class Line(NamedTuple):
    """How one line is drawn."""

    color: str
    dash: str | tuple[int, tuple[int, ...]]
    marker: str


MEMORY_LINES = {
    "tensor_bytes": Line(GREEN, "-", "o"),
    "peak_allocated_bytes": Line(BLUE, "--", "s"),
    "peak_reserved_bytes": Line(ORANGE, "-.", "^"),
    "process_bytes": Line(BLACK, "-", "D"),
}
LIMIT = Line(RED, (0, (1, 1)), "")
"""The card's memory."""

_CYCLE = (
    Line(RED, "-", "D"),
    Line(PINK, "--", "v"),
    Line(BLUE, "-", "o"),
    Line(SKY, "--", "<"),
    Line(ORANGE, "-.", "s"),
    Line(BLACK, ":", ">"),
    Line(GREEN, (0, (5, 1)), "^"),
    Line(GREY, "-.", "P"),
)


def batch_line(batch_size: int) -> Line:
    """Return the line of a batch size: 4, 16, 64 and 256 differ most, and no plot gives them another."""
    return _CYCLE[round(math.log2(batch_size)) % len(_CYCLE)]


def numbered_line(place: int) -> Line:
    """Return the line of the ``place``-th run or configuration."""
    return _CYCLE[(2 * place + (place // 4)) % len(_CYCLE)]
