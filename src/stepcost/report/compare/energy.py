"""Does a step cost more joules than the intervals of both readings explain?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from stepcost.report.compare.result import ONE_SIDE_ONLY, Change, Verdict
from stepcost.report.compare.tolerances import all_fit, change_of, differing
from stepcost.report.rows import Row
from stepcost.units import percent

FIGURE = "energy_j"


def of_energy(
    olds: Sequence[Row],
    news: Sequence[Row],
    machines: tuple[Mapping[str, Any], Mapping[str, Any]],
    *,
    gate: bool,
    smallest_effect: float,
) -> Iterator[Change]:
    """Compare the joules of a step: worse where they grew by ``smallest_effect`` beyond both intervals.

    Of repetitions the median counts, and the interval is as wide as all of theirs together.
    """
    base, new = ([row for row in rows if row.get(FIGURE)] for rows in (olds, news))
    values = _joules(base), _joules(new)
    if not base or not new:
        if (base or new) and all_fit(olds, news):
            yield change_of(olds[0], FIGURE, values, "shown", ONE_SIDE_ONLY)
        return
    apart = differing(("gpu",), *machines)
    verdict: Verdict = "same"
    why = f"{percent(smallest_effect)} beyond both intervals"
    if apart or not gate:
        verdict, why = "shown", "not gated: other or unknown gpu" if apart else "not gated"
    elif _least(new) > (1 + smallest_effect) * _most(base):
        verdict = "worse"
    elif (1 + smallest_effect) * _most(new) < _least(base):
        verdict = "better"
    yield change_of(olds[0], FIGURE, values, verdict, why)


def _joules(rows: Sequence[Row]) -> float | None:
    return median(row[FIGURE] for row in rows) if rows else None


def _least(rows: Sequence[Row]) -> float:
    return min(value for row in rows for value in _interval(row))


def _most(rows: Sequence[Row]) -> float:
    return max(value for row in rows for value in _interval(row))


def _interval(row: Row) -> tuple[float, ...]:
    return (row[FIGURE], *(row.get("energy_interval_j") or ()))
