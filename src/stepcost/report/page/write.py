"""From loaded runs to the report: one HTML page without scripts, the same in Markdown, and the plots."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stepcost.price import Prices
from stepcost.report.answers import answers
from stepcost.report.load import Run
from stepcost.report.page import headline, palette
from stepcost.report.page.across import Across, of_runs
from stepcost.report.page.all_rows import tables_of_all_rows
from stepcost.report.page.drawing import Plot, to_png, to_svg
from stepcost.report.page.facts import command_line, machine_table, session_model, session_tables
from stepcost.report.page.plots_accuracy import accuracy_over_epochs, accuracy_over_time
from stepcost.report.page.plots_cards import largest_batch_by_card, step_time_by_card
from stepcost.report.page.plots_lengths import memory_over_sequence_length
from stepcost.report.page.plots_memory import (
    activations_by_module,
    memory_by_optimizer,
    memory_over_batch_size,
    parts_of_the_peak,
)
from stepcost.report.page.plots_ranks import memory_by_rank, step_time_over_gpus
from stepcost.report.page.plots_savers import memory_by_saver
from stepcost.report.page.plots_steps import step_by_engine, step_time_over_batch_size
from stepcost.report.page.writeup import compared_with_writeup
from stepcost.report.said import Answer
from stepcost.report.tables import Table, escape_markdown, markdown_table

Draw = Callable[[Run], Plot | str]
FIRST: Draw = parts_of_the_peak
"""The plot of the first screen."""
PLOTS: dict[str, tuple[Draw, ...]] = {
    "2a": (memory_by_optimizer,),
    "3a": (memory_over_batch_size, memory_over_sequence_length, activations_by_module),
    "3b": (accuracy_over_epochs,),
    "3c": (step_time_over_batch_size,),
    "3d": (accuracy_over_time,),
    "4": (step_by_engine,),
    "5": (memory_by_saver,),
    "6": (memory_by_rank, step_time_over_gpus),
    "7": (step_time_by_card, largest_batch_by_card),
}
"""The plots under each answer."""
LETTERS_ACROSS, LETTERS_BETWEEN = 46, 2
"""Letters of a table that fit on a narrow screen, and those between two columns."""


@dataclass(frozen=True)
class Section:
    """What the page shows of one run."""

    run: Run
    id: str
    """Names the section's links and its PNG files: letters, digits, dots and dashes only."""
    model: str
    device: str
    """The card that was measured, or that is predicted for."""
    asked: str
    """The configuration of the four figures."""
    command: str
    figures: list[headline.Figure]
    first: list[Plot]
    """The plot that explains the first of them, where there is one."""
    answers: list[Answer]
    plots: dict[str, list[Plot]]
    """Under the question that they answer."""
    machine: Table
    session: list[Table]
    failed: list[str]
    """What did not hold, a line each."""
    writeup: Table | None
    rows: list[Table]

    @property
    def answered(self) -> list[Answer]:
        """The questions that rows of the run answer."""
        return [answer for answer in self.answers if answer.source != "skipped"]

    @property
    def open(self) -> list[Answer]:
        """The others."""
        return [answer for answer in self.answers if answer.source == "skipped"]


def write_report(runs: Sequence[Run], out_dir: Path, prices: Prices | None = None) -> list[Path]:
    """Write ``report.html``, ``report.md`` and a PNG per plot into ``out_dir``, made if need be.

    With ``prices`` of an hour, answers say what times cost. Returns the files written, the page first.
    Raises ``OSError`` if it cannot write, and ``ValueError`` without runs.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    sections = [_section(run, place, prices) for place, run in enumerate(runs, start=1)]
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
        "units": headline.UNITS,
    }
    page, markdown = out_dir / "report.html", out_dir / "report.md"
    page.write_text(_html().get_template("report.html.jinja").render(shown), encoding="utf-8")
    markdown.write_text(_markdown().get_template("report.md.jinja").render(shown), encoding="utf-8")
    written = [page, markdown]
    plots = list(across.plots) if across else []
    for section in sections:
        plots += [*section.first, *(plot for under in section.plots.values() for plot in under)]
    for plot in plots:
        path = out_dir / f"{plot.name}.png"
        to_png(plot, path)
        written.append(path)
    return written


def _section(run: Run, place: int, prices: Prices | None) -> Section:
    own_id = re.sub(r"[^A-Za-z0-9.-]+", "-", run.label)[:60].strip("-.") or "run"
    own_id = f"run{place}-{own_id}"

    def drawn(draws: Sequence[Draw]) -> list[Plot]:
        found = [draw(run) for draw in draws]
        return [
            dataclasses.replace(plot, name=f"{own_id}-{plot.name}")
            for plot in found
            if isinstance(plot, Plot)
        ]

    row = headline.headline_row(run)
    said = answers(run.rows, run.machine, session_model(run), prices)
    return Section(
        run=run,
        id=own_id,
        model=(row or {}).get("model") or session_model(run) or "a training step",
        device=headline.device_of(run, row),
        asked=headline.asked(row),
        command=command_line(run),
        figures=headline.four_figures(run),
        first=drawn([FIRST]),
        answers=said,
        plots={question: drawn(draws) for question, draws in PLOTS.items()},
        machine=machine_table(run),
        session=session_tables(run),
        failed=[
            f"{one.get('test') or 'a test'}: {one.get('message') or 'no message'}"
            for one in run.session.get("failed") or []
        ],
        writeup=compared_with_writeup(run, said),
        rows=tables_of_all_rows(run),
    )


def is_wide(table: Table) -> bool:
    """Whether a row of the table has no room on a narrow screen; headings may fold, cells may not."""
    columns = zip(*table.rows, strict=True)
    return sum(max(map(len, cells)) + LETTERS_BETWEEN for cells in columns) > LETTERS_ACROSS


def _html() -> Environment:
    """Everything is escaped but the SVG, in which matplotlib escapes text and ids are our own."""
    environment = _environment(autoescape=True)
    environment.filters["svg"] = lambda plot: Markup(to_svg(plot))
    environment.filters["is_wide"] = is_wide
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    environment.globals["css"] = Markup(f"{palette.css()}\n{style}")
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
    return Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **escaping
    )
