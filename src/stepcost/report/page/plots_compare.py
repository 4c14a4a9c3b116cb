"""For a comparison: the ratio new / base of each row's bytes and times, with intervals of times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from stepcost.report.compare.matching import without_shared
from stepcost.report.compare.result import Change, Comparison
from stepcost.report.page.axes import BACKING
from stepcost.report.page.drawing import Plot, Size, hover, new_figure
from stepcost.report.page.palette import GREEN, GREY, INK, PAPER, RED

MOST_ROWS = 40
"""Of more rows those that changed most are drawn."""
LONGEST_ROW = 60
WIDEST = 3.0
"""Intervals wider than this factor end at the edge of the plot, unless a ratio itself lies beyond."""
TICKS = (0.2, 0.5, 1, 2, 5)
FAR_TICKS = (0.0001, 0.01, 1, 100, 10_000)
"""Where ratios lie beyond the others."""

MARKERS = {
    "tensor_bytes": "o",
    "peak_allocated_bytes": "s",
    "peak_reserved_bytes": "^",
    "process_bytes": "D",
    "step": "o",
    "gpu_busy": "s",
    "kernel": "^",
}
"""By figure; another figure in bytes is drawn only if it got worse or better."""
OTHER_MARKER = "X"


def ratios(found: Comparison) -> Plot | str:
    """One line per row, a panel for bytes and one for times; or why there is none."""
    read = [change for change in found.changes if change.ratio and change.ratio > 0]
    panels = [
        (title, changes)
        for title, changes in (
            ("bytes, new / base", [change for change in read if _is_drawn(change)]),
            ("times, new / base", [change for change in read if _unit(change) == "time"]),
        )
        if changes
    ]
    every = _rows([change for _, changes in panels for change in changes])
    if not every:
        return "No figure in bytes or time was read on both sides."
    rows = every[:MOST_ROWS]
    rows.sort(key=list(dict.fromkeys(change.row for _, changes in panels for change in changes)).index)
    shared, names = without_shared(rows)
    said, where = _caption(found, shared, len(every) - len(rows))
    return Plot(
        "ratios",
        "Ratios of the new side to the base",
        _in_words(panels),
        said,
        where,
        partial(_draw, panels=panels, rows=rows, names=[_cut(name) for name in names]),
    )


def _draw(
    size: Size,
    *,
    panels: Sequence[tuple[str, Sequence[Change]]],
    rows: Sequence[str],
    names: Sequence[str],
) -> Figure:
    """Draw a panel for bytes and one for times; names are above the rows where there is no room beside."""
    high = (34 if size.is_narrow else 20) * len(rows) + 96
    figure, grid = new_figure(size, high, len(panels))
    for axes, (heading, changes) in zip(grid, panels, strict=True):
        _panel(axes, heading, [change for change in changes if change.row in rows], rows)
        beside = names if axes is grid[0] and not size.is_narrow else [""] * len(rows)
        axes.set_yticks(range(len(rows)), beside, fontsize=11, color=INK)
        axes.tick_params(axis="y", length=0)
        if size.is_narrow:
            axes.set_ylim(len(rows) - 0.4, -0.9)
            for place, name in enumerate(names):
                axes.text(
                    0,
                    place - 0.24,
                    name,
                    fontsize=11,
                    va="bottom",
                    bbox=BACKING,
                    transform=axes.get_yaxis_transform(),
                )
    return figure


def _unit(change: Change) -> str | None:
    if change.is_time:
        return "time"
    return "bytes" if "_bytes" in change.figure else None


def _is_drawn(change: Change) -> bool:
    if change.verdict in ("worse", "better"):
        return _unit(change) == "bytes"
    return change.figure in MARKERS and change.question != "1c"  # whose process 2a and 3a show in training


def _figure(change: Change) -> str:
    return change.figure.removesuffix("_s").removesuffix("_ratio")


def _rows(changes: Sequence[Change]) -> list[str]:
    """Names of the rows, the one that changed most first."""
    far: dict[str, float] = {}
    for change in changes:
        far[change.row] = max(far.get(change.row, 0.0), abs(math.log(change.ratio or 1)))
    return sorted(far, key=lambda row: -far[row])


def _panel(axes: Any, heading: str, changes: Sequence[Change], rows: Sequence[str]) -> None:
    figures = list(dict.fromkeys(map(_figure, changes)))
    low, high = _limits(changes)
    for change in changes:
        figure = _figure(change)
        place = figures.index(figure) - (len(figures) - 1) / 2
        height = rows.index(change.row) + 0.6 * place / max(len(figures), 3)
        color = {"worse": RED, "better": GREEN}.get(change.verdict, GREY)
        if change.interval is not None:
            ends = [min(max(end, low), high) for end in change.interval]
            axes.plot(ends, [height, height], color=color, linewidth=1.6)
        (dot,) = axes.plot(
            change.ratio or 1, height, color=color, marker=MARKERS.get(figure, OTHER_MARKER),
            markersize=6, linestyle="", markerfacecolor=PAPER if color == GREY else color,
        )  # fmt: skip
        hover(dot, f"{change.row}, {figure.replace('_', ' ')}: {change.ratio or 1:.4f}, {change.verdict}")
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.grid(visible=True, axis="x")
    axes.set_title(heading)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(low, high)
    if high / low > WIDEST:
        axes.set_xscale("log")
        ticks = TICKS if high < 10 else FAR_TICKS
        axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.legend(
        handles=[
            Line2D([], [], color=GREY, marker=MARKERS.get(one, OTHER_MARKER), linestyle="",
                   markerfacecolor=PAPER, markersize=6,
                   label=one.removesuffix("_bytes").replace("_", " "))
            for one in figures
        ],
        loc="upper center", bbox_to_anchor=(0.5, -26 / (20 * len(rows) + 40)), ncols=2, fontsize=11,
    )  # fmt: skip


def _limits(changes: Sequence[Change]) -> tuple[float, float]:
    """Return ends of the axis: every ratio, and its interval up to a factor of `WIDEST`."""
    ratios_there = [change.ratio or 1.0 for change in changes]
    ends = [end for change in changes for end in change.interval or ()]
    ends = [min(max(end, 1 / WIDEST), WIDEST) for end in ends]
    far = max(abs(math.log(value)) for value in [*ratios_there, *ends, 1.01])
    return math.exp(-1.08 * far), math.exp(1.08 * far)


def _caption(found: Comparison, shared: str, left_out: int) -> tuple[str, str]:
    """Return what the marks are, and which runs on which machines."""
    parts = [
        "1 is unchanged, above 1 is more bytes or slower",
        "Red: worse, green: better, hollow: within its tolerance, undecided or not gated",
        "Lines are 95 % intervals of times, each row alone",
    ]
    if left_out > 0:
        parts.append(f"{left_out} more rows, which changed less, are not drawn")
    return ". ".join(parts) + ".", (
        f"Base {', '.join(found.base)} ({_machine(found.base_machine)}); "
        f"new {', '.join(found.new)} ({_machine(found.new_machine)}){shared}."
    )


def _machine(machine: Mapping[str, Any]) -> str:
    return f"{machine.get('gpu') or 'no GPU'}, torch {machine.get('torch') or 'not stored'}"


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_ROW else f"{name[: LONGEST_ROW - 3]}..."


def _in_words(panels: Sequence[tuple[str, Sequence[Change]]]) -> str:
    changed = [
        f"{change.row}, {_figure(change)}: {change.ratio:.3f}"
        for _, changes in panels
        for change in changes
        if change.verdict in ("worse", "better")
    ]
    drawn = sum(len(changes) for _, changes in panels)
    return f"Dots at {drawn} ratios. Worse or better: {'; '.join(changed) or 'none'}."
