"""Plots of the time of a step: over batch size, and by engine with what bounds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from stepcost.report.answers.engines import engine_steps, step_s
from stepcost.report.load import Run
from stepcost.report.page.axes import BACKING, batch_axis, draw_line, plain_numbers, say_y
from stepcost.report.page.drawing import Plot, Size, caption, hover, new_figure, where_of
from stepcost.report.page.palette import BLUE, INK, ORANGE, TEAL, Line
from stepcost.report.rows import Row, configuration, groups, of_question
from stepcost.request import example_of
from stepcost.units import count, ms, significant

TICK = 0.5
"""Height of the mark of a limit."""
LIMITS = {"kernel_s": ("sum of its kernels", BLUE), "least_s": ("its least time", ORANGE)}
"""What a step is compared with: the sum of its kernels; its bytes or operations at the card's rates."""
LINE = Line(BLUE, "-", "o")


def step_time_over_batch_size(run: Run) -> Plot | str:
    """Draw milliseconds a step, and examples per second, over batch size; or say why there is none."""
    found = groups([row for row in of_question(run.rows, "3a") if _median(row)], "batch_size")
    if not found:
        return "No training step was timed over batch size."
    rows = found[0]
    per_second = f"{example_of(rows[0])}s per second"
    words = "; ".join(
        f"batch {count(row['batch_size'])}: {ms(_median(row) or 0)}, "
        f"{significant(row['batch_size'] / (_median(row) or 1))} {per_second}"
        for row in rows
    )
    rounds = sorted({row["stats"]["rounds"] for row in rows if row["stats"].get("rounds")})
    how_many = f" of {count(rounds[0])} steps" if len(rounds) == 1 else ""
    return Plot(
        "step-time-over-batch-size",
        f"Time of a training step, and {per_second}, over batch size",
        f"Two lines. {words}.",
        caption(rows, configuration(rows[0], "batch_size"), f"Band: fastest to slowest{how_many}"),
        where_of(run),
        partial(_draw_over_batch_size, rows=rows),
    )


def _draw_over_batch_size(size: Size, *, rows: list[Row]) -> Figure:
    figure, (left, right) = new_figure(size, 270, 2)
    batches = [row["batch_size"] for row in rows]
    medians = [_median(row) or 0.0 for row in rows]
    lows, highs = (
        [1000 * (row["stats"].get(end) or median) for row, median in zip(rows, medians, strict=True)]
        for end in ("min", "max")
    )
    left.fill_between(batches, lows, highs, color=BLUE, alpha=0.2, linewidth=0)
    left.set_ylim(0, max(highs) * 1.2)
    say_y(left, "ms a step, median")
    rates = [batch / median for batch, median in zip(batches, medians, strict=True)]
    right.set_yscale("log")
    per_second = f"{example_of(rows[0])}s per second"
    say_y(right, f"{per_second}, logarithmic")
    for axes, values, unit in (
        (left, [1000 * median for median in medians], "ms"),
        (right, rates, per_second),
    ):
        said = [f"batch {count(b)}: {significant(v, 4)} {unit}" for b, v in zip(batches, values, strict=True)]
        draw_line(axes, batches, values, LINE, said)
        batch_axis(axes, batches, f"batch size, {example_of(rows[0])}s a step")
        plain_numbers(axes.yaxis)
        axes.margins(x=0.14)
        for batch, value in zip(batches, values, strict=True):
            axes.annotate(
                significant(value), (batch, value), xytext=(-5, 9), textcoords="offset points",
                ha="center" if axes is left else "right", fontsize=11,
            )  # fmt: skip
    return figure


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
    words = "; ".join(
        f"batch {count(batch)} {engine}: {ms(step_s(row))}" for (batch, engine), row in steps.items()
    )
    rows = list(steps.values())
    return Plot(
        "step-by-engine",
        "Time of a training step by engine, and what bounds it",
        f"Points. {words}.",
        caption(
            rows,
            configuration(rows[0], "batch_size", "engine", "precision"),
            "Circle: the step, ms, on a logarithmic axis. Blue: sum of its kernels. Orange: its bytes or "
            "operations at the card's rates",
        ),
        where_of(run),
        partial(_draw_by_engine, steps=steps),
    )


def _draw_by_engine(size: Size, *, steps: Mapping[tuple[int, str], Row]) -> Figure:
    names = list(dict.fromkeys(engine for _, engine in steps))
    batches = list(dict.fromkeys(batch for batch, _ in steps))
    drawn_ms = [1000 * value for row in steps.values() for value in _with_limits(row)]
    figure, panels = new_figure(size, 90 + 24 * len(names), len(batches))
    for axes, batch in zip(panels, batches, strict=True):
        here = [(names.index(name), row) for (asked, name), row in steps.items() if asked == batch]
        _engine_marks(axes, here)
        say_y(axes, f"batch {count(batch)}")
        axes.set_xlim(min(drawn_ms) / 1.4, max(drawn_ms) * 3.2)
        named = size.is_narrow or axes is panels[0]
        _engine_axes(axes, names if named else [""] * len(names))
    return figure


def _engine_marks(axes: Any, rows: Sequence[tuple[int, Row]]) -> None:
    """Draw each row at its place: the step, what bounds it, and a line between them."""
    for place, row in rows:
        value_ms = 1000 * step_s(row)
        axes.hlines(place, 1000 * min(_with_limits(row)), value_ms, color=TEAL, linewidth=2)
        (mark,) = axes.plot(value_ms, place, "o", color=TEAL, markersize=8)
        hover(mark, f"{row['engine']}: {ms(step_s(row))}")
        for field, (what, color) in LIMITS.items():
            if row.get(field):
                tick = axes.vlines(
                    1000 * row[field], place - TICK / 2, place + TICK / 2, color=color, linewidth=3
                )
                hover(tick, f"{row['engine']}, {what}: {ms(row[field])}")
        axes.annotate(
            significant(value_ms), (value_ms, place), xytext=(8, 0), textcoords="offset points",
            va="center", fontsize=11, bbox=BACKING,
        )  # fmt: skip


def _engine_axes(axes: Any, names: Sequence[str]) -> None:
    """Set the scales: engines from the top, milliseconds on a logarithmic axis."""
    axes.set_xlabel("ms a step")
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    plain_numbers(axes.xaxis)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))  # four panels have no room for 1, 2 and 5
    axes.xaxis.set_minor_locator(NullLocator())


def _with_limits(row: Row) -> list[float]:
    """Return the step and what bounds it, in seconds."""
    return [step_s(row), *(row[field] for field in LIMITS if row.get(field))]
