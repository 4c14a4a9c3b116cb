"""Question 7: which card does a step fit, and how long would it take there?"""

from itertools import permutations

import pytest

from stepcost.catalog.cards import CARDS


def test_step_on_each_card(step_on_card, each_card):
    """7. Does a step fit a card, which batch is the largest there, and how long would a step take?"""
    step = step_on_card(each_card)
    assert step["fits"] is not None or step["unread"]["fits"], "what is not known has its reason"
    if step.get("step_s") is None:
        assert step["unread"]["step_s"], "a time that is not known has its reason"
    else:
        assert 0 < step["step_low_s"] <= step["step_s"] <= step["step_high_s"]


def test_more_memory_holds_no_smaller_batch(steps_on_cards):
    """7. Of cards that differ in their memory alone, does the larger hold a batch that is no smaller?"""
    pairs = [
        (small, large)
        for small, large in permutations(map(CARDS.get, steps_on_cards), 2)
        if is_same_chip(small, large) and small.total_bytes < large.total_bytes
    ]
    if not pairs:
        pytest.skip("no two of the cards differ in their memory alone")
    for small, large in pairs:
        less, more = (most_of(steps_on_cards[one.name]) for one in (small, large))
        assert less <= more, f"{small.name} holds a batch of {less:,}, {large.name} one of {more:,}"


def test_the_interval_holds_the_measured_step(steps_on_cards, engine_step, benchmark, session, settings):
    """7. Where this GPU is one of the cards, is a step here within what is predicted for it?"""
    card = next((name for name in steps_on_cards if CARDS[name].gpu == session.machine.gpu), None)
    if card is None:
        pytest.skip(f"{session.machine.gpu} is not one of the cards")
    predicted = steps_on_cards[card]
    if predicted.get("step_s") is None:
        pytest.skip(f"no time is predicted: {predicted['unread']['step_s']}")
    engine_step(engine=session.card_engine, batch_size=settings.optimizer_batch_size, bounds=False)
    if benchmark.stats is None:
        pytest.skip("nothing is timed (--benchmark-disable)")
    assert predicted["step_low_s"] <= benchmark.stats["median"] <= predicted["step_high_s"]


def is_same_chip(one, other):
    """Whether two cards differ in their memory alone."""
    return (one.compute_capability, one.multiprocessors) == (other.compute_capability, other.multiprocessors)


def most_of(step):
    """The largest batch of a step as far as it is known: a number, or what bounds it from above."""
    found = (step.get(f"largest_batch{end}") for end in ("", "_at_least", "_at_most"))
    return next((number for number in found if number is not None), 0)
