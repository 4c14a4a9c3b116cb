"""Plots of the time of a step: over batch size, and by engine with what bounds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import LogLocator, NullLocator

from stepcost.report.answers.engines import engine_steps, step_s
from stepcost.report.load import Run
from stepcost.report.page.drawing import (
    BACKING,
    Plot,
    batch_axis,
    caption,
    finish,
    new_figure,
    plain_numbers,
    style,
)
from stepcost.report.page.palette import BLUE, INK, ORANGE, SKY
from stepcost.report.rows import Row, configuration, groups, of_question
from stepcost.report.units import count, significant

TICK = 0.5
"""Height of the mark of a limit."""
LIMITS = {"kernel_s": BLUE, "least_s": ORANGE}
"""What a step is compared with: the sum of its kernels; its bytes or operations at the card's rates."""


def step_time_over_batch_size(run: Run) -> Plot | str:
    """Draw milliseconds a step and images per second over batch size; or say why there is none."""
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


def step_by_engine(run: Run) -> Plot | str:
    """Draw milliseconds a step by engine, a panel per batch size; or say why there is none.

    The axis is logarithmic, so that captured steps can be read alongside eager ones.
    """
    steps = engine_steps(list(run.rows))
    if len(steps) < 2:
        return "No steps of several engines were timed (--engines)."
    title = "Time of a training step by engine, and what bounds it"
    names = list(dict.fromkeys(engine for _, engine in steps))
    batches = list(dict.fromkeys(batch for batch, _ in steps))
    rows = list(steps.values())
    drawn_ms = [1000 * value for row in rows for value in _with_limits(row)]
    with style():
        figure, panels = new_figure(len(batches))
        for axes, batch in zip(panels, batches, strict=True):
            here = [(names.index(name), row) for (size, name), row in steps.items() if size == batch]
            _engine_marks(axes, here)
            axes.set_title(f"batch {count(batch)}", fontsize=9.5)
            axes.set_xlim(min(drawn_ms) / 1.4, max(drawn_ms) * 2.6)
            _engine_axes(axes, names if axes is panels[0] else [""] * len(names))
        said = configuration(rows[0], "batch_size", "engine", "precision")
        how = (
            "Circle: the step, on a logarithmic axis. Blue: sum of its kernels. "
            "Orange: its bytes or operations at the card's rates"
        )
        finish(figure, title, caption(run, rows, said, how))
    words = "; ".join(
        f"batch {count(batch)} {engine}: {significant(step_s(row) * 1000)} ms"
        for (batch, engine), row in steps.items()
    )
    return Plot("step-by-engine", title, f"Points. {words}.", figure)


def _engine_marks(axes: Any, rows: Sequence[tuple[int, Row]]) -> None:
    """Draw each row at its place: the step, what bounds it, and a line between them."""
    for place, row in rows:
        value_ms = 1000 * step_s(row)
        axes.hlines(place, 1000 * min(_with_limits(row)), value_ms, color=SKY, linewidth=1.5)
        axes.plot(value_ms, place, "o", color=SKY, markersize=6)
        for field, color in LIMITS.items():
            if row.get(field):
                axes.vlines(1000 * row[field], place - TICK / 2, place + TICK / 2, color=color, linewidth=2)
        axes.annotate(
            significant(value_ms), (value_ms, place), xytext=(6, 0), textcoords="offset points",
            va="center", fontsize=7.5, bbox=BACKING,
        )  # fmt: skip


def _engine_axes(axes: Any, names: Sequence[str]) -> None:
    """Set the scales: engines from the top, milliseconds on a logarithmic axis."""
    axes.set_xlabel("ms a step")
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.tick_params(colors=INK)
    plain_numbers(axes.xaxis)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))  # four panels have no room for 1, 2 and 5
    axes.xaxis.set_minor_locator(NullLocator())


def _with_limits(row: Row) -> list[float]:
    """Return the step and what bounds it, in seconds."""
    return [step_s(row), *(row[field] for field in LIMITS if row.get(field))]
