"""Which operators make a step slower or faster: than it was predicted to be, or than it was."""

from __future__ import annotations

from collections.abc import Mapping

from stepcost.report.rows import Row
from stepcost.units import ms, percent

MOST = 4
"""So many operators are named of a step."""
SMALLEST_SHARE = 0.1
"""An operator is named where it changed by this share of the step's change at least."""
BETWEEN = "between kernels"
"""What of a step's change no operator explains."""


def changed_by(
    before: Mapping[str, float], after: Mapping[str, float], change_s: float
) -> list[tuple[str, float]]:
    """Name what a step's change of ``change_s`` seconds is made of, largest first: operators and seconds.

    Those that changed the other way are named too: an operator may have taken the place of another.
    """
    apart = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in {**before, **after}}
    apart[BETWEEN] = change_s - sum(apart.values())
    largest = sorted(apart.items(), key=lambda one: -abs(one[1]))[:MOST]
    return [(name, value) for name, value in largest if abs(value) >= SMALLEST_SHARE * abs(change_s)]


def outside_prediction(row: Row, step_s: float) -> str | None:
    """Say how far a measured step is from its prediction and by which operators; ``None`` where inside."""
    predicted = row.get("predicted_step")
    if not predicted or predicted["step_low_s"] <= step_s <= predicted["step_high_s"]:
        return None
    likely_s = predicted["step_s"]
    slower = step_s > likely_s
    bound = f"at most {ms(predicted['step_high_s'])}" if slower else f"at least {ms(predicted['step_low_s'])}"
    text = (
        f"{percent(abs(step_s / likely_s - 1))} {'slower' if slower else 'faster'} than predicted "
        f"({ms(likely_s)}, {bound}; operators {predicted.get('step_basis') or 'not stored'}, "
        f"torch {predicted.get('recorded_torch') or 'not stored'})"
    )
    if not row.get("by_operator_s") or not predicted.get("by_operator_s"):
        why = (row.get("unread") or {}).get("by_operator_s", "not stored")
        return f"{text}; by which operators is unread: {why}"
    return f"{text}: {said(changed_by(predicted['by_operator_s'], row['by_operator_s'], step_s - likely_s))}"


def said(changes: list[tuple[str, float]]) -> str:
    """Write ``convolution_backward +0.800 ms, between kernels -0.100 ms``."""
    return ", ".join(f"{name} {'+' if value > 0 else '-'}{ms(abs(value))}" for name, value in changes)
