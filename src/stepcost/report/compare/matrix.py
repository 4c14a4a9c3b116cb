"""Several runs side by side: every figure over runs, such as over torch versions, in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepcost.report.compare.matching import (
    RowsByKey,
    all_named,
    label,
    repeated,
    rows_by_key,
    without_shared,
)
from stepcost.report.compare.time_figures import busy_s, kernel_s, step_s
from stepcost.report.compare.tolerances import DEFAULT_FIELDS, FieldRule, figures, rule_for
from stepcost.report.load import Run
from stepcost.report.rows import Row
from stepcost.report.tables import Table
from stepcost.units import BYTES_NOTE, count, mb_number, percent, significant

DEFAULT_MATRIX = tuple(FieldRule(field) for field in DEFAULT_FIELDS)
BUILD_LINES = ("torch", "torchvision", "python_version", "cudnn", "cuda", "gpu")


TIMES: tuple[tuple[str, Callable[[Row], float | None]], ...] = (
    ("step_s", step_s),
    ("gpu_busy_s", busy_s),
    ("kernel_s", kernel_s),
    ("train_s", lambda row: row.get("train_s")),
)


def _largest_batch(row: Row) -> str | None:
    return count(row["largest_batch"]) if row.get("largest_batch") else None


def _final_accuracy(row: Row) -> str | None:
    value = (row.get("epochs") or [{}])[-1].get("test_accuracy")
    return None if value is None else percent(value)


RESULTS = (("largest batch", _largest_batch), ("test accuracy", _final_accuracy))


def builds(runs: Sequence[Run]) -> Table:
    """Return what each run was made with."""
    return Table(
        caption="The runs; versions as text",
        columns=("", *(run.label for run in runs)),
        rows=tuple(
            (name.replace("_", " "), *(str(run.machine.get(name) or "none") for run in runs))
            for name in BUILD_LINES
        ),
        label_columns=1 + len(runs),
    )


def matrix(runs: Sequence[Run], rules: Sequence[FieldRule] = DEFAULT_MATRIX) -> list[Table]:
    """Figures by row over runs in a table each for bytes, times and the rest, without what is equal in all.

    A cell of a row that a run lacks is ``no row``; a figure that was not read
    is ``not read``; a row that ran out of memory says so.
    """
    named = all_named(runs)
    several = repeated(runs)
    by_run = [rows_by_key([run], several, named) for run in runs]
    keys = list(dict.fromkeys(key for rows in by_run for key in rows))
    in_bytes, in_time, other = [], [], []
    for key in keys:
        first = next(rows[key][0] for rows in by_run if key in rows)
        name = label(first)
        columns = [_row(rows, key) for rows in by_run]
        present = dict.fromkeys(field for row in columns if row for field in figures(row))
        in_bytes += [
            (name, field, *(_bytes_cell(row, field) for row in columns))
            for field in present
            if rule_for(field, rules) is not None
        ]
        for field, value in TIMES:
            values = [None if row is None else value(row) for row in columns]
            if any(one is not None for one in values):
                unit, factor = ("s", 1) if field == "train_s" else ("ms", 1000)
                cells = (_time_cell(row, one, factor) for row, one in zip(columns, values, strict=True))
                in_time.append((name, f"{field.removesuffix('_s')}, {unit}", *cells))
        for figure, result in RESULTS:
            said = [None if row is None else result(row) for row in columns]
            if any(said):
                missing = ("no row" if row is None else "not read" for row in columns)
                cells = (one or instead for one, instead in zip(said, missing, strict=True))
                other.append((name, figure, *cells))
    tables = [
        _table(f"Memory in {BYTES_NOTE}", in_bytes, runs),
        _table("Times; s = seconds, ms = milliseconds (not gated here)", in_time, runs),
        _table("Other results; accuracy at the last epoch", other, runs),
    ]
    return [builds(runs), *(table for table in tables if table is not None)]


def _time_cell(row: Row | None, value_s: float | None, factor: int) -> str:
    if value_s is None:
        return "no row" if row is None else "out of memory" if row.get("fits") is False else "not read"
    return significant(value_s * factor)


def _row(rows: RowsByKey, key: tuple[object, ...]) -> Row | None:
    return rows[key][0] if key in rows else None


def _bytes_cell(row: Row | None, field: str) -> str:
    if row is None:
        return "no row"
    if row.get("fits") is False:
        return "out of memory"
    value = figures(row).get(field)
    return "not read" if value is None else mb_number(value)


def _table(caption: str, rows: Sequence[tuple[str, ...]], runs: Sequence[Run]) -> Table | None:
    if not rows:
        return None
    changing = [row for row in rows if len(set(row[2:])) > 1]
    shared, short = without_shared([row[0] for row in changing]) if changing else ("", [])
    same = len(rows) - len(changing)
    figures_are = "figure is" if same == 1 else "figures are"
    hidden = f"; {same} {figures_are} the same in every run and not listed" if same else ""
    return Table(
        caption=f"{caption}{shared}{hidden}",
        columns=("row", "figure", *(run.label for run in runs)),
        rows=tuple((name, *row[1:]) for name, row in zip(short, changing, strict=True)),
        label_columns=2,
    )
