"""What a page shows of several runs together: what the comparison says first, then its plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stepcost.report.compare import show
from stepcost.report.compare.change_tables import tables
from stepcost.report.compare.matrix import DEFAULT_MATRIX, matrix
from stepcost.report.compare.result import CannotCompareError, Comparison
from stepcost.report.compare.sides import compare_sides
from stepcost.report.compare.tolerances import FieldRule
from stepcost.report.load import Run
from stepcost.report.page.drawing import Plot
from stepcost.report.page.plots_accuracy import accuracy_by_engine
from stepcost.report.page.plots_compare import ratios
from stepcost.report.page.plots_runs import history, metrics_over_runs
from stepcost.report.tables import Table


@dataclass(frozen=True)
class Across:
    """Several runs, compared or side by side."""

    heading: str
    verdict: str
    """One line."""
    tables: list[Table]
    closing: list[str]
    """What the tables leave out, in sentences."""
    plots: list[Plot]
    is_judged: bool
    """Whether the tables say what got worse, and so are read first."""


def of_sides(base: Sequence[Run], new: Sequence[Run], found: Comparison) -> Across:
    """Show two sides that were compared."""
    runs = [*base, *new]
    drawn = [ratios(found), history(runs), metrics_over_runs(runs), accuracy_by_engine(runs)]
    return Across(
        "The comparison",
        show.headline(found),
        tables(found),
        show.closing(found),
        [plot for plot in drawn if isinstance(plot, Plot)],
        is_judged=True,
    )


def side_by_side(runs: Sequence[Run], rules: Sequence[FieldRule] = DEFAULT_MATRIX) -> Across:
    """Show runs side by side, nothing judged."""
    drawn = [history(runs), metrics_over_runs(list(runs)), accuracy_by_engine(runs)]
    return Across(
        f"{len(runs)} runs side by side",
        "Nothing is judged.",
        matrix(runs, rules),
        [],
        [plot for plot in drawn if isinstance(plot, Plot)],
        is_judged=False,
    )


def of_runs(runs: Sequence[Run]) -> Across:
    """Compare two runs; show more, and two that have nothing in common, side by side."""
    if len(runs) == 2:
        try:
            return of_sides(runs[:1], runs[1:], compare_sides(runs[:1], runs[1:]))
        except CannotCompareError:
            pass
    return side_by_side(runs)
