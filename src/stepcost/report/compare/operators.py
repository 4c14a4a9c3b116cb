"""By which operators captured steps changed, and by which they are not what was predicted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median

from stepcost.report.beside import BETWEEN, changed_by, outside_prediction
from stepcost.report.compare.matching import Pair, label
from stepcost.report.compare.result import Change, OperatorPair
from stepcost.report.compare.time_figures import step_s
from stepcost.report.rows import Row


def operator_pairs(pairs: Iterable[Pair], changes: Sequence[Change]) -> Iterator[OperatorPair]:
    """Take apart the steps that changed beyond noise, where both sides have read their operators.

    Of repetitions the median counts, of the steps and of each operator.
    """
    changed = {
        change.row: change
        for change in changes
        if change.figure == "step_s" and (change.verdict in ("worse", "better") or _is_shown(change))
    }
    for olds, news in pairs:
        change = changed.get(label(next(iter(olds.values()))))
        base, new = (_operators(side.values()) for side in (olds, news))
        if change is None or change.base is None or change.new is None or not base or not new:
            continue
        named = changed_by(base, new, change.new - change.base)
        old, now = (
            {**side, BETWEEN: step - sum(side.values())}
            for side, step in ((base, change.base), (new, change.new))
        )
        for name, growth_s in named:
            yield OperatorPair(change.row, name, old.get(name), now.get(name), growth_s)


def _is_shown(change: Change) -> bool:
    return change.verdict == "shown" and change.is_beyond_noise


def _operators(rows: Iterable[Row]) -> Mapping[str, float]:
    read = [row["by_operator_s"] for row in rows if row.get("by_operator_s")]
    names = dict.fromkeys(name for one in read for name in one)
    return {name: median(one.get(name, 0.0) for one in read) for name in names}


def outside_predictions(pairs: Iterable[Pair]) -> Iterator[str]:
    """Say of each step of the new side that is outside its prediction how far, and by which operators."""
    for _, news in pairs:
        rows = [row for row in news.values() if row.get("predicted_step")]
        times = [(row, seconds) for row in rows if (seconds := step_s(row)) is not None]
        if times:
            row, seconds = sorted(times, key=lambda one: one[1])[len(times) // 2]
            if (said := outside_prediction(row, seconds)) is not None:
                yield f"new side, {label(row)}: {said}"
