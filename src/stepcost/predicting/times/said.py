"""A predicted step's time in words, and under the names of the schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from stepcost.predicting.times.step_time import FROM_RATES, Contributor, StepTime
from stepcost.units import duration

LARGEST = 8
"""So many operators and modules are named to a reader."""


def time_fields(found: StepTime | None) -> dict[str, Any]:
    """Return what is stored of a step's time, with its operators and modules; null where it is not known."""
    if found is None:
        return {"step_s": None}
    return {
        "step_s": found.step_s,
        "step_low_s": found.low_s,
        "step_high_s": found.high_s,
        "step_basis": found.basis,
        "step_recorded_share": found.recorded_share,
        "step_recorded_with": found.recorded_with or None,
        "step_by_operator": [asdict(one) for one in found.contributors],
        "step_by_module": [asdict(one) for one in found.modules],
    }


def busy_fields(found: StepTime | None) -> dict[str, Any]:
    """Return what is stored of how long the kernels of a step run, where that alone is known."""
    if found is None:
        return {}
    return {"gpu_busy_s": found.step_s, "gpu_busy_low_s": found.low_s, "gpu_busy_high_s": found.high_s}


def busy_line(fields: Mapping[str, Any]) -> str:
    """Say how long the kernels of a step run."""
    likely, low, high = (duration(fields[f"gpu_busy_{end}s"]) for end in ("", "low_", "high_"))
    span = f"{likely}, nine times in ten between {low} and {high}"
    return f"Its kernels run for {span}: a step takes as long at least."


def time_lines(found: StepTime, fields: Mapping[str, Any]) -> list[str]:
    """Say how long a step takes, how sure that is, and what takes longest."""
    examples = fields["batch_size"] * (fields["accumulate"] or 1)
    what, count = "examples", examples
    if fields["sequence_length"]:
        what, count = "tokens", examples * fields["sequence_length"]
    elif fields["image_size"]:
        what = "images"
    likely, low, high = (duration(one) for one in (found.step_s, found.low_s, found.high_s))
    engine = fields["step_engine"]
    first = f"A step takes {likely} under {engine}, nine times in ten between {low} and {high}: "
    share = f"{100 * found.recorded_share:.0f} %"
    last = f"{share} of it was recorded with these shapes, all with torch {found.recorded_with}."
    if found.basis == FROM_RATES:
        first = f"A step would take {likely} under {engine}, between {low} and {high}: "
        last = "Estimated from another card's operators and the rates of both."
    unasked = "" if found.unasked is None else f" {found.unasked}."
    return [
        f"{first}{count / found.step_s:,.0f} {what} a second. {last}{unasked}",
        f"By operator: {_listed(found.contributors)}.",
        f"By module: {_listed(found.modules)}.",
    ]


def _listed(parts: Iterable[Contributor]) -> str:
    return ", ".join(f"{one.name} {duration(one.seconds)}" for one in list(parts)[:LARGEST])
