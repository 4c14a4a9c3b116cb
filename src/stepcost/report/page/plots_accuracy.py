"""Plots of accuracy while training: over time, over epochs, and by engine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from statistics import mean

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stepcost.report.answers.training import training_runs
from stepcost.report.load import Run
from stepcost.report.page.axes import Named, key_of_lines, mean_line, name_lines, plain_numbers, say_y
from stepcost.report.page.drawing import Plot, Size, caption, new_figure, where_of
from stepcost.report.page.palette import batch_line, numbered_line
from stepcost.report.rows import CONFIGURATION, Row, configuration, of_question
from stepcost.units import count, significant


def accuracy_over_time(run: Run) -> Plot | str:
    """Draw training accuracy over seconds of training, a line per batch size; or say why there is none."""
    return _accuracy(
        run,
        "training-accuracy-over-time",
        "Training accuracy over wall time",
        field="train_accuracy",
        along=lambda row: list(accumulate(epoch.get("train_seconds") or 0.0 for epoch in row["epochs"])),
        axis="seconds of training",
    )


def accuracy_over_epochs(run: Run) -> Plot | str:
    """Draw test accuracy over epochs, a line per batch size; or say why there is none."""
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
    numbers = sorted({len(seeds) for seeds in by_batch.values()})
    of = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    band = f"Mean of {of} seeds; band: lowest to highest" if numbers[-1] > 1 else "One seed: spread unknown"
    curves = {
        batch: (list(map(mean, zip(*map(along, seeds), strict=False))), _percents(seeds, field))
        for batch, seeds in sorted(by_batch.items())
    }
    words = "; ".join(
        f"batch {batch:,} ends at {mean(run[-1] for run in ys):.1f} % at {significant(xs[-1])}"
        for batch, (xs, ys) in curves.items()
    )
    return Plot(
        name,
        title,
        f"Lines over {axis}. {words}.",
        caption(runs, configuration(runs[0], "batch_size"), band),
        where_of(run),
        partial(_draw, curves=curves, axis=axis, what=field.replace("train_", "training ").replace("_", " ")),
    )


def _draw(
    size: Size, *, curves: Mapping[int, tuple[list[float], list[list[float]]]], axis: str, what: str
) -> Figure:
    figure, (axes,) = new_figure(size, 340)
    names, ends = [], []
    for batch, (xs, of_seeds) in curves.items():
        line = batch_line(batch)
        ys = mean_line(axes, xs, of_seeds, line)
        names.append(Named(xs[-1], ys[-1], f"batch {batch:,}", line))
        ends.append(xs[-1])
    axes.margins(x=0.02 if size.is_narrow else 0.14)
    if min(ends) > 0 and max(ends) / min(ends) > 4:
        axes.set_xscale("log")
        axis += ", logarithmic"
    else:
        axes.set_xlim(left=0)
    plain_numbers(axes.xaxis)
    axes.set_xlabel(axis)
    say_y(axes, f"{what}, %")
    name_lines(figure, axes, size, names)
    return figure


def _percents(rows: Sequence[Row], field: str) -> list[list[float]]:
    """Return the accuracies of each run over the epochs that all of them have, in percent."""
    length = min(len(row["epochs"]) for row in rows)
    return [[100 * epoch[field] for epoch in row["epochs"][:length]] for row in rows]


def accuracy_by_engine(runs: Sequence[Run]) -> Plot | str:
    """Draw training accuracy over epochs, a panel per batch size and a line per engine; or say why not."""
    found = _trained_by_several(runs)
    if not found:
        return "No two engines trained the same configuration."
    rows = [row for engines in found.values() for one in engines.values() for row in one]
    said = f"{configuration(rows[0], 'batch_size', 'engine')}, {rows[0].get('dataset') or 'data not stored'}"
    drawn = [run for run in runs if any(row is one for one in run.rows for row in rows)]
    words = "; ".join(
        f"batch {count(batch)} {engine}: {_last(of_one):.1f} % at the last epoch"
        for batch, engines in found.items()
        for engine, of_one in engines.items()
    )
    return Plot(
        "accuracy-by-engine",
        "Training accuracy over epochs by engine",
        f"Lines. {words}.",
        caption(rows, said, "Mean over runs; band: lowest to highest"),
        where_of(drawn[0], *drawn[1:]),
        partial(_draw_by_engine, found=found),
    )


def _draw_by_engine(size: Size, *, found: Mapping[int, Mapping[str, list[Row]]]) -> Figure:
    names = list(dict.fromkeys(engine for engines in found.values() for engine in engines))
    figure, panels = new_figure(size, 270, len(found))
    lines: dict[str, Named] = {}
    for axes, batch in zip(panels, sorted(found), strict=True):
        for engine, rows in found[batch].items():
            line = numbered_line(names.index(engine))
            curves = _percents(rows, "train_accuracy")
            means = mean_line(axes, range(1, len(curves[0]) + 1), curves, line)
            name = f"{engine}, {_how_many(rows)}"
            lines.setdefault(name, Named(len(means), means[-1], name, line))
        say_y(
            axes,
            f"batch {count(batch)}: training accuracy, %" if size.is_narrow else f"batch {count(batch)}, %",
        )
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_ylim(bottom=0)
    key_of_lines(figure, size, list(lines.values()))
    return figure


def _last(rows: Sequence[Row]) -> float:
    return mean(curve[-1] for curve in _percents(rows, "train_accuracy"))


def _how_many(rows: Sequence[Row]) -> str:
    """``3 seeds``; ``4 runs`` where a seed was run more than once."""
    seeds = len({row.get("seed") for row in rows})
    word = "seed" if seeds == len(rows) else "run"
    return f"{len(rows)} {word}{'s' * (len(rows) > 1)}"


def _trained_by_several(runs: Sequence[Run]) -> dict[int, dict[str, list[Row]]]:
    """Batch size to engine to its training runs: of the configuration with most, where engines differ."""
    alike: dict[tuple[object, ...], dict[int, dict[str, list[Row]]]] = defaultdict(dict)
    for run in runs:
        for row in of_question(run.rows, "3b"):
            epochs = row.get("epochs") or [{}]
            if row.get("engine") and row.get("batch_size") and epochs[0].get("train_accuracy") is not None:
                key = (run.gpu, *(row.get(n) for n in CONFIGURATION if n not in ("batch_size", "engine")))
                engines = alike[key].setdefault(row["batch_size"], {})
                engines.setdefault(row["engine"], []).append(row)
    several = [{b: e for b, e in batches.items() if len(e) > 1} for batches in alike.values()]
    return max(several, key=len, default={})
