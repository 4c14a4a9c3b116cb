"""What subcommands are made of: a parser that complains in one line, the suite's flags, the steps asked."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from stepcost.catalog.kinds import IMAGES, TOKENS
from stepcost.catalog.precisions import PRECISIONS
from stepcost.flags import Flag, Reader, names_of, whole
from stepcost.request import BLOCKS, Request, without_images
from stepcost.settings import FLAGS

STEP_FLAGS = ("checkpoint", "accumulate", "channels_last", "attention", "lora")
"""Flags of the suite that say what a step is, under the names of the request's fields."""
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


def add_step(parser: Parser) -> None:
    """Add the flags that say which steps are asked about; those that take several make one of each."""
    parser.add_argument("model", metavar="MODEL", help=FLAGS["model"].help)
    add_flag(parser, "optimizers", default="sgd", help="comma-separated, or a class: package.module:Class")
    add_flag(parser, "batch_sizes", default="64")
    add_flag(parser, "image_size", default="32")
    parser.add_argument("--num-classes", default="10", metavar="N", help="classes (default: %(default)s)")
    add_flag(parser, "sequence_lengths", default=FLAGS["sequence_lengths"].default)
    names = ", ".join(PRECISIONS)
    add_flag(parser, "precision", default="fp32", help=f"in what it computes: comma-separated, from {names}")
    for field in STEP_FLAGS:
        add_flag(parser, field, default=FLAGS[field].default)


def _check_sizes(options: argparse.Namespace, kind: str) -> None:
    """Refuse a size that was asked of what has none, rather than leave it out without a word."""
    usual = {"image_size": "32", "sequence_lengths": FLAGS["sequence_lengths"].default}
    if kind == TOKENS and options.image_size != usual["image_size"]:
        raise ValueError(f"--image-size {options.image_size}: {options.model} takes no images")
    if kind == IMAGES and options.sequence_lengths != usual["sequence_lengths"]:
        raise ValueError(
            f"--sequence-length {options.sequence_lengths}: {options.model} takes images, not sequences"
        )


def steps_asked(
    options: argparse.Namespace, kind: str, shared: Sequence[Mapping[str, Any]] = ({},)
) -> list[Request]:
    """Return the requests of the steps that are asked about, of a model of that kind.

    ``shared`` says how several GPUs share a step, by the request's fields. Raises ``ValueError`` in one line
    for what makes no sense.
    """
    _check_sizes(options, kind)
    step = {field: value(options, field) for field in STEP_FLAGS}
    lengths = value(options, "sequence_lengths") if kind == TOKENS else (None,)
    return [
        without_images(
            Request(
                model=options.model,
                optimizer=optimizer,
                batch_size=batch_size,
                image_size=value(options, "image_size"),
                num_classes=whole(1)("--num-classes", options.num_classes),
                sequence_length=length,
                precision=precision,
                **way,
                **step,
            ),
            kind,
        )
        for optimizer, batch_size, length, precision, way in itertools.product(
            value(options, "optimizers"),
            value(options, "batch_sizes"),
            lengths,
            value(options, "precision", names_of(PRECISIONS)),
            shared,
        )
    ]
