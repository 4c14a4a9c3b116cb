"""What ``list`` and ``report`` do: the table of saved runs, and the report of some of them."""

from __future__ import annotations

import sys
from pathlib import Path

from stepcost.price import Prices
from stepcost.report.find import STORAGE, runs_named, saved_files
from stepcost.report.load import LoadError, load, split_name
from stepcost.report.tables import Table
from stepcost.report.terminal import print_table

OUT = Path("reports") / "out"
"""Where the report goes unless told otherwise; git ignores it."""


def list_runs(storage: str = STORAGE) -> int:
    """Print the table of saved runs. Returns 0, the exit code."""
    files = saved_files(storage=storage)
    if files:
        print_table(_table_of(files), sys.stdout)
    else:
        print(f"Nothing is saved in {storage} yet: pytest benchmarks/ --benchmark-save=run1 saves a run.")
    return 0


def report(names: list[str], out: Path = OUT, storage: str = STORAGE, prices: Prices | None = None) -> int:
    """Write the report of the runs called ``names`` (or that fit a pattern) into ``out``; print where it is.

    With ``prices`` of an hour its answers say what times cost.

    Returns the exit code: 0, or 2 with one line on standard error where a run
    is not found or ``out`` cannot be written to.
    """
    try:
        runs = [run for name in names for run in runs_named(name, storage=storage)]
        # Imported here, so that a misspelt name is answered without loading matplotlib.
        from stepcost.report.page.write import write_report  # noqa: PLC0415

        written = write_report(runs, out, prices)
    except LoadError as error:
        print(f"stepcost report: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"stepcost report: cannot write to {out}: {error.strerror}", file=sys.stderr)
        return 2
    print(f"{written[0]}\n{written[1]}\nand {len(written) - 2} plots next to them")
    return 0


def _table_of(files: list[Path]) -> Table:
    """One row per file; a file that cannot be read says why in place of its machine."""
    return Table(
        caption="Saved runs; dates in UTC. Show one with: stepcost report NAME",
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
