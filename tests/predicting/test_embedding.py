"""The gradient of an embedding, by hand for an H100: sorted words, their parts, and sums of these."""

from __future__ import annotations

import pytest

from experiments.operator_calls import Call, replay
from stepcost.predicting.embedding import PartialSums

H100 = (132, 2048)


def taken(gradient: str, words: str, rows: int) -> list[int]:
    """Bytes that the gradient takes (positive) and gives back (negative)."""
    call = Call("aten.embedding_dense_backward.default", [gradient, words, rows, -1, False], {}, [])
    (_, changes, _), *_ = replay([call])
    return changes


def test_few_words_are_not_sorted() -> None:
    """3,072 words add to a table of 1,000 rows of 64 without scratch."""
    assert taken("float32[3,1024,64]", "int64[3,1024]", 1000) == [1000 * 64 * 4]


def test_many_words_are_sorted_and_summed_in_parts() -> None:
    """4,096 words, at most as many distinct: 4,505 parts of 64 values in float32, though made in 16 bits."""
    index = 4096 * 8
    expected = [index, index]  # the words sorted, and where they were
    expected += [index, 83455, -83455, -index]  # the places, numbered, and the sort
    expected += [50_000 * 64 * 2]  # the gradient
    expected += [index, 8, index, 1279, -1279, -index]  # where a word begins
    expected += [index, index, 1279, -1279]  # parts of each word, and running sums of these
    parts = 4096 // 10 + 4096
    expected += [8, 8 * parts, 4 * 64 * parts, -4 * 64 * parts, -8 * parts, -8]
    expected += [-index, -index, -8, -index, -index, -index]
    assert taken("bfloat16[4,1024,64]", "int64[4,1024]", 50_000) == expected


@pytest.mark.parametrize(
    ("rows", "parts", "is_half", "expected"),
    [
        (2, 411, False, (411 * 8, 0)),  # two blocks would sum: each part adds for itself
        (2, 411, True, (411 * 8, 2 * 768 * 4)),
        (2, 8, False, (4 * 8 * 768,)),  # not four times as many parts as blocks
        (528, 9000, False, (4 * 9000 * 768,)),  # four blocks a multiprocessor
    ],
)
def test_few_rows_are_added_to_at_once(
    rows: int, parts: int, is_half: bool, expected: tuple[int, ...]
) -> None:
    """Few rows of many parts are added to by all parts at once, those of 16 bits in float32."""
    assert PartialSums(rows, 768, parts, is_half, 8).scratch_bytes(*H100) == expected
