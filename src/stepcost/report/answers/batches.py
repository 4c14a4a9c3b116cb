"""For answer 3c without a GPU: which batch size is predicted to be the fastest on a card, and why."""

from __future__ import annotations

from stepcost.report.answers.cards import a_second, timed
from stepcost.report.rows import Row, groups, of_question
from stepcost.report.said import Said
from stepcost.request import example_of
from stepcost.units import count, ms, significant

FILLS = 0.5
"""Where a step grows by less than this share of what its batch does, the small one does not fill the card."""


def with_predicted(said: Said, rows: list[Row]) -> Said:
    """Add to an answer what is predicted of the batch sizes of question 3a, if anything is."""
    found = groups(timed(of_question(rows, "3a")), "batch_size")
    if not found or len(found[0]) < 2:
        return said
    text = _said(found[0])
    if said.source == "skipped":
        return Said(text, "predicted")
    source = said.source.replace("measured", "measured and predicted", 1)
    if said.source != "measured":  # on a stand-in, of which nothing is predicted
        source = f"{said.source}; predicted for {found[0][0].get('card') or 'a card'}"
    return said._replace(text=f"{said.text} {text}", source=source)


def _said(steps: list[Row]) -> str:
    ranked = sorted(steps, key=lambda row: -a_second(row, row["step_s"]))
    best, last = ranked[0], ranked[-1]
    unit = "tokens" if best.get("sequence_length") else f"{example_of(best)}s"
    near = [
        count(row["batch_size"])
        for row in ranked[1:]
        if a_second(row, row["step_low_s"]) >= a_second(best, best["step_high_s"])
    ]
    level = f" (not to be told apart from batch {', '.join(near)})" if near else ""
    where = (
        f"for the card {best.get('card') or 'that was not stored'}, {best.get('step_engine') or 'captured'}"
    )
    text = (
        f"Predicted {where}: batch {count(best['batch_size'])} is the fastest{level}, {_pace(best, unit)}; "
        f"the slowest is batch {count(last['batch_size'])}, {_pace(last, unit)}."
    )
    return text + _why(best, last)


def _pace(row: Row, unit: str) -> str:
    low, likely, high = (ms(row[name]) for name in ("step_low_s", "step_s", "step_high_s"))
    return f"{significant(a_second(row, row['step_s']))} {unit} a second, {likely} a step ({low} to {high})"


def _why(best: Row, last: Row) -> str:
    """Say by how much a step grows with its batch, and what that tells."""
    small, large = sorted((best, last), key=lambda row: row["batch_size"])
    larger, longer = large["batch_size"] / small["batch_size"], large["step_s"] / small["step_s"]
    if small is best or longer > FILLS * larger:
        return ""
    text = f" {significant(larger)} times the batch takes {significant(longer)} times as long: "
    text += f"the kernels of batch {count(small['batch_size'])} do not fill the card"
    if small.get("kernels") and small.get("kernel_s"):
        each_us = 1e6 * small["kernel_s"] / small["kernels"]
        text += f" ({count(small['kernels'])} of them, {significant(each_us)} us each)"
    return f"{text}."
