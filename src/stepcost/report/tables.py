"""A table as plain text cells: what the terminal, the page and the Markdown all print."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """One table. The caption names the units; every cell is text already."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    label_columns: int = 1
    """This many columns at the left are labels (left aligned); the others hold figures (right aligned)."""
