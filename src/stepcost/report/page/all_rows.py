"""Tables of all rows of a run, by question: every figure and word that any of them has, from the schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stepcost.ledger import Ledger
from stepcost.report.load import Run
from stepcost.report.rows import CONFIGURATION, Row, configuration, having
from stepcost.report.tables import Table
from stepcost.report.throttle import in_caption, throttled_note
from stepcost.row import ROW, Epoch
from stepcost.row_times import Stats
from stepcost.schema import UNITS, Field, fields_of
from stepcost.search import Trial
from stepcost.units import BYTES_NOTE, count, duration, mb_number, percent, significant

SAID_BY_CELLS = ("", "bytes", "s", "share")
"""Units that a cell or the caption says; any other is in the heading."""
UNITS_NOTE = f"in {BYTES_NOTE}, s = seconds, ms = milliseconds"
SAID_BY_THE_LABEL = (*CONFIGURATION, "name", "fullname", "question", "timed", "schema_version")


@dataclass(frozen=True)
class Column:
    """A heading, and what stands under it; an empty cell where the row has nothing."""

    heading: str
    cell: Callable[[Row], str]


def tables_of_all_rows(run: Run) -> list[Table]:
    """Return every row of the run in the table of its question, and what has tables of its own."""
    rows = list(run.rows)
    questions = dict.fromkeys(row["question"] for row in rows if row.get("question"))
    searches = [row for row in rows if row.get("trials")]
    tables = [
        *(_of_question(question, rows) for question in questions),
        _table(f"Where every byte is at the peak; in {BYTES_NOTE}", having(rows, "ledger"), _LEDGER),
        *(_trials(row) for row in searches),
        _table(
            "Times of all rows, by pytest-benchmark; s = seconds, ms = milliseconds"
            + in_caption(throttled_note(rows, _name)),
            [row for row in rows if row.get("stats")],
            _TIMES,
        ),
    ]
    return [table for table in tables if table.rows]


def shown(one: Field, value: Any) -> str:
    """Write a stored value in the unit of its field; empty for what a cell cannot hold."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        parts = {name: shown(one, inner) for name, inner in value.items()}
        return ", ".join(f"{name} {part}" for name, part in parts.items() if part)
    if not isinstance(value, int | float):
        return value if isinstance(value, str) else ""
    units: dict[str, Callable[[float], str]] = {"bytes": mb_number, "s": duration, "share": percent}
    if one.unit in units:
        return units[one.unit](value)
    return count(value) if isinstance(value, int) else significant(value, 4)


def _of_question(question: str, rows: list[Row]) -> Table:
    own = [row for row in rows if row.get("question") == question and not row.get("trials")]
    columns = [_WHO, *(_column(one) for name, one in ROW.items() if name not in SAID_BY_THE_LABEL)]
    return _table(f"Question {question}, every row; {UNITS_NOTE}", own, [*columns, *_LAST_EPOCH])


def _table(caption: str, rows: list[Row], columns: list[Column]) -> Table:
    """One line per row; a column that no row has anything in is left out."""
    cells = [[column.cell(row) for column in columns] for row in rows]
    kept = [place for place in range(len(columns)) if any(line[place] for line in cells)]
    return Table(
        caption=caption,
        columns=tuple(columns[place].heading for place in kept),
        rows=tuple(tuple(line[place] or "not read" for place in kept) for line in cells),
    )


def _heading(one: Field) -> str:
    ending = next((ending for ending in UNITS if one.unit and one.name.endswith(ending)), "")
    words = one.name.removesuffix("" if ending == "seconds" else ending).replace("_", " ")
    return f"{words} ({one.unit})" if one.unit not in SAID_BY_CELLS else words


def _column(one: Field, within: Callable[[Row], Mapping[str, Any]] = lambda row: row) -> Column:
    is_table = one.parts is not None  # of its own, or shown by an answer
    return Column(
        _heading(one), lambda row: "" if is_table else shown(one, (within(row) or {}).get(one.name))
    )


def _name(row: Row) -> str:
    return row.get("name") or row.get("fullname") or "unnamed"


_WHO = Column("configuration", lambda row: configuration(row) or _name(row))
_LEDGER = [_WHO, *(_column(one, lambda row: row["ledger"]) for one in fields_of(Ledger).values())]
_TIMES = [
    Column("row", _name),
    Column("what is timed", lambda row: row.get("timed") or ""),
    Column("source", lambda row: row.get("source") or ""),
    *(_column(one, lambda row: row["stats"]) for name, one in fields_of(Stats).items() if name != "data"),
]
_LAST_EPOCH = [
    replace(column, heading=f"{column.heading}, last epoch")
    for column in (
        _column(one, lambda row: (row.get("epochs") or [{}])[-1]) for one in fields_of(Epoch).values()
    )
]


def _trials(row: Row) -> Table:
    """Return the batch sizes that a search for the largest tried, in order."""
    found = _table("", row["trials"], [_column(one) for one in fields_of(Trial).values()])
    return Table(
        caption=f"The search for the largest batch ({configuration(row)}), in the order tried, "
        f"{row.get('source') or 'source not stored'}; {UNITS_NOTE}",
        columns=found.columns,
        rows=found.rows,
    )
