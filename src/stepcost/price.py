"""What an hour of a GPU costs, as it was given."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from stepcost.catalog.cards import CARDS

HOUR_S = 3600
NO_PRICE = "is no price of a card; it takes h100-80gb=2.50 for 2.50 an hour"
_AN_HOUR = re.compile(r"([^\d\s.,:;/+-]{0,3})\s*(\d{1,9}(?:\.\d{1,9})?)\s*/\s*h")


@dataclass(frozen=True)
class Price:
    """Money for an hour."""

    given: str
    """As it was written: ``$2.50/h``."""
    symbol: str
    """Of the currency; empty where none was given."""
    an_hour: float

    def amount(self, seconds: float) -> float:
        """Return what so many seconds cost."""
        return self.an_hour * seconds / HOUR_S

    def of(self, seconds: float) -> str:
        """Write what so many seconds cost: ``$13.20``; less than one in two digits: ``0.0000063``."""
        money = self.amount(seconds)
        places = 2 if money >= 1 else 1 - int(f"{money:.1e}".partition("e")[2])
        return f"{self.symbol}{money:,.{places}f}"


@dataclass(frozen=True)
class Prices:
    """What an hour costs of the GPU that a run was made on, and of cards by their names."""

    here: Price | None = None
    cards: Mapping[str, Price] = field(default_factory=dict)

    def of_gpu(self, gpu: str | None) -> Price | None:
        """Return the price of the run's GPU, which is called ``gpu``; ``None`` where none was given."""
        return self.here or next((one for name, one in self.cards.items() if CARDS[name].gpu == gpu), None)

    def by_card(self, gpu: str | None) -> dict[str, Price]:
        """Return the price of each card that has one: that of the run's GPU is of the card it is."""
        own = {name: self.here for name, card in CARDS.items() if self.here and card.gpu == gpu}
        return own | {**self.cards}


def price_of(text: str) -> Price:
    """Read ``2.50/h`` or ``$2.50/h``. Raises ``ValueError`` in one line."""
    found = _AN_HOUR.fullmatch(text.strip())
    if found is None or not float(found[2]):
        raise ValueError(f"{text!r} is not a price; it takes money for an hour: 2.50/h or $2.50/h")
    return Price(given=text.strip(), symbol=found[1], an_hour=float(found[2]))


def prices_of(text: str, cards: Collection[str]) -> dict[str, Price]:
    """Read what an hour of each of some cards costs: ``h100-80gb=2.50,a10=$0.60``.

    Raises ``ValueError`` in one line for what is no price and for a card that is not among ``cards``.
    """
    found: dict[str, Price] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, is_given, money = part.partition("=")
        if not is_given:
            raise ValueError(f"{part!r} {NO_PRICE}")
        if name not in cards:
            raise ValueError(f"{name!r} is none of the cards asked about; it takes {', '.join(cards)}")
        if name in found:
            raise ValueError(f"{name} has two prices; it takes one")
        try:
            found[name] = price_of(money if "/" in money else f"{money}/h")
        except ValueError:
            raise ValueError(f"{part!r} {NO_PRICE}") from None
    if not found:
        raise ValueError(f"{text!r} names no price; it takes h100-80gb=2.50 for 2.50 an hour")
    return found


def run_prices(text: str) -> Prices:
    """Read what an hour of a run's GPU costs, of cards, or both: ``2.50/h,a10=0.60``.

    Raises ``ValueError`` in one line.
    """
    parts = text.split(",")
    own = [part for part in parts if "=" not in part]
    of_cards = ",".join(part for part in parts if "=" in part)
    if len(own) > 1:
        raise ValueError(f"{text!r} has {len(own)} prices of the GPU; it takes one, such as 2.50/h")
    return Prices(
        here=price_of(own[0]) if own else None, cards=prices_of(of_cards, CARDS) if of_cards else {}
    )
