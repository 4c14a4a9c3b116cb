"""Two sides of saved runs in, every difference with a verdict out; prints nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepcost.report.compare.energy import of_energy
from stepcost.report.compare.matching import (
    Pair,
    RowsByKey,
    all_named,
    join_tried,
    label,
    nearest,
    repeated,
    rows_by_key,
)
from stepcost.report.compare.operators import operator_pairs, outside_predictions
from stepcost.report.compare.result import BUILD, CannotCompareError, Change, Comparison, Unmatched
from stepcost.report.compare.times import FALSE_ALARM, SMALLEST_EFFECT, busy_pairs, of_time
from stepcost.report.compare.tolerances import DEFAULT_RULES, FieldRule, of_bytes, of_fit, of_search
from stepcost.report.load import Run
from stepcost.report.rows import Row
from stepcost.units import listed


@dataclass(frozen=True)
class Rules:
    """What is gated, and how closely."""

    memory: tuple[FieldRule, ...] = DEFAULT_RULES
    smallest_effect: float = SMALLEST_EFFECT
    """Share by which a step must be slower, or cost more joules, to matter."""
    false_alarm: float = FALSE_ALARM
    """Probability of any false alarm on times in one comparison of whole runs."""
    gone_is_worse: bool = True
    gate_time: bool = True
    """Whether times and joules are judged."""


def compare_sides(base: Sequence[Run], new: Sequence[Run], rules: Rules | None = None) -> Comparison:
    """Compare the runs of one side with those of another. Raises `CannotCompareError`.

    Several runs of a side are repetitions: bytes count with the largest of
    them, times with the spread between them.
    """
    rules = rules or Rules()
    base_machine, new_machine = _one_machine(base), _one_machine(new)
    named, several = all_named([*base, *new]), repeated([*base, *new])
    old_rows, new_rows = (rows_by_key(side, several, named) for side in (base, new))
    join_tried(old_rows, new_rows)
    join_tried(new_rows, old_rows)
    pairs = [(old_rows[key], new_rows[key]) for key in old_rows if key in new_rows]
    gone, added = _without_partner(old_rows, new_rows), _without_partner(new_rows, old_rows)
    if not pairs:
        raise CannotCompareError(_nothing_in_common(gone, added))
    changes: list[Change] = []
    for pair in pairs:
        olds, news = (list(side.values()) for side in pair)
        changes += of_bytes(olds, news, base_machine, new_machine, rules.memory)
        changes += [*of_fit(olds, news), *of_search(olds, news)]
        changes += of_energy(
            olds,
            news,
            (base_machine, new_machine),
            gate=rules.gate_time,
            smallest_effect=rules.smallest_effect,
        )
    times, notes = of_time(
        pairs,
        base,
        new,
        gate=rules.gate_time,
        smallest_effect=rules.smallest_effect,
        false_alarm=rules.false_alarm,
    )
    return Comparison(
        base=tuple(run.label for run in base),
        new=tuple(run.label for run in new),
        base_machine=base_machine,
        new_machine=new_machine,
        changes=(*changes, *times),
        added=tuple(Unmatched(label(row), nearest(row, gone)) for row in added),
        gone=tuple(Unmatched(label(row), nearest(row, added)) for row in gone),
        gone_is_worse=rules.gone_is_worse,
        notes=(
            *notes,
            *outside_predictions(pairs),
            *_sources_apart(gone, added),
            *_of_the_runs(base, new),
            *_other_models(pairs),
        ),
        busy=tuple(busy_pairs(pairs)),
        operators=tuple(operator_pairs(pairs, times)),
    )


def _without_partner(rows: RowsByKey, others: RowsByKey) -> list[Row]:
    return [next(iter(rows[key].values())) for key in rows if key not in others]


def _one_machine(runs: Sequence[Run]) -> Mapping[str, Any]:
    """Return what the runs of a side share; repetitions must be of one machine and build."""
    first = runs[0]
    for run in runs[1:]:
        apart = [word for name, word in BUILD.items() if first.machine.get(name) != run.machine.get(name)]
        if apart:
            raise CannotCompareError(
                f"{first.label} and {run.label} cannot stand on one side: they were made with a different "
                f"{listed(apart)}"
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
    """Return what failed or was left out of the sessions themselves, and which were cut off."""
    notes = []
    for run in (*base, *new):
        if run.cut_off:
            notes.append(f"{run.label} was {run.cut_off}")
        failed = run.session.get("failed") or []
        if failed:
            number = "1 test" if len(failed) == 1 else f"{len(failed)} tests"
            tests = ", ".join(str(one.get("test")) for one in failed[:3])
            notes.append(f"{run.label}: {number} of that session failed ({tests})")
    return notes


def _other_models(pairs: Iterable[Pair]) -> list[str]:
    """Return a model that kept its name and not its parameters."""
    firsts = [[next(iter(side.values())) for side in pair] for pair in pairs]
    names = {
        f"{old.get('model')} has {old['parameters']:,} parameters on one side and "
        f"{new['parameters']:,} on the other: the model itself changed"
        for old, new in firsts
        if old.get("parameters") and new.get("parameters") and old["parameters"] != new["parameters"]
    }
    return sorted(names)
