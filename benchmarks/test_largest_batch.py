"""Question 3a: what is the largest batch that trains?"""


def test_largest_batch_that_trains(largest_batch):
    """3a. Which batch trains, while its neighbour within one percent does not?"""
    search = largest_batch()
    assert search.largest_batch is not None, "not even one image trains"
    assert search.exact, f"no failing neighbour within {len(search.trials)} trials"
