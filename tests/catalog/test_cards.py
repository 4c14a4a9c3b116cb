"""What is known of a card, and what is likely of one that was never measured."""

import pytest

from stepcost.catalog.cards import CARDS, CONTEXTS_SEEN, find_card

MEASURED = [card for card in CARDS.values() if card.is_measured]
OTHERS = [card for card in CARDS.values() if not card.is_measured]


@pytest.mark.parametrize("card", MEASURED, ids=lambda card: card.name)
def test_a_measured_card_has_one_room(card):
    """Where driver and context are known, so is what torch's allocator can reserve."""
    assert card.likely_room_bytes == (card.room_bytes, card.room_bytes)
    assert card.room_bytes == card.total_bytes - card.driver_reserved_bytes - card.context_bytes


@pytest.mark.parametrize("card", OTHERS, ids=lambda card: card.name)
def test_another_card_has_a_range_below_all_of_it(card):
    """Unknown is never zero: less is likely left than all, and what was seen elsewhere is in the range."""
    least, most = card.likely_room_bytes
    assert 0 < least < most < card.room_bytes == card.total_bytes
    low, high = card.context_range_bytes
    assert low <= CONTEXTS_SEEN[0] < CONTEXTS_SEEN[1] <= high
    low, high = card.driver_range_bytes
    assert all(low <= one.driver_reserved_bytes <= high for one in MEASURED)


def test_the_range_follows_the_size_of_the_card():
    """A card with fewer multiprocessors may have a smaller context, one with more a larger one."""
    assert CARDS["t4"].context_range_bytes[0] < CARDS["rtx4090"].context_range_bytes[0] < CONTEXTS_SEEN[0]
    assert CARDS["b200"].context_range_bytes[1] > CONTEXTS_SEEN[1]


def test_an_unknown_card_is_one_line():
    """A name close to one in the catalog gets a hint."""
    with pytest.raises(ValueError, match="did you mean h100-80gb"):
        find_card("H100")
