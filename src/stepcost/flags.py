"""How a flag is declared, and what reads its text, or raises ``ValueError`` in one line that names it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from stepcost.catalog.cards import CARDS
from stepcost.catalog.datasets import NAMED
from stepcost.catalog.engines import ENGINES
from stepcost.catalog.optimizers import find_optimizer
from stepcost.catalog.savers import PLAIN, SAVERS, find_savers
from stepcost.price import Price, prices_of, run_prices
from stepcost.request import BLOCKS, PARALLEL

T = TypeVar("T")
MOST_GPUS = 16
"""So many GPUs one host has at the most; several hosts are not asked about."""
Reader = Callable[[str, str], Any]
"""Makes a value of a flag's name and text, or raises ``ValueError`` in one line that names the flag."""


@dataclass(frozen=True)
class Flag:
    """How a field of the settings is asked for."""

    names: tuple[str, ...]
    """The first is the flag's own, the others say the same."""
    help: str
    metavar: str | None
    default: str | None
    read: Reader | None
    """``None`` for a switch, which is off unless it is given."""
    optional: str | None = None
    """What the flag says where it is given without a value; ``None`` where it takes one."""


def flag(
    *names: str,
    help: str,
    default: str | None = None,
    metavar: str | None = None,
    read: Reader | None = None,
    optional: str | None = None,
) -> Any:
    """Declare the flag of a field."""
    return field(metadata={"flag": Flag(names, help, metavar, default, read, optional)})


def one_of(names: Iterable[str]) -> Reader:
    """Read one of some names."""

    def read(flag: str, text: str) -> str:
        chosen = names_of(names)(flag, text)
        if len(chosen) > 1:
            raise ValueError(f"{flag}: {text!r} names {len(chosen)}; it takes one")
        return chosen[0]

    return read


def names_of(names: Iterable[str]) -> Callable[[str, str], tuple[str, ...]]:
    """Read names separated by commas, all of them known."""
    known = tuple(names)

    def read(flag: str, text: str) -> tuple[str, ...]:
        chosen = tuple(part.strip() for part in text.split(",") if part.strip())
        for name in chosen:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]}? It" if close else "it"
                raise ValueError(f"{flag}: unknown name {name!r}; {hint} takes {', '.join(known)}")
        return _distinct(flag, text, chosen)

    return read


def optimizers(flag: str, text: str) -> tuple[str, ...]:
    """Read optimizers of the catalog, or classes as ``package.module:Class``, separated by commas."""
    chosen = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in chosen:
        try:
            find_optimizer(name)
        except ValueError as error:
            raise ValueError(f"{flag}: {error}") from error
    return _distinct(flag, text, chosen)


def whole(least: int, most: int | None = None) -> Callable[[str, str], int]:
    """Read a whole number."""

    def read(flag: str, text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise ValueError(f"{flag}: {text!r} is not a whole number of {least} or more")
        if most is not None and number > most:
            raise ValueError(f"{flag}: {text!r} is too large; it takes numbers up to {most:,}")
        return number

    return read


def wholes(least: int, most: int | None = None) -> Callable[[str, str], tuple[int, ...]]:
    """Read whole numbers separated by commas."""

    def read(flag: str, text: str) -> tuple[int, ...]:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return _distinct(flag, text, tuple(whole(least, most)(flag, part) for part in parts))

    return read


def _distinct(flag: str, text: str, values: tuple[T, ...]) -> tuple[T, ...]:
    if not values:
        raise ValueError(f"{flag}: {text!r} names nothing")
    if len(set(values)) < len(values):
        raise ValueError(f"{flag}: {text!r} names something twice")
    return values


def named(flag: str, text: str) -> str:
    """Read a name."""
    if not text.strip():
        raise ValueError(f"{flag}: {text!r} names nothing")
    return text


def class_name(flag: str, text: str) -> str:
    """Read the name of a module class: a path that stands behind the flag is none."""
    if not text.isidentifier():
        raise ValueError(f"{flag}: {text!r} is no name of a class; for the blocks write {flag}={BLOCKS}")
    return text


def device(flag: str, text: str) -> str:
    """Read a device."""
    index = text.removeprefix("cuda:")
    if text in ("auto", "cpu", "cuda") or (text.startswith("cuda:") and index.isdecimal()):
        return text
    raise ValueError(f"{flag}: unknown device {text!r}; it takes cpu, cuda or cuda:N")


def dataset(flag: str, text: str) -> str:
    """Read a data set: a name, or a file."""
    if text in NAMED or text.endswith(".npz"):
        return text
    raise ValueError(f"{flag}: unknown data set {text!r}; it takes {', '.join(NAMED)} or PATH.npz")


def engine(flag: str, text: str) -> str:
    """Read an engine, or ``auto``."""
    return text if text == "auto" else str(one_of(ENGINES)(flag, text))


def price(flag: str, text: str) -> str:
    """Read what an hour of the GPU, or of cards, costs."""
    try:
        run_prices(text)
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from None
    return text.strip()


def priced(cards: Iterable[str]) -> Callable[[str, str], dict[str, Price]]:
    """Read what an hour of each of some cards costs."""
    known = tuple(cards)

    def read(flag: str, text: str) -> dict[str, Price]:
        if not known:
            raise ValueError(f"{flag} needs --gpu: the price of which card?")
        try:
            return prices_of(text, known)
        except ValueError as error:
            raise ValueError(f"{flag}: {error}") from None

    return read


def engines(flag: str, text: str) -> tuple[str, ...]:
    """Read engines separated by commas, ``all``, or none."""
    if text == "all":
        return tuple(ENGINES)
    return names_of(ENGINES)(flag, text) if text else ()


def several_gpus(flag: str, text: str) -> tuple[int, ...]:
    """Read whole numbers of 2 or more separated by commas, or none: of GPUs of one host."""
    return wholes(2, MOST_GPUS)(flag, text) if text else ()


def parallel(flag: str, text: str) -> tuple[str, ...]:
    """Read strategies separated by commas, ``all``, or none."""
    if text == "all":
        return PARALLEL
    return names_of(PARALLEL)(flag, text) if text else ()


def cards(flag: str, text: str) -> tuple[str, ...]:
    """Read cards separated by commas, ``all``, or none."""
    if text == "all":
        return tuple(CARDS)
    return names_of(CARDS)(flag, text) if text else ()


def savers(flag: str, text: str) -> tuple[str, ...]:
    """Read ways to save memory, and their combinations, separated by commas, or ``all``."""
    chosen: list[str] = []
    for name in (part.strip() for part in text.split(",") if part.strip()):
        if name == PLAIN:
            raise ValueError(f"{flag}: {PLAIN} is always among them")
        if name != "all":
            try:
                find_savers(name)
            except ValueError as error:
                raise ValueError(f"{flag}: {error}") from None
        chosen += SAVERS if name == "all" else [name]
    return _distinct(flag, text, tuple(chosen)) if text else ()
