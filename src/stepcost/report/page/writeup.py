"""The figures of the write-up that this suite began with, compared with those of a run of the same model."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepcost.report.answers.sizes import largest_batch
from stepcost.report.load import Run
from stepcost.report.page.facts import session_model
from stepcost.report.rows import (
    Row,
    groups,
    having,
    is_search,
    memory_figure,
    of_question,
    optimizer_label,
    own_first,
)
from stepcost.report.said import Answer
from stepcost.report.tables import Table
from stepcost.units import count, gb, listed, mb

WRITEUP = Path(__file__).with_name("writeup.toml")
MODEL = "resnet152"
"""The model that the write-up is about."""
NOT_READ = "not read in this run"
Figure = Mapping[str, Any]
Compared = tuple[str, str]
"""What this run says, and why it differs from the write-up."""
Compare = Callable[[Figure, Run, list[Row], Mapping[str, Answer]], Compared]


def writeup_figures() -> list[dict[str, Any]]:
    """Read every figure of the write-up, in its order."""
    figures: list[dict[str, Any]] = tomllib.loads(WRITEUP.read_text(encoding="utf-8"))["figure"]
    return figures


def compared_with_writeup(run: Run, answers: Sequence[Answer]) -> Table | None:
    """Return the write-up's figures that this run read too; ``None`` for a run of something else."""
    named = [
        row["model"] for row in having(own_first(run.rows, None), "model") if not row.get("stand_in_for")
    ]
    model = session_model(run) or next(iter(named), None)
    if model != MODEL:
        return None
    rows = [row for row in own_first(run.rows, MODEL) if row.get("model") in (MODEL, None)]
    said = {answer.question: answer for answer in answers}
    lines = []
    for figure in writeup_figures():
        here, why = _COMPARE[figure["id"]](figure, run, rows, said)
        if here != NOT_READ:
            lines.append((figure["question"], figure["what"], figure["says"], here, why))
    if not lines:
        return None
    return Table(
        caption="Every figure of the write-up that this run read too; MB = 10**6 and GB = 10**9 bytes on "
        "this run's side; the write-up does not say which MB it means",
        columns=("question", "figure", "the write-up says", "this run says", "why they differ"),
        rows=tuple(lines),
        label_columns=5,
    )


def _sizes(rows: list[Row]) -> Row | None:
    told = having(rows, "parameters", "parameter_bytes")
    return next((row for row in told if row["parameters"]), None)


def _parameters(figure: Figure, _run: Run, rows: list[Row], _said: Mapping[str, Answer]) -> Compared:
    row = _sizes(rows)
    if row is None:
        return NOT_READ, ""
    same = row["parameters"] == figure["value"]
    return count(row["parameters"]), "They agree." if same else "The number of classes differs."


def _model_size(figure: Figure, _run: Run, rows: list[Row], _said: Mapping[str, Answer]) -> Compared:
    row = _sizes(rows)
    if row is None:
        return NOT_READ, ""
    size, each = mb(row["parameter_bytes"], 2), row["parameter_bytes"] / row["parameters"]
    return size, (
        f"An error: {figure['says']} is the parameter count with 'MB' behind it, as if each took one byte. "
        f"Here each takes {each:.3g} bytes, and {count(row['parameters'])} of them {size}."
    )


def _gpu_total(_figure: Figure, run: Run, rows: list[Row], _said: Mapping[str, Answer]) -> Compared:
    row = _sizes(rows)
    why = (
        f"An error: 0.23 GB is the size of the model ({mb(row['parameter_bytes'], 2)} = "
        f"{gb(row['parameter_bytes'], 2)}), not of a card: it was read from memory in use."
        if row is not None
        else "An error: no GPU has so little; it is the size of the model, 4 bytes for each parameter."
    )
    asked = of_question(rows, "1b")
    total = (asked[0].get("torch_total_bytes") if asked else None) or run.machine.get("gpu_total_bytes")
    if total is None:
        return ("no GPU" if run.gpu == "no GPU" else NOT_READ), why
    return f"{gb(total, 2)} ({run.gpu})", why


def _context(_figure: Figure, _run: Run, rows: list[Row], _said: Mapping[str, Answer]) -> Compared:
    told = having(of_question(rows, "1c"), "moments") or having(rows, "moments")
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


def _row_of(rows: list[Row], question: str, field: str, value: Any) -> tuple[Row | None, str, str]:
    """Return the row of that optimizer or batch size, with the memory figure that its whole group has."""
    asked = [row for row in of_question(rows, question) if not is_search(row)]
    found = groups(asked, field)
    figure = memory_figure(found[0]) if found else None
    row = next((row for row in found[0] if row[field] == value), None) if found else None
    return row, *(figure or ("", ""))


def _memory(row: Row | None, field: str, word: str) -> str:
    if row is None or not field:
        return NOT_READ
    if row.get("fits") is False:
        return f"out of memory, {row.get('source') or 'source not stored'}"
    return f"{mb(row[field])} of {word} memory, {row.get('source') or 'source not stored'}"


def _optimizer(figure: Figure, _run: Run, rows: list[Row], _said: Mapping[str, Answer]) -> Compared:
    row, field, word = _row_of(rows, "2a", "optimizer", figure["optimizer"])
    here = _memory(row, field, word)
    if figure["optimizer"] != "sgd-momentum":
        why = "Another card, batch and library; the write-up names none of its own."
        return here, why if row is not None else ""
    sgd = _row_of(rows, "2a", "optimizer", "sgd")[0]
    sgd_said = next(one["says"] for one in writeup_figures() if one.get("optimizer") == "sgd")
    why = f"An error: less than plain SGD's {sgd_said}, though momentum adds one tensor per parameter"
    if row is not None and row.get("optimizer_state_bytes") is not None:
        why += f", {mb(row['optimizer_state_bytes'])} here"
    if row is not None and sgd is not None and field and row.get(field) and sgd.get(field):
        difference = row[field] - sgd[field]
        why += f": it takes {mb(abs(difference))} {'more' if difference >= 0 else 'less'} than plain SGD"
    return here, (
        f"{why}. Readings taken one after another in one process keep the memory of those before; "
        "these come from fresh processes."
    )


def _batch(figure: Figure, _run: Run, rows: list[Row], _said: Mapping[str, Answer]) -> Compared:
    row, field, word = _row_of(rows, "3a", "batch_size", figure["batch_size"])
    if row is None:
        return NOT_READ, ""
    kept = ""
    if row.get("activation_bytes") is not None:
        kept = f" Activations are {mb(row['activation_bytes'])} of it."
    return _memory(row, field, word), (
        f"With {optimizer_label(row.get('optimizer'))} in a fresh process; "
        f"the write-up's grow from case to case in one process.{kept}"
    )


def _largest(_figure: Figure, _run: Run, rows: list[Row], _said: Mapping[str, Answer]) -> Compared:
    searches = [row for row in of_question(rows, "3a") if is_search(row)]
    if not searches:
        return NOT_READ, ""
    return largest_batch(searches[0]), "The write-up leaves the question open."


def _from_answer(question: str, why: str) -> Compare:
    """Take the first sentence of the run's own answer."""

    def compare(_figure: Figure, run: Run, _rows: list[Row], said: Mapping[str, Answer]) -> Compared:
        if said[question].source == "skipped":
            return NOT_READ, ""
        trained = of_question(run.rows, "3b")
        instead = next((row.get("model") for row in trained if row.get("stand_in_for")), None)
        return _first_sentence(said[question]), (
            why if instead is None else f"Another model, {instead}, was trained in its place. {why}"
        )

    return compare


def _first_sentence(answer: Answer) -> str:
    return f"{answer.text.partition('. ')[0].rstrip('.')} ({answer.source})"


def _most_memory(_figure: Figure, _run: Run, rows: list[Row], said: Mapping[str, Answer]) -> Compared:
    told = having(of_question(rows, "2a"), "optimizer_state_bytes", "parameter_bytes")
    found = groups(told, "optimizer")
    if said["2b"].source == "skipped" or not found:
        return NOT_READ, ""
    kept = [f"{optimizer_label(row['optimizer'])} {mb(row['optimizer_state_bytes'])}" for row in found[0]]
    return _first_sentence(said["2b"]), f"The state that each keeps is read in bytes: {listed(kept)}."


_COMPARE: dict[str, Compare] = {
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
