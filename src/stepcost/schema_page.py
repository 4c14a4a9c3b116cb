"""The text of ``docs/schema.md``, from the declarations."""

from __future__ import annotations

from collections.abc import Iterator

from stepcost.reading import SCHEMA_VERSION
from stepcost.row import PARTS
from stepcost.schema import Field, fields_of
from stepcost.session_record import MACHINE, SESSION

PREAMBLE = f"""\
# What is stored

`pytest benchmarks/ --benchmark-save=run1` writes one pytest-benchmark file,
`.benchmarks/<machine>/0001_run1.json`. What it holds of ours is listed here, from the declarations in the
code: `python -m stepcost.row > docs/schema.md`. Schema version: **{SCHEMA_VERSION}**.

Sizes are integers in bytes, times are floats in seconds, shares and accuracies are fractions between 0 and 1.
`null` means 'could not be read', and the row's `unread` says why. A figure is never zero because it is
missing. *Identifies*: rows are compared only where all these agree. *Gated*: a comparison fails where it
grows ([compare.md](compare.md)).
"""


def schema_page() -> str:
    """Return the text of ``docs/schema.md``."""
    lines = [PREAMBLE, "## The rows: `extra_info` of each benchmark", ""]
    for part in PARTS:
        lines += [f"### {(part.__doc__ or '').strip().splitlines()[0]}", "", *_table(fields_of(part)), ""]
    lines += ["## The session: `stepcost`, next to `benchmarks`", "", *_table(SESSION), ""]
    lines += ["## The machine: in `machine_info`", "", *_table(MACHINE), ""]
    return "\n".join(lines)


def _table(known: dict[str, Field]) -> Iterator[str]:
    yield "| name | unit | meaning |"
    yield "|---|---|---|"
    for name, one in known.items():
        marks = [mark for mark, holds in (("identifies", one.identifies), ("gated", one.gated)) if holds]
        meaning = one.meaning + (f" *({', '.join(marks)})*" if marks else "")
        yield f"| `{name}` | {one.unit} | {meaning} |"
        if one.parts is not None:
            for inner in fields_of(one.parts).values():
                yield f"| `{name}.{inner.name}` | {inner.unit} | {inner.meaning} |"
