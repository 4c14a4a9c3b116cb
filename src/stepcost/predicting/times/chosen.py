"""How cuDNN runs convolutions that were not recorded: the cuDNN of the table is asked, without a GPU."""

from __future__ import annotations

from collections.abc import Callable

from stepcost.catalog.cards import Card
from stepcost.predicting.cudnn_plans import choice_of
from stepcost.predicting.times.convolved import Choice, convolved
from stepcost.predicting.times.table import TimesTable
from stepcost.predicting.torch_versions import version_of
from stepcost.predicting.workspaces import workspaces_on

Choose = Callable[[str], tuple[Choice, ...] | None]
"""From the key of a convolution how it is run in each direction; ``None`` where that is not known."""


def choosing(card: Card, table: TimesTable) -> Choose | None:
    """Return what asks the cuDNN that a card's table was recorded with; ``None`` where it is not installed.

    A question takes about 10 ms, and is asked once.
    """
    asked = workspaces_on(card, version_of(table.about["torch"]))
    library = asked.library
    if library is None or asked.cudnn != cudnn_of(table):
        return None

    def choose(key: str) -> tuple[Choice, ...] | None:
        one = convolved(key)
        described = None if one is None else one.described()
        if one is None or described is None:
            return None
        found = []
        for direction in one.directions:
            choice = choice_of(
                library,
                described,
                one.images[0],
                direction,
                multiprocessors=card.multiprocessors,
                unasked=asked.unasked,
            )
            if choice is None:
                return None
            found.append(Choice(*choice))
        return tuple(found)

    return choose


def cudnn_of(table: TimesTable) -> str:
    """Return the cuDNN that a table was recorded with, such as 9.19."""
    return ".".join(table.about["cudnn"].split(".")[:2])
