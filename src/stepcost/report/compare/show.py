"""A comparison in words: its headline, what its tables leave out, and the whole as Markdown or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from stepcost.report.compare.change_tables import tables
from stepcost.report.compare.result import Comparison
from stepcost.report.tables import escape_markdown, markdown_table
from stepcost.units import percent


def headline(found: Comparison) -> str:
    """One line: what got worse, better, new and gone, with counts."""
    counts = [
        (len(found.of("worse")), "worse"),
        (len(found.of("better")), "better"),
        (len(found.gone), "gone" if found.gone_is_worse else "gone (allowed)"),
        (len(found.added), "new"),
    ]
    said = ", ".join(f"{number} {word}" for number, word in counts)
    verdict = "WORSE" if found.is_worse else "Nothing worse"
    return f"{verdict}: {said}; base {', '.join(found.base)}; new {', '.join(found.new)}"


def closing(found: Comparison) -> list[str]:
    """Return what the tables leave out, in sentences."""
    bytes_judged = [c for c in found.of("same", "worse", "better") if "_bytes" in c.figure]
    exact = [change for change in bytes_judged if change.why.startswith("exact")]
    agree = sum(change.base == change.new for change in exact)
    shown = [change for change in found.of("shown") if "_bytes" in change.figure]
    unjudged = sum(not change.is_no_longer_read for change in shown)
    lines = [
        f"{len(found.of('same'))} figures did not change beyond their tolerance and are not listed; "
        f"{unjudged} more in bytes are not gated or were read on the new side only."
    ]
    if exact:
        lines.append(f"Of {len(exact)} figures in bytes that should agree exactly, {agree} do.")
    undecided = found.of("undecided")
    if undecided:
        caught = [c.would_catch for c in undecided if c.would_catch and not c.figure.endswith("_ratio")]
        least = f" (the least that would be caught in one row: {percent(min(caught))})" if caught else ""
        lines.append(
            f"{len(undecided)} times are undecided: noise could hide a slow-down that matters{least}."
        )
    return lines + [f"Note: {note}." for note in found.notes]


def markdown(found: Comparison) -> str:
    """Return the comparison for a pull request."""
    blocks = [f"**{escape_markdown(headline(found))}**", *(markdown_table(table) for table in tables(found))]
    return "\n\n".join([*blocks, *(escape_markdown(line) for line in closing(found))]) + "\n"


def as_json(found: Comparison, exit_code: int) -> str:
    """One object: `Comparison` by field, figures in bytes and seconds, with each change's ratio."""
    plain = asdict(found)
    for change, made in zip(plain["changes"], found.changes, strict=True):
        change["ratio"] = made.ratio
    return json.dumps({"exit_code": exit_code, "worse": found.is_worse, **plain}, indent=1, default=str)
