"""Tables of all rows of a run: memory, step times, training runs, the search, and the instrument itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stepcost.report.fields import LEDGER_PARTS
from stepcost.report.load import Run
from stepcost.report.rows import Row, configuration, having
from stepcost.report.tables import Table
from stepcost.report.throttle import in_caption, throttled_note
from stepcost.report.units import BYTES_NOTE, count, mb_number, ms, percent, seconds, significant

Column = tuple[str, Callable[[Row], str]]


def tables_of_all_rows(run: Run) -> list[Table]:
    """Every row of the run, in the table of its kind; kinds without rows are left out."""
    rows = list(run.rows)
    memory = [row for row in rows if row.get("question") in ("2a", "3a") and row.get("trials") is None]
    engines = [
        row for row in rows if row.get("question") == "4" and row.get("timed") != "epoch of single steps"
    ]
    trained = [row for row in rows if row.get("question") == "3b"]
    tables = [
        _table(f"Memory, every configuration; in {BYTES_NOTE}", memory, _MEMORY),
        _table(f"Where every byte is at the peak; in {BYTES_NOTE}", having(memory, "ledger"), _LEDGER),
        _table(f"Steps by engine; in {BYTES_NOTE}, ms = milliseconds", engines, _ENGINES),
        *(_trials(row) for row in rows if row.get("trials")),
        _table("Training runs; s = seconds, accuracies at the last epoch", trained, _TRAINED),
        _table("The instrument itself; s = seconds, ms = milliseconds", _instrument(rows), _INSTRUMENT),
        _table(
            "Times of all rows, by pytest-benchmark; s = seconds, ms = milliseconds"
            + in_caption(throttled_note(rows, _name)),
            [row for row in rows if row.get("stats")],
            _TIMES,
        ),
    ]
    return [table for table in tables if table.rows]


def _instrument(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.get("question") == "instrument"]


def _table(caption: str, rows: list[Row], columns: tuple[Column, ...]) -> Table:
    """One line per row; a column that no row has anything in is left out."""
    cells = [[cell(row) for _, cell in columns] for row in rows]
    kept = [place for place in range(len(columns)) if any(line[place] != "" for line in cells)]
    return Table(
        caption=caption,
        columns=tuple(columns[place][0] for place in kept),
        rows=tuple(tuple(line[place] or "not read" for place in kept) for line in cells),
    )


def _field(name: str, shown: Callable[[Any], str], heading: str | None = None) -> Column:
    def cell(row: Row) -> str:
        return "" if row.get(name) is None else shown(row[name])

    return heading or name.removesuffix("_bytes").replace("_", " "), cell


def _stat(name: str) -> Column:
    def cell(row: Row) -> str:
        value = (row.get("stats") or {}).get(name)
        return "" if value is None else duration(value)

    return name, cell


def duration(value_s: float) -> str:
    """Milliseconds below one second, else seconds."""
    return ms(value_s) if value_s < 1 else seconds(value_s)


def _name(row: Row) -> str:
    return row.get("name") or row.get("fullname") or "unnamed"


def _each(shown: Callable[[float], str]) -> Callable[[Mapping[str, float]], str]:
    return lambda values: ", ".join(f"{name} {shown(value)}" for name, value in values.items())


def _fits(row: Row) -> str:
    if row.get("fits") is None:
        return ""
    return "yes" if row["fits"] else f"no: {row.get('reason') or 'out of memory'}"


def _final(name: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = (row.get("epochs") or [{}])[-1].get(name)
        return "" if value is None else percent(value)

    return cell


_WHO: tuple[Column, ...] = (
    ("configuration", lambda row: configuration(row) or _name(row)),
    _field("source", str),
)
_MEMORY: tuple[Column, ...] = (
    *_WHO,
    ("fits", _fits),
    *(
        _field(name, mb_number)
        for name in (
            "parameter_bytes",
            "buffer_bytes",
            "gradient_bytes",
            "optimizer_state_bytes",
            "input_bytes",
            "activation_bytes",
            "tensor_bytes",
            "first_step_peak_allocated_bytes",
            "peak_allocated_bytes",
            "peak_reserved_bytes",
            "context_bytes",
            "process_bytes",
        )
    ),
    _field("peak_moment", str),
    _field("process_bytes_from", str, "process from"),
    _field("gpu_busy_share", percent, "GPU busy"),
    ("unread", lambda row: "; ".join(f"{name}: {why}" for name, why in (row.get("unread") or {}).items())),
)


def _part(name: str) -> Column:
    heading = name.removesuffix("_bytes").replace("_", " ")
    return heading, lambda row: "" if row["ledger"].get(name) is None else mb_number(row["ledger"][name])


_LEDGER: tuple[Column, ...] = (*_WHO, *(_part(name) for name in LEDGER_PARTS))
_ENGINES: tuple[Column, ...] = (
    *_WHO,
    ("fits", _fits),
    _field("prepare_s", seconds, "prepared in"),
    _stat("median"),
    _field("kernel_s", duration, "sum of kernels"),
    _field("kernels", lambda value: count(round(value))),
    _field("gpu_busy_share", percent, "GPU busy"),
    _field("least_s", duration, "least"),
    _field("least_bytes", mb_number, "least moved"),
    *(_field(name, mb_number) for name in ("peak_allocated_bytes", "peak_reserved_bytes", "process_bytes")),
)
_TRAINED: tuple[Column, ...] = (
    *_WHO,
    _field("seed", str),
    ("fits", _fits),
    _field("learning_rate", lambda value: significant(value, 4)),
    ("epochs", lambda row: str(len(row["epochs"])) if row.get("epochs") else ""),
    _field("steps_per_epoch", count),
    _field("train_s", seconds, "training time"),
    _field("wall_s", seconds, "wall time"),
    ("training accuracy", _final("train_accuracy")),
    ("test accuracy", _final("test_accuracy")),
)
_INSTRUMENT: tuple[Column, ...] = (
    ("row", _name),
    _field("source", str),
    *(
        _field(name, duration, name.removesuffix("_s").replace("_", " "))
        for name in (
            "round_trip_s",
            "bare_step_s",
            "piped_step_s",
            "border_s",
            "warm_start_s",
            "fresh_start_s",
        )
    ),
    _field("border_share", percent),
    _field("spread_share", percent),
    _field("start_ratio", significant),
    _field("start_parts_s", _each(duration), "start parts"),
    _field("busy_shares", _each(percent), "GPU busy with faults"),
)
_TIMES: tuple[Column, ...] = (
    ("row", _name),
    _field("timed", str, "what is timed"),
    _field("source", str),
    _stat("median"),
    _stat("mean"),
    _stat("stddev"),
    _stat("min"),
    _stat("max"),
    ("rounds", lambda row: str(row["stats"]["rounds"]) if row["stats"].get("rounds") is not None else ""),
)


def _trials(row: Row) -> Table:
    """The batch sizes that the search for the largest tried, in order."""
    rows = []
    for trial in row["trials"]:
        peak, step_s = trial.get("peak_allocated_bytes"), trial.get("step_s")
        rows.append(
            (
                count(trial["batch_size"]),
                "yes" if trial["fits"] else f"no: {trial.get('reason') or 'reason not stored'}",
                "not read" if peak is None else mb_number(peak),
                "not read" if step_s is None else duration(step_s),
                "not read" if trial.get("seconds") is None else seconds(trial["seconds"]),
            )
        )
    return Table(
        caption=f"The search for the largest batch ({configuration(row)}), in the order tried, "
        f"{row.get('source') or 'source not stored'}; allocated at the peak in {BYTES_NOTE}",
        columns=("batch size", "fits", "allocated", "time a step", "took"),
        rows=tuple(rows),
    )
