"""Verdicts on figures in bytes, on whether a row fits, and on the largest batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stepcost.report.compare import tolerances as memory
from stepcost.report.compare.matching import label
from stepcost.report.compare.result import Change, Rules, Verdict
from stepcost.report.rows import Row

SEARCH_RESOLUTION = 0.01
"""The search for the largest batch ends when its failing neighbour is this close."""
SEARCHED = ("largest_batch", "largest_batch_at_full_speed")


def of_bytes(
    olds: list[Row],
    news: list[Row],
    base_machine: Mapping[str, Any],
    new_machine: Mapping[str, Any],
    rules: Rules,
) -> Iterable[Change]:
    """Compare every figure in bytes of one row; of repetitions the largest counts."""
    before, after = ([memory.figures(row) for row in rows] for rows in (olds, news))
    for name in sorted(set().union(*before, *after)):
        base = max((one[name] for one in before if name in one), default=None)
        new = max((one[name] for one in after if name in one), default=None)
        if base is None or new is None:
            if all(row.get("fits") is not False for row in (*olds, *news)):  # else `fits` says it
                yield _change(olds[0], name, base, new, "shown", "read on one side only")
            continue
        tolerance, why = memory.default_tolerance(name, [*olds, *news], base_machine, new_machine)
        rule = memory.rule_for(name, rules.memory)
        if rule is not None and rule.tolerance is not None and tolerance is not None:
            tolerance, why = rule.tolerance, "as asked"
        if tolerance is None or rule is None:
            yield _change(
                olds[0], name, base, new, "same" if base == new else "shown", why if rule else "not gated"
            )
            continue
        verdict: Verdict = "same"
        if new - base > tolerance.allowed_bytes(base):
            verdict = "worse"
        elif base - new > tolerance.allowed_bytes(base):
            verdict = "better"
        yield _change(olds[0], name, base, new, verdict, f"{tolerance} ({why})")


def of_fit(olds: list[Row], news: list[Row]) -> Iterable[Change]:
    """Say whether a configuration that used to fit no longer does, or now does."""
    fitted, fits = (all(row.get("fits") is not False for row in rows) for rows in (olds, news))
    if fitted != fits:
        reason = next((row["reason"] for row in (*news, *olds) if row.get("reason")), "out of memory")
        yield _change(olds[0], "fits", float(fitted), float(fits), "worse" if fitted else "better", reason)


def of_search(olds: list[Row], news: list[Row]) -> Iterable[Change]:
    """Compare the largest batches: a smaller one is worse; of repetitions the smallest counts."""
    for name in SEARCHED:
        base, new = (min((row[name] for row in rows if row.get(name)), default=None) for rows in (olds, news))
        if base is None or new is None:
            continue
        verdict: Verdict = "same"
        if abs(new - base) > SEARCH_RESOLUTION * base:
            verdict = "worse" if new < base else "better"
        yield _change(
            olds[0], name, base, new, verdict, f"{100 * SEARCH_RESOLUTION:g} %, as the search resolves"
        )


def _change(row: Row, figure: str, base: float | None, new: float | None, *said: Any) -> Change:
    return Change(label(row), row.get("question"), figure, base, new, *said)
