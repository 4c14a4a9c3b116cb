"""Plots of engines: their steps beside what bounds them, and the accuracy that they train to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.ticker import LogLocator, NullLocator

from stepcost.report.answers.engines import engine_steps, step_s
from stepcost.report.load import Run
from stepcost.report.page.drawing import BACKING, Plot, finish, new_figure, plain_numbers, style
from stepcost.report.page.palette import BLUE, INK, ORANGE, SKY, numbered_line
from stepcost.report.page.plots_memory import caption
from stepcost.report.rows import CONFIGURATION, Row, configuration, of_question
from stepcost.report.units import count, significant

TICK = 0.5
LIMITS = {"kernel_s": BLUE, "least_s": ORANGE}
"""What a step is held against: the sum of its kernels; its bytes or operations at the card's rates."""


def step_by_engine(run: Run) -> Plot | str:
    """Milliseconds a step by engine, a panel per batch size; or why there is none.

    The axis is logarithmic, so that captured steps can be read beside the plain loop's.
    """
    steps = engine_steps(list(run.rows))
    if not steps:
        return "No steps of several engines were timed (--engines)."
    title = "Time of a training step by engine, and what bounds it"
    names = list(dict.fromkeys(engine for _, engine in steps))
    batches = list(dict.fromkeys(batch for batch, _ in steps))
    drawn = [value * 1000 for row in steps.values() for value in (step_s(row), *_limits(row))]
    with style():
        figure, panels = new_figure(len(batches))
        for axes, batch in zip(panels, batches, strict=True):
            rows = [(names.index(name), row) for (size, name), row in steps.items() if size == batch]
            places = [place for place, _ in rows]
            values = [step_s(row) * 1000 for _, row in rows]
            lowest = [1000 * min((step_s(row), *_limits(row))) for _, row in rows]
            axes.hlines(places, lowest, values, color=SKY, linewidth=1.5)
            axes.plot(values, places, "o", color=SKY, markersize=6)
            for field, color in LIMITS.items():
                marks = [(place, row[field] * 1000) for place, row in rows if row.get(field)]
                axes.vlines(
                    [value for _, value in marks],
                    [place - TICK / 2 for place, _ in marks],
                    [place + TICK / 2 for place, _ in marks],
                    color=color,
                    linewidth=2,
                )
            for place, value in zip(places, values, strict=True):
                axes.annotate(
                    significant(value), (value, place), xytext=(6, 0), textcoords="offset points",
                    va="center", fontsize=7.5, bbox=BACKING,
                )  # fmt: skip
            axes.set_title(f"batch {count(batch)}", fontsize=9.5)
            axes.set_xlabel("ms a step")
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.set_xscale("log")
            axes.set_xlim(min(drawn) / 1.4, max(drawn) * 2.6)
            axes.set_yticks(range(len(names)), names if axes is panels[0] else [""] * len(names))
            axes.grid(visible=False, axis="y")
            axes.grid(visible=True, axis="x")
            axes.tick_params(colors=INK)
            plain_numbers(axes.xaxis)
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))  # four panels have no room for 1, 2 and 5
            axes.xaxis.set_minor_locator(NullLocator())
        some = list(steps.values())
        said = configuration(some[0], "batch_size", "engine", "precision")
        how = (
            "Circle: the step, on a logarithmic axis. Blue: sum of its kernels. "
            "Orange: its bytes or operations at the card's rates"
        )
        finish(figure, title, caption(run, some, said, how))
    words = "; ".join(
        f"batch {count(batch)} {engine}: {significant(step_s(row) * 1000)} ms"
        for (batch, engine), row in steps.items()
    )
    return Plot("step-by-engine", title, f"Points. {words}.", figure)


def _limits(row: Row) -> list[float]:
    return [row[field] for field in LIMITS if row.get(field)]


def accuracy_by_engine(runs: Sequence[Run]) -> Plot | str:
    """Training accuracy over epochs, a line per engine and a panel per batch size; or why there is none."""
    found = _trained_by_several(runs)
    if not found:
        return "No two engines trained the same configuration."
    title = "Training accuracy over epochs by engine"
    batches = sorted(found)
    names = list(dict.fromkeys(engine for engines in found.values() for engine in engines))
    words = []
    with style():
        figure, panels = new_figure(len(batches))
        for axes, batch in zip(panels, batches, strict=True):
            for engine, rows in found[batch].items():
                line = numbered_line(names.index(engine))
                curves = [[100 * epoch["train_accuracy"] for epoch in row["epochs"]] for row in rows]
                epochs = range(1, min(map(len, curves)) + 1)
                values = [[curve[place - 1] for curve in curves] for place in epochs]
                means = [sum(one) / len(one) for one in values]
                axes.fill_between(
                    epochs, [min(v) for v in values], [max(v) for v in values], color=line.color, alpha=0.2
                )
                axes.plot(
                    epochs,
                    means,
                    color=line.color,
                    linestyle=line.dash,
                    marker=line.marker,
                    markersize=4,
                    label=f"{engine}, {_how_many(rows)}",
                )
                words.append(f"batch {count(batch)} {engine}: {means[-1]:.1f} % at the last epoch")
            axes.set_title(f"batch {count(batch)}", fontsize=9.5)
            axes.set_xlabel("epoch")
            axes.set_ylim(bottom=0)
            axes.legend(loc="lower right", fontsize=8, frameon=False)
        panels[0].set_ylabel("training accuracy, %")
        rows = [row for engines in found.values() for one in engines.values() for row in one]
        said = (
            f"{configuration(rows[0], 'batch_size', 'engine')}, {rows[0].get('dataset') or 'data not stored'}"
        )
        drawn = [run for run in runs if any(row is one for one in run.rows for row in rows)]
        band = "Mean over runs; band: lowest to highest"
        finish(figure, title, caption(drawn[0], rows, said, band, others=drawn[1:]))
    return Plot("accuracy-by-engine", title, f"Lines. {'; '.join(words)}.", figure)


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
