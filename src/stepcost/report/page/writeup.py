"""Beside the lab's own numbers: what its write-up says, what a run says, and why they differ."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stepcost.report.answers import Answer
from stepcost.report.load import Run
from stepcost.report.rows import Row, groups, having, memory_figure, of_question, optimizer_label
from stepcost.report.tables import Table
from stepcost.report.units import count, gb, listed, mb

WRITEUP = Path(__file__).with_name("writeup.toml")
NOT_READ = "not read in this run"
Figure = Mapping[str, Any]
Beside = tuple[str, str]
"""What this run says, and why it differs from the write-up."""


def writeup_figures() -> list[dict[str, Any]]:
    """Every figure of the write-up, in its order."""
    figures: list[dict[str, Any]] = tomllib.loads(WRITEUP.read_text(encoding="utf-8"))["figure"]
    return figures


def beside_the_writeup(run: Run, answers: list[Answer]) -> Table:
    """The table of all the lab's figures beside this run's."""
    said = {answer.question: answer for answer in answers}
    rows = []
    for figure in writeup_figures():
        here, why = _COMPARE[figure["id"]](figure, run, said)
        rows.append((figure["question"], figure["what"], figure["says"], here, why))
    return Table(
        caption="Every figure of the write-up; MB = 10**6 and GB = 10**9 bytes on this run's side; "
        "the write-up does not say which MB it means",
        columns=("question", "figure", "the write-up says", "this run says", "why they differ"),
        rows=tuple(rows),
        label_columns=5,
    )


def _model_row(run: Run) -> Row | None:
    told = having(of_question(run.rows, "1a"), "parameters", "parameter_bytes")
    told = told or having(run.rows, "parameters", "parameter_bytes")
    return told[0] if told else None


def _same_model(run: Run) -> str:
    """A clause where the run is of another model than the lab's, so that figures need not agree."""
    row = _model_row(run)
    return "" if row is None or row.get("model") == "resnet152" else f"another model: {row.get('model')}. "


def _parameters(figure: Figure, run: Run, _said: Mapping[str, Answer]) -> Beside:
    row = _model_row(run)
    if row is None:
        return NOT_READ, ""
    same = row["parameters"] == figure["value"]
    why = "They agree." if same else _same_model(run) or "The models differ."
    return count(row["parameters"]), why.strip()


def _model_size(figure: Figure, run: Run, _said: Mapping[str, Answer]) -> Beside:
    row = _model_row(run)
    if row is None:
        return NOT_READ, ""
    each = row["parameter_bytes"] / row["parameters"]
    return mb(row["parameter_bytes"], 2), (
        f"{_same_model(run)}An error: {figure['says']} is the parameter count with 'MB' behind it, "
        f"as if each took one byte. Here each takes {each:.3g} bytes, and {count(row['parameters'])} of them "
        f"{mb(row['parameter_bytes'], 2)}."
    )


def _gpu_total(_figure: Figure, run: Run, _said: Mapping[str, Answer]) -> Beside:
    row = _model_row(run)
    size = (
        f"An error: 0.23 GB is the size of the model ({mb(row['parameter_bytes'], 2)} = "
        f"{gb(row['parameter_bytes'], 2)}), not of a card: it was read from memory in use."
        if row is not None
        else "An error: no GPU has so little; it is the size of the model, 4 bytes for each parameter."
    )
    asked = of_question(run.rows, "1b")
    total = (asked[0].get("torch_total_bytes") if asked else None) or run.machine.get("gpu_total_bytes")
    if total is None:
        return ("no GPU" if run.gpu == "no GPU" else NOT_READ), size
    return f"{gb(total, 2)} ({run.gpu})", size


def _context(_figure: Figure, run: Run, _said: Mapping[str, Answer]) -> Beside:
    told = having(of_question(run.rows, "1c"), "moments") or having(run.rows, "moments")
    loaded = [
        one["context_bytes"]
        for row in told[:1]
        for one in row["moments"]
        if one["moment"] == "model loaded" and one.get("context_bytes") is not None
    ]
    if not loaded:
        return NOT_READ, ""
    return mb(loaded[0]), (
        "The write-up took the model's size from a total, and its model size was wrong; "
        "the context is process memory less what the allocator reserves, read in a fresh process."
    )


def _row_of(run: Run, question: str, field: str, value: Any) -> tuple[Row | None, str, str]:
    """The row of that optimizer or batch size, with the memory figure that its whole group has."""
    found = groups(of_question(run.rows, question), field)
    figure = memory_figure(found[0]) if found else None
    row = next((row for row in found[0] if row[field] == value), None) if found else None
    return row, *(figure or ("", ""))


def _memory(row: Row | None, field: str, word: str) -> str:
    if row is None or not field:
        return NOT_READ
    if row.get("fits") is False:
        return "ran out of memory"
    return f"{mb(row[field])} of {word} memory, {row.get('source') or 'source not stored'}"


def _optimizer(figure: Figure, run: Run, _said: Mapping[str, Answer]) -> Beside:
    row, field, word = _row_of(run, "2a", "optimizer", figure["optimizer"])
    here = _memory(row, field, word)
    why = f"{_same_model(run)}Another card, batch and library; the write-up names none of its own."
    if figure["optimizer"] != "sgd-momentum":
        return here, why if row is not None else ""
    plain = _row_of(run, "2a", "optimizer", "sgd")[0]
    sgd_said = next(one["says"] for one in writeup_figures() if one.get("optimizer") == "sgd")
    why = f"An error: less than plain SGD's {sgd_said}, though momentum adds one tensor per parameter"
    if row is not None and row.get("optimizer_state_bytes") is not None:
        why += f", {mb(row['optimizer_state_bytes'])} here"
    if row is not None and plain is not None and field and row.get(field) and plain.get(field):
        difference = row[field] - plain[field]
        why += f": it takes {mb(abs(difference))} {'more' if difference >= 0 else 'less'} than plain SGD"
    return here, (
        f"{why}. Readings taken one after another in one process keep the memory of those before; "
        "these come from fresh processes."
    )


def _batch(figure: Figure, run: Run, _said: Mapping[str, Answer]) -> Beside:
    row, field, word = _row_of(run, "3a", "batch_size", figure["batch_size"])
    if row is None:
        return NOT_READ, ""
    kept = ""
    if row.get("activation_bytes") is not None:
        kept = f" Activations are {mb(row['activation_bytes'])} of it."
    return _memory(row, field, word), (
        f"{_same_model(run)}With {optimizer_label(row.get('optimizer'))} in a fresh process; "
        f"the write-up's grow from case to case in one process.{kept}"
    )


def _largest(_figure: Figure, run: Run, _said: Mapping[str, Answer]) -> Beside:
    told = having(of_question(run.rows, "3a"), "largest_batch")
    if not told:
        return NOT_READ, ""
    return f"{count(told[0]['largest_batch'])}, {told[0].get('source') or 'source not stored'}", (
        "The write-up leaves the question open."
    )


def _from_answer(question: str, why: str) -> Callable[[Figure, Run, Mapping[str, Answer]], Beside]:
    """Take the first sentence of the run's own answer."""

    def compare(_figure: Figure, _run: Run, said: Mapping[str, Answer]) -> Beside:
        answer = said[question]
        if answer.source == "skipped":
            return NOT_READ, ""
        return _first_sentence(answer), why

    return compare


def _first_sentence(answer: Answer) -> str:
    return f"{answer.text.partition('. ')[0].rstrip('.')} ({answer.source})"


def _most_memory(_figure: Figure, run: Run, said: Mapping[str, Answer]) -> Beside:
    if said["2b"].source == "skipped":
        return NOT_READ, ""
    told = having(of_question(run.rows, "2a"), "optimizer_state_bytes", "parameter_bytes")
    kept = [
        f"{optimizer_label(row['optimizer'])} {mb(row['optimizer_state_bytes'])}"
        for row in groups(told, "optimizer")[0]
    ]
    return _first_sentence(said["2b"]), f"The state that each keeps is read in bytes: {listed(kept)}."


_COMPARE: dict[str, Callable[[Figure, Run, Mapping[str, Answer]], Beside]] = {
    "parameters": _parameters,
    "model-size": _model_size,
    "gpu-total": _gpu_total,
    "context": _context,
    "optimizer": _optimizer,
    "most-memory": _most_memory,
    "batch": _batch,
    "largest": _largest,
    "most-accurate": _from_answer("3b", "The write-up has one run each and names no accuracy."),
    "fastest": _from_answer(
        "3c", "Its reason is not shown there: what a larger batch saves is steps, not waiting for data."
    ),
    "plot": _from_answer("3d", "The plot is drawn here from the recorded epochs."),
}
