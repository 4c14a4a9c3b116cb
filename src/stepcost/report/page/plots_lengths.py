"""Plot of memory over the length of sequences."""

from __future__ import annotations

from functools import partial

from matplotlib.figure import Figure

from stepcost.report.answers.sizes import over_lengths
from stepcost.report.load import Run
from stepcost.report.page.axes import batch_axis, name_lines, plain_numbers, say_y
from stepcost.report.page.drawing import NARROW, Plot, Size, caption, new_figure, where_of
from stepcost.report.page.plots_memory import card_line, figures_in_words, memory_lines
from stepcost.report.rows import Row, configuration, having, is_search, of_question
from stepcost.units import count


def memory_over_sequence_length(run: Run) -> Plot | str:
    """Draw four memory figures over sequence length, with the card's limit; or say why there is none."""
    asked = [row for row in of_question(run.rows, "3a") if not is_search(row)]
    rows = having(over_lengths(asked), "peak_allocated_bytes")
    if not rows:
        return "No memory over sequence length was read."
    words = figures_in_words(rows, _tokens)
    return Plot(
        "memory-over-sequence-length",
        "Memory over sequence length",
        f"Lines. {words}.",
        caption(rows, configuration(rows[0], "sequence_length")),
        where_of(run),
        partial(_draw, run=run, rows=rows),
    )


def _tokens(row: Row) -> str:
    return f"{count(row['sequence_length'])} tokens"


def _draw(size: Size, *, run: Run, rows: list[Row]) -> Figure:
    figure, (axes,) = new_figure(size, 380 if size is NARROW else 400)
    lengths = [row["sequence_length"] for row in rows]
    names = memory_lines(axes, rows, "sequence_length", _tokens)
    card_line(axes, run, min(lengths))
    axes.set_yscale("log")
    plain_numbers(axes.yaxis)
    batch_axis(axes, lengths, "sequence length, tokens")
    say_y(axes, "MB, logarithmic")
    name_lines(figure, axes, size, names)
    return figure
