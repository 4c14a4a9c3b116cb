"""Which operator of a traced step launched which kernel of the same step as it was recorded.

A recording knows most of it (``measuring/kernels.py``), but not where a captured step has other kernels than
one launched in turn: fills and copies have other names there, and libraries choose anew. Kernels and
operators come in the same order; the likeliest way to give one to the other is found step by step (Viterbi).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stepcost.predicting.times.keys import key_of, name_of

FILL, COPY = "Memset", "Memcpy"
BY_DRIVER = "Memset ("
"""Begins the name of a fill that is no kernel; what follows it waits longer."""
AS_RECORDED = 3.0
"""How much likelier (a logarithm) a kernel is of the operator that the recording names."""
WRONG = 15.0
"""How much less likely it is of an operator that never launches such a kernel."""
ANOTHER = 1.0
"""How much less likely (a logarithm) a further kernel of one operator is."""
NEVER = 1e-6
"""How likely is what does not happen."""
ENDS_IN_FILL = 8.0
"""How much less likely (a logarithm) a library's operator ends in a fill: it fills before it computes."""
BY_LIBRARIES = ("convolution", "mm", "addmm", "bmm", "baddbmm", "_scaled_dot", "linear")
LIBRARIES = (
    *("xmma", "cutlass", "nvjet", "gemm", "cudnn", "splitkreduce", "tensortransform", "nhwc", "winograd"),
    *("flash", "fmha", "dgrad", "wgrad", "conv"),
)
COPIES = (
    *("clone", "copy_", "_to_copy", "pow", "constant_pad_nd", "select_backward", "slice_backward", "cat"),
    *("roll", "repeat", "_foreach_copy"),
)
FILLS = (
    *(*BY_LIBRARIES, "batch_norm", "sum", "mean", "embedding_dense", "zero", "var", "std", "index", "sort"),
    *("cum", "max", "min", "topk", "nonzero", "norm", "linalg", "scatter", "_foreach_norm", "unique"),
)


class Recorded(NamedTuple):
    """A kernel of a recorded step."""

    name: str
    seconds: float
    by_driver: bool
    key: str | None
    """Of the operator that the recording names."""


def kernels_of(row: Mapping[str, Any]) -> list[Recorded]:
    """List the kernels of a recorded row; a fill or copy at the end of a call belongs to what comes next."""
    calls = [
        (key_of(row["operators"][index][0]) if index >= 0 else None, list(kernels))
        for index, kernels in row["calls"]
    ]
    names = row["kernels"]
    for (_, ours), (_, theirs) in itertools.pairwise(calls):
        while len(ours) > 1 and _plain(names[ours[-1][0]]) in (FILL, COPY):
            theirs.insert(0, ours.pop())
    return [
        Recorded(_plain(names[index]), nanoseconds / 1e9, names[index].startswith(BY_DRIVER), key)
        for key, kernels in calls
        for index, nanoseconds in kernels
    ]


def _plain(name: str) -> str:
    """Write fills and copies by one name, whether the driver or a kernel makes them."""
    small = name.lower()
    return FILL if small.startswith("memset") else COPY if small.startswith("memcpy") else name


class Likely:
    """How likely an operator launches a kernel, learned from many steps."""

    def __init__(
        self, asked: Counter[str], of_kernels: Sequence[tuple[str, str]], with_any: Counter[str]
    ) -> None:
        """Take how often each operator was traced, pairs of operator and kernel, and how often it had any."""
        self._pairs = Counter(of_kernels)
        self._kernels = Counter(name for name, _ in of_kernels)
        self._none = {name: min(0.99, max(0.01, 1 - with_any[name] / count)) for name, count in asked.items()}

    def none(self, name: str) -> float:
        """How likely it has no kernel; a library's operator always has one."""
        return NEVER if name.startswith(BY_LIBRARIES) else self._none[name]

    def cost(self, name: str, kernel: str) -> float:
        """Return minus the logarithm of how likely a kernel of this operator is that one."""
        share = (self._pairs[name, kernel] + 1e-3) / (self._kernels[name] + 1)
        return -math.log(share) + (WRONG if _is_wrong(name, kernel) else 0.0)


def _is_wrong(name: str, kernel: str) -> bool:
    if kernel == COPY:
        return not name.startswith(COPIES)
    if kernel == FILL:
        return not name.startswith(FILLS)
    small = kernel.lower()
    if any(one in small for one in ("batchnorm", "cudnn::bn_", "batch_norm")):
        return not name.startswith("batch_norm")
    if "at::native" not in small and any(one in small for one in LIBRARIES):
        return not name.startswith(BY_LIBRARIES)
    return False


def align(keys: Sequence[str], kernels: Sequence[Recorded], likely: Likely) -> list[int]:
    """Return for each kernel the place of its operator among ``keys``, in order."""
    names = [name_of(key) for key in keys]
    distinct = sorted(set(names))
    which = np.array([distinct.index(name) for name in names])
    ids = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    key_ids = np.array([ids[key] for key in keys])
    none = np.array([-math.log(likely.none(name)) for name in names])
    some = np.array([-math.log(1 - likely.none(name)) for name in names])
    skipped = np.concatenate([[0.0], np.cumsum(none)])
    places = np.arange(len(keys))
    costs: dict[str, Any] = {}
    best = skipped[:-1] + some
    after_fill = np.array([ENDS_IN_FILL * name.startswith(BY_LIBRARIES) for name in distinct])[which]
    came_from = np.zeros((len(kernels), len(keys)), dtype=np.int32)
    for number, kernel in enumerate(kernels):
        if kernel.name not in costs:
            costs[kernel.name] = np.array([likely.cost(name, kernel.name) for name in distinct])
        cost = costs[kernel.name][which] - AS_RECORDED * (key_ids == ids.get(kernel.key or "", -1))
        if number:
            before = best - skipped[1:]
            if kernels[number - 1].name == FILL:
                before = before + after_fill
            least = np.minimum.accumulate(before)
            at = np.maximum.accumulate(np.where(before == least, places, 0))
            moved = np.full(len(keys), np.inf)
            moved[1:] = least[:-1] + skipped[1:-1] + some[1:]
            stays = best + ANOTHER <= moved
            came_from[number] = np.where(stays, places, np.concatenate([[0], at[:-1]]))
            best = np.where(stays, best + ANOTHER, moved)
        best = best + cost
    place = int(np.argmin(best - skipped[1:]))
    found = [place]
    for number in range(len(kernels) - 1, 0, -1):
        place = int(came_from[number][place])
        found.append(place)
    return found[::-1]
