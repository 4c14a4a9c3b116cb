"""Answer 7: which cards a step fits, how long it would take there, and what an epoch would cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from stepcost.catalog.cards import CARDS
from stepcost.price import Price
from stepcost.report.rows import Row, configuration, groups, having, of_question, source_of
from stepcost.report.said import Said
from stepcost.report.tables import Table
from stepcost.request import example_of
from stepcost.units import GB, count, duration, listed, significant

EPOCH = 50_000
"""Examples in an epoch, unless it is said: as CIFAR-10 has."""
NOTHING = "-"
FITS = {
    "in range": "{} too where the context is in its likely range",
    "likely": "likely {}",
    "unknown": "it cannot be said of {}",
    "likely not": "likely not {}",
    "no": "not {}",
    "refused": "no prediction for {}",
}
"""How it is said of cards whether a step fits; those that it fits come first."""
SHORT = {"recorded on this card": "recorded", "from rates": "from rates"}
ByCard = Mapping[str, Price]
"""What an hour of a card costs, by its name."""


def which_card(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """7: which cards a step fits, the largest batch and the time of a step on each."""
    steps = steps_on_cards(rows)
    if not steps:
        return Said("No row of this run answers it (--cards all compares them).", "skipped")
    return Said(" ".join(sentences(steps)), source_of(steps), table_of(steps))


def steps_on_cards(rows: Iterable[Row]) -> list[Row]:
    """Return the steps of question 7 of one configuration on known cards, most memory first."""
    found = groups(having(of_question(rows, "7"), "batch_size"), "card")
    steps = [row for row in (found[0] if found else []) if row["card"] in CARDS]
    return sorted(steps, key=lambda row: -CARDS[row["card"]].total_bytes)


def timed(steps: Iterable[Row]) -> list[Row]:
    """Choose the steps whose time is predicted, with its interval."""
    return [row for row in having(steps, "step_s", "step_low_s", "step_high_s") if row["step_s"] > 0]


def sentences(steps: Sequence[Row], prices: ByCard | None = None, epoch: int = EPOCH) -> list[str]:
    """Say which cards a step fits, which is the fastest and the cheapest, and of which nothing is known."""
    have_time, prices = timed(steps), prices or {}
    said = [which_fit(steps)]
    if have_time:
        said.append(
            _best("Fastest", have_time, lambda _, step_s: step_s, lambda _, s: f"{duration(s)} a step")
        )
    said += cheapest(steps, prices, epoch)
    said += [f"{names}: {why}." for why, names in reasons(steps, "fits", refused=True).items()]
    without = [row for row in steps if row.get("step_s") is None]
    no_time = reasons(without, "step_s", refused=False)
    in_doubt = reasons([row for row in steps if row not in without], "step_s", refused=False)
    said += [f"Times of {names} are less sure: {why}." for why, names in in_doubt.items()]
    if have_time:
        said += [f"No time of {names}: {why}." for why, names in no_time.items()]
    elif no_time:  # what is so of the first card is so of all
        said.append(f"No times: {next(iter(no_time))}.")
    return said


def cheapest(steps: Sequence[Row], prices: ByCard, epoch: int = EPOCH) -> list[str]:
    """Say on which card with a price an epoch is cheapest; nothing where no time has one."""
    priced = [row for row in timed(steps) if row["card"] in prices]
    if not priced:
        return []

    def cost(row: Row, step_s: float) -> float:
        return prices[row["card"]].amount(epoch_s(row, step_s, epoch))

    def said(row: Row, step_s: float) -> str:
        return f"{prices[row['card']].of(epoch_s(row, step_s, epoch))} an epoch"

    return [_best("Cheapest", priced, cost, said)]


def fits_said(row: Row) -> str:
    """Say ``yes`` or ``no``; ``likely``, ``likely not`` or ``unknown`` where what nobody measured decides.

    ``in range`` where it fits a card that nobody measured if the context is in its likely range, ``refused``
    if such a step is not predicted for the card.
    """
    if row.get("fits") is not None:
        unmeasured = row.get("context_likely_bytes") is not None
        return ("in range" if unmeasured else "yes") if row["fits"] else "no"
    if not any(row.get(f"largest_batch{end}") is not None for end in ("", "_at_least", "_at_most")):
        return _fits_by_room(row) if row.get("peak_allocated_bytes") is not None else "refused"
    likely, batch = row.get("largest_batch_likely") or (), row["batch_size"]
    if likely and batch <= min(likely):
        return "likely"
    return "likely not" if len(likely) > 1 and batch > max(likely) else "unknown"


def _fits_by_room(row: Row) -> str:
    """Say the same where no largest batch was looked for: by the room that is likely left on each GPU.

    Close to the end it is ``unknown`` sooner: what finds less room may be given back or done without.
    """
    if not row.get("context_likely_bytes"):
        return "unknown"
    card, (least, most) = CARDS[row["card"]], row["context_likely_bytes"]
    low, high = card.driver_range_bytes
    if most_reserved_bytes(row) <= card.total_bytes - most - high:
        return "likely"
    return "likely not" if row["peak_allocated_bytes"] > card.total_bytes - least - low else "unknown"


def most_reserved_bytes(row: Row) -> int:
    """Return what the fullest GPU reserves at most, whenever buckets are given back."""
    held = row.get("ranks") or [row]
    return max(size for one in held for size in _reserved(one))


def _reserved(held: Mapping[str, Any]) -> Sequence[int]:
    return held.get("peak_reserved_likely_bytes") or (held["peak_reserved_bytes"],)


def largest_said(row: Row) -> str:
    """Write the largest batch, or where it likely is: ``42``, ``about 22,743``, ``likely 9 to 11``."""
    if row.get("largest_batch") is not None:
        return f"{'about ' if row.get('largest_batch_rests_on') else ''}{count(row['largest_batch'])}"
    if row.get("largest_batch_at_least") is not None:
        return f"at least {count(row['largest_batch_at_least'])}"
    if not row.get("largest_batch_likely"):
        most = row.get("largest_batch_at_most")
        return "unknown" if most is None else f"at most {count(most)}"
    likely = [count(size) for size in dict.fromkeys(row["largest_batch_likely"])]
    or_more = " or more" if len(row["largest_batch_likely"]) == 1 else ""
    return f"likely {' to '.join(likely)}{or_more}"


def a_second(row: Row, step_s: float) -> float:
    """Return the images, tokens or examples that are trained in a second."""
    tokens = row.get("sequence_length") or 1
    return float(row["batch_size"] * (row.get("accumulate") or 1) * tokens / step_s)


def epoch_s(row: Row, step_s: float, epoch: int) -> float:
    """Return the seconds of an epoch of so many examples, its last step as long as the others."""
    steps: int = math.ceil(epoch / (row["batch_size"] * (row.get("accumulate") or 1)))
    return step_s * steps


def with_epochs(steps: Iterable[Row], prices: ByCard, epoch: int) -> list[Row]:
    """Return steps with what follows from their times, for programs: of an epoch of so many examples too."""
    found = []
    for row in steps:
        more: Row = {"fits_in_words": fits_said(row)}
        if timed([row]):
            took_s = epoch_s(row, row["step_s"], epoch)
            unit = "tokens" if row.get("sequence_length") else "examples"
            more |= {f"{unit}_per_s": a_second(row, row["step_s"]), "epoch": epoch, "epoch_s": took_s}
            if row["card"] in prices:
                more["epoch_price"] = prices[row["card"]].amount(took_s)
        found.append(row | more)
    return found


def epoch_lines(row: Row, prices: ByCard, epoch: int) -> list[str]:
    """Say of a step whose time is predicted how long an epoch would take, and what it would cost."""
    if not timed([row]):
        return []
    took_s = epoch_s(row, row["step_s"], epoch)
    costs = f", for {prices[row['card']].of(took_s)}" if row["card"] in prices else ""
    return [f"An epoch of {epoch:,} {example_of(row)}s would take {duration(took_s)}{costs}."]


def table_of(steps: Sequence[Row], prices: ByCard | None = None, epoch: int = EPOCH) -> Table:
    """Tabulate the steps; prices and epochs where there are times."""
    example = example_of(steps[0])
    engines = sorted({row["step_engine"] for row in steps if row.get("step_engine")})
    asked = configuration(steps[0] | {"card": None}, "engine")
    caption = f"A step on each card: {asked}; {source_of(steps)}, memory of the eager step; GB = 10**9 bytes"
    columns = ["card", "fits", "memory GB", "largest batch"]
    if engines:
        caption += f"; time of engine {listed(engines)}, with its interval; an epoch has {epoch:,} {example}s"
        counted = "tokens" if steps[0].get("sequence_length") else f"{example}s"
        columns += ["ms a step", f"{counted} /s", "epoch", *(["price"] if prices else []), "time"]
    lines = []
    for row in steps:
        line = [row["card"], fits_said(row), f"{CARDS[row['card']].total_bytes / GB:.0f}", largest_said(row)]
        lines.append((*line, *(_time_cells(row, prices, epoch) if engines else ())))
    return Table(caption=caption, columns=tuple(columns), rows=tuple(lines), label_columns=2)


def _time_cells(row: Row, prices: ByCard | None, epoch: int) -> list[str]:
    if not timed([row]):
        return [NOTHING] * (4 if prices else 3) + ["none"]
    low, likely, high = (significant(1000 * row[name]) for name in ("step_low_s", "step_s", "step_high_s"))
    took_s, rate = epoch_s(row, row["step_s"], epoch), a_second(row, row["step_s"])
    cells = [f"{likely} ({low} to {high})", significant(rate), duration(took_s)]
    if prices:
        cells.append(prices[row["card"]].of(took_s) if row["card"] in prices else NOTHING)
    basis = row.get("step_basis") or "unknown"
    return [*cells, SHORT.get(basis, basis)]


def which_fit(steps: Sequence[Row]) -> str:
    """Say which cards a step fits, likely fits, does not fit, and of which nothing can be said."""
    words = {row["card"]: fits_said(row) for row in steps}

    def names(word: str) -> str:
        return listed([card for card, its in words.items() if its == word])

    fitting = names("yes")
    parts = [f"It fits {fitting}" if fitting else "It is said to fit no card"]
    parts += [text.format(names(word)) for word, text in FITS.items() if word in words.values()]
    return f"{'; '.join(parts)}."


def reasons(steps: Sequence[Row], field: str, *, refused: bool) -> dict[str, str]:
    """Return why a field is unread, each reason with the cards of which that is so."""
    cards: dict[str, dict[str, None]] = {}
    for row in steps:
        why = (row.get("unread") or {}).get(field)
        if why and (fits_said(row) == "refused") is refused:
            cards.setdefault(why, {})[row["card"]] = None
    return {why: listed([*names]) for why, names in cards.items()}


def _best(
    word: str, steps: list[Row], cost: Callable[[Row, float], float], said: Callable[[Row, float], str]
) -> str:
    """Name the card that costs least, what that rests on, and those whose intervals reach into its own."""
    best, *others = sorted(steps, key=lambda row: cost(row, row["step_s"]))
    most = cost(best, best["step_high_s"])
    near = [row["card"] for row in others if cost(row, row["step_low_s"]) <= most]
    basis = best.get("step_basis") or "unknown on what ground"
    text = f"{word}: {best['card']}, {said(best, best['step_s'])} ({basis})"
    return f"{text}; not to be told apart from {listed(near)}." if near else f"{text}."
