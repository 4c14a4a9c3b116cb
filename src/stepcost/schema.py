"""Declare a stored field once, with its type and meaning; all that handles fields follows from that.

A dataclass whose fields are declared by ``stored`` is a part of the schema. Its annotations give the
checks of values that a file holds (``clean``), ``stored`` what a comparison does with them.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

LONGEST_TEXT = 2000
"""Longer texts are cut: a name or a reason is one line, whatever a file holds."""
MOST = 2**63
"""Numbers end here: no size, count or time is larger."""

Count = Annotated[int, "from 1 on"]
"""A whole number from 1 on."""
Share = Annotated[float, "from 0 to 1"]
"""A fraction from 0 to 1."""
Change = Annotated[int, "either sign"]
"""A whole number that may be negative."""

UNITS = {
    "_bytes": "bytes",
    "_s": "s",
    "seconds": "s",
    "_share": "share",
    "_accuracy": "share",
    "_j": "J",
    "_w": "W",
}
"""The end of a field's name to its unit."""
Follows = Literal["shapes", "build", "driver"]
"""What decides a figure: shapes alone; also the capability, torch and cuDNN; or also the driver."""
Kind = Callable[[Any], Any]
"""Returns a value as its type, or raises ``ValueError`` with what it should have been."""


@dataclass(frozen=True)
class Field:
    """A stored field, as declared."""

    name: str
    meaning: str
    unit: str
    """``bytes``, ``s``, ``share``, ``J``, ``W`` or, without one, nothing."""
    identifies: bool
    gated: bool
    follows: Follows
    absent: Any
    is_figure: bool
    """Whether it is one number, which tables can show and a comparison can compare."""
    parts: type | None
    """The dataclass of its parts, for a record or a list of records."""
    kind: Kind

    def read(self, value: Any) -> Any:
        """Return a value from a file as its type. Raises ``ValueError`` with what it should have been."""
        found = self.kind(value)
        return None if self.absent is not None and found == self.absent else found


def stored(
    meaning: str,
    *,
    unit: str | None = None,
    identifies: bool = False,
    gated: bool = False,
    follows: Follows = "build",
    absent: Any = None,
    default: Any = None,
) -> Any:
    """Declare a field of a dataclass as stored.

    ``meaning`` is its line in ``docs/schema.md``. ``unit`` is read off the name unless given
    (``unit_of``). Rows are compared only where all fields that ``identify`` them agree. A ``gated``
    figure fails a comparison when it grows, by a tolerance that depends on what it ``follows`` from.
    ``absent`` is a value that means the same as no value: what files from before the field are taken to
    hold. A field that is not given has ``default``; ``default=REQUIRED`` allows no such field.
    """
    about = {
        "meaning": meaning,
        "unit": unit,
        "identifies": identifies,
        "gated": gated,
        "follows": follows,
        "absent": absent,
    }
    if default is MISSING:
        return field(metadata=about)
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=about)
    return field(default=default, metadata=about)


REQUIRED = MISSING
"""``default=REQUIRED``: a field that its dataclass is not made without."""


def unit_of(name: str) -> str:
    """Return the unit that the ending of a name says; empty where it says none."""
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")


@functools.cache
def fields_of(part: type) -> dict[str, Field]:
    """Return the stored fields of a dataclass by name, in the order in which they are declared."""
    hints = get_type_hints(part, include_extras=True)
    found = {}
    for one in fields(part):
        if "meaning" not in one.metadata:
            continue
        kind = _kind(hints[one.name])
        plain = _without_none(hints[one.name])
        if one.metadata["gated"] and unit_of(one.name) == "s":
            raise TypeError(f"{one.name}: a time is never the same twice, and cannot be gated as bytes are")
        found[one.name] = Field(
            name=one.name,
            meaning=one.metadata["meaning"],
            unit=unit_of(one.name) if one.metadata["unit"] is None else one.metadata["unit"],
            identifies=one.metadata["identifies"],
            gated=one.metadata["gated"],
            follows=one.metadata["follows"],
            absent=one.metadata["absent"],
            is_figure=_origin(plain) in (int, float),
            parts=_parts(plain),
            kind=kind,
        )
    return found


def union(*parts: type) -> dict[str, Field]:
    """Return every field of some parts, by name. Raises ``TypeError`` for one that is declared twice."""
    found: dict[str, Field] = {}
    for part in parts:
        twice = found.keys() & fields_of(part).keys()
        if twice:
            raise TypeError(f"declared twice: {', '.join(sorted(twice))}")
        found |= fields_of(part)
    return found


def clean(values: Mapping[str, Any], known: Mapping[str, Field]) -> tuple[dict[str, Any], list[str]]:
    """Keep the known fields of ``values`` that are of their type.

    Returns the fields kept (``None`` where the file says so or the value was bad) and one line for each value
    left out. Unknown fields are dropped.
    """
    kept: dict[str, Any] = {}
    complaints: list[str] = []
    for name, one in known.items():
        if name not in values:
            continue
        value = values[name]
        kept[name] = None
        if value is None:
            continue
        try:
            kept[name] = one.read(value)
        except (ValueError, TypeError) as error:
            complaints.append(f"{name} left out: {error}")
    return kept, complaints


def build(part: type, values: Mapping[str, Any]) -> Any:
    """Make a dataclass of the schema from plain data that holds its fields, among others.

    Raises ``TypeError`` where a field that it needs is missing, or a part of it has one that is not declared.
    """
    hints = get_type_hints(part)
    made = {}
    for one in fields(part):
        if one.name not in values:
            continue
        value, inner = values[one.name], _parts(_without_none(hints[one.name]))
        if inner is not None and isinstance(value, Mapping):
            value = _build_whole(inner, value)
        elif inner is not None and isinstance(value, list | tuple):
            value = tuple(_build_whole(inner, item) for item in value)
        made[one.name] = value
    return part(**made)


def _build_whole(part: type, values: Mapping[str, Any]) -> Any:
    unknown = values.keys() - fields_of(part).keys()
    if unknown:
        raise TypeError(f"{part.__name__} has no field {', '.join(sorted(unknown))}")
    return build(part, values)


def number(value: Any) -> int | float:
    """Check a finite number from 0 to 2**63 (no stored quantity is negative or larger)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    if not 0 <= value < MOST:  # NaN and the infinities fail this too
        raise ValueError("not a number that a size, count or time can have")
    return value


def integer(value: Any) -> int:
    """Check a whole number from 0 to 2**63."""
    whole = number(value)
    if whole != int(whole):
        raise ValueError("not a whole number")
    return int(whole)


def change(value: Any) -> int:
    """Check a whole number between -2**63 and 2**63."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    return -integer(-value) if value < 0 else integer(value)


def positive(value: Any) -> int:
    """Check a whole number from 1 to 2**63."""
    whole = integer(value)
    if whole == 0:
        raise ValueError("zero")
    return whole


def fraction(value: Any) -> int | float:
    """Check a number from 0 to 1."""
    share = number(value)
    if share > 1:
        raise ValueError("not a fraction between 0 and 1")
    return share


def boolean(value: Any) -> bool:
    """Check true or false."""
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def text(value: Any) -> str:
    """Check text, and make it one line of printable characters."""
    if not isinstance(value, str):
        raise ValueError("not text")
    return "".join(letter if letter.isprintable() else " " for letter in value[:LONGEST_TEXT]).strip()


def _record(part: type) -> Kind:
    """Check an object of a dataclass: bad fields become ``None``; without one it needs it is bad."""

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError("not an object")
        known = fields_of(part)
        kept, _ = clean(value, known)
        needed = [
            one.name
            for one in fields(part)
            if one.name in known and one.default is MISSING and one.default_factory is MISSING
        ]
        hints = get_type_hints(part)
        missing = [name for name in needed if kept.get(name) is None and not _may_be_none(hints[name])]
        if missing:
            raise ValueError(f"without {', '.join(missing)}")
        return {name: kept.get(name) for name in known}

    return check


def _list_of(kind: Kind) -> Kind:
    """Check a list; items that are not of ``kind`` are left out."""

    def check(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise ValueError("not a list")
        kept = []
        for item in value:
            try:
                kept.append(kind(item))
            except ValueError:
                continue
        if value and not kept:
            raise ValueError("a list with nothing usable in it")
        return kept

    return check


def _map_of(kind: Kind) -> Kind:
    """Check an object with names of its own; entries that are not of ``kind`` are left out."""

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError("not an object")
        kept = {}
        for name, item in value.items():
            try:
                kept[text(name)] = kind(item)
            except ValueError:
                continue
        return kept

    return check


_PLAIN: dict[Any, Kind] = {
    int: integer,
    float: number,
    bool: boolean,
    str: text,
    Count: positive,
    Share: fraction,
    Change: change,
}


def _kind(hint: Any) -> Kind:
    """Return the check of an annotation."""
    hint = _without_none(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if is_dataclass(hint):
        return _record(hint)  # type: ignore[arg-type]  # a class, never an instance
    arguments = get_args(hint)
    if get_origin(hint) in (list, tuple):
        return _list_of(_kind(arguments[0]))
    if get_origin(hint) is dict and arguments[1] is Any:
        return _mapping
    if get_origin(hint) is dict:
        return _map_of(_kind(arguments[1]))
    raise TypeError(f"no rule for the stored type {hint}")


def _mapping(value: Any) -> dict[str, Any]:
    """Check an object, whatever is in it."""
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (one for one in get_args(hint) if one is not types.NoneType)
    return hint


def _may_be_none(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _origin(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _parts(hint: Any) -> type | None:
    """Return the dataclass in an annotation, bare or as the items of a tuple."""
    if get_origin(hint) in (list, tuple):
        hint = get_args(hint)[0]
    return hint if isinstance(hint, type) and is_dataclass(hint) else None
