"""For several runs: each metric over the runs, with the GPU and torch of each below it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.drawing import WIDTH_IN, Plot, finish, label_at, plain_numbers, short, style
from reports.load import Run
from reports.palette import batch_line, numbered_line
from reports.rows import CONFIGURATION, Row, groups, of_question, optimizer_label
from reports.units import MB, significant

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


def _step_ms(row: Row) -> float | None:
    median = (row.get("stats") or {}).get("median")
    return 1000 * median if median and row.get("timed") == "training step" else None


def _final_accuracy(row: Row) -> float | None:
    value = (row.get("epochs") or [{}])[-1].get("test_accuracy")
    return None if value is None else 100 * value


METRICS = (
    Metric("peak allocated by optimizer, MB", "2a", "optimizer", _bytes("peak_allocated_bytes")),
    Metric("process by optimizer, MB", "2a", "optimizer", _bytes("process_bytes")),
    Metric("peak allocated by batch size, MB", "3a", "batch_size", _bytes("peak_allocated_bytes")),
    Metric("time a step by batch size, ms", "3a", "batch_size", _step_ms),
    Metric("training time by batch size, s", "3b", "batch_size", lambda row: row.get("train_s")),
    Metric("final test accuracy by batch size, %", "3b", "batch_size", _final_accuracy),
)


def metrics_over_runs(runs: list[Run]) -> Plot | str:
    """One panel per metric, the runs side by side; or why there is none."""
    read = []
    for metric in METRICS:
        source, lines = _lines(metric, runs)
        if lines:
            read.append((replace(metric, title=f"{metric.title}, {source}"), lines))
    if len(runs) < 2 or not read:
        return "No metric was read in two or more of the runs."
    across = min(2, len(read))
    down = -(-len(read) // across)
    title = "Each metric over the runs"
    with style():
        figure = Figure(figsize=(WIDTH_IN, 1.2 + 2.5 * down), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False)
        for (metric, lines), axes in zip(read, grid.flat, strict=False):
            _panel(axes, metric, lines, runs)
        for axes in list(grid.flat)[len(read) :]:
            axes.set_axis_off()
        key = "; ".join(f"{place}: {_about(run)}" for place, run in enumerate(runs, start=1))
        finish(
            figure,
            title,
            f"Runs {key}. Mean over seeds where there are several; MB = 10**6 bytes. "
            "A run without a point did not read it, or differs in configuration or source.",
        )
        figure.draw_without_rendering()
        for (metric, lines), axes in zip(read, grid.flat, strict=False):
            _name_lines(axes, metric, lines)
    words = "; ".join(
        f"{metric.title}, {_label(metric, name)}: " + ", ".join(significant(y) for _, y in points)
        for metric, lines in read
        for name, points in lines.items()
    )
    return Plot("metrics-over-runs", title, f"Small panels over {len(runs)} runs. {words}.", figure)


def _about(run: Run) -> str:
    return f"{run.label} ({run.gpu}, torch {run.torch})"


def _lines(metric: Metric, runs: list[Run]) -> tuple[str, Lines]:
    """The source and the lines of the configuration that most runs have, of two runs at least.

    Runs are joined only where all but the varying name agrees, the source
    included: a prediction is never joined with a measurement.
    """
    found: dict[tuple[Any, ...], Lines] = {}
    for place, run in enumerate(runs, start=1):
        rows = [row for row in of_question(run.rows, metric.question) if not row.get("trials")]
        for group in groups(rows, metric.varying):
            key = tuple(group[0].get(name) for name in CONFIGURATION if name != metric.varying)
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


def _look(metric: Metric, place: int, name: Any) -> Any:
    return batch_line(name) if metric.varying == "batch_size" else numbered_line(place)


def _label(metric: Metric, name: Any) -> str:
    return f"batch {name:,}" if metric.varying == "batch_size" else short(optimizer_label(name))


def _panel(axes: Any, metric: Metric, lines: Lines, runs: list[Run]) -> None:
    for place, (name, points) in enumerate(lines.items()):
        line = _look(metric, place, name)
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.plot(xs, ys, color=line.color, linestyle=line.dash, marker=line.marker, markersize=4)
    axes.set_title(metric.title, fontsize=9.5)
    highest = max(y for points in lines.values() for _, y in points)
    lowest = min(y for points in lines.values() for _, y in points)
    if lowest > 0 and highest / lowest > 8:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, highest * 1.12 or 1)
    plain_numbers(axes.yaxis)
    axes.set_xlim(0.8, len(runs) + 0.35 * len(runs))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.set_xticks(range(1, len(runs) + 1), [f"run {place}" for place in range(1, len(runs) + 1)])


def _name_lines(axes: Any, metric: Metric, lines: Lines) -> None:
    label_at(
        axes,
        [
            (*points[-1], _label(metric, name), _look(metric, place, name).color)
            for place, (name, points) in enumerate(lines.items())
        ],
    )
