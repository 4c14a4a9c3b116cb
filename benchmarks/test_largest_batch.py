"""Question 3a: what is the largest batch that trains?"""


def test_largest_batch_that_trains(largest_batch, session):
    """3a. Which batch trains, while its neighbour within one percent does not?"""
    free_before_bytes = session.free_bytes()
    search = largest_batch()
    assert search.largest_batch is not None, "not even a batch of one trains"
    assert search.exact, f"no failing neighbour within {len(search.trials)} trials"
    assert session.free_bytes() == free_before_bytes, "running out of memory leaves the GPU clean"


def test_largest_batch_predicted(predicted_largest_batch):
    """3a. Without a GPU: which batch would the card of --gpu train?"""
    largest = predicted_largest_batch()
    assert largest.largest_batch_at_most != 0, "not even a batch of one would fit"
