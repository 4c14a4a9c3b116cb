"""``python -m reports RUN [RUN ...] [--out DIR]``: write the report of those runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from stepcost.report.find import load_runs
from stepcost.report.load import LoadError

OUT = Path("reports") / "out"
"""Where the report goes unless told otherwise; git ignores it."""


class _OneLine(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"python -m reports: {message}\n")


def main(arguments: list[str]) -> int:
    """Write the report and print the paths of its page and Markdown. Returns 0, or 2 if it could not."""
    parser = _OneLine(
        prog="python -m reports", description="Write the report of saved runs.", allow_abbrev=False
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a name (run1), a number (0001) or a path")
    parser.add_argument(
        "--out", type=Path, default=OUT, metavar="DIR", help="folder to write to (%(default)s)"
    )
    chosen = parser.parse_args(arguments)
    try:
        runs = load_runs(chosen.runs)
        # Imported here, so that a misspelt name is answered without loading matplotlib.
        from stepcost.report.page.write import write_report  # noqa: PLC0415

        written = write_report(runs, chosen.out)
    except LoadError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"cannot write to {chosen.out}: {error.strerror}", file=sys.stderr)
        return 2
    print(f"{written[0]}\n{written[1]}\nand {len(written) - 2} plots beside them")
    return 0
