"""Parts of plots: bars with their names above them, axes, and the names of lines."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from stepcost.report.page.drawing import Size, hover, new_figure
from stepcost.report.page.palette import INK, PAPER, SOFT, Line
from stepcost.units import significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BACKING = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
"""Keeps a label readable where it crosses a line."""
LONGEST_LABEL = 26
"""Letters of a name in a plot."""
BAR_HEIGHT = 38
"""Pixels of a bar with its name."""


class Segment(NamedTuple):
    """A part of a bar."""

    value: float
    color: str
    said: str
    """What it is and its exact value."""


class Bar(NamedTuple):
    """A bar, its name above it at the left, and its figure at the right."""

    name: str
    figure: str
    segments: Sequence[Segment]


class Named(NamedTuple):
    """A line with its name, and where it ends."""

    x: float
    y: float
    name: str
    line: Line


def bars(size: Size, rows: Sequence[Bar], key: Sequence[tuple[str, str]] = ()) -> Figure:
    """Draw bars from the left, the first on top; ``key`` names colours below them."""
    down = -(-len(key) // (2 if size.is_narrow else 4))
    figure, (axes,) = new_figure(size, BAR_HEIGHT * len(rows) + 22 * down + 8)
    for place, row in enumerate(rows):
        left = 0.0
        for segment in row.segments:
            (drawn,) = axes.barh(
                place, segment.value, left=left, height=0.42, color=segment.color, edgecolor=PAPER,
                linewidth=1 if len(row.segments) > 1 else 0,
            )  # fmt: skip
            hover(drawn, segment.said)
            left += segment.value
        axes.text(0, place - 0.32, row.name, va="bottom")
        axes.text(
            1, place - 0.32, row.figure, va="bottom", ha="right", fontweight="bold",
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip
    longest = max(sum(segment.value for segment in row.segments) for row in rows)
    axes.set_xlim(0, longest or 1)
    axes.set_ylim(len(rows) - 0.7, -0.8)
    axes.set_axis_off()
    if key:
        _key(figure, size, [Patch(color=color, label=name) for name, color in key])
    return figure


def _key(figure: Figure, size: Size, handles: Sequence[Any]) -> None:
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=2 if size.is_narrow else 4,
        labelcolor=INK,
        handlelength=1.2,
        columnspacing=1.2,
        borderpad=0,
    )


def draw_line(
    axes: Axes, xs: Sequence[float], ys: Sequence[float], line: Line, said: Sequence[str] = ()
) -> None:
    """Draw a line with a mark at each point, which says its exact value."""
    axes.plot(xs, ys, color=line.color, linestyle=line.dash)
    for x, y, text in itertools.zip_longest(xs, ys, said, fillvalue=""):
        (mark,) = axes.plot([x], [y], color=line.color, marker=line.marker, linestyle="")
        if text:
            hover(mark, text)


def mean_line(axes: Axes, xs: Sequence[float], curves: Sequence[Sequence[float]], line: Line) -> list[float]:
    """Draw the mean of several curves over ``xs`` with a band from the lowest to the highest.

    Returns the means.
    """
    values = list(zip(*curves, strict=True))
    means = [sum(one) / len(one) for one in values]
    axes.fill_between(xs, list(map(min, values)), list(map(max, values)), color=line.color, alpha=0.2, lw=0)
    axes.plot(xs, means, color=line.color, linestyle=line.dash, marker=line.marker, markersize=5)
    return means


def name_lines(figure: Figure, axes: Axes, size: Size, names: Sequence[Named]) -> None:
    """Name the lines where they end; on a narrow screen in a key below."""
    if size.is_narrow:
        key_of_lines(figure, size, names)
    else:
        figure.draw_without_rendering()
        label_at(axes, names)


def key_of_lines(figure: Figure, size: Size, names: Sequence[Named]) -> None:
    """Name the lines below the plot."""
    _key(
        figure,
        size,
        [
            Line2D(
                [],
                [],
                color=one.line.color,
                marker=one.line.marker,
                linestyle=one.line.dash,
                markersize=5,
                label=one.name,
            )
            for one in names
        ],
    )


def batch_axis(axes: Axes, batches: Sequence[int], name: str) -> None:
    """Name the x axis and make it logarithmic, with a tick at each size far enough from the one before."""
    axes.set_xscale("log", base=2)
    shown: list[int] = []
    room = max(1.9, (max(batches) / min(batches)) ** (1 / 8))
    for batch in sorted(set(batches)):
        if not shown or batch / shown[-1] >= room:
            shown.append(batch)
    axes.set_xticks(shown, [f"{batch:,}" for batch in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(name)


def short(name: str) -> str:
    """Cut a name to what fits next to a bar or a line."""
    return name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 3]}..."


def plain_numbers(axis: Any) -> None:
    """Write tick labels such as 10,000, not powers of ten; on a logarithmic axis at 1, 2 and 5 of a decade.

    Call it after the scale is chosen.
    """
    if axis.get_scale() == "log":
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: significant(value, 1)))


def say_y(axes: Axes, text: str) -> None:
    """Name the y axis above it, where it is read without turning the head."""
    axes.set_title(text, color=SOFT, fontsize=12)


def label_at(axes: Axes, names: Sequence[Named]) -> None:
    """Write names to the right of where lines end, pushed apart where they would overlap."""
    points = [tuple(axes.transData.transform((one.x, one.y))) for one in names]
    for one, point, height in zip(names, points, _apart(points), strict=True):
        axes.annotate(
            one.name,
            (one.x, one.y),
            xytext=(9, height - point[1]),
            textcoords="offset points",
            color=one.line.color,
            va="center",
            annotation_clip=False,
            zorder=5,
        )


def _apart(points: list[tuple[float, float]]) -> list[float]:
    """Heights at which labels 15 points high and 90 wide, one per point, do not overlap."""
    heights = [y for _, y in points]
    order = sorted(range(len(points)), key=lambda place: (heights[place], place))
    for _ in range(200):
        for low, high in itertools.combinations(order, 2):
            lacks = 15 - (heights[high] - heights[low])
            if lacks > 0 and abs(points[high][0] - points[low][0]) < 90:
                heights[low] -= lacks / 2
                heights[high] += lacks / 2
    return heights
