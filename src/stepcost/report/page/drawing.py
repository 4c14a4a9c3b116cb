"""What every plot shares: size, fonts, the caption line inside the figure, and safe SVG and PNG.

Text from saved runs is never parsed as mathematics, and reaches the SVG as
outlines of letters, so no name can carry markup into the page.
"""

from __future__ import annotations

import io
import itertools
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from stepcost.report.load import Run
from stepcost.report.page.palette import INK, Line
from stepcost.report.rows import Row, source_of
from stepcost.report.units import listed, significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLE: dict[str, Any] = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.axisbelow": True,
    "font.size": 9.5,
    "grid.color": "#DDDDDD",
    "hatch.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "svg.fonttype": "path",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
BACKING = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
"""Keeps a label readable where it crosses a line."""
WIDTH_IN, HEIGHT_IN = 7.2, 4.4
LONGEST_LABEL = 26
"""Letters of a name in a plot."""
CAPTION_COLUMNS = 118
"""Letters of the caption that fit in one line of a figure."""


@dataclass(frozen=True)
class Plot:
    """One finished figure."""

    name: str
    """Stem of its PNG, such as ``memory-by-optimizer``."""
    title: str
    description: str
    """The figure in words, for who cannot see it."""
    figure: Figure


@contextmanager
def style(name: str = "stepcost") -> Iterator[None]:
    """Set the look of all plots; ids inside the SVG are the same on every run."""
    settings: Any = {**STYLE, "svg.hashsalt": name}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is not worth a warning.
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def new_figure(panels: int = 1, height_in: float = HEIGHT_IN) -> tuple[Figure, list[Axes]]:
    """Make a figure with ``panels`` side by side."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    return figure, list(axes)


def finish(figure: Figure, title: str, caption: str) -> None:
    """Put the title on top and the caption (unit, machine, measured or predicted) at the foot."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    lines = textwrap.wrap(caption, CAPTION_COLUMNS, max_lines=6, placeholder=" ...") or [""]
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=7.5, color="#444444")


def caption(run: Run, rows: list[Row], *said: str, others: Sequence[Run] = ()) -> str:
    """Join source, configuration, machine and runs: what a reader needs who sees only the plot.

    ``others`` are runs on the same GPU that are drawn too.
    """
    runs = [run, *others]
    where = run.gpu if run.machine.get("gpu") else "no GPU"
    cpu = (run.machine.get("cpu") or {}).get("brand_raw")
    if not run.machine.get("gpu") and cpu:
        where += f" ({cpu})"
    parts = [
        *said,
        source_of(rows).capitalize(),
        where,
        f"torch {listed(list(dict.fromkeys(one.torch for one in runs)))}",
        "; ".join(f"{one.label}, {one.date or 'no date'}" for one in runs),
    ]
    return ". ".join(part for part in parts if part) + "."


def mean_line(
    axes: Axes, xs: Sequence[float], curves: Sequence[Sequence[float]], line: Line, **more: Any
) -> list[float]:
    """Draw the mean of several curves over ``xs`` with a band from the lowest to the highest.

    Returns the means.
    """
    values = list(zip(*curves, strict=True))
    means = [sum(one) / len(one) for one in values]
    axes.fill_between(xs, list(map(min, values)), list(map(max, values)), color=line.color, alpha=0.2)
    axes.plot(xs, means, color=line.color, linestyle=line.dash, marker=line.marker, markersize=4, **more)
    return means


def to_svg(plot: Plot) -> str:
    """Draw the figure as an ``<svg>`` element: no prolog, no metadata, named for screen readers."""
    out = io.StringIO()
    with style(plot.name):
        plot.figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Glyphs and clip paths of several figures share one page, so each figure's ids get its name.
    text = re.sub(r'\bid="', f'id="{plot.name}-', text)
    text = re.sub(r'href="#', f'href="#{plot.name}-', text)
    text = text.replace("url(#", f"url(#{plot.name}-")
    return text.replace("<svg ", '<svg role="img" aria-hidden="true" focusable="false" ', 1)


def to_png(plot: Plot, path: Path) -> None:
    """Write the figure with 160 dots an inch."""
    with style(plot.name):
        plot.figure.savefig(path, format="png", dpi=160, metadata={"Software": None})


def batch_axis(axes: Axes, batches: Sequence[int]) -> None:
    """Make the x axis logarithmic, with a tick at each batch size that is far enough from the one before."""
    axes.set_xscale("log", base=2)
    shown: list[int] = []
    for batch in sorted(set(batches)):
        if not shown or batch / shown[-1] >= 1.9:
            shown.append(batch)
    axes.set_xticks(shown, [f"{batch:,}" for batch in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("batch size (images a step)")


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


def label_at(axes: Axes, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Write ``(x, y, text, color)`` to the right of the points, pushed apart where they would overlap."""
    pixels_a_point = axes.figure.dpi / 72
    points = [axes.transData.transform((x, y)) / pixels_a_point for x, y, _, _ in labels]
    heights = _apart([(float(x), float(y)) for x, y in points])
    for (x, y, text, color), point, height in zip(labels, points, heights, strict=True):
        axes.annotate(
            text,
            (x, y),
            xytext=(7, height - point[1]),
            textcoords="offset points",
            color=color,
            va="center",
            fontsize=8.5,
            annotation_clip=False,
            bbox=BACKING,
            zorder=5,
        )


def _apart(points: list[tuple[float, float]]) -> list[float]:
    """Heights at which labels 12 points high and 80 wide, one per point, do not overlap."""
    heights = [y for _, y in points]
    order = sorted(range(len(points)), key=lambda place: (heights[place], place))
    for _ in range(200):
        for low, high in itertools.combinations(order, 2):
            lacks = 12 - (heights[high] - heights[low])
            if lacks > 0 and abs(points[high][0] - points[low][0]) < 80:
                heights[low] -= lacks / 2
                heights[high] += lacks / 2
    return heights
