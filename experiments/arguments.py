"""What the experiments' command lines share: a bad argument is one line, with exit code 2."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from stepcost.catalog.cards import CARDS
from stepcost.catalog.optimizers import OPTIMIZERS
from stepcost.cli.parser import Parser
from stepcost.request import Request

T = TypeVar("T")
CONFIGURATION = "MODEL:OPTIMIZER:BATCH:IMAGE_SIZE"


def parser_of(name: str, about: str | None) -> Parser:
    """Return a parser for ``python -m experiments.NAME``; ``about`` is the module's docstring."""
    layout = argparse.RawDescriptionHelpFormatter
    return Parser(prog=f"python -m experiments.{name}", description=about, formatter_class=layout)


def parser_of_requests(name: str, about: str | None) -> Parser:
    """Return the parser of a command that measures each request of a file, or predicts it."""
    parser = parser_of(name, about)
    parser.add_argument("requests", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--predict", metavar="CARD", choices=list(CARDS))
    parser.add_argument("--torch", metavar="VERSION", default="2.11", help="with which torch it would run")
    parser.add_argument(
        "--limit-s", type=float, default=float("inf"), help="begin nothing after so many seconds"
    )
    return parser


def begun_within(limit_s: float, items: Iterable[T]) -> Iterator[T]:
    """Give ``items`` until so many seconds have passed."""
    started = time.perf_counter()
    for item in items:
        if time.perf_counter() - started > limit_s:
            return
        yield item


def configuration(text: str) -> Request:
    """Read ``resnet152:sgd:64:32`` as a request for the first GPU; a model's own name may have a colon.

    Raises `argparse.ArgumentTypeError`.
    """
    try:
        model, optimizer, *sizes = text.rsplit(":", 3)
        batch_size, image_size = (whole(size) for size in sizes)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {CONFIGURATION}") from None
    if optimizer not in OPTIMIZERS:
        raise argparse.ArgumentTypeError(f"unknown optimizer {optimizer!r}; it takes {', '.join(OPTIMIZERS)}")
    return Request(model=model, optimizer=optimizer, batch_size=batch_size, image_size=image_size)


def whole(text: str) -> int:
    """Read a whole number of 1 or more. Raises `argparse.ArgumentTypeError`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
