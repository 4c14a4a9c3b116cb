"""A comparison as tables: what got worse first, then what else a reader must see, then the machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stepcost.report.compare.matching import without_shared
from stepcost.report.compare.result import BUILD, Change, Comparison, Unmatched
from stepcost.report.tables import Table
from stepcost.schema import unit_of
from stepcost.units import BYTES_NOTE, count, gb, joules, mb_number, ms, percent


def tables(found: Comparison) -> list[Table]:
    """Every table of a comparison that has something to say, the worst first."""
    busy = _busy(found)
    shown = [
        change
        for change in found.of("shown")
        if "_bytes" not in change.figure and change.new is not None and change.is_beyond_noise
    ]
    if busy is not None:  # which has the step times
        shown = [change for change in shown if change.figure != "step_s"]
    made = [
        _changes("Worse", found.of("worse")),
        _operators(found),
        _unmatched("Gone: rows of the base that the new side lacks", found.gone),
        _changes("Better", found.of("better")),
        _unmatched("New: rows that the base lacks", found.added),
        _changes("No longer read: the base has the figure, the new side lacks it", found.no_longer_read()),
        _changes("Not gated, and different (times by more than their noise)", shown),
        _common(found),
        _machines(found),
        _contexts(found),
        busy,
    ]
    return [table for table in made if table is not None]


def _changes(title: str, changes: Sequence[Change]) -> Table | None:
    if not changes:
        return None
    shared, short = without_shared([change.row for change in changes])
    units = f"bytes in {BYTES_NOTE}, growth in bytes, times in ms (milliseconds); ratio is new / base"
    if any(change.interval for change in changes):
        units += " with its 95 % interval"
    return Table(
        caption=f"{title}{shared}; {units}",
        columns=("row", "figure", "base", "new", "ratio", "growth", "rule"),
        rows=tuple(
            (
                name,
                change.figure,
                figure(change, change.base),
                figure(change, change.new),
                ratio(change),
                growth(change),
                change.why,
            )
            for name, change in zip(short, changes, strict=True)
        ),
        label_columns=2,
    )


def figure(change: Change, value: float | None) -> str:
    """Write a figure in the unit of its column: MB (10**6 bytes), milliseconds, a count, or yes and no."""
    if value is None:
        return "not read"
    if change.figure == "fits":
        return "fits" if value else "out of memory"
    if change.figure == "largest_batch" and not value:
        return "none"
    if change.figure.endswith("_ratio"):
        return ""
    written: dict[str, Callable[[float], str]] = {"s": ms, "bytes": mb_number, "J": joules}
    unit = "bytes" if "_bytes" in change.figure else unit_of(change.figure)
    return written.get(unit, count)(value)


def ratio(change: Change) -> str:
    """``1.052 (1.031 to 1.073)``, with the interval where the figure is noisy."""
    if change.ratio is None or change.figure == "fits":
        return ""
    text = f"{change.ratio:.3f}"
    if change.interval is not None:
        return f"{text} ({change.interval[0]:.3f} to {change.interval[1]:.3f})"
    return text


def growth(change: Change) -> str:
    """Write new less base in bytes, to the byte; empty for other figures."""
    if "_bytes" not in change.figure or change.base is None or change.new is None:
        return ""
    return f"{change.new - change.base:+,.0f}"


def _operators(found: Comparison) -> Table | None:
    """Return by which operators the steps changed."""
    if not found.operators:
        return None
    shared, short = without_shared([one.row for one in found.operators])
    return Table(
        caption=f"Steps that changed, by operator{shared}; ms (milliseconds) of the GPU a step, measured on "
        "both sides; growth is new - base",
        columns=("row", "operator", "base", "new", "growth"),
        rows=tuple(
            (
                name,
                one.operator,
                "none" if one.base_s is None else ms(one.base_s),
                "none" if one.new_s is None else ms(one.new_s),
                f"{'+' if one.growth_s > 0 else '-'}{ms(abs(one.growth_s))}",
            )
            for name, one in zip(short, found.operators, strict=True)
        ),
        label_columns=2,
    )


def _unmatched(title: str, rows: Sequence[Unmatched]) -> Table | None:
    if not rows:
        return None
    return Table(
        caption=f"{title}; no figures",
        columns=("row", "the nearest row of the other side differs in"),
        rows=tuple((one.row, one.differs or "no row is near") for one in rows),
        label_columns=2,
    )


def _common(found: Comparison) -> Table | None:
    """Return what all timed steps have in common, whatever its verdict: what a whole run can detect."""
    lines = [change for change in found.changes if change.figure.endswith("_ratio")]
    if not lines:
        return None
    return Table(
        caption="All timed steps together; ratio is new / base (geometric mean), with its 95 % interval",
        columns=("", "figure", "ratio", "verdict", "slow-down that this would catch", "why"),
        rows=tuple(
            (
                change.row,
                change.figure.removesuffix("_ratio"),
                ratio(change),
                change.verdict,
                "unknown" if change.would_catch is None else percent(change.would_catch),
                change.why,
            )
            for change in lines
        ),
        label_columns=2,
    )


def _machines(found: Comparison) -> Table | None:
    """Return the two machines side by side, where they differ."""
    sides = [
        {name: _machine_text(name, machine.get(name)) for name in BUILD}
        for machine in (found.base_machine, found.new_machine)
    ]
    if sides[0] == sides[1]:
        return None
    return Table(
        caption="The machines differ; versions as text, memory in GB (10**9 bytes)",
        columns=("", "base", "new"),
        rows=tuple((word, sides[0][name], sides[1][name]) for name, word in BUILD.items()),
        label_columns=3,
    )


def _contexts(found: Comparison) -> Table | None:
    """Return the CUDA contexts of two machines side by side: the card's and the driver's, not the build's."""
    apart = [
        found.base_machine.get(name) != found.new_machine.get(name) for name in ("gpu", "driver", "cuda")
    ]
    read = [
        change for change in found.changes if change.figure == "context_bytes" and change.base and change.new
    ]
    if not any(apart) or not read:
        return None
    shared, short = without_shared([change.row for change in read])
    return Table(
        caption=f"CUDA contexts after the training steps{shared}; in {BYTES_NOTE}; growth in bytes",
        columns=("row", "base", "new", "growth"),
        rows=tuple(
            (name, figure(change, change.base), figure(change, change.new), growth(change))
            for name, change in zip(short, read, strict=True)
        ),
    )


def _machine_text(name: str, value: Any) -> str:
    if value is None:
        return "none or not stored"
    if name == "cpu":
        return f"{value.get('brand_raw') or 'not named'}, {value.get('count') or 'unknown number of'} cores"
    return gb(value, 2) if name == "gpu_total_bytes" else str(value)


def _busy(found: Comparison) -> Table | None:
    """Step times of two machines with what the GPU did meanwhile: a slower processor is no slower GPU."""
    apart = found.base_machine.get("gpu") != found.new_machine.get("gpu")
    apart = apart or found.base_machine.get("cpu") != found.new_machine.get("cpu")
    if not apart or not found.busy:
        return None
    shared, short = without_shared([pair.row for pair in found.busy])
    return Table(
        caption=f"Step times on different machines{shared}; ms (milliseconds) a step; ratio is new / base; "
        "where the GPU is busy for a small share, the processor sets the time",
        columns=("row", "base", "new", "ratio", "GPU busy, base", "GPU busy, new"),
        rows=tuple(
            (
                name,
                ms(pair.base_s),
                ms(pair.new_s),
                f"{pair.new_s / pair.base_s:.3f}",
                _share(pair.base_busy_share),
                _share(pair.new_busy_share),
            )
            for name, pair in zip(short, found.busy, strict=True)
        ),
    )


def _share(value: float | None) -> str:
    return "not read" if value is None else percent(value)
