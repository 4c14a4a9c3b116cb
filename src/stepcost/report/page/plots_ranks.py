"""The plot of several GPUs: the stack of each, by how they share a step."""

from __future__ import annotations

from stepcost.report.answers.ranks import gpus_of, steps_of, strategy
from stepcost.report.answers.savers import step_s
from stepcost.report.load import Run
from stepcost.report.page.drawing import Plot
from stepcost.report.page.plots_memory import stacks
from stepcost.units import count, ms


def memory_by_rank(run: Run) -> Plot | str:
    """Draw the memory of each GPU with each strategy, and the time of the step; or say why there is none."""
    steps = steps_of(list(run.rows))
    if not any(row.get("ranks") for row in steps):
        return "No step was shared between GPUs (--parallel)."
    drawn = []
    for row in steps:
        took, ranks = step_s(row), gpus_of(row)
        for place, rank in enumerate(ranks):
            # Of the row itself: where it comes from, and its configuration, which the caption says.
            name = strategy(row) if len(ranks) == 1 else f"{strategy(row)}, GPU {count(place)}"
            drawn.append((name, row | {"parallel": None} | rank, "" if took is None else f" · {ms(took)}"))
    title = "Memory of each GPU by how they share a step, at the peak of a step"
    plot = stacks(run, drawn, "memory-by-rank", title, "parallel")
    return plot or "No ledger of several GPUs was read."
