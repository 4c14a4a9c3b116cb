"""The search for the largest batch, over simulated cards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcost.search import SPEED_SHARES, Search, Trial, bracket, find_largest, guess_from_tensors


def card(limit, *, dips=()):
    """A card on which batches up to ``limit`` train, but for those in ``dips``."""

    def attempt(size):
        return Trial(batch_size=size, fits=size <= limit and size not in dips, seconds=0.0)

    return attempt


@given(limit=st.integers(1, 100_000), error=st.floats(0.7, 1.3))
def test_answer_is_exact_to_one_percent(limit, error):
    """From a guess 30 % off, the answer trains, and a neighbour within 1 % was seen to fail."""
    search = find_largest(card(limit), max(1, int(limit * error)))
    assert search.exact
    assert search.largest_batch <= limit < search.smallest_batch_that_fails
    assert search.smallest_batch_that_fails - search.largest_batch <= max(1, int(limit * 0.01))


@given(
    limit=st.integers(0, 100_000),
    guess=st.integers(1, 200_000),
    resolution=st.sampled_from([0.005, 0.01, 0.1]),
)
def test_bracket_closes_from_any_guess(limit, guess, resolution):
    """What fits and what fails are neighbours within the resolution, and no batch is tried twice."""
    tried = []

    def fits(size):
        tried.append(size)
        return size <= limit

    good, bad = bracket(fits, guess, resolution=resolution, most_attempts=64)
    assert good <= limit < bad
    assert bad - good <= max(1, int(good * resolution))
    assert len(set(tried)) == len(tried)


@given(guess=st.integers(1, 1_000_000), most=st.integers(1, 100_000))
def test_bracket_ends_at_the_most(guess, most):
    """Where everything fits, the search ends at the largest batch that it may try."""
    tried = []
    ends = bracket(lambda size: not tried.append(size), guess, resolution=0.01, most_attempts=64, most=most)
    assert ends == (most, None)
    assert max(tried) == most
    assert len(set(tried)) == len(tried)


@pytest.mark.parametrize(
    ("limit", "guess", "sizes"),
    [
        # up by 1, 2, 4, ... percent, then halved until 1 % of 999 apart
        (1000, 100, [100, 101, 103, 107, 115, 133, 175, 287, 654, 2328, 1491, 1072, 863, 967, 1019, 993,
                     1006, 999]),
        # down by 3, 6, 12, ... percent
        (300, 1000, [1000, 970, 911, 801, 608, 316, 12, 164, 240, 278, 297, 306, 301, 299]),
        # a few images: by one at least
        (3, 1, [1, 2, 3, 4]),
        (1, 2, [2, 1]),
        (0, 2, [2, 1]),
        (0, 1, [1]),
        (5, 0, [1, 2, 3, 4, 5, 6]),
    ],
)  # fmt: skip
def test_batches_tried_by_hand(limit, guess, sizes):
    """Strides double from 1 % going up and from 3 % going down; what lies between is halved."""
    tried = []
    good, bad = bracket(
        lambda size: tried.append(size) or size <= limit, guess, resolution=0.01, most_attempts=64
    )
    assert tried == sizes
    assert (good, bad) == (max([0, *(size for size in sizes if size <= limit)]),
                           min(size for size in sizes if size > limit))  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "guess", "sizes"),
    [
        (3, 4, [4, 3, 1]),
        (1, 2, [2, 1]),
        (2, 16, [16, 15, 14, 13, 12, 10, 7, 3, 1, 2]),
        (8, 8, [8, 9, 4, 2, 1]),
    ],
)
def test_batches_tried_for_their_speed(limit, guess, sizes):
    """After the search a half, a quarter and an eighth of the answer are tried, from one image on."""
    search = find_largest(card(limit), guess)
    assert [trial.batch_size for trial in search.trials] == sizes
    assert (search.largest_batch, search.smallest_batch_that_fails) == (limit, limit + 1)


@pytest.mark.parametrize(
    ("limit", "guess", "sizes"),
    [
        # 0.75 % down from the bound, less than 1 % of 22,941 below it: what an H100 and an H200 trained
        (23_000, 23_115, [23_115, 22_941]),
        (41_000, 41_031, [41_031, 40_723]),
        # 0.75, 1.5 and 3 % down, and the middle of what is left, until 1 % apart
        (9_600, 10_000, [10_000, 9_925, 9_776, 9_482, 9_629, 9_555]),
    ],
)
def test_batches_tried_below_the_bound(limit, guess, sizes):
    """Where batches are measured, strides down double from 0.75 %, so that a close bound takes two trials."""
    found = find_largest(card(limit), guess)
    assert [trial.batch_size for trial in found.trials if trial.batch_size > limit // 2] == sizes
    assert found.largest_batch == max(size for size in sizes if size <= limit)
    assert found.exact


def test_a_search_ends_after_so_many_attempts():
    """A search that does not come to an end stops after the attempts it may make, and says what it saw."""
    assert bracket(lambda size: True, 1, resolution=0.01, most_attempts=3) == (3, None)
    assert bracket(lambda size: False, 1000, resolution=0.01, most_attempts=2) == (0, 970)
    search = find_largest(card(10**9), 1)
    assert not search.exact
    assert len(search.trials) == 16 + 3


@given(limit=st.integers(1_000, 100_000), error=st.floats(0.99, 1.03))
def test_good_guess_costs_few_failures(limit, error):
    """From a guess as good as tensor bytes give, at most four trials run out of memory."""
    search = find_largest(card(limit), int(limit * error))
    assert sum(not trial.fits for trial in search.trials) <= 4
    assert len(search.trials) <= 8 + len(SPEED_SHARES)


@given(guess=st.integers(1, 1_000_000))
def test_card_on_which_nothing_trains(guess):
    """Where not even one image trains, the answer is none, not zero."""
    search = find_largest(card(0), guess)
    assert search.largest_batch is None


def test_hole_below_the_limit_does_not_stop_the_search():
    """A smaller batch that fails (it got a larger workspace) does not hide the larger one that trains."""
    search = find_largest(card(10_000, dips=range(5_000, 9_000)), 10_050)
    assert 9_900 <= search.largest_batch <= 10_000


def test_guess_is_the_line_through_tensor_bytes():
    """The guess is where a straight line through tensor bytes meets the limit."""
    assert guess_from_tensors([(4, 140), (16, 260)], limit_bytes=1100) == 100
    assert guess_from_tensors([(16, 260), (4, 140)], limit_bytes=1109) == 100
    assert guess_from_tensors([(4, 140), (16, 260)], limit_bytes=90) == 1


def test_largest_at_full_speed_is_within_five_percent_of_the_best():
    """Near the limit a batch may train, but slower; the largest that is not slower is told apart."""
    trials = [
        Trial(batch_size=100, fits=True, step_s=1.0, seconds=1.0),
        Trial(batch_size=200, fits=True, step_s=2.05, seconds=1.0),
        Trial(batch_size=210, fits=True, step_s=3.0, seconds=1.0),
        Trial(batch_size=220, fits=False, seconds=1.0),
    ]
    search = Search(largest_batch=210, smallest_batch_that_fails=220, trials=tuple(trials))
    assert search.largest_at_full_speed == 200
    assert Search(largest_batch=None, smallest_batch_that_fails=1, trials=()).largest_at_full_speed is None


def test_full_speed_is_known_from_far_below_the_limit():
    """Where every batch near the limit is slow, smaller ones are tried, and the largest fast one is found."""

    def attempt(size):
        images_per_s = 1000 if size <= 6_000 else 700
        return Trial(batch_size=size, fits=size <= 10_000, step_s=size / images_per_s, seconds=0.0)

    search = find_largest(attempt, 10_050)
    assert 9_900 <= search.largest_batch <= 10_000
    assert search.largest_at_full_speed == search.largest_batch // 2


def test_smaller_batches_are_timed_only_while_they_are_faster():
    """Where the half is as fast as the answer, no quarter is tried: full speed is known."""

    def attempt(size):
        fits = size <= 10_000
        return Trial(batch_size=size, fits=fits, step_s=size / 1000 if fits else None, seconds=0.0)

    search = find_largest(attempt, 10_050)
    halved = [trial.batch_size for trial in search.trials if trial.batch_size < 0.8 * search.largest_batch]
    assert halved == [search.largest_batch // 2]
    assert search.largest_at_full_speed == search.largest_batch
