"""What an hour of a card costs, as it was given."""

from __future__ import annotations

import re
from dataclasses import dataclass

HOUR_S = 3600
_AN_HOUR = re.compile(r"([^\d\s.,:;/+-]{0,3})\s*(\d{1,9}(?:\.\d{1,9})?)\s*/\s*h")


@dataclass(frozen=True)
class Price:
    """Money for an hour."""

    given: str
    """As it was written: ``$2.50/h``."""
    symbol: str
    """Of the currency; empty where none was given."""
    an_hour: float

    def of(self, seconds: float) -> str:
        """Write what so many seconds cost: ``$13.20``; less than one in two digits: ``0.0000063``."""
        money = self.an_hour * seconds / HOUR_S
        places = 2 if money >= 1 else 1 - int(f"{money:.1e}".partition("e")[2])
        return f"{self.symbol}{money:,.{places}f}"


def price_of(text: str) -> Price:
    """Read ``2.50/h`` or ``$2.50/h``. Raises ``ValueError`` in one line."""
    found = _AN_HOUR.fullmatch(text.strip())
    if found is None or not float(found[2]):
        raise ValueError(f"{text!r} is not a price; it takes money for an hour: 2.50/h or $2.50/h")
    return Price(given=text.strip(), symbol=found[1], an_hour=float(found[2]))
