"""The plots of question 7: the largest batch on each card, and how long a step would take there."""

from __future__ import annotations

from functools import partial

from matplotlib.figure import Figure

from stepcost.report.answers.cards import fits_said, largest_said, steps_on_cards, timed
from stepcost.report.load import Run
from stepcost.report.page.axes import Bar, Segment, bars
from stepcost.report.page.drawing import Plot, Size, caption, hover, where_of
from stepcost.report.page.palette import BLUE, INK, ORANGE
from stepcost.report.rows import Row, configuration
from stepcost.units import ms

RECORDED = "recorded on this card"
BASES = {True: ("recorded on the card", BLUE), False: ("estimated from rates", ORANGE)}
SIZES = {True: ("a number", BLUE), False: ("likely, of a card that nobody measured", ORANGE)}


def step_time_by_card(run: Run) -> Plot | str:
    """Draw the time of a step on each card with its interval; or say why there is none."""
    steps = timed(steps_on_cards(run.rows))
    if not steps:
        return "No time of a step on other cards was predicted."
    words = "; ".join(f"{row['card']} {_time_said(row)}" for row in steps)
    engine = steps[0].get("step_engine") or "an engine that was not stored"
    return Plot(
        "step-time-by-card",
        "Time of a training step on each card",
        f"Bars with intervals. {words}.",
        caption(
            steps, configuration(steps[0] | {"card": None}, "engine"), f"Engine {engine}. Line: the interval"
        ),
        where_of(run),
        partial(_draw_times, steps=steps),
    )


def largest_batch_by_card(run: Run) -> Plot | str:
    """Draw the largest batch on each card, as far as it is known; or say why there is none."""
    steps = [row for row in steps_on_cards(run.rows) if _largest(row) is not None]
    if not steps:
        return "No largest batch on other cards was predicted."
    words = "; ".join(f"{row['card']} {largest_said(row)}" for row in steps)
    return Plot(
        "largest-batch-by-card",
        "The largest batch on each card",
        f"Bars. {words}.",
        caption(steps, configuration(steps[0] | {"card": None}, "batch_size", "engine")),
        where_of(run),
        partial(_draw_sizes, steps=steps),
    )


def _draw_times(size: Size, *, steps: list[Row]) -> Figure:
    rows = []
    for row in steps:
        fits = fits_said(row)
        name = row["card"] if fits == "yes" else f"{row['card']} (fits: {fits})"
        color = BASES[row.get("step_basis") == RECORDED][1]
        rows.append(Bar(name, _time_said(row), [Segment(row["step_s"], color, f"{name}: {_time_said(row)}")]))
    figure = bars(size, rows, [*BASES.values()])
    (axes,) = figure.axes
    for place, row in enumerate(steps):
        low, high = row["step_low_s"], row["step_high_s"]
        (drawn,) = axes.plot([low, high], [place, place], color=INK, marker="|", linewidth=1.5)
        hover(drawn, f"{row['card']}: {ms(low)} to {ms(high)}")
    axes.set_xlim(0, max(row["step_high_s"] for row in steps))
    return figure


def _draw_sizes(size: Size, *, steps: list[Row]) -> Figure:
    rows = []
    for row in steps:
        said, largest = largest_said(row), _largest(row) or 0
        color = SIZES[_is_number(row)][1]
        rows.append(Bar(row["card"], said, [Segment(largest, color, f"{row['card']}: {said}")]))
    return bars(size, rows, [*SIZES.values()])


def _time_said(row: Row) -> str:
    return f"{ms(row['step_s'])} ({ms(row['step_low_s'])} to {ms(row['step_high_s'])})"


def _is_number(row: Row) -> bool:
    return any(row.get(f"largest_batch{end}") is not None for end in ("", "_at_least"))


def _largest(row: Row) -> int | None:
    """Return a largest batch, or the least that is likely, or the bound."""
    found = (row.get(f"largest_batch{end}") for end in ("", "_at_least", "_at_most"))
    likely = row.get("largest_batch_likely")
    return min(likely) if likely else next((number for number in found if number is not None), None)
