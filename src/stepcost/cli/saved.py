"""``stepcost report``, ``compare`` and ``list``: of saved runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stepcost.cli.parser import Parser, add_flag, command, value
from stepcost.price import run_prices


def add_report(commands: Any) -> None:
    """Add ``stepcost report``."""
    from stepcost.report.command import OUT  # noqa: PLC0415 (keeps the import of predictions light)

    parser = command(
        commands, "report", _report, "Write the page of saved runs: report.html, report.md and plots."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a name (run1), a number (0001) or a path")
    parser.add_argument(
        "--out", type=Path, default=OUT, metavar="DIR", help="folder to write to (default: %(default)s)"
    )
    add_flag(parser, "price", default=None)
    _add_storage(parser)


def _report(options: argparse.Namespace) -> int:
    from stepcost.report.command import report  # noqa: PLC0415 (see above)

    given = value(options, "price")
    prices = None if given is None else run_prices(given)
    return report(options.runs, options.out, options.storage, prices)


def add_compare(commands: Any) -> None:
    """Add ``stepcost compare``."""
    from stepcost.report.compare.command import DESCRIPTION, EPILOG, add_arguments  # noqa: PLC0415 (see above)

    parser = command(commands, "compare", _compare, DESCRIPTION)
    parser.epilog = EPILOG
    add_arguments(parser)
    _add_storage(parser)


def _compare(options: argparse.Namespace) -> int:
    from stepcost.report.compare.command import compare  # noqa: PLC0415 (see above)

    return compare(options)


def add_list(commands: Any) -> None:
    """Add ``stepcost list``."""
    parser = command(commands, "list", _list, "List the saved runs.")
    _add_storage(parser)


def _list(options: argparse.Namespace) -> int:
    from stepcost.report.command import list_runs  # noqa: PLC0415 (see above)

    return list_runs(options.storage)


def _add_storage(parser: Parser) -> None:
    from stepcost.report.find import STORAGE  # noqa: PLC0415 (keeps the import of predictions light)

    parser.add_argument(
        "--storage",
        metavar="DIR",
        default=STORAGE,
        help="where the runs were saved, as for --benchmark-storage (default: %(default)s)",
    )
