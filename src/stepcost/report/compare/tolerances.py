"""Is a figure in bytes worse? Exactly, where bytes must repeat; within a stated tolerance elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

from stepcost.ledger import Ledger
from stepcost.reading import PHASES
from stepcost.report.compare.matching import label
from stepcost.report.compare.result import ONE_SIDE_ONLY, Change, Verdict
from stepcost.report.rows import Row
from stepcost.row import ROW, Gpu
from stepcost.row_times import Energy
from stepcost.schema import Field, fields_of
from stepcost.units import GB, MB

DEFAULT_FIELDS = tuple(name for name, one in ROW.items() if one.gated)
"""Gated unless fields are named: those whose growth is a cost. The parts of the ledger, the peaks within a
phase, the first step (which lies) and the context (the process figure holds it) can be named."""
COMPARED_UNITS = ("bytes", "J")
"""Figures in these units are compared, gated or not; times by their noise, and a step's joules, elsewhere."""

SAME_BUILD = ("compute_capability", "torch", "cudnn")
SAME_DRIVER = ("gpu", "driver", "cuda")

SEARCH_PERCENT = 1
"""The search for the largest batch ends when its failing neighbour is this close."""

FIELDS: dict[str, Field] = {
    **{
        name: one
        for name, one in ROW.items()
        if one.is_figure
        and (one.gated or one.unit in COMPARED_UNITS)
        and name not in (*fields_of(Gpu), *fields_of(Energy))
    },
    **{f"ledger.{name}": one for name, one in fields_of(Ledger).items()},
    **{f"phase_peak_bytes.{phase}": ROW["phase_peak_bytes"] for phase in PHASES},
}
"""Every figure that is compared, by the name under which it is gated."""


@dataclass(frozen=True)
class Tolerance:
    """How much growth is allowed: a share of the base, or bytes; both zero is exact."""

    share: Fraction = Fraction(0)
    size_bytes: int = 0

    def allowed_bytes(self, base_bytes: int) -> int:
        """Growth over ``base_bytes`` that is still no regression, rounded down to whole bytes."""
        return int(base_bytes * self.share) + self.size_bytes

    def __str__(self) -> str:
        if self.share:
            return f"{float(100 * self.share):g} %"
        return f"{self.size_bytes:,} bytes" if self.size_bytes else "exact"


EXACT = Tolerance()
OTHER_BUILD = Tolerance(share=Fraction(1, 100))
"""Where capability, torch or cuDNN differ or are unknown: workspaces and temporaries may be others."""
OTHER_DRIVER = Tolerance(share=Fraction(5, 100))
"""For figures with the context in them, where card, driver or CUDA differ or are unknown."""
RACES = Tolerance(share=Fraction(1, 100))
"""Of several GPUs: when memory that waits for another stream is free again, time decides."""


@dataclass(frozen=True)
class FieldRule:
    """One ``FIELD:TOLERANCE`` as the user gave it; without a tolerance the default rule for it applies."""

    pattern: str
    tolerance: Tolerance | None = None


_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(%|B|MB|GB)?")


def parse_rule(text: str) -> FieldRule:
    """Read ``peak_*_bytes``, ``process_bytes:0.1%``, ``tensor_bytes:4096`` or ``peak_reserved_bytes:2MB``.

    MB is 10**6 and GB 10**9 bytes. Raises ``ValueError`` with one line
    where no figure answers to the pattern or the tolerance is not an amount.
    """
    pattern, colon, amount = text.strip().partition(":")
    pattern = pattern.strip()
    if not any(fnmatchcase(field, pattern) for field in FIELDS):
        raise ValueError(f"no figure in bytes is called {pattern!r}; there are {', '.join(FIELDS)}")
    return FieldRule(pattern, _tolerance(amount.strip()) if colon else None)


def _tolerance(text: str) -> Tolerance:
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a tolerance; it takes 0, 4096, 0.1%, 2MB or 1GB")
    number, unit = Fraction(match[1]), match[2]
    if unit == "%":
        return Tolerance(share=number / 100)
    size = number * {"MB": MB, "GB": GB}.get(unit, 1)
    if size.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return Tolerance(size_bytes=int(size))


def figures(row: Row) -> dict[str, int]:
    """Every figure in bytes that was read of a row, under the names in `FIELDS`."""
    nested: dict[str, Mapping[str, Any]] = {
        f"{name}.": row.get(name) or {} for name in ("ledger", "phase_peak_bytes")
    }
    flat = {name: row.get(name) for name in FIELDS if "." not in name}
    for prefix, values in nested.items():
        flat.update({prefix + name: value for name, value in values.items()})
    return {name: value for name, value in flat.items() if value is not None}


def rule_for(field: str, rules: Sequence[FieldRule]) -> FieldRule | None:
    """Return the last rule that fits, so that a later one refines an earlier one; ``None``: not gated."""
    fitting = [rule for rule in rules if fnmatchcase(field, rule.pattern)]
    return fitting[-1] if fitting else None


DEFAULT_RULES = tuple(FieldRule(field) for field in DEFAULT_FIELDS)


def default_tolerance(
    field: str, rows: Iterable[Row], base: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[Tolerance | None, str]:
    """How closely ``field`` must agree between two machines, and why; ``None`` where it may not be compared.

    ``rows`` are the matched rows of both sides, of one source.
    """
    if FIELDS[field].follows == "shapes":
        return EXACT, "follows from the shapes"
    rows = list(rows)
    exact = RACES if any(row.get("ranks") for row in rows) else EXACT
    measured = any(row.get("source") == "measured" for row in rows)
    apart = differing(SAME_BUILD if measured else ("torch",), base, new)
    if measured and FIELDS[field].follows == "driver":
        ways = {row.get("process_bytes_from") for row in rows}
        if len(ways) > 1:
            return None, f"read in different ways: {', '.join(sorted(map(str, ways)))}"
        apart += differing(SAME_DRIVER, base, new)
        if ways != {"nvml process"}:
            apart.append("not NVML's figure of this process alone")
        return (
            (OTHER_DRIVER, f"other {', '.join(apart)}") if apart else (exact, "same card, driver and build")
        )
    if apart:
        return OTHER_BUILD, f"other {', '.join(apart)}"
    return (exact, "same capability, torch and cuDNN") if measured else (EXACT, "same torch")


def differing(names: Iterable[str], base: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Those of ``names`` that differ or are unknown on a side: unknown is not the same."""
    return [name for name in names if base.get(name) is None or base.get(name) != new.get(name)]


def of_bytes(
    olds: Sequence[Row],
    news: Sequence[Row],
    base_machine: Mapping[str, Any],
    new_machine: Mapping[str, Any],
    rules: Sequence[FieldRule],
) -> Iterator[Change]:
    """Compare every figure in bytes of one row; of repetitions the largest counts."""
    before, after = ([figures(row) for row in rows] for rows in (olds, news))
    for name in sorted(set().union(*before, *after)):
        base, new = (
            max((one[name] for one in side if name in one), default=None) for side in (before, after)
        )
        if base is None or new is None:
            if all_fit(olds, news):
                yield change_of(olds[0], name, (base, new), "shown", ONE_SIDE_ONLY)
            continue
        rule = rule_for(name, rules)
        tolerance, why = default_tolerance(name, [*olds, *news], base_machine, new_machine)
        if rule is not None and rule.tolerance is not None and tolerance is not None:
            tolerance, why = rule.tolerance, "as asked"
        verdict: Verdict = "same"
        if tolerance is None or rule is None:
            verdict, why = "same" if base == new else "shown", why if rule else "not gated"
        else:
            if abs(new - base) > tolerance.allowed_bytes(base):
                verdict = "worse" if new > base else "better"
            why = f"{tolerance} ({why})"
        yield change_of(olds[0], name, (base, new), verdict, why)


def of_fit(olds: Sequence[Row], news: Sequence[Row]) -> Iterator[Change]:
    """Say whether a configuration that used to fit no longer does, or now does."""
    fitted, fits = all_fit(olds), all_fit(news)
    if fitted != fits:
        reason = next((row["reason"] for row in (*news, *olds) if row.get("reason")), "out of memory")
        yield change_of(
            olds[0], "fits", (float(fitted), float(fits)), "worse" if fitted else "better", reason
        )


def of_search(olds: Sequence[Row], news: Sequence[Row]) -> Iterator[Change]:
    """Compare the largest batches: a smaller one is worse, none at all the worst.

    Of repetitions the smallest counts.
    """
    for name in ("largest_batch", "largest_batch_at_full_speed"):
        base, new = _smallest(name, olds), _smallest(name, news)
        if base is None or new is None:
            if base != new and all_fit(olds, news):
                yield change_of(olds[0], name, (base, new), "shown", ONE_SIDE_ONLY)
            continue
        verdict: Verdict = "same"
        if 100 * abs(new - base) > SEARCH_PERCENT * base:
            verdict = "worse" if new < base else "better"
        why = f"{SEARCH_PERCENT} %, as the search resolves" if base and new else "no batch trained"
        yield change_of(olds[0], name, (base, new), verdict, why)


def _smallest(name: str, rows: Sequence[Row]) -> int | None:
    """Find the smallest of the repetitions: 0 where no batch trained, ``None`` where nobody searched."""
    # Without a largest batch at full speed, steps were not timed: only of the batch itself is none an answer.
    found = [row[name] or 0 for row in rows if row.get(name) or (name == "largest_batch" and name in row)]
    return min(found, default=None)


def all_fit(*sides: Iterable[Row]) -> bool:
    """Whether none of these rows ran out of memory."""
    return all(row.get("fits") is not False for rows in sides for row in rows)


def change_of(
    row: Row, figure: str, values: tuple[float | None, float | None], verdict: Verdict, why: str
) -> Change:
    """Name one figure of a row with its values on the base and the new side and what is said of them."""
    return Change(label(row), row.get("question"), figure, *values, verdict, why)
