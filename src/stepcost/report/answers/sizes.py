"""Answer 3a: memory by batch size and by sequence length, and the largest batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepcost.report.answers.memory import memory_by
from stepcost.report.rows import Row, configuration, groups, is_search, of_question, source_of
from stepcost.report.said import NOT_ASKED, Said
from stepcost.report.tables import Table
from stepcost.request import example_of
from stepcost.units import count, counted


def by_batch_size(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """3a: memory at each batch size and sequence length, and the largest batch that trained."""
    asked = of_question(rows, "3a")
    searches = [row for row in asked if is_search(row)][:1]
    steps = [row for row in asked if not is_search(row)]
    found, lengths = groups(steps, "batch_size"), over_lengths(steps)
    if not found and not searches:
        return NOT_ASKED
    if lengths:  # which are no further configurations of the batch sizes
        found = [found[0], *(group for group in found[1:] if any(row not in lengths for row in group))]
    said = memory_by("batch_size", found) if found else Said("", "skipped")
    if lengths:
        said = _with_lengths(said, lengths)
    largest = (
        largest_batch(searches[0]) if searches else "The largest batch was not searched for in this run."
    )
    used = [*(found[0] if found else []), *lengths, *searches]
    return Said(f"{said.text} {largest}".strip(), source_of(used), said.table)


def over_lengths(steps: list[Row]) -> list[Row]:
    """Return steps that differ in their sequence length alone, shortest first; none where none do."""
    found = groups(steps, "sequence_length")
    several = found and len({row["sequence_length"] for row in found[0]}) > 1
    return found[0] if several else []


def _with_lengths(said: Said, lengths: list[Row]) -> Said:
    """Add what longer sequences take to what larger batches do, in one table."""
    by_length = memory_by("sequence_length", [lengths])
    table, more = said.table, by_length.table
    if table is not None and more is not None:
        table = Table(
            caption=f"{table.caption}. By sequence length: {configuration(lengths[0], 'sequence_length')}",
            columns=("at", *table.columns[1:]),
            rows=(
                *((f"batch {size}", *cells) for size, *cells in table.rows),
                *((f"{tokens} tokens", *cells) for tokens, *cells in more.rows),
            ),
        )
    return Said(f"{said.text} {by_length.text}", said.source, table)


def largest_batch(search: Row) -> str:
    """Say what a search found: a number, a bound, or none; and how many batch sizes it tried."""
    text = _found(search)
    why, fails = (search.get("unread") or {}).get("largest_batch"), search.get("smallest_batch_that_fails")
    rests_on = search.get("largest_batch_rests_on")
    why = why or (f"estimated: {rests_on}" if rests_on else None)
    text += f" ({why})" if why else ""
    if fails is not None and fails > 1:
        text += f"; {count(fails)} did not fit"
    if search.get("largest_batch_at_full_speed") is not None:
        fast = count(search["largest_batch_at_full_speed"])
        text += f"; the largest within 5 % of the best {example_of(search)}s per second is {fast}"
    if search.get("trials"):
        text += f" ({counted(len(search['trials']), 'batch size')} tried)"
    return f"{text}, {source_of([search])}."


def _found(search: Row) -> str:
    trained, trains = ("would train",) * 2 if search.get("source") == "predicted" else ("trained", "trains")
    at_least, at_most = search.get("largest_batch_at_least"), search.get("largest_batch_at_most")
    likely = [count(size) for size in search.get("largest_batch_likely") or []]
    if search.get("largest_batch") is not None:
        return f"The largest batch that {trained} is {count(search['largest_batch'])}"
    if at_least is not None:
        return f"The largest batch that {trains} is at least {count(at_least)}, where the search ended"
    if at_most or likely:
        bounds = [f"at most {count(at_most)}" if at_most else "not known"]
        if likely:
            bounds.append(f"likely {' to '.join(likely)}" + (" or more" if len(likely) == 1 else ""))
        return f"The largest batch that {trains} is {'; '.join(bounds)}"
    if at_most is None and "largest_batch" in (search.get("unread") or {}):
        return "The largest batch is not known"
    if search.get("source") is None:
        return "The search for the largest batch did not end"
    not_one = search.get("smallest_batch_that_fails") in (1, None)
    return f"Not even one {example_of(search)} {trains}" if not_one else "No batch that trains was found"
