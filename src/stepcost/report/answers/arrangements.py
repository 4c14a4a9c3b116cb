"""Answer 7 of several GPUs: which cards a step fits that they share, and what an hour of them all costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from stepcost.price import HOUR_S
from stepcost.report.answers.cards import (
    ByCard,
    fits_said,
    most_reserved_bytes,
    reasons,
    which_fit,
)
from stepcost.report.rows import Row, configuration, source_of
from stepcost.report.tables import Table
from stepcost.request import ALONE, way_to_share
from stepcost.units import BYTES_NOTE, count, listed, mb_number

MARK = "*"
SURE = {
    "yes": "fits",
    "in range": "fits where the context is in its likely range",
    "likely": "likely fits",
}
"""Words of whether it fits that let an arrangement be named, the surest first, and how they are said."""


def sentences(steps: Sequence[Row], prices: ByCard) -> list[str]:
    """Say by each way to share which cards it fits, what no figure is known of, and what is cheapest."""
    shared = [[*same] for _, same in itertools.groupby(steps, key=shared_by)]
    said = by_way((same[0], which_fit(same)) for same in shared)
    said += [f"{names}: {why}." for why, names in reasons(steps, "fits", refused=True).items()]
    if marked := dict.fromkeys(filter(None, map(_why_marked, steps))):
        said.append(f"{MARK} is a bound or an estimate: {'; '.join(marked)}.")
    batch = count(steps[0]["batch_size"])
    no_times = (
        f"The batch is of {batch} on each GPU, so that more of them train more in a step. Times of several "
        "GPUs are not predicted, so which costs least an epoch is not said."
    )
    return [*said, f"{cheapest(steps, prices)} {no_times}"]


def by_way(said: Iterable[tuple[Row, str]]) -> list[str]:
    """Write what is said of ways to share, alike ones together: ``ddp on 2, 4 and 8 GPUs: it fits ...``."""
    alike: dict[str, dict[str, list[str]]] = {}
    for row, text in said:
        alike.setdefault(text, {}).setdefault(way_to_share(row), []).append(count(row["gpus"]))
    return [
        f"{listed([_on(way, numbers) for way, numbers in ways.items()])}: {text[0].lower()}{text[1:]}"
        for text, ways in alike.items()
    ]


def cheapest(steps: Iterable[Row], prices: ByCard) -> str:
    """Name the arrangement that is cheapest an hour and fits; then cheaper ones of which less is known."""
    if not prices:
        return "Which is the cheapest takes prices: --price h100-80gb=2.50,a10=0.60."
    priced = [row for row in steps if row["card"] in prices]
    parts: list[str] = []
    least = math.inf
    for word, text in SURE.items():
        cheaper = [row for row in priced if fits_said(row) == word and hour_price(row, prices) < least]
        if not cheaper:
            continue
        least = min(hour_price(row, prices) for row in cheaper)
        best = [row for row in cheaper if hour_price(row, prices) == least]
        which = "cheaper, and" if parts else "cheapest that"
        names = " or ".join(map(_named, best))
        parts.append(f"{which} {text}: {names}, {_money(best[0], prices)} an hour")
    if not parts:
        return "No arrangement with a price is said to fit, or likely to."
    line = "; ".join(parts)
    return f"{line[0].upper()}{line[1:]}."


def hour_price(row: Row, prices: ByCard) -> float:
    """Return what an hour of all GPUs costs."""
    return prices[row["card"]].amount(HOUR_S * row["gpus"])


def with_hours(steps: Iterable[Row], prices: ByCard) -> list[Row]:
    """Return steps with what follows for programs: whether it fits in words, and the price of an hour."""
    found = []
    for row in steps:
        more: dict[str, Any] = {"fits_in_words": fits_said(row)}
        if row["card"] in prices:
            more["hour_price"] = hour_price(row, prices)
        found.append(row | more)
    return found


def table_of(steps: Sequence[Row], prices: ByCard) -> Table:
    """Tabulate what the fullest GPU holds, and the price of an hour of all of them."""
    asked = configuration(steps[0] | {"card": None, "parallel": ALONE}, "engine")
    caption = (
        f"A step on GPUs of one host: {asked} on each; {source_of(list(steps))}, of the GPU that is fullest, "
        f"in {BYTES_NOTE}"
    )
    columns = ["card", "shared by", "fits", "reserved", "process", *(["an hour"] if prices else [])]
    lines = []
    for row in steps:
        line = [row["card"], shared_by(row), fits_said(row), *_sizes(row)]
        if prices:
            line.append(_money(row, prices) if row["card"] in prices else "-")
        lines.append(tuple(line))
    return Table(caption=caption, columns=tuple(columns), rows=tuple(lines), label_columns=2)


def shared_by(row: Row) -> str:
    """Say ``1 GPU`` or ``fsdp2 on 2 GPUs``."""
    return _on(way_to_share(row), [count(row["gpus"])])


def _on(way: str, numbers: list[str]) -> str:
    return "1 GPU" if way == ALONE else f"{way} on {listed(numbers)} GPUs"


def _named(row: Row) -> str:
    number = f"{count(row['gpus'])} {row['card']}"
    return number if row["gpus"] == 1 else f"{way_to_share(row)} on {number}"


def _money(row: Row, prices: ByCard) -> str:
    return prices[row["card"]].of(HOUR_S * row["gpus"])


def _sizes(row: Row) -> tuple[str, str]:
    """Write what is reserved and what the process holds, each with its range or as a bound."""
    if row.get("peak_reserved_bytes") is None:
        return "-", "-"
    least, most = row["peak_reserved_bytes"], most_reserved_bytes(row)
    low, high = row.get("context_likely_bytes") or (row["context_bytes"],) * 2
    mark = MARK if _why_marked(row) else ""
    return f"{_range(least, most)}{mark}", f"{_range(least + low, most + high)}{mark}"


def _why_marked(row: Row) -> str | None:
    """Return why the figures are a bound or an estimate, beside the ranges that they are written as."""
    unread = dict(row.get("unread") or {})
    if row.get("peak_reserved_bytes") is None:
        return None
    if row.get("peak_reserved_likely_bytes"):
        unread.pop("peak_reserved_bytes", None)
    if row.get("peak_reserved_likely_bytes") or row.get("context_likely_bytes"):
        unread.pop("process_bytes", None)
    found = (unread.get(name) for name in ("workspace_bytes", "peak_reserved_bytes", "process_bytes"))
    return next(filter(None, found), None)


def _range(least: int, most: int) -> str:
    return mb_number(least) if least == most else f"{mb_number(least)} to {mb_number(most)}"
