"""Answers 1a to 1c: the model, the GPU, the CUDA context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepcost.report.rows import Row, having, of_question, source_of
from stepcost.report.said import NOT_ASKED, Said
from stepcost.report.tables import Table
from stepcost.units import BYTES_NOTE, count, gb, listed, mb, mb_number

WHEN = {
    "first allocation": "after the first allocation",
    "model loaded": "with the model loaded",
    "training step": "after a training step",
}
"""The moments of a process, in a sentence."""


def size_of_model(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """1a: the parameters, trainable and frozen, and the bytes they take."""
    told = [row for row in rows if row.get("parameters")]
    if not told:
        return NOT_ASKED
    row = told[0]
    total, trainable = row["parameters"], row.get("trainable_parameters")
    # Rows from before frozen parameters were counted hold the trainable ones alone.
    kind = " trainable parameters" if trainable is None else " parameters"
    text = f"{row.get('model') or 'The model'} has {count(total)}{kind}"
    if trainable == total:
        text += ", all trainable"
    size = row.get("parameter_bytes")
    if size is None:
        text += "; their size was not read."
    else:
        text += f", which take {mb(size, 2)}: {_bytes_each(row)} each."
    if trainable is not None and trainable != total:
        own = row.get("trainable_parameter_bytes")
        frozen = row.get("frozen_parameters")
        text += f" Of these {count(trainable)} are trainable" + ("" if own is None else f" ({mb(own, 2)})")
        text += f", {count(total - trainable if frozen is None else frozen)} are frozen."
    if row.get("buffer_bytes") is not None:
        text += f" Buffers (batch-norm statistics) take {mb(row['buffer_bytes'], 2)} more."
    formula = row.get("parameters_closed_form")
    if formula is not None:
        agrees = "the same count" if formula == total else f"{count(formula)}, which differs"
        text += f" The closed form gives {agrees}."
    return Said(text, source_of([row]))


def _bytes_each(row: Row) -> str:
    each = row["parameter_bytes"] / row["parameters"]
    return f"{each:.0f} bytes" if each == round(each) else f"{each:.2f} bytes on average"


def which_gpu(rows: list[Row], machine: Mapping[str, Any]) -> Said:
    """1b: the GPU's name and memory, by torch and by NVML."""
    asked = of_question(rows, "1b")
    row = asked[0] if asked else {}
    name = row.get("gpu") or machine.get("gpu")
    if not name and "gpu" not in machine:
        return NOT_ASKED
    if not name:
        return Said("No GPU was used in this run: no memory of a GPU was measured.", "skipped")
    total = row.get("torch_total_bytes") or machine.get("gpu_total_bytes")
    nvml = row.get("nvml_total_bytes") or machine.get("gpu_nvml_total_bytes")
    reserved = row.get("nvml_reserved_bytes") or machine.get("gpu_nvml_reserved_bytes")
    text = name
    if total is not None:
        text += f" with {gb(total, 2)} of memory as torch sees it"
    if nvml is not None:
        text += f"; NVML gives {gb(nvml, 2)}"
        if reserved is not None:
            text += f", of which the driver keeps {gb(reserved, 2)}"
    text += "." if total is not None or nvml is not None else "; its memory was not read."
    return Said(text, source_of(asked) if asked else "measured")


def size_of_context(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """1c: the context at the named moments of a process."""
    told = having(of_question(rows, "1c"), "moments") or having(rows, "moments")
    told = [row for row in told if any(one.get("context_bytes") is not None for one in row["moments"])]
    if not told:
        why = _why_unread(of_question(rows, "1c"))
        return Said(f"The context was not read{why}.", "skipped")
    row = told[0]
    moments = [one for one in row["moments"] if one.get("context_bytes") is not None]
    parts = [f"{mb(one['context_bytes'])} {WHEN.get(one['moment'], one['moment'])}" for one in moments]
    text = f"The CUDA context takes {listed(parts)} (process memory less what the allocator reserves)."
    first, last = moments[0]["context_bytes"], moments[-1]["context_bytes"]
    if last > first:
        text += f" It grows by {mb(last - first)} because CUDA loads kernels when they are first used."
    if row.get("process_bytes_from"):
        text += f" Process memory comes from: {row['process_bytes_from']}."
    table = Table(
        caption=f"Context at each moment, {source_of([row])}; in {BYTES_NOTE}",
        columns=("moment", "process", "reserved", "context"),
        rows=tuple(
            (
                one["moment"],
                *(
                    "not read" if one.get(field) is None else mb_number(one[field])
                    for field in ("process_bytes", "reserved_bytes", "context_bytes")
                ),
            )
            for one in row["moments"]
        ),
    )
    return Said(text, source_of([row]), table)


def _why_unread(asked: list[Row]) -> str:
    for row in asked:
        reasons = row.get("unread") or {}
        for field in ("context_bytes", "process_bytes", "moments"):
            if field in reasons:
                return f": {reasons[field]}"
    return "" if asked else " in this run"
