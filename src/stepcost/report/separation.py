"""When may one batch size be called the most accurate? The rule and its sources.

Over seeds: a winner is named only where its worst seed beats the best seed of
every other candidate and so clean a separation is improbable by chance. If
the candidates did not differ, every assignment of the N accuracies to them
would be equally likely, so the top n values belong to one candidate of n
seeds with probability ``sum over candidates of 1 / C(N, n)``, exactly (the
extreme case of the rank-sum test, Mann & Whitney 1947). It must be at most
0.05: four candidates need three seeds each.

On the test set: the gap of the means must also exceed what the test set of
``test_images`` images resolves, 1.96 standard errors of the difference of two
proportions (both candidates scored on it).

One seed never separates: accuracy varies from seed to seed (Bouthillier et
al., "Accounting for Variance in Machine Learning Benchmarks", MLSys 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CHANCE_OF_SEPARATION = 0.05
TWO_SIDED_95 = 1.96


@dataclass(frozen=True)
class Separation:
    """What the accuracies allow to be said."""

    best: int
    """The candidate with the highest mean, whether it won or not."""
    wins: bool
    tied_with: tuple[int, ...]
    """The candidates that the seeds or the test set do not tell from ``best``."""
    seeds: int
    """The fewest seeds of any candidate."""
    resolution: float | None
    """Smallest gap of accuracies that the test set resolves at ``best``; ``None`` if its size is unknown."""
    chance: float
    """Probability that some candidate stands apart by chance alone."""


def separate(accuracies: Mapping[int, Sequence[float]], test_images: int | None) -> Separation:
    """Judge the candidates (such as batch sizes) by their final accuracies, one per seed.

    Accuracies are fractions. Raises ``ValueError`` without candidates.
    """
    means = {name: sum(values) / len(values) for name, values in accuracies.items() if values}
    if not means:
        raise ValueError("no accuracies to compare")
    best = max(means, key=lambda name: means[name])
    counts = [len(accuracies[name]) for name in means]
    chance = sum(1 / math.comb(sum(counts), n) for n in counts)
    tied = [
        name
        for name in means
        if name != best
        and (
            max(accuracies[name]) >= min(accuracies[best])
            or means[best] - means[name] <= (_resolution(means[best], means[name], test_images) or 0)
        )
    ]
    wins = len(means) > 1 and not tied and min(counts) > 1 and chance <= CHANCE_OF_SEPARATION
    resolution = _resolution(means[best], means[best], test_images)
    return Separation(best, wins, tuple(tied), min(counts), resolution, chance)


def _resolution(one: float, other: float, images: int | None) -> float | None:
    if not images:
        return None
    return TWO_SIDED_95 * math.sqrt((one * (1 - one) + other * (1 - other)) / images)
