"""Plots of memory: the stack by optimizer, and the lines over batch size."""

from __future__ import annotations

from typing import Any

from stepcost.report.load import Run
from stepcost.report.page.drawing import (
    Plot,
    batch_axis,
    caption,
    finish,
    label_at,
    new_figure,
    plain_numbers,
    short,
    style,
)
from stepcost.report.page.palette import BLACK, INK, LIMIT, MEMORY_LINES, STACK
from stepcost.report.rows import Row, configuration, groups, having, is_search, of_question, optimizer_label
from stepcost.report.units import MB, count

NAMES = {
    "tensor_bytes": "tensors",
    "peak_allocated_bytes": "allocated",
    "peak_reserved_bytes": "reserved",
    "process_bytes": "process",
}


def memory_by_optimizer(run: Run) -> Plot | str:
    """Draw the stack of each optimizer's process with its total marked; or say why there is none."""
    found = groups(of_question(run.rows, "2a"), "optimizer")
    rows = [row for row in having(found[0], "ledger") if _layers(row)] if found else []
    if not rows:
        return "No ledger of memory by optimizer was read."
    with style():
        figure, (axes,) = new_figure()
        tops = [_stack(axes, place, row) for place, row in enumerate(rows)]
        names = [short(optimizer_label(row["optimizer"])) for row in rows]
        axes.set_xticks(range(len(rows)), names, rotation=0 if len(rows) < 6 else 30)
        axes.tick_params(axis="x", length=0)
        axes.set_ylabel("memory, MB (10**6 bytes)")
        axes.set_xlim(-0.6, len(rows) - 0.4 + 0.35 * len(rows) / 2)
        axes.set_ylim(0, max(tops) * 1.14)
        plain_numbers(axes.yaxis)
        lacking = sorted({part.label for row in rows for part in STACK if _size(row, part) is None})
        lacks = f"Not read, so not drawn: {', '.join(lacking)}" if lacking else ""
        title = "Memory in training by optimizer, at the peak of a step"
        finish(figure, title, caption(run, rows, configuration(rows[0], "optimizer"), lacks))
        figure.draw_without_rendering()
        _name_layers(axes, len(rows) - 1, rows[-1])
    words = "; ".join(
        f"{optimizer_label(row['optimizer'])}: "
        + ", ".join(f"{label} {size / MB:,.1f} MB" for label, size in _layers(row))
        for row in rows
    )
    return Plot("memory-by-optimizer", title, f"Stacked bars. {words}.", figure)


def _size(row: Row, part: Any) -> int | None:
    """Bytes of one layer; ``None`` where its main field was not read."""
    sizes = [row["ledger"].get(field) for field in part.fields]
    return None if sizes[0] is None else sum(size or 0 for size in sizes)


def _layers(row: Row) -> list[tuple[str, int]]:
    return [(part.label, size) for part in STACK if (size := _size(row, part)) is not None]


def _stack(axes: Any, place: int, row: Row) -> float:
    """Draw one bar and the mark of its process total; returns its height in MB."""
    bottom = 0.0
    for part in STACK:
        size = _size(row, part)
        if size is None:
            continue
        axes.bar(
            place,
            size / MB,
            bottom=bottom,
            width=0.62,
            color=part.color,
            hatch=part.hatch,
            edgecolor=INK,
            linewidth=0.6,
        )
        bottom += size / MB
    total = row.get("process_bytes")
    if total is not None:
        axes.plot([place - 0.38, place + 0.38], [total / MB] * 2, color=BLACK, linewidth=2.2)
        axes.annotate(
            f"process {total / MB:,.0f} MB", (place, max(total / MB, bottom)), xytext=(0, 5),
            textcoords="offset points", ha="center", fontsize=8.5, fontweight="bold",
        )  # fmt: skip
        return float(max(total / MB, bottom))
    word = "reserved " if row["ledger"].get("slack_bytes") is not None else ""
    axes.annotate(
        f"{word}{bottom:,.0f} MB", (place, bottom), xytext=(0, 5),
        textcoords="offset points", ha="center", fontsize=8.5, fontweight="bold",
    )  # fmt: skip
    return bottom


def _name_layers(axes: Any, place: int, row: Row) -> None:
    """Name the layers next to the last bar, with their sizes."""
    labels, bottom = [], 0.0
    for label, size in _layers(row):
        labels.append((place + 0.33, bottom + size / MB / 2, f"{label} {size / MB:,.0f}", INK))
        bottom += size / MB
    label_at(axes, labels)


def memory_over_batch_size(run: Run) -> Plot | str:
    """Draw four memory figures over batch size, with the card's limit; or say why there is none."""
    asked = of_question(run.rows, "3a")
    found = groups([row for row in asked if not is_search(row)], "batch_size")
    rows = [row for row in found[0] if having([row], "peak_allocated_bytes")] if found else []
    if not rows:
        return "No memory over batch size was read."
    search = next((row for row in asked if is_search(row)), {})
    tried = [trial for trial in search.get("trials") or [] if trial.get("peak_allocated_bytes")]
    largest = search.get("largest_batch") or search.get("largest_batch_at_most")
    batches = [row["batch_size"] for row in [*rows, *tried]] + ([largest] if largest else [])
    title = "Memory over batch size"
    with style():
        figure, (axes,) = new_figure()
        labels = []
        for field, line in MEMORY_LINES.items():
            told = having(rows, field)
            if not told:
                continue
            xs, ys = [row["batch_size"] for row in told], [row[field] / MB for row in told]
            axes.plot(xs, ys, color=line.color, linestyle=line.dash, marker=line.marker)
            labels.append((xs[-1], ys[-1], NAMES[field], line.color))
        if tried:
            line = MEMORY_LINES["peak_allocated_bytes"]
            axes.plot(
                [trial["batch_size"] for trial in tried],
                [trial["peak_allocated_bytes"] / MB for trial in tried],
                color=line.color, marker=line.marker, linestyle="", fillstyle="none",
            )  # fmt: skip
        _mark_card(axes, run, min(batches))
        if largest:
            _mark_largest(axes, search, largest)
        said = []
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
        batch_axis(axes, batches)
        axes.set_ylabel("memory, MB (10**6 bytes), logarithmic")
        if tried:
            said.append("Open squares: allocated, tried in the search")
        lacking = [NAMES[field] for field in MEMORY_LINES if not having(rows, field)]
        if lacking:
            said.append(f"Not read, so not drawn: {', '.join(lacking)}")
        used = [*rows, *([search] if tried or largest else [])]
        finish(figure, title, caption(run, used, configuration(rows[0], "batch_size"), *said))
        figure.draw_without_rendering()
        label_at(axes, labels)
    words = "; ".join(
        f"batch {count(row['batch_size'])}: "
        + ", ".join(
            f"{NAMES[field]} {row[field] / MB:,.1f} MB"
            for field in MEMORY_LINES
            if row.get(field) is not None
        )
        for row in rows
    )
    return Plot("memory-over-batch-size", title, f"Lines. {words}.", figure)


def _mark_card(axes: Any, run: Run, smallest: int) -> None:
    """Mark the card's memory, named at the smallest batch."""
    total = run.machine.get("gpu_total_bytes")
    if total:
        axes.axhline(total / MB, color=LIMIT.color, linestyle=LIMIT.dash)
        axes.annotate(
            f"the card: {total / MB:,.0f} MB", (smallest, total / MB), xytext=(0, 4),
            textcoords="offset points", color=LIMIT.color, fontsize=8.5,
        )  # fmt: skip


def _mark_largest(axes: Any, search: Row, largest: int) -> None:
    """Mark the largest batch that a search found, or its bound."""
    axes.axvline(largest, color=INK, linewidth=1, linestyle=LIMIT.dash)
    verb = "would train" if search.get("source") == "predicted" else "trained"
    bound = "" if search.get("largest_batch") else "at most "
    axes.annotate(
        f"largest that {verb}: {bound}{largest:,} ",
        (largest, 0.04), xycoords=("data", "axes fraction"), ha="right", fontsize=8.5,
    )  # fmt: skip
