"""What subcommands are made of: a parser that complains in one line, and the suite's flags."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from stepcost.flags import Flag, Reader
from stepcost.request import BLOCKS
from stepcost.settings import FLAGS

WRONG_REQUEST = 2
"""Exit code of a request that makes no sense."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)
        self._given: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as ``argparse`` does, and keep what was given."""
        self._given = list(args or ())
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, and exit with `WRONG_REQUEST`."""
        if "--checkpoint" in self._given[:-1] and "required" in message:
            taken = self._given[self._given.index("--checkpoint") + 1]
            message += (
                f"; --checkpoint took {taken!r} for a class: for the blocks write --checkpoint={BLOCKS}"
            )
        self.exit(WRONG_REQUEST, f"{self.prog}: {message}\n")


def command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], help: str) -> Parser:
    """Add a subcommand that ``run`` runs."""
    parser: Parser = commands.add_parser(name, help=help, description=help)
    parser.set_defaults(run_command=run, parser=parser)
    return parser


def add_flag(parser: Parser, field: str, *, default: str | None, help: str | None = None) -> None:
    """Add a flag of the suite, under the same names and with the same checks."""
    flag: Flag = FLAGS[field]
    text = (help or flag.help) + ("" if default is None else f" (default: {default})")
    options: dict[str, Any] = {"action": "store_true"}
    if flag.read is not None or flag.metavar is not None:
        options = {"default": default, "metavar": flag.metavar}
        if flag.optional is not None:
            options |= {"nargs": "?", "const": flag.optional}
    parser.add_argument(*flag.names, dest=field, help=text.replace("%", "%%"), **options)


def value(options: argparse.Namespace, field: str, read: Reader | None = None) -> Any:
    """Check what was given for a flag. Raises ``ValueError`` in one line that names it."""
    flag = FLAGS[field]
    reader = read or flag.read
    text = getattr(options, field)
    return text if reader is None or text is None else reader(flag.names[0], text)
