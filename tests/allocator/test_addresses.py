from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from stepcost.allocator.addresses import AddressSpace

MIB = 2**20
programs = st.lists(
    st.one_of(st.integers(1, 60).map(lambda n: 2 * n * MIB), st.integers(-9, -1)), max_size=80
)


@given(programs)
def test_segments_never_overlap(program: list[int]) -> None:
    """Whatever is taken and given back, two segments never share an address."""
    space = AddressSpace()
    held: list[tuple[int, int]] = []
    for number in program:
        if number > 0:
            held.append((space.take(number), number))
        elif held:
            space.give(*held.pop(number % len(held)))
        spans = sorted(held)
        assert all(a + size <= b for (a, size), (b, _) in itertools.pairwise(spans))


def test_what_is_given_back_is_taken_again() -> None:
    """Neighbouring segments given back make one hole, which a segment as large as both fills."""
    space = AddressSpace()
    space.take(400 * MIB)
    first, second = space.take(64 * MIB), space.take(64 * MIB)
    assert second == first - 64 * MIB
    space.give(first, 64 * MIB)
    space.give(second, 64 * MIB)
    assert space.take(128 * MIB) == second
