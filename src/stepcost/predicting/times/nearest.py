"""What an operator takes: as recorded, else by what is nearest to it among those that were."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stepcost.predicting.times.family import (
    ON_LISTS,
    PRODUCTS,
    TENSOR,
    Family,
    family_of,
    in_16_bits,
    name_of,
    of_lists,
)
from stepcost.predicting.times.table import Taken, TimesTable

Array = npt.NDArray[np.float64]
RECORDED, NEAR, FAR, OTHER, UNKNOWN = "recorded", "near", "far", "other", "unknown"
"""How it is known: recorded; of one like it, near in size or not; of another kind; of other operators."""
NEIGHBOURS = 4
OF_OTHER_KIND, OF_OTHER_DTYPE, OF_OTHER_BOUND = 3.0, 1.0, 0.3
"""How far apart these put two operators; as far apart are such by a size that is e to this times another."""
NEAR_SIZE = 0.9
SMOOTHING = 0.02
STIFF, STEEPEST = 0.1, 0.5
KERNEL_S = 1e-6
"""What a kernel takes that has next to nothing to do."""
MANY = 20
"""Of so many operators of a name or more, the shortest tell what the least of them takes."""
PRODUCT_OF_FP32 = 0.13
"""Of the rate of products in TF32, those in float32 reach so much: 67 of 495 TFLOP/s are published."""


class Guess(NamedTuple):
    """What an operator takes, and how that is known."""

    taken: Taken
    how: str


class _Group:
    """All recorded operators of a name."""

    def __init__(self, rows: list[tuple[str, Taken, float]]) -> None:
        # Key, what it took, its bound in seconds.
        families = [family_of(key) for key, _, _ in rows]
        empty: Counter[str] = Counter()
        for (_, taken, _), family in zip(rows, families, strict=True):
            empty[family.kind] += 1 if taken.kernels < 0.5 else -1
        self.empty = empty
        self.all_empty = sum(empty.values()) > 0
        some = [
            (key, taken, bound, family)
            for (key, taken, bound), family in zip(rows, families, strict=True)
            if taken.kernels >= 0.5
        ]
        self.keys = [key for key, *_ in some]
        self.families = [family for *_, family in some]
        self.seconds = np.array([taken.seconds for _, taken, _, _ in some])
        self.kernels = np.array([taken.kernels for _, taken, _, _ in some])
        short = float(np.quantile(self.seconds, 0.1)) if len(some) >= MANY else 0.0
        self.least_s = max(KERNEL_S, short)
        self.bounds = np.log(np.array([self.least_s + bound for _, _, bound, _ in some]))
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

    def beyond_at(self, bound: float, nearest: npt.NDArray[np.intp], weights: Array) -> float:
        """Return what is beyond the bound by the line through the nearest, whose slope is kept small."""
        bounds, beyond = self.bounds[nearest], self.beyond[nearest]
        middle, level = float(weights @ bounds), float(weights @ beyond)
        spread = float(weights @ (bounds - middle) ** 2)
        slope = float(weights @ ((bounds - middle) * (beyond - level))) / (spread + STIFF)
        return level + max(-STEEPEST, min(STEEPEST, slope)) * (bound - middle)

    def distances(self, family: Family, bound: float) -> Array:
        """Return how far each recorded operator is; ``bound`` is the logarithm of seconds."""
        found = OF_OTHER_KIND * (self.kinds != family.kind) + OF_OTHER_DTYPE * (self.dtypes != family.dtypes)
        found = found + OF_OTHER_BOUND * np.abs(self.bounds - bound)
        length = len(family.sizes)
        if length in self.sizes:
            apart = np.sqrt(((self.sizes[length] - np.array(family.sizes)) ** 2).sum(axis=1))
            return np.asarray(found + np.where(self.lengths == length, apart, 1.0))
        return np.asarray(found + 1.0)


class Times:
    """What operators take on a card, asked by key."""

    def __init__(self, table: TimesTable) -> None:
        self._taken = table.taken
        self._rates = table.about["rates"]
        self._groups: dict[str, _Group] = {}
        self._asked: dict[str, Guess] = {}
        self._by_name: dict[str, list[tuple[str, Taken, float]]] = {}
        for key, (taken, size, flops) in self._taken.items():
            self._by_name.setdefault(name_of(key), []).append((key, taken, self.bound_s(key, size, flops)))

    def bound_s(self, key: str, size: int, flops: int) -> float:
        """Seconds that its bytes or its operations take at the card's rates, whichever take longer."""
        if in_16_bits(key):
            rate = self._rates["matrix_flops_per_s_bf16"]
        else:
            rate = self._rates["matrix_flops_per_s_fp32"]  # TF32
            if name_of(key) in PRODUCTS:
                rate *= PRODUCT_OF_FP32
        return float(max(size / self._rates["copy_bytes_per_s"], flops / rate))

    def of(self, key: str, size: int, flops: int) -> Guess:
        """Return what one call takes, from its key, bytes and operations."""
        if key not in self._asked:
            known = self._taken.get(key)
            self._asked[key] = self._guess(key, size, flops) if known is None else Guess(known[0], RECORDED)
        return self._asked[key]

    def _guess(self, key: str, size: int, flops: int) -> Guess:
        family = family_of(key)
        if family.name not in self._by_name:
            return self._of_others(key, size, flops)
        group = self._group(family.name)
        if group.launches_nothing(family.kind) or not len(group.seconds):
            return Guess(Taken(0.0, 0.0), NEAR)
        if family.name.startswith(ON_LISTS) and (found := self._of_lists(key, size, group)) is not None:
            return found
        bound = math.log(group.least_s + self.bound_s(key, size, flops))
        distances = group.distances(family, bound)
        nearest = np.argsort(distances, kind="stable")[:NEIGHBOURS]
        weights = 1 / (distances[nearest] ** 2 + SMOOTHING)
        weights /= weights.sum()
        seconds = math.exp(bound + group.beyond_at(bound, nearest, weights))
        least = float(distances[nearest[0]])
        how = NEAR if least < NEAR_SIZE else FAR if least < OF_OTHER_KIND else OTHER
        return Guess(Taken(seconds, float(weights @ group.kernels[nearest])), how)

    def _group(self, name: str) -> _Group:
        if name not in self._groups:
            self._groups[name] = _Group(self._by_name[name])
        return self._groups[name]

    def _of_lists(self, key: str, size: int, group: _Group) -> Guess | None:
        """Take an optimizer's operator by its tensors and its bytes, where three or more were recorded."""
        dtypes = family_of(key).dtypes
        rows = [
            (1e-6 / seconds, 1e-8 * of_lists(one)[0] / seconds, 1e-12 * self._taken[one][1] / seconds)
            for one, family, seconds in zip(group.keys, group.families, group.seconds, strict=True)
            if family.dtypes == dtypes
        ]
        if len(rows) < 3:
            return None
        from scipy.optimize import nnls  # noqa: PLC0415 (slow to import, and only times need it)

        solved, _ = nnls(np.array(rows), np.ones(len(rows)))
        seconds = float(solved @ (1e-6, 1e-8 * of_lists(key)[0], 1e-12 * size))
        nearest = min(range(len(group.keys)), key=lambda at: abs(self._taken[group.keys[at]][1] - size))
        return Guess(Taken(seconds, float(group.kernels[nearest])), NEAR)

    def _of_others(self, key: str, size: int, flops: int) -> Guess:
        """Take an operator that no step had as those that moved about as many bytes in as many tensors."""
        if flops:
            return Guess(Taken(3 * KERNEL_S + 1.5 * self.bound_s(key, size, flops), 1.0), UNKNOWN)
        sizes, tensors, in_place, beyond = self._plain
        apart = np.abs(sizes - math.log(max(1, size)))
        apart = apart + 0.5 * (tensors != len(TENSOR.findall(key)))
        apart = apart + 0.5 * (in_place != name_of(key).endswith("_"))
        nearest = np.argsort(apart, kind="stable")[: 2 * NEIGHBOURS]
        share = math.exp(float(np.median(beyond[nearest]))) if len(nearest) else 1.3
        return Guess(Taken(share * (KERNEL_S + self.bound_s(key, size, 0)), 1.0), UNKNOWN)

    @functools.cached_property
    def _plain(self) -> tuple[Array, Array, Array, Array]:
        """Operators of one kernel, no products: bytes, tensors, whether in place, beyond the bound."""
        rows = list(self._plain_rows())
        columns = np.array(rows, dtype=np.float64).reshape(len(rows), 4).T
        return columns[0], columns[1], columns[2], columns[3]

    def _plain_rows(self) -> Iterable[tuple[float, ...]]:
        for key, (taken, size, flops) in self._taken.items():
            name = name_of(key)
            if not flops and 0.5 <= taken.kernels <= 1 and not name.startswith(ON_LISTS):
                bound = KERNEL_S + self.bound_s(key, size, 0)
                yield (
                    math.log(max(1, size)),
                    len(TENSOR.findall(key)),
                    name.endswith("_"),
                    math.log(taken.seconds / bound),
                )
