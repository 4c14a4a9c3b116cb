"""For several runs: each metric over versions, GPUs or dates, and the history of a branch."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stepcost.report.compare.time_figures import busy_s, step_s
from stepcost.report.load import Run
from stepcost.report.opening import memory_of
from stepcost.report.page.axes import Named, draw_line, key_of_lines, plain_numbers, say_y, short
from stepcost.report.page.drawing import Plot, Size, new_figure, where_of
from stepcost.report.page.headline import headline_row
from stepcost.report.page.palette import Line, batch_line, numbered_line
from stepcost.report.rows import CONFIGURATION, Row, configuration, groups, of_question, optimizer_label
from stepcost.units import MB, mb, significant

OTHER_MARKS = "xP*X"
LONGEST_TICK = 7
"""Letters of a run below a small panel."""
FEWEST_OF_A_BRANCH = 3
"""Of fewer runs there is no history."""

Lines = dict[Any, list[tuple[int, float]]]
"""Optimizer or batch size to its points: place of the run, mean value."""


@dataclass(frozen=True)
class Metric:
    """One panel: a figure of each row of a question, a line per optimizer or batch size."""

    title: str
    question: str
    varying: str
    value: Callable[[Row], float | None]


def _bytes(field: str) -> Callable[[Row], float | None]:
    return lambda row: None if row.get(field) is None else row[field] / MB


def _ms(of_row: Callable[[Row], float | None]) -> Callable[[Row], float | None]:
    return lambda row: None if (value := of_row(row)) is None else 1000 * value


def _final_accuracy(row: Row) -> float | None:
    value = (row.get("epochs") or [{}])[-1].get("test_accuracy")
    return None if value is None else 100 * value


WAY = "way"
"""Engine and precision of a row as one name: what varies between the rows of question 4."""
METRICS = (
    *(
        Metric(f"{word} by {by}, MB", question, varying, _bytes(f"{field}_bytes"))
        for question, varying, by in (("2a", "optimizer", "optimizer"), ("3a", "batch_size", "batch"))
        for field, word in (
            ("tensor", "tensors"),
            ("peak_allocated", "peak allocated"),
            ("peak_reserved", "peak reserved"),
            ("process", "process"),
        )
    ),
    Metric("CUDA context by batch, MB", "3a", "batch_size", _bytes("context_bytes")),
    Metric("largest batch", "3a", "optimizer", lambda row: row.get("largest_batch")),
    Metric("time a step by batch, ms", "3a", "batch_size", _ms(step_s)),
    Metric("GPU busy in a step by batch, ms", "3a", "batch_size", _ms(busy_s)),
    Metric("time a step by engine, ms", "4", WAY, _ms(step_s)),
    Metric("peak allocated by engine, MB", "4", WAY, _bytes("peak_allocated_bytes")),
    Metric("training time by batch, s", "3b", "batch_size", lambda row: row.get("train_s")),
    Metric("final test accuracy by batch, %", "3b", "batch_size", _final_accuracy),
)


def metrics_over_runs(runs: list[Run]) -> Plot | str:
    """One small panel per metric, the runs side by side; or why there is none."""
    read = []
    for metric in METRICS:
        source, lines = _lines(metric, runs)
        if lines:
            read.append((replace(metric, title=f"{metric.title}, {source}"), lines))
    if len(runs) < 2 or not read:
        return "No metric was read in two or more of the runs."
    varies, ticks = _ticks(runs)
    words = "; ".join(
        f"{metric.title}, {_label(metric, name)}: " + ", ".join(significant(y) for _, y in points)
        for metric, lines in read
        for name, points in lines.items()
    )
    return Plot(
        "metrics-over-runs",
        f"Each metric over {varies}",
        f"Small panels over {len(runs)} runs. {words}.",
        "Mean over seeds where there are several. A run without a point did not read it, or differs in "
        "configuration or source.",
        f"Runs {_key(runs)}.",
        partial(_draw_panels, read=read, ticks=ticks),
    )


def _draw_panels(size: Size, *, read: Sequence[tuple[Metric, Lines]], ticks: Sequence[str]) -> Figure:
    across = min(2 if size.is_narrow else 3, len(read))
    down = -(-len(read) // across)
    figure = Figure(figsize=(size.width / 72, (190 * down + 60) / 72), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    names: dict[str, Named] = {}
    for (metric, lines), axes in zip(read, grid.flat, strict=False):
        _panel(axes, metric, lines, ticks)
        for place, name in enumerate(lines):
            label = _label(metric, name)
            names.setdefault(label, Named(0, 0, label, _look(metric, place, name)))
    for axes in list(grid.flat)[len(read) :]:
        axes.set_axis_off()
    key_of_lines(figure, size, list(names.values()))
    return figure


def history(runs: Sequence[Run]) -> Plot | str:
    """Draw the memory of the step that pages speak of first, over the last runs of one branch, by date."""
    branches = defaultdict(list)
    for run in runs:
        row = headline_row(run)
        memory = memory_of(row) if row else None
        if run.branch and run.date and row and memory:
            what = (memory.word, configuration(row), row.get("source"), run.gpu)
            branches[run.branch, what].append((run, memory.bytes))
    key = max(branches, key=lambda key: len(branches[key]), default=None)
    if key is None or len(branches[key]) < FEWEST_OF_A_BRANCH:
        return f"Fewer than {FEWEST_OF_A_BRANCH} runs of one branch and configuration are here."
    points = sorted(branches[key], key=lambda point: point[0].date or "")
    branch, (word, asked, source, _) = key
    said = [f"{run.label}, {run.date}, {(run.commit or 'no commit')[:9]}: {mb(size)}" for run, size in points]
    return Plot(
        "history",
        f"The last {len(points)} runs of {short(branch)}: {word} memory",
        f"A line. {'; '.join(said)}.",
        f"{str(source or 'source not stored').capitalize()}. {asked}.",
        where_of(points[-1][0], *(run for run, _ in points[:-1])),
        partial(_draw_history, points=points, said=said, word=word),
    )


def _draw_history(size: Size, *, points: Sequence[tuple[Run, int]], said: Sequence[str], word: str) -> Figure:
    figure, (axes,) = new_figure(size, 250)
    ys = [of_run / MB for _, of_run in points]
    draw_line(axes, range(len(ys)), ys, Line(*numbered_line(1)[:2], "o"), said)
    axes.set_ylim(0, max(ys) * 1.2 or 1)
    say_y(axes, f"{word}, MB")
    plain_numbers(axes.yaxis)
    every = -(-len(points) // (4 if size.is_narrow else 8))
    shown = range(0, len(points), every)
    axes.set_xticks(shown, [(points[place][0].date or "")[5:10] for place in shown])
    return figure


def _key(runs: list[Run]) -> str:
    """``1: 0001_run1 (GPU, torch 2.11.0); 2: ...``; what all share is said once."""
    gpus, versions = ({getattr(run, name) for run in runs} for name in ("gpu", "torch"))
    said = []
    for place, run in enumerate(runs, start=1):
        own = [run.gpu] * (len(gpus) > 1) + [f"torch {run.torch}"] * (len(versions) > 1)
        said.append(f"{place}: {run.label}" + (f" ({', '.join(own)})" if own else ""))
    shared = [*gpus] * (len(gpus) == 1) + [f"torch {version}" for version in versions if len(versions) == 1]
    return "; ".join(said) + (f"; for all: {', '.join(shared)}" if shared else "")


def _ticks(runs: list[Run]) -> tuple[str, list[str]]:
    """Say what tells the runs apart, and name each of them by it: versions, GPUs, names, dates, or places."""
    gpus = [run.gpu.removeprefix("NVIDIA ").partition(" ")[0] for run in runs]
    ways = (
        ("versions of torch", [run.torch.partition("+")[0] for run in runs]),
        ("GPUs", gpus),
        ("runs", [run.name for run in runs]),
        ("dates", [(run.date or "no date")[5:10] for run in runs]),
    )
    for what, names in ways:
        if len(set(names)) == len(names) and max(map(len, names)) <= LONGEST_TICK:
            return what, names
    return "runs", [str(place) for place in range(1, len(runs) + 1)]


def _lines(metric: Metric, runs: list[Run]) -> tuple[str, Lines]:
    """Return the source and the lines of the configuration that most runs have, of two runs at least.

    Runs are joined only where all but the varying name agrees, the source
    included: a prediction is never joined with a measurement.
    """
    found: dict[tuple[Any, ...], Lines] = {}
    for place, run in enumerate(runs, start=1):
        rows = [row | {WAY: _way(row)} for row in of_question(run.rows, metric.question)]
        varying = ("engine", "precision") if metric.varying == WAY else (metric.varying,)
        for group in groups(rows, metric.varying):
            others = (name for name in CONFIGURATION if name not in (*varying, "source"))
            key = (group[0].get("source"), *(group[0].get(name) for name in others))
            for name in dict.fromkeys(row[metric.varying] for row in group):
                read = [metric.value(row) for row in group if row[metric.varying] == name]
                values = [value for value in read if value is not None]
                if values:
                    points = found.setdefault(key, {}).setdefault(name, [])
                    points.append((place, sum(values) / len(values)))
    shared = {
        key: {name: points for name, points in lines.items() if len(points) > 1}
        for key, lines in found.items()
    }
    best = max(shared, key=lambda key: sum(map(len, shared[key].values())), default=None)
    if best is None or not shared[best]:
        return "", {}
    return str(best[0] or "source not stored"), shared[best]


def _way(row: Row) -> str:
    return ", ".join(str(row[name]) for name in ("engine", "precision") if row.get(name))


def _look(metric: Metric, place: int, name: Any) -> Any:
    if metric.varying == "batch_size":
        return batch_line(name)
    # All panels share a key: no optimizer or engine has the mark of a batch size.
    return numbered_line(place)._replace(marker=OTHER_MARKS[place % len(OTHER_MARKS)])


def _label(metric: Metric, name: Any) -> str:
    if metric.varying == "batch_size":
        return f"batch {name:,}"
    return short(name if metric.varying == WAY else optimizer_label(name))


def _panel(axes: Any, metric: Metric, lines: Lines, ticks: Sequence[str]) -> None:
    for place, (name, points) in enumerate(lines.items()):
        xs, ys = [x for x, _ in points], [y for _, y in points]
        said = [f"{_label(metric, name)}, {ticks[x - 1]}: {significant(y, 4)}" for x, y in points]
        draw_line(axes, xs, ys, _look(metric, place, name), said)
    axes.set_title("\n".join(textwrap.wrap(metric.title, 22)), fontsize=11)
    highest = max(y for points in lines.values() for _, y in points)
    lowest = min(y for points in lines.values() for _, y in points)
    if lowest > 0 and highest / lowest > 8:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, highest * 1.25 or 1)
    plain_numbers(axes.yaxis)
    axes.yaxis.set_tick_params(labelsize=10)
    axes.set_xlim(0.6, len(ticks) + 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.set_xticks(range(1, len(ticks) + 1), ticks, fontsize=10)
