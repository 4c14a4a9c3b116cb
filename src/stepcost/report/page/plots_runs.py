"""For several runs: each metric over the runs, with the GPU and torch of each below it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stepcost.report.compare.time_figures import busy_s, step_s
from stepcost.report.load import Run
from stepcost.report.page.drawing import WIDTH_IN, Plot, finish, label_at, plain_numbers, short, style
from stepcost.report.page.palette import batch_line, numbered_line
from stepcost.report.rows import CONFIGURATION, Row, groups, of_question, optimizer_label
from stepcost.report.units import MB, significant

LONGEST_TICK, MOST_TICK_LETTERS = 12, 24
"""Letters of a run's name, and of all names together, that fit level below a panel."""

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
    Metric("largest batch, images", "3a", "optimizer", lambda row: row.get("largest_batch")),
    Metric("time a step by batch, ms", "3a", "batch_size", _ms(step_s)),
    Metric("GPU busy in a step by batch, ms", "3a", "batch_size", _ms(busy_s)),
    Metric("time a step by engine, ms", "4", WAY, _ms(step_s)),
    Metric("peak allocated by engine, MB", "4", WAY, _bytes("peak_allocated_bytes")),
    Metric("training time by batch, s", "3b", "batch_size", lambda row: row.get("train_s")),
    Metric("final test accuracy by batch, %", "3b", "batch_size", _final_accuracy),
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
        figure = Figure(figsize=(WIDTH_IN, 1.4 + 2.3 * down), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False)
        for (metric, lines), axes in zip(read, grid.flat, strict=False):
            _panel(axes, metric, lines, runs)
        for axes in list(grid.flat)[len(read) :]:
            axes.set_axis_off()
        finish(
            figure,
            title,
            f"Runs {_key(runs)}. Mean over seeds where there are several; MB = 10**6 bytes. "
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


def _key(runs: list[Run]) -> str:
    """``1: 0001_run1 (GPU, torch 2.11.0); 2: ...``; what all share is said once."""
    gpus, versions = ({getattr(run, name) for run in runs} for name in ("gpu", "torch"))
    said = []
    for place, run in enumerate(runs, start=1):
        own = [run.gpu] * (len(gpus) > 1) + [f"torch {run.torch}"] * (len(versions) > 1)
        said.append(f"{place}: {run.label}" + (f" ({', '.join(own)})" if own else ""))
    shared = [*gpus] * (len(gpus) == 1) + [f"torch {version}" for version in versions if len(versions) == 1]
    return "; ".join(said) + (f"; for all: {', '.join(shared)}" if shared else "")


def _ticks(runs: list[Run]) -> list[str]:
    """Names of the runs where they are short and differ, else their places in the key."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names) and max(map(len, names)) <= LONGEST_TICK:
        return names
    return [f"run {place}" for place in range(1, len(runs) + 1)]


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
    return batch_line(name) if metric.varying == "batch_size" else numbered_line(place)


def _label(metric: Metric, name: Any) -> str:
    if metric.varying == "batch_size":
        return f"batch {name:,}"
    return short(name if metric.varying == WAY else optimizer_label(name))


def _panel(axes: Any, metric: Metric, lines: Lines, runs: list[Run]) -> None:
    for place, (name, points) in enumerate(lines.items()):
        line = _look(metric, place, name)
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.plot(xs, ys, color=line.color, linestyle=line.dash, marker=line.marker, markersize=4)
    axes.set_title(metric.title, fontsize=9)
    highest = max(y for points in lines.values() for _, y in points)
    lowest = min(y for points in lines.values() for _, y in points)
    if lowest > 0 and highest / lowest > 8:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, highest * 1.25 or 1)
    plain_numbers(axes.yaxis)
    axes.set_xlim(0.8, len(runs) + 0.35 * len(runs))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    names = _ticks(runs)
    crowded = sum(map(len, names)) > MOST_TICK_LETTERS
    slant: Any = {"rotation": 35, "ha": "right"} if crowded else {}
    axes.set_xticks(range(1, len(runs) + 1), names, fontsize=8, **slant)


def _name_lines(axes: Any, metric: Metric, lines: Lines) -> None:
    label_at(
        axes,
        [
            (*points[-1], _label(metric, name), _look(metric, place, name).color)
            for place, (name, points) in enumerate(lines.items())
        ],
    )
