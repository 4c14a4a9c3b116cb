"""The search for the largest batch, over simulated cards."""

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
    assert bracket(lambda size: size <= most, guess, resolution=0.01, most_attempts=64, most=most) == (
        most,
        None,
    )


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
