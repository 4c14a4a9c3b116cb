"""``python -m reports list``: the saved runs."""

from __future__ import annotations

import sys
from pathlib import Path

from stepcost.report.find import STORAGE, saved_files
from stepcost.report.load import LoadError, load, split_name
from stepcost.report.tables import Table
from stepcost.report.terminal import print_table


def main(arguments: list[str]) -> int:
    """Print the table of saved runs. Returns 0, or 2 for arguments that it does not take."""
    if arguments:
        print("python -m reports list takes no arguments", file=sys.stderr)
        return 2
    files = saved_files()
    if not files:
        print(f"Nothing is saved in {STORAGE} yet: pytest benchmarks/ --benchmark-save=run1 saves a run.")
        return 0
    print_table(table_of(files), sys.stdout)
    return 0


def table_of(files: list[Path]) -> Table:
    """One row per file; a file that cannot be read says why in place of its machine."""
    return Table(
        caption="Saved runs; dates in UTC. Show one with: python -m reports NAME",
        columns=("number", "name", "GPU", "torch", "date"),
        rows=tuple(_row(path) for path in files),
        label_columns=5,
    )


def _row(path: Path) -> tuple[str, ...]:
    number, name = split_name(path)
    place = number or ("reference" if path.parent.name == "reference" else "")
    try:
        run = load(path)
    except LoadError as error:
        return (place, name, str(error).partition(": ")[2], "", "")
    return (place, name, run.gpu, run.torch, run.date or "not stored")
