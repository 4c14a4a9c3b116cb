"""The plots of several GPUs: the stack of each, by how they share a step, and its time over their number."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from stepcost.report.answers.ranks import AT_MOST, gpus_of, labels_of, split_of, steps_of, strategy
from stepcost.report.answers.savers import step_s
from stepcost.report.load import Run
from stepcost.report.page.axes import (
    Named,
    batch_axis,
    draw_line,
    key_of_lines,
    label_at,
    plain_numbers,
    say_y,
)
from stepcost.report.page.drawing import Plot, Size, caption, new_figure, where_of
from stepcost.report.page.palette import LIMIT, numbered_line
from stepcost.report.page.plots_memory import stacks
from stepcost.report.rows import Row, configuration
from stepcost.request import ALONE, PARALLEL
from stepcost.units import count, mb, ms, significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curves = dict[str, list[tuple[int, float]]]
"""By strategy: number of GPUs and seconds of a step, from one GPU on."""


def memory_by_rank(run: Run) -> Plot | str:
    """Draw the memory of each GPU with each strategy, and the time of the step; or say why there is none."""
    steps = steps_of(list(run.rows))
    if not any(row.get("ranks") for row in steps):
        return "No step was shared between GPUs (--parallel)."
    labels = labels_of(steps)
    # Over numbers of GPUs one bar each, of the rank that the row's own figures are of.
    several = labels != [strategy(row) for row in steps]
    drawn = []
    for row, label in zip(steps, labels, strict=True):
        took = step_s(row)
        for place, rank in [("", {})] if several else gpus_of(row):
            # Of the row itself: where it comes from, and its configuration, which the caption says.
            name = f"{label}, GPU {place}" if row.get("ranks") and place else label
            figures = "" if took is None else f" · {ms(took)}"
            if rank.get(AT_MOST):
                figures += f" · at most {mb(rank[AT_MOST][1])} reserved"
            drawn.append((name, row | {"parallel": None} | rank, figures))
    title = "Memory of each GPU by how they share a step, at the peak of a step"
    said = ("Drawn is the fullest GPU of each",) if several else ()
    plot = stacks(run, drawn, "memory-by-rank", title, "parallel", *said)
    return plot or "No ledger of several GPUs was read."


def step_time_over_gpus(run: Run) -> Plot | str:
    """Draw the time of a step over the number of GPUs: with a batch each, and with one batch split."""
    rows = list(run.rows)
    steps = steps_of(rows)
    alone = next((row for row in steps if strategy(row) == ALONE), None)
    alone_s = None if alone is None else step_s(alone)
    if alone is None or alone_s is None:
        return "No step of one GPU was timed beside those of several."
    each, split = (_curves(found, alone_s) for found in (steps, split_of(rows, alone)))
    if not each and not split:
        return "No step of several GPUs was timed beside that of one."
    of = {"a batch on each": each, "one batch split": split}
    words = "; ".join(
        f"{name} with {how}: " + ", ".join(f"{count(gpus)} GPUs {ms(took)}" for gpus, took in points[1:])
        for how, curves in of.items()
        for name, points in curves.items()
    )
    where = configuration(alone | {"parallel": None, "gpus": None})
    return Plot(
        "step-time-over-gpus",
        "Time of a training step over the number of GPUs that share it",
        f"Two panels of lines from {ms(alone_s)} on one GPU. {words}.",
        caption(steps, where, "Dotted: as on one GPU, and that divided by their number"),
        where_of(run),
        partial(_draw_over_gpus, panels=of, alone_s=alone_s),
    )


def _curves(rows: list[Row], alone_s: float) -> Curves:
    curves: Curves = {}
    for row in sorted(rows, key=lambda row: row.get("gpus") or 1):
        took = step_s(row)
        if strategy(row) != ALONE and took is not None:
            curves.setdefault(strategy(row), [(1, alone_s)]).append((row["gpus"], took))
    return curves


def _draw_over_gpus(size: Size, *, panels: dict[str, Curves], alone_s: float) -> Figure:
    figure, both = new_figure(size, 270, 2)
    gpus = sorted({one for curves in panels.values() for points in curves.values() for one, _ in points})
    names: dict[str, Named] = {}
    ends: dict[Axes, list[Named]] = {axes: [] for axes in both}
    for axes, (how, curves) in zip(both, panels.items(), strict=True):
        ideal = [1000 * alone_s / (one if axes is both[1] else 1) for one in gpus]
        axes.plot(gpus, ideal, color=LIMIT.color, linestyle=LIMIT.dash)
        for name, points in curves.items():
            line = numbered_line(PARALLEL.index(name))
            took = [1000 * seconds for _, seconds in points]
            said = [f"{name}, {how}, {count(one)} GPUs: {ms(seconds)}" for one, seconds in points]
            draw_line(axes, [one for one, _ in points], took, line, said)
            names[name] = Named(points[-1][0], took[-1], name, line)
            ends[axes].append(Named(points[-1][0], took[-1], significant(took[-1]), line))
        longest = max([1000 * alone_s, *(1000 * took for points in curves.values() for _, took in points)])
        axes.set_ylim(0, longest * 1.2)
        axes.margins(x=0.14)
        batch_axis(axes, gpus, "number of GPUs")
        plain_numbers(axes.yaxis)
        say_y(axes, f"ms a step, {how}")
    key_of_lines(figure, size, list(names.values()))
    figure.draw_without_rendering()
    for axes, values in ends.items():
        label_at(axes, values)
    return figure
