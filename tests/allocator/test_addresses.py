from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from stepcost.allocator.addresses import BASE, AddressSpace

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


def test_addresses_by_hand() -> None:
    """The lowest hole that holds a segment is taken, then address space in whole 32 MiB, downwards."""
    space = AddressSpace()
    sizes = (6, 2, 412, 22, 2, 30, 34, 30, 32)
    places = [(space.take(size * MIB) - BASE) // MIB for size in sizes]
    assert places == [-420, -414, -412, 76, -1214, -1212, -1278, -1244, -1310]
    for place, size in ((76, 22), (-1310, 32), (-412, 412), (-414, 2)):
        space.give(BASE + place * MIB, size * MIB)
    assert space.take(414 * MIB) == BASE - 414 * MIB
    assert space.take(22 * MIB) == BASE - 1310 * MIB
    assert space.take(22 * MIB) == BASE + 76 * MIB
    assert space.take(10 * MIB) == BASE - 1288 * MIB
    assert space.take(2 * MIB) == BASE - 1342 * MIB
