"""What ``compare`` does: say what got worse between saved runs, with an exit code that can stand in CI."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stepcost.report.compare import show
from stepcost.report.compare.change_tables import tables
from stepcost.report.compare.matrix import DEFAULT_MATRIX, matrix
from stepcost.report.compare.result import CannotCompareError
from stepcost.report.compare.sides import Rules, compare_sides
from stepcost.report.compare.times import FALSE_ALARM, SMALLEST_EFFECT
from stepcost.report.compare.tolerances import DEFAULT_RULES, FieldRule, parse_rule
from stepcost.report.find import is_pattern, runs_named
from stepcost.report.load import LoadError, Run
from stepcost.report.tables import markdown_table
from stepcost.report.terminal import print_table
from stepcost.schema import text

if TYPE_CHECKING:
    from stepcost.report.page.across import Across

SIDE_BY_SIDE_OUT = Path("reports") / "out" / "over-runs"
"""Where the page of several runs goes unless told otherwise; git ignores it."""
DESCRIPTION = "Say what got worse between two saved runs; docs/compare.md says how it decides."
EPILOG = (
    "A RUN is a name (run1), a number (0001), a path or a pattern ('base*': repetitions of one side). With "
    "two, the second is judged against the first. With one pattern, or three and more, they stand side by "
    "side and nothing is judged. Exit code: 0 nothing worse, 1 something worse, 2 could not compare."
)
NOTHING_WORSE, SOMETHING_WORSE, COULD_NOT = 0, 1, 2


class _UsageError(Exception):
    """Arguments that cannot be followed; its text is one line."""


def compare(options: argparse.Namespace) -> int:
    """Compare the runs that the options of `add_arguments` name, and print what was found.

    Returns 0 nothing worse, 1 something worse, 2 could not compare, with one line on standard error.
    """
    try:
        sides = [runs_named(name, storage=options.storage) for name in options.run]
        if len(sides) == 2:
            return _judge(sides[0], sides[1], options)
        if len(sides) == 1 and not is_pattern(options.run[0]):
            raise _UsageError(
                f"one run alone: {text(options.run[0])}; name a base and a new run, or a pattern"
            )
        return _matrix([run for side in sides for run in side], options)
    except (_UsageError, LoadError, CannotCompareError) as error:
        print(f"stepcost compare: {error}", file=sys.stderr)
        return COULD_NOT


def _judge(base: list[Run], new: list[Run], options: argparse.Namespace) -> int:
    if {run.path.resolve() for run in base} & {run.path.resolve() for run in new}:
        raise _UsageError("a run stands on both sides")
    rules = Rules(
        memory=tuple(options.memory or DEFAULT_RULES),
        smallest_effect=options.smallest_effect,
        false_alarm=options.false_alarm,
        gone_is_worse=not options.allow_gone,
        gate_time=not options.memory_only,
    )
    found = compare_sides(base, new, rules)
    exit_code = SOMETHING_WORSE if found.is_worse else NOTHING_WORSE
    if options.json:
        print(show.as_json(found, exit_code))
    elif options.markdown:
        print(show.markdown(found), end="")
    else:
        print(show.headline(found), end="\n\n")
        for table in tables(found):
            print_table(table, sys.stdout)
        print("\n".join(show.closing(found)))
    if options.out is not None:
        from stepcost.report.page.across import of_sides  # noqa: PLC0415 (loads matplotlib, which a verdict does not need)

        _write_page([*base, *new], lambda: of_sides(base, new, found), options.out)
    return exit_code


def _matrix(runs: list[Run], options: argparse.Namespace) -> int:
    tables = matrix(runs, options.memory or DEFAULT_MATRIX)
    if options.json:
        raise _UsageError("--json takes two sides; several runs side by side are a table")
    for table in tables:
        if options.markdown:
            print(markdown_table(table), end="\n\n")
        else:
            print_table(table, sys.stdout)
    if options.out is not None or not options.markdown:
        from stepcost.report.page.across import side_by_side  # noqa: PLC0415 (as above)

        rules = options.memory or DEFAULT_MATRIX
        _write_page(runs, lambda: side_by_side(runs, rules), options.out or SIDE_BY_SIDE_OUT)
    return NOTHING_WORSE


def _write_page(runs: Sequence[Run], across: Callable[[], Across], out_dir: Path) -> None:
    """Write the page with tables and plots; says where on standard error, where it breaks no table."""
    from stepcost.report.page.write import write_comparison  # noqa: PLC0415 (as above)

    try:
        page = write_comparison(runs, across(), out_dir)[0]
    except OSError as error:
        raise _UsageError(f"cannot write to {out_dir}: {error.strerror}") from None
    sys.stdout.flush()  # so that this line comes last where both go to one place
    print(f"plots: {page}", file=sys.stderr)


def _rule(value: str) -> FieldRule:
    try:
        return parse_rule(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _share(value: str) -> float:
    try:
        share = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a share between 0 and 1, such as 0.05 or 5%")
    return share


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `compare` takes."""
    add = parser.add_argument
    add("run", nargs="+", metavar="RUN")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--markdown", action="store_true", help="tables for a pull request")
    output.add_argument("--json", action="store_true", help="one object, for programs")
    add(
        "--memory",
        action="append",
        type=_rule,
        metavar="FIELD[:TOLERANCE]",
        help="gate these figures in bytes instead of the default ones: peak_allocated_bytes:0.1%%, "
        "'peak_*_bytes:0', process_bytes:2MB; repeatable, the last that fits counts",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="write a page with the tables and plots, report.html, there (runs side by side: always, "
        f"to {SIDE_BY_SIDE_OUT} unless told otherwise or asked for --markdown)",
    )
    add("--memory-only", action="store_true", help="show times and joules and do not gate them")
    add("--allow-gone", action="store_true", help="a row that disappeared is not a regression")
    add(
        "--smallest-effect",
        type=_share,
        default=SMALLEST_EFFECT,
        metavar="SHARE",
        help=f"slow-down that matters (default: {SMALLEST_EFFECT})",
    )
    add(
        "--false-alarm",
        type=_share,
        default=FALSE_ALARM,
        metavar="SHARE",
        help=f"chance of any false alarm on times in one comparison (default: {FALSE_ALARM})",
    )
