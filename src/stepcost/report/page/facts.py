"""The machine and the session of a run, as lines of a table."""

from __future__ import annotations

import shlex

from stepcost.report.load import Run
from stepcost.report.tables import Table
from stepcost.units import gb, seconds

MOST_SHOWN = 40
"""More skipped or failed tests than this are counted, not listed."""


def machine_table(run: Run) -> Table:
    """List GPU, memory, driver, CUDA, cuDNN, torch, processor and date; without a GPU nothing of one."""
    machine, session = run.machine, run.session
    total = machine.get("gpu_total_bytes")
    cpu = machine.get("cpu") or {}
    processor = cpu.get("brand_raw") or "not stored"
    if cpu.get("count"):
        processor += f", {cpu['count']} cores"
    gpu = run.gpu
    if session.get("why_no_gpu"):
        gpu += f" ({session['why_no_gpu']})"
    of_the_gpu = (
        ("GPU memory", gb(total, 2) if total is not None else "not read"),
        ("compute capability", machine.get("compute_capability") or "not read"),
        ("driver", machine.get("driver") or "not read"),
        ("CUDA", machine.get("cuda") or "not read"),
        ("cuDNN", machine.get("cudnn") or "not read"),
        ("clocks at the start", _clocks(run)),
    )
    rows = (
        ("GPU", gpu),
        *(of_the_gpu if run.gpu != "no GPU" else ()),
        ("torch", run.torch),
        ("torchvision", machine.get("torchvision") or "not stored"),
        ("processor", processor),
        ("date", f"{run.date} UTC" if run.date else "not stored"),
        ("model", session_model(run) or "not stored"),
        ("data set", (session.get("dataset") or {}).get("name") or "not stored"),
    )
    return Table(caption="The machine and the session", columns=("what", "value"), rows=rows, label_columns=2)


def session_model(run: Run) -> str | None:
    """Return the name of the model that the session was for, if it is stored."""
    return (run.session.get("model") or {}).get("name")


def command_line(run: Run) -> str:
    """Write ``pytest benchmarks/ --benchmark-save=run1``, quoted as a shell needs it."""
    command = run.session.get("command")
    return f"pytest {shlex.join(command)}" if command else "not stored"


def _clocks(run: Run) -> str:
    clocks = run.session.get("clocks")
    if not clocks:
        return "not read"
    parts = [
        f"{label} {clocks[name]:,} {unit}"
        for name, label, unit in (
            ("sm_mhz", "SM", "MHz"),
            ("sm_max_mhz", "of at most", "MHz"),
            ("memory_mhz", "memory", "MHz"),
            ("temperature_c", "at", "degrees C"),
        )
        if clocks.get(name) is not None
    ]
    parts += [f"throttled: {reason}" for reason in clocks.get("throttle_reasons") or []]
    return ", ".join(parts) or "not read"


def session_tables(run: Run) -> list[Table]:
    """List what failed, what was skipped and why, and where the time went, as far as there is any."""
    session = run.session
    tables = []
    for name, columns, caption in (
        ("failed", ("test", "message"), "What did not hold"),
        ("skipped", ("test", "reason"), "What was skipped, and why"),
    ):
        told = session.get(name) or []
        if told:
            left = len(told) - MOST_SHOWN
            more = f"; {left} more not shown" if left > 0 else ""
            lines = tuple(tuple(one.get(column) or "not stored" for column in columns) for one in told)
            tables.append(Table(f"{caption}{more}", columns, lines[:MOST_SHOWN], label_columns=2))
    costs = session.get("costs") or []
    if costs:
        lines = tuple(
            (one["part"], seconds(one["seconds"]), str(one["times"] or "not stored"))
            for one in costs[:MOST_SHOWN]
        )
        tables.append(Table("Where the run's time went; s = seconds", ("part", "time", "times"), lines))
    return tables
