"""Plots of time and accuracy: the step, and whole training runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import accumulate

from stepcost.report.answers.training import training_runs
from stepcost.report.load import Run
from stepcost.report.page.drawing import (
    BACKING,
    Plot,
    batch_axis,
    finish,
    label_at,
    new_figure,
    plain_numbers,
    style,
)
from stepcost.report.page.palette import BLUE, batch_line
from stepcost.report.page.plots_memory import caption
from stepcost.report.rows import Row, configuration, groups, of_question
from stepcost.report.units import count, significant


def step_time_over_batch_size(run: Run) -> Plot | str:
    """Milliseconds a step and images per second over batch size; or why there is none."""
    found = groups([row for row in of_question(run.rows, "3a") if _median(row)], "batch_size")
    if not found:
        return "No training step was timed over batch size."
    rows = found[0]
    title = "Time of a training step, and images per second, over batch size"
    batches = [row["batch_size"] for row in rows]
    medians = [_median(row) or 0.0 for row in rows]
    with style():
        figure, (left, right) = new_figure(2)
        lows = [(row["stats"].get("min") or median) * 1000 for row, median in zip(rows, medians, strict=True)]
        highs = [
            (row["stats"].get("max") or median) * 1000 for row, median in zip(rows, medians, strict=True)
        ]
        left.fill_between(batches, lows, highs, color=BLUE, alpha=0.18, linewidth=0)
        left.plot(batches, [median * 1000 for median in medians], color=BLUE, marker="o")
        left.set_ylim(0, max(highs) * 1.15)
        left.set_ylabel("time a step, ms (median)")
        rates = [batch / median for batch, median in zip(batches, medians, strict=True)]
        right.plot(batches, rates, color=BLUE, marker="o")
        right.set_yscale("log")
        right.set_ylabel("images per second, logarithmic")
        for axes in (left, right):
            batch_axis(axes, batches)
            plain_numbers(axes.yaxis)
            axes.margins(x=0.12)
        rounds = sorted({row["stats"]["rounds"] for row in rows if row["stats"].get("rounds")})
        how_many = f" of {count(rounds[0])} steps" if len(rounds) == 1 else ""
        said = (configuration(rows[0], "batch_size"), f"Band: fastest to slowest{how_many}")
        finish(figure, title, caption(run, rows, *said))
        figure.draw_without_rendering()
        for axes, values in ((left, [median * 1000 for median in medians]), (right, rates)):
            for batch, value in zip(batches, values, strict=True):
                axes.annotate(
                    significant(value), (batch, value), xytext=(-3, 7), textcoords="offset points",
                    ha="center" if axes is left else "right", fontsize=8, bbox=BACKING,
                )  # fmt: skip
    words = "; ".join(
        f"batch {count(batch)}: {significant(median * 1000)} ms, {significant(rate)} images per second"
        for batch, median, rate in zip(batches, medians, rates, strict=True)
    )
    return Plot("step-time-over-batch-size", title, f"Two lines. {words}.", figure)


def _median(row: Row) -> float | None:
    """Median seconds of a training step; ``None`` where the row's seconds are of something else."""
    if row.get("timed") != "training step" or row.get("fits") is False:
        return None
    return (row.get("stats") or {}).get("median") or None


def accuracy_over_time(run: Run) -> Plot | str:
    """3d: training accuracy over seconds of training, a line per batch size; or why there is none."""
    return _accuracy(
        run,
        "training-accuracy-over-time",
        "Training accuracy over wall time",
        field="train_accuracy",
        along=lambda row: list(accumulate(epoch.get("train_seconds") or 0.0 for epoch in row["epochs"])),
        axis="training time, seconds (evaluation off the clock)",
    )


def accuracy_over_epochs(run: Run) -> Plot | str:
    """Test accuracy over epochs, a line per batch size; or why there is none."""
    return _accuracy(
        run,
        "test-accuracy-over-epochs",
        "Test accuracy over epochs",
        field="test_accuracy",
        along=lambda row: [float(place) for place in range(1, len(row["epochs"]) + 1)],
        axis="epoch",
    )


def _accuracy(
    run: Run, name: str, title: str, *, field: str, along: Callable[[Row], list[float]], axis: str
) -> Plot | str:
    runs = [
        row for row in training_runs(list(run.rows)) if all(e.get(field) is not None for e in row["epochs"])
    ]
    by_batch: dict[int, list[Row]] = defaultdict(list)
    for row in runs:
        by_batch[row["batch_size"]].append(row)
    if not by_batch:
        return f"No {title.lower()} was recorded."
    with style():
        figure, (axes,) = new_figure()
        labels, ends = [], []
        for batch, seeds in sorted(by_batch.items()):
            line = batch_line(batch)
            length = min(len(row["epochs"]) for row in seeds)
            values = [[100 * row["epochs"][place][field] for row in seeds] for place in range(length)]
            times = [[along(row)[place] for row in seeds] for place in range(length)]
            xs, ys = [_mean(one) for one in times], [_mean(one) for one in values]
            axes.fill_between(
                xs, [min(v) for v in values], [max(v) for v in values], color=line.color, alpha=0.2
            )
            axes.plot(xs, ys, color=line.color, linestyle=line.dash, marker=line.marker, markersize=4)
            labels.append((xs[-1], ys[-1], f"batch {batch:,}", line.color))
            ends.append(xs[-1])
        axes.margins(x=0.14)
        if min(ends) > 0 and max(ends) / min(ends) > 4:
            axes.set_xscale("log")
            axis += ", logarithmic"
        else:
            axes.set_xlim(left=0)
        plain_numbers(axes.xaxis)
        axes.set_xlabel(axis)
        axes.set_ylabel("training accuracy, %" if field == "train_accuracy" else "test accuracy, %")
        numbers = sorted({len(seeds) for seeds in by_batch.values()})
        of = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
        band = (
            f"Mean of {of} seeds; band: lowest to highest" if numbers[-1] > 1 else "One seed: spread unknown"
        )
        finish(figure, title, caption(run, runs, configuration(runs[0], "batch_size"), band))
        figure.draw_without_rendering()
        label_at(axes, labels)
    words = "; ".join(f"{text} ends at {y:.1f} % at {significant(x)}" for x, y, text, _ in labels)
    return Plot(name, title, f"Lines over {axis}. {words}.", figure)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
