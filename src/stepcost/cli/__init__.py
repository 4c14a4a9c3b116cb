"""``stepcost``: one command, with a subcommand for each question that needs no pytest."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence

from stepcost.cli.cards import add_cards
from stepcost.cli.parser import Parser
from stepcost.cli.predict import add_predict
from stepcost.cli.record import RECORD_TIMES, add_record, add_record_times
from stepcost.cli.saved import add_compare, add_list, add_report

FEW_COLLECTIONS = 100_000
"""Objects made before garbage is looked for: what imports of torch make stays, and a quarter of their time
would go into looking through it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand that the arguments name; return its exit code."""
    parser = Parser(prog="stepcost", description="What does a training step cost?")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        add_predict,
        add_cards,
        add_report,
        add_compare,
        add_list,
        add_record,
        add_record_times,
    ):
        add(commands)
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:2] == RECORD_TIMES.split():
        given[:2] = [RECORD_TIMES]
    options = parser.parse_args(given)
    gc.set_threshold(FEW_COLLECTIONS)
    try:
        run: Callable[[argparse.Namespace], int] = options.run_command
        return run(options)
    except ValueError as error:
        options.parser.error(str(error))
    except BrokenPipeError:  # the reader of a pipe (head, less) has gone
        pass
    return 0
