"""The recorded operators of one name: how far each is from another one, and what they tell of it."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stepcost.predicting.times.family import Family, family_of
from stepcost.predicting.times.table import Taken

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
NEIGHBOURS, REACH, NOISE = 16, 4.0, 0.01
"""Neighbours asked, the distance at which two are alike by 1/e, and the variance between two readings of one.

16 to 48 neighbours and a reach of 2 to 8 change the mean error by 0.2 % or less: 16 are quickest.
"""
NEAREST, SMOOTHING = 4, 0.02
"""Whose kernels are counted, and what keeps one at no distance from counting alone; the gap is small."""
OF_OTHER_KIND, OF_OTHER_ENGINE, OF_OTHER_DTYPE, OF_OTHER_LENGTH, OF_OTHER_BOUND = 3.0, 1.0, 1.0, 1.0, 0.3
"""How far apart these put two operators; as far apart are such by a size that is e to this times another.

Judged: another kind as a size 20 times as large, another dtype or rank as one 2.7 times as large. An engine
at 0.5, 1 or 2 changes the mean error of 150 steps of an H200 by 0.1 %.
"""
KERNEL_S = 1e-6
"""What a kernel takes that has next to nothing to do: one in a hundred recorded ones is as short."""
MANY = 20
"""Of so many operators of a name or more, the shortest tenth tells what the least takes: two or more."""


class Row(NamedTuple):
    """A recorded operator."""

    key: str
    taken: Taken
    bound_s: float
    engines: tuple[str, ...]
    """Of a convolution, in each direction, where they are known."""


class Group:
    """All recorded operators of a name."""

    def __init__(self, rows: list[Row]) -> None:
        empty: Counter[str] = Counter()
        for row in rows:
            empty[family_of(row.key).kind] += 1 if row.taken.kernels < 0.5 else -1
        self.empty = empty
        self.all_empty = sum(empty.values()) > 0
        some = [row for row in rows if row.taken.kernels >= 0.5]
        self.keys = [row.key for row in some]
        self.families = [family_of(row.key) for row in some]
        self.engines = [row.engines for row in some]
        directions = range(max(map(len, self.engines), default=0))
        self.by_direction = [
            np.array([each[n] if n < len(each) else "" for each in self.engines]) for n in directions
        ]
        self.seconds = np.array([row.taken.seconds for row in some])
        self.kernels = np.array([row.taken.kernels for row in some])
        short = float(np.quantile(self.seconds, 0.1)) if len(some) >= MANY else 0.0
        self.least_s = max(KERNEL_S, short)
        self.bounds = np.log(np.array([self.least_s + row.bound_s for row in some]))
        self.beyond = np.log(self.seconds) - self.bounds
        self.kinds = np.array([family.kind for family in self.families])
        self.dtypes = np.array([family.dtypes for family in self.families])
        self.sizes = {
            length: np.array(
                [each.sizes if len(each.sizes) == length else (0,) * length for each in self.families]
            )
            for length in {len(each.sizes) for each in self.families}
        }
        self.lengths = np.array([len(each.sizes) for each in self.families])

    def launches_nothing(self, kind: str) -> bool:
        """Say whether such an operator had no kernels more often than not."""
        return self.empty[kind] > 0 if kind in self.empty else self.all_empty

    def distances(
        self, family: Family, bound: float, engines: tuple[str, ...], rows: Indices | slice = slice(None)
    ) -> Array:
        """Return how far recorded operators are; ``bound`` is the logarithm of seconds."""
        found = OF_OTHER_KIND * (self.kinds[rows] != family.kind)
        found = found + OF_OTHER_DTYPE * (self.dtypes[rows] != family.dtypes)
        found = found + OF_OTHER_BOUND * np.abs(self.bounds[rows] - bound)
        for engine, theirs in zip(engines, self.by_direction, strict=False):
            found = found + OF_OTHER_ENGINE / len(engines) * (theirs[rows] != engine)
        length = len(family.sizes)
        if length not in self.sizes:
            return np.asarray(found + OF_OTHER_LENGTH)
        apart = np.sqrt(((self.sizes[length][rows] - np.array(family.sizes)) ** 2).sum(axis=1))
        return np.asarray(found + np.where(self.lengths[rows] == length, apart, OF_OTHER_LENGTH))

    def beyond_at(self, distances: Array) -> float:
        """Return what is beyond the bound by the nearest recorded operators (ordinary kriging).

        How alike two are falls with their distance. So those that lie close together count as one, and
        what lies between two that differ comes out between them. The mean is that of the neighbours.
        """
        rows = np.argsort(distances, kind="stable")[:NEIGHBOURS]
        apart = np.array([self._from(row, rows) for row in rows])
        inverse = np.linalg.inv(np.exp(-apart / REACH) + NOISE * np.eye(len(rows)))
        beyond = self.beyond[rows]
        weights = inverse.sum(axis=0)
        mean = float(weights @ beyond / weights.sum())
        return mean + float(np.exp(-distances[rows] / REACH) @ inverse @ (beyond - mean))

    def _from(self, row: int, rows: Indices) -> Array:
        return self.distances(self.families[row], self.bounds[row], self.engines[row], rows)

    def kernels_at(self, distances: Array) -> float:
        """Return the kernels of the nearest, those that are nearer counting more."""
        nearest = np.argsort(distances, kind="stable")[:NEAREST]
        weights = 1 / (distances[nearest] ** 2 + SMOOTHING)
        return float(weights @ self.kernels[nearest] / weights.sum())
