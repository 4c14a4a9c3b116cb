"""The gate: two sides of saved runs in, every difference with a verdict out. Prints nothing.

Shared by ``python -m reports compare`` and by the pytest flag
``--memory-compare-fail``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stepcost.report.compare.byte_verdicts import of_bytes, of_fit, of_search
from stepcost.report.compare.matching import all_named, join_tried, label, nearest, rows_by_key
from stepcost.report.compare.result import CannotCompareError, Comparison, Rules, Unmatched
from stepcost.report.compare.time_verdicts import busy_pairs, of_time
from stepcost.report.load import Run
from stepcost.report.rows import Row


def compare_sides(base: Sequence[Run], new: Sequence[Run], rules: Rules | None = None) -> Comparison:
    """Compare the runs of one side with those of another. Raises `CannotCompareError`.

    Several runs of a side are repetitions: bytes count with the largest of
    them, times with the spread between them.
    """
    rules = rules or Rules()
    base_machine, new_machine = _one_machine(base), _one_machine(new)
    named = all_named([*base, *new])
    old_rows, new_rows = rows_by_key(base, named), rows_by_key(new, named)
    join_tried(old_rows, new_rows)
    join_tried(new_rows, old_rows)
    both = [key for key in old_rows if key in new_rows]
    gone = [old_rows[key][0] for key in old_rows if key not in new_rows]
    added = [new_rows[key][0] for key in new_rows if key not in old_rows]
    if not both:
        raise CannotCompareError(_nothing_in_common(gone, added))
    pairs = [(old_rows[key], new_rows[key]) for key in both]
    changes = [change for pair in pairs for change in of_bytes(*pair, base_machine, new_machine, rules)]
    changes += [change for pair in pairs for change in (*of_fit(*pair), *of_search(*pair))]
    times, notes = of_time(pairs, base_machine, new_machine, rules)
    return Comparison(
        base=tuple(run.label for run in base),
        new=tuple(run.label for run in new),
        base_machine=base_machine,
        new_machine=new_machine,
        changes=(*changes, *times),
        added=tuple(Unmatched(label(row), nearest(row, gone)) for row in added),
        gone=tuple(Unmatched(label(row), nearest(row, added)) for row in gone),
        gone_is_worse=rules.gone_is_worse,
        notes=(*notes, *_sources_apart(gone, added), *_of_the_runs(base, new), *_other_models(pairs)),
        busy=tuple(busy_pairs(pairs)),
    )


def _one_machine(runs: Sequence[Run]) -> Mapping[str, Any]:
    """What the runs of a side share; repetitions must be of one machine and build."""
    first = runs[0]
    for run in runs[1:]:
        names = ("gpu", "compute_capability", "torch", "cudnn", "driver")
        apart = [name for name in names if first.machine.get(name) != run.machine.get(name)]
        if apart:
            raise CannotCompareError(
                f"{first.label} and {run.label} are no repetitions of one build: other {', '.join(apart)}"
            )
    return first.machine


def _nothing_in_common(gone: Sequence[Row], added: Sequence[Row]) -> str:
    if not gone or not added:
        return "nothing to compare: a side has no rows"
    apart = next((text for text in (nearest(row, added) for row in gone) if text), None)
    reason = f" (the nearest rows differ in {apart})" if apart else ""
    return f"nothing to compare: no row of one side is a row of the other{reason}"


def _sources_apart(gone: Iterable[Row], added: Iterable[Row]) -> list[str]:
    before, after = ({row.get("source") for row in rows} for rows in (gone, added))
    if ("measured" in before and "predicted" in after) or ("predicted" in before and "measured" in after):
        return ["a measured figure and a predicted one are never compared: those rows are listed apart"]
    return []


def _of_the_runs(base: Sequence[Run], new: Sequence[Run]) -> list[str]:
    """What failed or was left out of the sessions themselves."""
    notes = []
    for run in (*base, *new):
        failed = run.session.get("failed") or []
        if failed:
            listed = "1 test" if len(failed) == 1 else f"{len(failed)} tests"
            tests = ", ".join(str(one.get("test")) for one in failed[:3])
            notes.append(f"{run.label}: {listed} of that session failed ({tests})")
    return notes


def _other_models(pairs: Iterable[tuple[list[Row], list[Row]]]) -> list[str]:
    """A model that kept its name and not its parameters."""
    names = {
        f"{olds[0].get('model')} has {olds[0]['parameters']:,} parameters on one side and "
        f"{news[0]['parameters']:,} on the other: the model itself changed"
        for olds, news in pairs
        if olds[0].get("parameters") and news[0].get("parameters")
        if olds[0]["parameters"] != news[0]["parameters"]
    }
    return sorted(names)
