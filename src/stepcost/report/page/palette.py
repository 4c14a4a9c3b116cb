"""Colours of the page and its plots, for light and for dark: one for each thing, the same everywhere.

A plot is drawn in the light colours, which the page then replaces by variables of CSS. Dashes, markers and
names beside them tell the same things apart without colour. Contrast is WCAG 2.2's: 4.5 of letters (1.4.3),
3 of what is drawn (1.4.11); ``tests/report/test_palette.py`` computes it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class Shade(NamedTuple):
    """One colour in each scheme. The light ones all differ, so that each can be replaced in a drawing."""

    light: str
    dark: str


SHADES = {
    "paper": Shade("#ffffff", "#15181c"),
    "wash": Shade("#f4f5f7", "#1f242a"),
    "rule": Shade("#d8dbe0", "#3a414a"),
    "ink": Shade("#1a1c1f", "#e8eaed"),
    "soft": Shade("#565b63", "#a9b0ba"),
    "link": Shade("#0b5cad", "#7db8f7"),
    "blue": Shade("#1f6fb5", "#5aa2e6"),
    "orange": Shade("#b45309", "#f2a65a"),
    "green": Shade("#16794c", "#57c08d"),
    "purple": Shade("#7a4bb0", "#b48be8"),
    "teal": Shade("#0f7482", "#5cc3d1"),
    "red": Shade("#bf2f38", "#f4878c"),
    "pink": Shade("#a83a7e", "#e78fc4"),
    "grey": Shade("#6b7078", "#9aa1ab"),
}
"""Name of a colour, as in CSS, to its shades."""
PAPER, RULE, INK, SOFT = (SHADES[name].light for name in ("paper", "rule", "ink", "soft"))
BLUE, ORANGE, GREEN, PURPLE, TEAL, RED, PINK, GREY = (shade.light for shade in list(SHADES.values())[6:])


def css() -> str:
    """Return both schemes as variables of CSS; paper is printed light."""
    light, dark = (
        " ".join(f"--{name}: {shade[place]};" for name, shade in SHADES.items()) for place in (0, 1)
    )
    dark = f":root {{ color-scheme: dark; {dark} }}"
    return (
        f":root {{ color-scheme: light; {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ {dark} }}"
    )


class Part(NamedTuple):
    """One layer of the memory stack."""

    label: str
    fields: tuple[str, ...]
    """Fields of the ledger that it sums; the tiny ones share a layer with what they belong to."""
    color: str
    of_several: bool = False
    """Whether only GPUs that share a step have it: of one it is neither drawn nor missed."""


STACK = (
    Part("parameters, buffers", ("parameter_bytes", "buffer_bytes"), BLUE),
    Part("gradients", ("gradient_bytes",), TEAL),
    Part("buckets, gathered parameters", ("parallel_bytes",), RED, of_several=True),
    Part("optimizer state", ("optimizer_state_bytes",), ORANGE),
    Part("activations, inputs", ("activation_bytes", "input_bytes"), GREEN),
    Part("workspace, temporaries", ("workspace_bytes",), PURPLE),
    Part("allocator slack", ("slack_bytes",), PINK),
    Part("context", ("context_bytes",), GREY),
)
"""Layers of a process's memory, from the first."""


class Line(NamedTuple):
    """How one line is drawn."""

    color: str
    dash: Any
    """As matplotlib takes a line style: its sign, or an offset and lengths."""
    marker: str


MEMORY_LINES = {
    "tensor_bytes": Line(GREEN, "-", "o"),
    "peak_allocated_bytes": Line(BLUE, "--", "s"),
    "peak_reserved_bytes": Line(ORANGE, "-.", "^"),
    "process_bytes": Line(INK, "-", "D"),
}
LIMIT = Line(RED, (0, (1, 1)), "")
"""The card's memory."""

_CYCLE = (
    Line(ORANGE, "-", "D"),
    Line(PINK, "--", "v"),
    Line(BLUE, "-", "o"),
    Line(TEAL, "--", "<"),
    Line(PURPLE, "-.", "s"),
    Line(INK, ":", ">"),
    Line(GREEN, (0, (5, 1)), "^"),
    Line(GREY, "-.", "P"),
)


def batch_line(batch_size: int) -> Line:
    """Return the line of a batch size: 4, 16, 64 and 256 differ most, and no plot gives them another."""
    return _CYCLE[round(math.log2(batch_size)) % len(_CYCLE)]


def numbered_line(place: int) -> Line:
    """Return the line of the ``place``-th run or configuration."""
    return _CYCLE[(2 * place + (place // 4)) % len(_CYCLE)]
