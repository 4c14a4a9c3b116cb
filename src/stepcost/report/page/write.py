"""From loaded runs to the report: one HTML page without scripts, the same in Markdown, and the plots."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stepcost.price import Price
from stepcost.report.answers import answers
from stepcost.report.load import Run
from stepcost.report.page.across import Across, of_runs
from stepcost.report.page.all_rows import tables_of_all_rows
from stepcost.report.page.drawing import Plot, to_png, to_svg
from stepcost.report.page.facts import machine_table, session_model, session_tables
from stepcost.report.page.plots_accuracy import accuracy_over_epochs, accuracy_over_time
from stepcost.report.page.plots_memory import memory_by_optimizer, memory_over_batch_size
from stepcost.report.page.plots_steps import step_by_engine, step_time_over_batch_size
from stepcost.report.page.writeup import compared_with_writeup
from stepcost.report.said import Answer
from stepcost.report.tables import Table, escape_markdown, markdown_table

PLOTS = (
    memory_by_optimizer,
    memory_over_batch_size,
    step_time_over_batch_size,
    accuracy_over_time,
    accuracy_over_epochs,
    step_by_engine,
)
"""The plots of one run, in the order of the page."""


@dataclass(frozen=True)
class Section:
    """What the page shows of one run."""

    run: Run
    id: str
    """Names the section's links and its PNG files: letters, digits, dots and dashes only."""
    answers: list[Answer]
    machine: Table
    writeup: Table | str
    """The table, or why there is none."""
    plots: list[Plot]
    undrawn: list[str]
    """One line for each plot that there is nothing to draw for."""
    session: list[Table]
    rows: list[Table]


def write_report(runs: Sequence[Run], out_dir: Path, price: Price | None = None) -> list[Path]:
    """Write ``report.html``, ``report.md`` and a PNG per plot into ``out_dir``, made if need be.

    With a ``price`` of an hour, answers say what times cost. Returns the files written, the page first.
    Raises ``OSError`` if it cannot write, and ``ValueError`` without runs.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    sections = [_section(run, place, price) for place, run in enumerate(runs, start=1)]
    return _write(runs, of_runs(runs) if len(runs) > 1 else None, sections, out_dir)


def write_comparison(runs: Sequence[Run], across: Across, out_dir: Path) -> list[Path]:
    """Write the same files about a comparison of ``runs`` alone, without a section for each run."""
    return _write(runs, across, [], out_dir)


def _write(runs: Sequence[Run], across: Across | None, sections: list[Section], out_dir: Path) -> list[Path]:
    out_dir.mkdir(parents=True, exist_ok=True)
    shown = {
        "title": f"stepcost: {', '.join(run.label for run in runs)}",
        "sections": sections,
        "across": across,
    }
    page, markdown = out_dir / "report.html", out_dir / "report.md"
    page.write_text(_html().get_template("report.html.jinja").render(shown), encoding="utf-8")
    markdown.write_text(_markdown().get_template("report.md.jinja").render(shown), encoding="utf-8")
    written = [page, markdown]
    for plot in [
        *(across.plots if across else []),
        *(plot for section in sections for plot in section.plots),
    ]:
        path = out_dir / f"{plot.name}.png"
        to_png(plot, path)
        written.append(path)
    return written


def _section(run: Run, place: int, price: Price | None) -> Section:
    own_id = re.sub(r"[^A-Za-z0-9.-]+", "-", run.label)[:60].strip("-.") or "run"
    own_id = f"run{place}-{own_id}"
    drawn = [draw(run) for draw in PLOTS]
    said = answers(run.rows, run.machine, session_model(run), price)
    return Section(
        run=run,
        id=own_id,
        answers=said,
        machine=machine_table(run),
        writeup=compared_with_writeup(run, said),
        plots=[
            dataclasses.replace(plot, name=f"{own_id}-{plot.name}")
            for plot in drawn
            if isinstance(plot, Plot)
        ],
        undrawn=[reason for reason in drawn if isinstance(reason, str)],
        session=session_tables(run),
        rows=tables_of_all_rows(run),
    )


def _html() -> Environment:
    """Everything is escaped but the SVG, in which text is outlines of letters and ids are our own."""
    environment = _environment(autoescape=True)
    environment.filters["svg"] = lambda plot: Markup(to_svg(plot))
    environment.globals["css"] = Markup(Path(__file__).with_name("report.css").read_text(encoding="utf-8"))
    return environment


def _markdown() -> Environment:
    """Every value is escaped as it is printed, so that a name is never a link, a tag or a new column."""
    environment = _environment(
        finalize=lambda value: value if isinstance(value, Markup) else escape_markdown(str(value))
    )
    environment.filters["as_is"] = Markup  # what a macro returns is escaped already
    environment.filters["table"] = lambda table: Markup(markdown_table(table))
    return environment


def _environment(**escaping: Any) -> Environment:
    loader = PackageLoader("stepcost.report.page", ".")
    return Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, **escaping)
