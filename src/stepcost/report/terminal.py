"""Answers and tables in the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from stepcost.report.tables import Table

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table as RichTable

    from stepcost.report.said import Answer


UNCUT_COLUMNS = 160
NARROW_LABEL = 12
"""Letters that a label keeps in one line however narrow the terminal is."""
LONGEST_FIGURE = 15
"""Letters of a cell with a figure (or ``out of memory``); longer ones are text, which needs its width."""
GAP = 2
"""Blanks between two columns."""
RULE_UNDER_THE_HEAD = "    \n" * 2 + " -- \n" + "    \n" * 5
"""How rich draws a table, in ASCII: pytest writes text that its terminal cannot show as one escaped line."""
_BLANKS_AT_THE_END = re.compile(r"(?: |\x1b\[[\d;]*m)+$", re.MULTILINE)
"""Blanks with codes of colours among them, which stay. Rich fills every line of a table to its width."""


def print_answers(answers: Sequence[Answer], file: TextIO) -> None:
    """Write the answers, question by question, with their tables and where each comes from.

    Text from rows is printed as it is: rich's markup in a name is not followed.
    """
    from rich.console import Console  # noqa: PLC0415 (slow to import, and the page does not need it)
    from rich.padding import Padding  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=file, highlight=False, soft_wrap=False)
    shown: list[RenderableType] = []
    for answer in answers:
        heading = Text.assemble((f"{answer.question}  {answer.title}", "bold"), f"  [{answer.source}]")
        shown += [heading, Padding(Text(answer.text), (0, 0, 0, 4))]
        if answer.table is not None:
            shown.append(Padding(Text(answer.table.caption, style="italic"), (1, 0, 0, 4)))
            for part in _beside(answer.table, console.width - 4):
                shown.append(Padding(_rich_table(part, console.width - 4), (0, 0, 0, 4)))
    _print(console, *shown)


def print_short(answers: Sequence[Answer], file: TextIO) -> None:
    """Write the first sentence of each answer and what that costs, and which questions have none."""
    from rich.console import Console  # noqa: PLC0415 (as above)
    from rich.padding import Padding  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=file, highlight=False, soft_wrap=False)
    shown: list[RenderableType] = []
    for answer in answers:
        if answer.source != "skipped":
            shown.append(Text.assemble((answer.question, "bold"), f"  {answer.title}  [{answer.source}]"))
            short = f"{first_sentence(answer.text)} {answer.money}".rstrip()
            shown.append(Padding(Text(short), (0, 0, 0, 4)))
    silent = [answer.question for answer in answers if answer.source == "skipped"]
    if silent:
        shown.append(Text(f"Without an answer: {', '.join(silent)} (-v says why)"))
    _print(console, *shown)


def first_sentence(text: str) -> str:
    """Return the text up to the end of its first sentence."""
    first, stop, _ = text.partition(". ")
    return first + stop.rstrip()


def print_table(table: Table, file: TextIO) -> None:
    """Write one table with its caption, which names the units."""
    from rich.console import Console  # noqa: PLC0415 (as above)
    from rich.text import Text  # noqa: PLC0415

    # Where nobody looks at a screen of some width, a wide table is not cut.
    console = Console(file=file, highlight=False, width=None if file.isatty() else UNCUT_COLUMNS)
    drawn = [_rich_table(part, console.width) for part in _beside(table, console.width) if table.rows]
    _print(console, Text(table.caption, style="italic"), *drawn)


def _print(console: Console, *shown: RenderableType) -> None:
    """Write these one below the other, without blanks at the ends of lines.

    A letter that the terminal cannot show is a question mark.
    """
    with console.capture() as captured:
        for one in shown:
            console.print(one)
    text = _BLANKS_AT_THE_END.sub(lambda end: end[0].replace(" ", ""), captured.get())
    encoding = getattr(console.file, "encoding", None) or "utf-8"
    console.file.write(text.encode(encoding, "replace").decode(encoding))


def _beside(table: Table, columns_free: int) -> list[Table]:
    """Return the table in as many parts as there must be for no figure to be cut, each with the labels."""
    widths = [GAP + _least(table, place) for place in range(len(table.columns))]
    labels = [*range(table.label_columns)]
    free = columns_free - sum(widths[: len(labels)])
    parts: list[list[int]] = [[]]
    left = free
    for place in range(len(labels), len(widths)):
        if widths[place] > left and parts[-1]:
            parts.append([])
            left = free
        parts[-1].append(place)
        left -= widths[place]
    return [
        replace(
            table,
            columns=tuple(table.columns[place] for place in labels + part),
            rows=tuple(tuple(row[place] for place in labels + part) for row in table.rows),
        )
        for part in parts
    ]


def _least(table: Table, place: int) -> int:
    """Return the letters that a column must have, its heading folded at its words."""
    cells = [table.columns[place], *(row[place] for row in table.rows)]
    longest = max(map(len, cells))
    if place < table.label_columns:
        return min(NARROW_LABEL, longest)
    return max(map(_longest_word, cells)) if longest <= LONGEST_FIGURE else min(30, longest)


def _rich_table(table: Table, columns_free: int) -> RichTable:
    """Return the table; where it is wider than ``columns_free``, headings of figures fold at their words."""
    from rich import box  # noqa: PLC0415 (as above)
    from rich.table import Table as NewTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    columns = [(column, *(row[place] for row in table.rows)) for place, column in enumerate(table.columns)]
    widths = [max(map(len, cells)) for cells in columns]
    is_too_wide = sum(widths) + GAP * len(widths) > columns_free
    drawn = NewTable(box=box.Box(RULE_UNDER_THE_HEAD, ascii=True), pad_edge=False, padding=(0, 1, 0, 0))
    for place, cells in enumerate(columns):
        is_label = place < table.label_columns
        # A figure is never cut in two; a long name is, before a column is lost.
        longest = max(map(_longest_word, cells))
        least = min(NARROW_LABEL if is_label else 30, longest)
        folds = is_too_wide and not is_label and widths[place] <= LONGEST_FIGURE
        # A figure stays with its unit; words (a heading, ``out of memory``) may stand one below the other.
        unfolded = max(len(cell) if cell[:1].isdigit() else _longest_word(cell) for cell in cells)
        drawn.add_column(
            Text(cells[0]),
            justify="left" if is_label else "right",
            min_width=least,
            max_width=unfolded if folds else None,
            overflow="fold",
        )
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def _longest_word(cell: str) -> int:
    return max(map(len, cell.split()), default=0)
