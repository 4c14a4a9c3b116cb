"""Answer 6: what each of several GPUs holds, and how long a step takes, by how they share it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepcost.report.answers.savers import step_s
from stepcost.report.rows import CONFIGURATION, Row, configuration, memory_figure, of_question, source_of
from stepcost.report.said import Said
from stepcost.report.tables import Table
from stepcost.report.throttle import in_caption, throttled_note
from stepcost.request import ALONE, FSDP_OPTIONS, PARALLEL, way_to_share
from stepcost.units import BYTES_NOTE, count, listed, mb, mb_number, percent, places, significant

LEDGER = {
    "buckets, gathered": "parallel_bytes",
    "activations": "activation_bytes",
    "workspace": "workspace_bytes",
    "slack": "slack_bytes",
}
"""Parts of a GPU's ledger that are shown."""
TENSORS = {
    "parameters": "parameter_bytes",
    "gradients": "gradient_bytes",
    "state": "optimizer_state_bytes",
}
OF_SHARING = ("parallel", "gpus", *FSDP_OPTIONS)
"""What says how a row's step is shared."""
AT_MOST = "peak_reserved_likely_bytes"
NOT_READ, OUT_OF_MEMORY, NO_NCCL = "not read", "out of memory", "none"
"""Cells without a number: what nobody could read, what did not fit, and what one GPU has nothing of."""
OF_NCCL = ("of it NCCL", "NCCL ms", "not hidden")
"""Columns of which one GPU has nothing."""
HELD = {
    "allocated": "peak_allocated_bytes",
    "reserved": "peak_reserved_bytes",
    "at most": AT_MOST,
    "context": "context_bytes",
    "of it NCCL": "communicator_bytes",
    "process": "process_bytes",
}
READ = (*TENSORS.values(), *LEDGER.values(), *HELD.values(), "gpu_busy_s")
"""Fields under which a row says why a cell was not read; NCCL's time is read with the last."""


def strategy(row: Row) -> str:
    """Return the way in which a row's step is shared; one GPU's is ``none``."""
    return row.get("parallel") or ALONE


def steps_of(rows: list[Row]) -> list[Row]:
    """Return the steps of question 6 of one configuration: that of which most were read.

    They are in the order of the strategies, and of the numbers of GPUs.
    """
    found: dict[tuple[Any, ...], dict[tuple[str, int], Row]] = {}
    for row in of_question(rows, "6"):
        key = tuple(row.get(name) for name in CONFIGURATION if name not in OF_SHARING)
        found.setdefault(key, {}).setdefault((strategy(row), row.get("gpus") or 1), row)
    # Of as many, those of the larger batch: the other is that batch split between the GPUs.
    most = max(
        found.values(), key=lambda one: (len(one), max(row["batch_size"] for row in one.values())), default={}
    )
    return [most[one] for one in sorted(most, key=lambda one: (PARALLEL.index(one[0]), one[1]))]


def split_of(rows: list[Row], alone: Row) -> list[Row]:
    """Return the steps of question 6 in which GPUs share the batch that one GPU has in ``alone``."""
    same = [name for name in CONFIGURATION if name not in ("parallel", "gpus", "batch_size")]
    return [
        row
        for row in of_question(rows, "6")
        if strategy(row) != ALONE
        and row["batch_size"] * row["gpus"] == alone["batch_size"]
        and all(row.get(name) == alone.get(name) for name in same)
    ]


def labels_of(steps: list[Row]) -> list[str]:
    """Name each step by its strategy, and where the numbers of GPUs differ by that too."""
    several = {row.get("gpus") for row in steps if strategy(row) != ALONE}
    return [
        f"{way_to_share(row)} on {row['gpus']}" if len(several) > 1 and row.get("gpus") else way_to_share(row)
        for row in steps
    ]


def by_strategy(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """6: what the fullest GPU holds with each strategy, beside one GPU, and how long its step takes."""
    steps = steps_of(rows)
    if not steps:
        return Said("No row of this run answers it (--parallel all compares them).", "skipped")
    alone = next((row for row in steps if strategy(row) == ALONE), None)
    fitting = [row for row in steps if row.get("fits") is not False]
    names = {id(row): name for row, name in zip(steps, labels_of(steps), strict=True)}
    failed = [names[id(row)] for row in steps if row.get("fits") is False]
    figure = memory_figure(fitting)
    text = "No memory was read."
    if figure is not None:
        field, word = figure
        shared = sorted((row for row in fitting if row is not alone), key=lambda row: row[field])
        parts = [f"{names[id(row)]} {_said(row, alone, field)}" for row in shared]
        gpus = {row["gpus"] for row in steps if row.get("gpus")}
        beside = ""
        if alone is not None and alone in fitting:
            beside = f"{mb(alone[field])} on one GPU"
        where = configuration(steps[0] | dict.fromkeys(OF_SHARING))
        of = f"of {', '.join(map(count, sorted(gpus)))} GPUs " if gpus else ""
        said = "; ".join(part for part in (beside, listed(parts) if parts else "") if part)
        text = f"The fullest {of}takes, of {word} memory: {said} ({where}, a batch for each)."
    if alone is not None and (split := _said_of_split(split_of(rows, alone), alone)):
        text += f" {split}"
    if failed:
        text += f" Out of memory: {listed(failed)}."
    return Said(text, source_of(steps), _table(steps, alone))


def _said(row: Row, alone: Row | None, field: str) -> str:
    """Say ``1,234.0 MB, 45.0 % of one GPU's, in 1.30 times the time``."""
    text = mb(row[field])
    if (most := _likely_most(row, field)) is not None:
        text += f" or up to {mb(most)} where time decides"
    if alone is not None and alone.get(field):
        text += f", {percent(row[field] / alone[field])} of that"
    ratio = times_alone(row, alone)
    return text if ratio is None else f"{text} in {significant(ratio)} times the time"


def _likely_most(row: Row, field: str) -> int | None:
    """Return what a figure of the fullest GPU may be at most; ``None`` where it has no range."""
    likely = row.get(AT_MOST)
    if not likely or field not in ("peak_reserved_bytes", "process_bytes"):
        return None
    beyond = int(likely[1]) - int(row["peak_reserved_bytes"])
    return int(row[field]) + beyond if beyond > 0 else None


def _said_of_split(split: list[Row], alone: Row) -> str | None:
    """Say how long the steps take in which one GPU's batch is split; ``None`` where none was timed."""
    ratios = [times_alone(row, alone) for row in split]
    said = [
        f"{name} {significant(ratio)}"
        for name, ratio in zip(labels_of(split), ratios, strict=True)
        if ratio is not None
    ]
    if not said:
        return None
    return (
        f"With the batch of one GPU split between them, a step takes so many times its time: {listed(said)}."
    )


def times_alone(row: Row, alone: Row | None) -> float | None:
    """Return how many times as long as on one GPU a step takes, if both were timed."""
    took, usual = step_s(row), None if alone is None else step_s(alone)
    return took / usual if took and usual else None


def _rate(row: Row) -> float | None:
    """Return the examples of all GPUs in a second; ``None`` where no step was timed."""
    took, size = step_s(row), row.get("batch_size")
    return (row.get("gpus") or 1) * size / took if took and size else None


def gpus_of(row: Row) -> list[tuple[str, Row]]:
    """Return which GPUs of a row hold what, alike ones as ``0 to 3``; of one GPU that is the row itself."""
    alike: list[tuple[list[int], Row]] = []
    for place, rank in enumerate(row.get("ranks") or [row]):
        same = next((places for places, one in alike if one == rank), None)
        if same is None:
            alike.append(([place], rank))
        else:
            same.append(place)
    return [(places(where), rank) for where, rank in alike]


def _table(steps: list[Row], alone: Row | None) -> Table:
    """Tell what each GPU holds with each strategy; what is of all of them stands with each."""
    lines: list[dict[str, str]] = []
    unread: dict[str, None] = {}
    is_open = any(rank.get(AT_MOST) for row in steps for _, rank in gpus_of(row))
    for row, name in zip(steps, labels_of(steps), strict=True):
        for place, rank in gpus_of(row):
            ledger = rank.get("ledger") or {}
            most = (rank.get(AT_MOST) or (rank.get("peak_reserved_bytes"),))[-1] if is_open else None
            sizes = (
                {name: rank.get(field) for name, field in TENSORS.items()}
                | {name: ledger.get(field) for name, field in LEDGER.items()}
                | {name: most if field == AT_MOST else rank.get(field) for name, field in HELD.items()}
            )
            cells = {name: None if size is None else mb_number(size) for name, size in sizes.items()}
            cells |= _times(row, alone)
            lines.append({"shared by": name, "GPU": place} | _in_words(row, cells))
            why = row.get("unread") or {}
            unread |= dict.fromkeys(why[field] for field in READ if field in why and row.get(field) is None)
    shown = [name for name in lines[0] if _is_shown(name, {line[name] for line in lines})]
    rows = tuple(tuple(line[name] for name in shown) for line in lines)
    why_not = f" Not read: {'; '.join(unread)}." if unread and any(NOT_READ in line for line in rows) else ""
    where = configuration(steps[0] | dict.fromkeys(OF_SHARING))
    return Table(
        caption=f"What each GPU holds: {where}, that batch on each; {source_of(steps)}; in {BYTES_NOTE}. "
        "Parameters, gradients and state are its tensors; buckets, activations, workspace and slack are at "
        "its peak. At most: what is reserved where time decides. NCCL: by how much the context grew when the "
        "GPUs were joined. A step ends with the slowest GPU; x one GPU: times as long as on one; examples of "
        "all GPUs. NCCL ms: its kernels in a step, by the profiler, on the GPU that waits least; not hidden: "
        f"while nothing else runs there.{why_not}" + in_caption(throttled_note(steps, strategy)),
        columns=tuple(shown),
        rows=rows,
        label_columns=2,
    )


def _times(row: Row, alone: Row | None) -> dict[str, str | None]:
    """Write what was timed of a step; ``None`` where it was not."""
    took, ratio, rate = step_s(row), times_alone(row, alone), _rate(row)
    shared, exposed = row.get("communication_s"), row.get("exposed_communication_s")
    hidden = NO_NCCL if shared == 0 else None if not shared or exposed is None else percent(exposed / shared)
    return {
        "step ms": None if took is None else significant(took * 1000),
        "x one GPU": None if ratio is None else significant(ratio),
        "examples/s": None if rate is None else significant(rate),
        "NCCL ms": None if shared is None else significant(shared * 1000),
        "not hidden": hidden,
    }


def _in_words(row: Row, cells: Mapping[str, str | None]) -> dict[str, str]:
    """Say of each cell without a number why it has none."""
    missing = OUT_OF_MEMORY if row.get("fits") is False else NOT_READ
    is_alone = strategy(row) == ALONE
    return {
        name: (NO_NCCL if is_alone and name in OF_NCCL else missing) if cell is None else cell
        for name, cell in cells.items()
    }


def _is_shown(column: str, cells: set[str]) -> bool:
    """Whether a column has a number, or is where what ran out of memory is told."""
    if column in ("shared by", "GPU"):
        return True
    is_told = column == "allocated" and OUT_OF_MEMORY in cells
    return is_told or bool(cells - {NOT_READ, OUT_OF_MEMORY, NO_NCCL})
