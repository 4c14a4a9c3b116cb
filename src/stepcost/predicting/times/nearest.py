"""What an operator takes: as recorded, else by what is nearest to it among those that were."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from stepcost.predicting.times.convolved import Choice, convolved
from stepcost.predicting.times.family import LOADED, family_of, loaded_at_once
from stepcost.predicting.times.group import KERNEL_S, NEAREST, OF_OTHER_KIND, Array, Group, Row
from stepcost.predicting.times.keys import ON_LISTS, PRODUCTS, TENSOR, in_16_bits, name_of, of_lists
from stepcost.predicting.times.table import Taken, TimesTable

RECORDED, NEAR, FAR, OTHER, UNKNOWN = "recorded", "near", "far", "other", "unknown"
"""How it is known: recorded; of one like it, near in size or not; of another kind; of other operators."""
NEAR_SIZE = 1.0
"""Nearer than this is what has twice or half the batch of a recorded one (0.7), and about its bound."""
UNALIGNED = 1.8
"""How much longer a product of 16-bit values takes for each halving of what it loads at once.

Recorded products with 30,522 columns, which load 2 values at once, take 3.3 times their bound, those that
load 8 1.02 times: 1.8 for each of two halvings.
"""
PRODUCT_BEYOND = 1.6
"""What of operations nobody recorded takes as many times its bound and 3 us: the median of those recorded."""
OF_OTHER_TENSORS = 0.5
"""How far apart another number of tensors puts operators of other names; judged, not fitted."""
PRODUCT_OF_FP32 = 0.13
"""Of the rate of products in TF32, those in float32 reach so much: 67 of 495 TFLOP/s are published."""


class Guess(NamedTuple):
    """What an operator takes, and how that is known."""

    taken: Taken
    how: str


class Times:
    """What operators take on a card, asked by key.

    ``choose`` says how cuDNN runs a convolution that the table does not hold, in each direction.
    """

    def __init__(
        self, table: TimesTable, choose: Callable[[str], tuple[Choice, ...] | None] = lambda key: None
    ) -> None:
        self._taken = table.taken
        self._choices = table.choices
        self._choose = choose
        self._rates = table.about["rates"]
        self._groups: dict[tuple[str, bool], Group] = {}
        self._asked: dict[str, Guess] = {}
        self._by_name: dict[str, list[str]] = {}
        for key in self._taken:
            self._by_name.setdefault(name_of(key), []).append(key)

    def bound_s(self, key: str, size: int, flops: int) -> float:
        """Seconds that its bytes or its operations take at the card's rates, whichever take longer."""
        return float(max(size / self._rates["copy_bytes_per_s"], flops / self._flops_per_s(key)))

    def _flops_per_s(self, key: str) -> float:
        if in_16_bits(key):
            return float(self._rates["matrix_flops_per_s_bf16"])
        of_tf32 = PRODUCT_OF_FP32 if name_of(key) in PRODUCTS else 1.0
        return float(self._rates["matrix_flops_per_s_fp32"]) * of_tf32

    def _least_s(self, key: str, size: int, flops: int, choices: tuple[Choice, ...]) -> float:
        """Do as ``bound_s``, but with a convolution's workspaces, and with what a product loads at once."""
        one = convolved(key)
        if one is not None:
            return one.bound_s(choices, self._rates["copy_bytes_per_s"], self._flops_per_s(key))
        if name_of(key) in PRODUCTS:
            flops = round(flops * UNALIGNED ** math.log2(LOADED / loaded_at_once(key)))
        return self.bound_s(key, size, flops)

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
        choices = None if convolved(key) is None else self._choices.get(key) or self._choose(key)
        group = self._group(family.name, choices is not None)
        if group.launches_nothing(family.kind) or not len(group.seconds):
            return Guess(Taken(0.0, 0.0), NEAR)
        if family.name.startswith(ON_LISTS) and (found := self._of_lists(key, size, group)) is not None:
            return found
        bound = math.log(group.least_s + self._least_s(key, size, flops, choices or ()))
        distances = group.distances(family, bound, tuple(one.engine for one in choices or ()))
        seconds = math.exp(bound + group.beyond_at(distances))
        least = float(distances.min())
        how = NEAR if least < NEAR_SIZE else FAR if least < OF_OTHER_KIND else OTHER
        if how == NEAR and self._choices and choices is None and convolved(key) is not None:
            how = FAR  # by which engine is not known
        return Guess(Taken(seconds, group.kernels_at(distances)), how)

    def _group(self, name: str, with_engines: bool) -> Group:
        """Return the recorded operators of a name; ``with_engines`` those of which they are known."""
        asked = name, with_engines
        if asked not in self._groups:
            rows = []
            for key in self._by_name[name]:
                taken, size, flops = self._taken[key]
                choices = self._choices.get(key, ()) if with_engines else ()
                engines = tuple(one.engine for one in choices)
                rows.append(Row(key, taken, self._least_s(key, size, flops, choices), engines))
            self._groups[asked] = Group(rows)
        return self._groups[asked]

    def _of_lists(self, key: str, size: int, group: Group) -> Guess | None:
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
            return Guess(
                Taken(PRODUCT_BEYOND * (3 * KERNEL_S + self.bound_s(key, size, flops)), 1.0), UNKNOWN
            )
        sizes, tensors, in_place, beyond = self._plain
        apart = np.abs(sizes - math.log(max(1, size)))
        apart = apart + OF_OTHER_TENSORS * (tensors != len(TENSOR.findall(key)))
        apart = apart + OF_OTHER_TENSORS * (in_place != name_of(key).endswith("_"))
        nearest = np.argsort(apart, kind="stable")[: 2 * NEAREST]
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
