"""A table as plain text cells, which the terminal, the page and Markdown all print; and Markdown itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """One table. The caption names the units; every cell is text already."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    label_columns: int = 1
    """This many columns at the left are labels (left aligned); the others hold figures (right aligned)."""


def markdown_table(table: Table) -> str:
    """Write one table as Markdown, under its caption; what cells hold is never markup."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rule = ("---" if place < table.label_columns else "---:" for place in range(len(table.columns)))
    rows = (line(map(escape_markdown, cells)) for cells in (table.columns, *table.rows))
    caption = f"*{escape_markdown(table.caption)}*\n"
    return "\n".join([caption, next(rows), line(rule), *rows])


def escape_markdown(text: str) -> str:
    """Write the text as Markdown that shows it unchanged: never a link, a tag or a new column."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$#@])", r"\\\1", text)
