"""Plots of memory: the parts of one peak, the stack by optimizer, the modules, the lines over batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from stepcost.report.load import Run
from stepcost.report.opening import memory_of
from stepcost.report.page.axes import (
    Bar,
    Named,
    Segment,
    bars,
    batch_axis,
    draw_line,
    name_lines,
    plain_numbers,
    say_y,
    short,
)
from stepcost.report.page.drawing import NARROW, Plot, Size, caption, new_figure, where_of
from stepcost.report.page.headline import headline_row
from stepcost.report.page.palette import GREEN, INK, LIMIT, MEMORY_LINES, STACK, Part
from stepcost.report.rows import Row, configuration, groups, having, is_search, of_question, optimizer_label
from stepcost.request import example_of
from stepcost.units import MB, count, mb, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {
    "tensor_bytes": "tensors",
    "peak_allocated_bytes": "allocated",
    "peak_reserved_bytes": "reserved",
    "process_bytes": "process",
}
MOST_MODULES = 12
"""Of more kinds of modules those that keep most are drawn, and the others as one."""


def parts_of_the_peak(run: Run) -> Plot | str:
    """Draw what the first figure of the page is made of, part by part; or say why there is none."""
    row = headline_row(run)
    parts = _parts(row) if row and row.get("ledger") else []
    if row is None or not parts:
        return "No ledger of the peak was read."
    total = sum(size for _, size in parts)
    rows = [
        Bar(
            part.label,
            f"{mb(size)} · {percent(size / total)}",
            [Segment(size, part.color, _said(part, size))],
        )
        for part, size in parts
    ]
    what = memory_of(row)
    title = (
        f"What the {mb(total)} are made of" if what and what.bytes == total else "What the peak is made of"
    )
    return Plot(
        "parts-of-the-peak",
        title,
        f"Bars. {'; '.join(f'{part.label} {mb(size)}' for part, size in parts)}.",
        caption([row], configuration(row), _lacking([row])),
        where_of(run),
        partial(bars, rows=rows),
    )


def memory_by_optimizer(run: Run) -> Plot | str:
    """Draw the stack of each optimizer's memory with its total; or say why there is none."""
    found = groups(of_question(run.rows, "2a"), "optimizer")
    drawn = [(optimizer_label(row["optimizer"]), row, "") for row in found[0]] if found else []
    title = "Memory in training by optimizer, at the peak of a step"
    plot = stacks(run, drawn, "memory-by-optimizer", title, "optimizer")
    return plot or "No ledger of memory by optimizer was read."


def stacks(
    run: Run, drawn: Sequence[tuple[str, Row, str]], name: str, title: str, varying: str, *said: str
) -> Plot | None:
    """Make the plot of stacked bars: the name of each, its row, and what stands behind its total.

    ``None`` where no row has a ledger.
    """
    shown = [one for one in drawn if one[1].get("ledger") and _parts(one[1])]
    if not shown:
        return None
    rows = [row for _, row, _ in shown]
    stacked = [
        Bar(
            short(label),
            _total(row) + more,
            [Segment(size, part.color, _said(part, size)) for part, size in _parts(row)],
        )
        for label, row, more in shown
    ]
    there = {part.label for row in rows for part, _ in _parts(row)}
    key = [(part.label, part.color) for part in STACK if part.label in there]
    words = "; ".join(
        f"{label}: {', '.join(f'{part.label} {mb(size)}' for part, size in _parts(row))}{more}"
        for label, row, more in shown
    )
    return Plot(
        name,
        title,
        f"Stacked bars. {words}.",
        caption(rows, configuration(rows[0], varying), *said, _lacking(rows)),
        where_of(run),
        partial(bars, rows=stacked, key=key),
    )


def _size(row: Row, part: Part) -> int | None:
    """Bytes of one layer; ``None`` where its main field was not read."""
    sizes = [row["ledger"].get(field) for field in part.fields]
    return None if sizes[0] is None else sum(size or 0 for size in sizes)


def _parts(row: Row) -> list[tuple[Part, int]]:
    sizes = [(part, _size(row, part)) for part in STACK]
    return [(part, size) for part, size in sizes if size is not None and (size or not part.of_several)]


def _said(part: Part, size: int) -> str:
    return f"{part.label}: {mb(size)}"


def _total(row: Row) -> str:
    if row.get("process_bytes") is not None:
        return f"process {mb(row['process_bytes'])}"
    word = "reserved " if row["ledger"].get("slack_bytes") is not None else ""
    return f"{word}{mb(sum(size for _, size in _parts(row)))}"


def _lacking(rows: list[Row]) -> str:
    usual = [part for part in STACK if not part.of_several]
    lacking = [part.label for part in usual if any(_size(row, part) is None for row in rows)]
    return f"Not read, so not drawn: {', '.join(lacking)}" if lacking else ""


def activations_by_module(run: Run) -> Plot | str:
    """Draw what alike modules keep for backward, most first; or say why there is nothing."""
    row = headline_row(run)
    kept = [one for one in (row or {}).get("kept_by_modules") or [] if one["kept_bytes"]]
    if row is None or not kept:
        return "What each module keeps was not read."
    total = sum(one["kept_bytes"] for one in kept)
    names = [one["module"] for one in kept]
    rows = []
    for one in kept[:MOST_MODULES]:
        name = one["module"] if names.count(one["module"]) == 1 else f"{one['module']} ({one['class_name']})"
        name += f" x {one['modules']}" if one["modules"] > 1 else ""
        rows.append((name, one["class_name"], one["kept_bytes"]))
    rest = kept[MOST_MODULES:]
    if rest:
        rows.append((f"{len(rest)} other kinds", "the rest", sum(one["kept_bytes"] for one in rest)))
    return Plot(
        "activations-by-module",
        f"Which modules keep the {mb(total)} of activations",
        f"Bars. {'; '.join(f'{name}: {mb(size)}' for name, _, size in rows)}.",
        caption([row], configuration(row), "* stands for a number, x 12 for twelve modules"),
        where_of(run),
        partial(
            bars,
            rows=[
                Bar(
                    name,
                    f"{mb(size)} · {percent(size / total)}",
                    [Segment(size, GREEN, f"{name}, {class_name}: {mb(size)}")],
                )
                for name, class_name, size in rows
            ],
        ),
    )


def memory_over_batch_size(run: Run) -> Plot | str:
    """Draw four memory figures over batch size, with the card's limit; or say why there is none."""
    asked = of_question(run.rows, "3a")
    found = groups([row for row in asked if not is_search(row)], "batch_size")
    rows = [row for row in found[0] if having([row], "peak_allocated_bytes")] if found else []
    if not rows:
        return "No memory over batch size was read."
    # What was predicted is never drawn among what was measured.
    searches = (row for row in asked if is_search(row) and row.get("source") == rows[0].get("source"))
    search = next(searches, {})
    tried = [trial for trial in search.get("trials") or [] if trial.get("peak_allocated_bytes")]
    largest = search.get("largest_batch") or search.get("largest_batch_at_most")
    lacking = [NAMES[field] for field in MEMORY_LINES if not having(rows, field)]
    words = figures_in_words(rows, _batch)
    return Plot(
        "memory-over-batch-size",
        "Memory over batch size",
        f"Lines. {words}.",
        caption(
            [*rows, *([search] if tried or largest else [])],
            configuration(rows[0], "batch_size"),
            "Open squares: allocated, tried in the search" if tried else "",
            f"Not read, so not drawn: {', '.join(lacking)}" if lacking else "",
        ),
        where_of(run),
        partial(_draw_over_batch_size, run=run, rows=rows, tried=tried, search=search, largest=largest),
    )


def _batch(row: Row) -> str:
    return f"batch {count(row['batch_size'])}"


def figures_in_words(rows: list[Row], which: Callable[[Row], str]) -> str:
    """Say the figures of ``MEMORY_LINES`` of each row, as far as read: ``batch 4: tensor 248.4 MB, ...``."""
    return "; ".join(
        f"{which(row)}: "
        + ", ".join(
            f"{NAMES[field]} {mb(row[field])}" for field in MEMORY_LINES if row.get(field) is not None
        )
        for row in rows
    )


def _draw_over_batch_size(
    size: Size, *, run: Run, rows: list[Row], tried: list[Any], search: Row, largest: int | None
) -> Figure:
    figure, (axes,) = new_figure(size, 380 if size is NARROW else 400)
    names = memory_lines(axes, rows, "batch_size", _batch)
    line = MEMORY_LINES["peak_allocated_bytes"]
    for trial in tried:
        open_mark = line._replace(dash="")
        draw_line(
            axes, [trial["batch_size"]], [trial["peak_allocated_bytes"] / MB], open_mark,
            [f"tried, batch {count(trial['batch_size'])}: {mb(trial['peak_allocated_bytes'])} allocated"],
        )  # fmt: skip
        axes.lines[-1].set_fillstyle("none")
    batches = [one["batch_size"] for one in [*rows, *tried]] + ([largest] if largest else [])
    card_line(axes, run, min(batches))
    if largest:
        verb = "would train" if search.get("source") == "predicted" else "trained"
        bound = "" if search.get("largest_batch") else "at most "
        axes.axvline(largest, color=INK, linewidth=1, linestyle=LIMIT.dash)
        axes.annotate(
            f"largest that {verb}: {bound}{largest:,} ",
            (largest, 0.04), xycoords=("data", "axes fraction"), ha="right",
        )  # fmt: skip
    axes.set_yscale("log")
    plain_numbers(axes.yaxis)
    batch_axis(axes, batches, f"batch size, {example_of(rows[0])}s a step")
    say_y(axes, "MB, logarithmic")
    name_lines(figure, axes, size, names)
    return figure


def memory_lines(axes: Axes, rows: list[Row], varying: str, place: Callable[[Row], str]) -> list[Named]:
    """Draw each memory figure that was read over what varies; return the lines with their names."""
    names = []
    for field, line in MEMORY_LINES.items():
        told = having(rows, field)
        if not told:
            continue
        xs, ys = [row[varying] for row in told], [row[field] / MB for row in told]
        said = [f"{NAMES[field]}, {place(row)}: {mb(row[field])}" for row in told]
        draw_line(axes, xs, ys, line, said)
        names.append(Named(xs[-1], ys[-1], NAMES[field], line))
    return names


def card_line(axes: Axes, run: Run, left: float) -> None:
    """Draw the memory of the card, where the run had one."""
    total = run.machine.get("gpu_total_bytes")
    if total:
        axes.axhline(total / MB, color=LIMIT.color, linestyle=LIMIT.dash)
        axes.annotate(
            f"the card: {mb(total, 0)}", (left, total / MB), xytext=(0, 5),
            textcoords="offset points", color=LIMIT.color,
        )  # fmt: skip
