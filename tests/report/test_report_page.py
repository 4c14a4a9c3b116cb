"""The page and the Markdown: true to the run, safe, self-contained."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Text

from stepcost.report import find
from stepcost.report.answers import answers
from stepcost.report.load import load
from stepcost.report.page.drawing import Plot
from stepcost.report.page.plots_memory import memory_over_batch_size
from stepcost.report.page.write import FIRST, PLOTS, write_report
from stepcost.report.page.writeup import writeup_figures
from tests.command import stepcost
from tests.report.synthetic import rows_of, save, synthetic_run

ROOT = Path(__file__).parents[2]
HOSTILE = '<script>alert("x")</script>'


@pytest.fixture(scope="module", params=[True, False], ids=["gpu", "no gpu"])
def report(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """A synthetic run with two seeds of odd numbers, and the folder of its report."""
    folder = tmp_path_factory.mktemp("report")
    run = synthetic_run(seeds=2, slower=1.0137) if request.param else synthetic_run(gpu=None, seeds=2)
    write_report([load(save(run, folder))], folder / "out")
    return run, folder / "out"


def test_page_shows_every_answer(report: tuple[dict[str, Any], Path]) -> None:
    """Each answer's title, text and source stand on the page, and its table cell by cell."""
    run, out = report
    page = (out / "report.html").read_text()
    for answer in answers(rows_of(run), run["machine_info"], "resnet152"):
        if answer.source == "skipped":
            assert f"<li>{answer.question} {answer.title} {answer.text}</li>" in unescape(page)
            continue
        section = next(part for part in page.split('<section class="answer') if f"> {answer.title} <" in part)
        for text in (answer.text, answer.question, answer.source):
            assert text in unescape(section)
        cells = re.findall(r'<td data-label="([^"]*)"[^>]*>([^<]*)</td>', section.split("</section>")[0])
        rows = answer.table.rows if answer.table else ()
        columns = answer.table.columns[1:] if answer.table else ()
        shown = [pair for row in rows for pair in zip(columns, row[1:], strict=True)]
        assert [(unescape(column), unescape(cell)) for column, cell in cells] == shown


def test_every_figure_of_the_write_up_that_was_read_appears(report: tuple[dict[str, Any], Path]) -> None:
    """The write-up's figures stand folded in the page and in the Markdown, its three errors explained."""
    run, out = report
    page = unescape((out / "report.html").read_text())
    assert len(writeup_figures()) == 16
    folded = page[page.index("<summary>The write-up's figures</summary>") :]
    for figure in writeup_figures():
        is_read = run["machine_info"]["gpu"] or figure["id"] != "context"
        assert (figure["what"] in folded) == bool(is_read)
        assert (figure["says"] in folded) == bool(is_read)
    assert "not read in this run" not in folded
    assert page.count("An error:") == 3
    assert (out / "report.md").read_text().count("An error:") == 3


def test_the_write_up_is_compared_with_its_own_model_only(tmp_path: Path) -> None:
    """The page of a run of another model shows none of the write-up's figures, nor speaks of it."""
    text = json.dumps(synthetic_run(seeds=1)).replace("resnet152", "resnet50")
    page, markdown, *_ = write_report([load(save(text, tmp_path))], tmp_path / "out")
    for shown in (page.read_text(), markdown.read_text()):
        assert "58.16 MB" not in shown
        assert "An error:" not in shown
        assert "write-up" not in shown


def test_write_up_is_kept_as_data() -> None:
    """The figures kept are those of the write-up."""
    values = [figure["value"] for figure in writeup_figures() if "value" in figure]
    assert values == [58164298, 58.16, 0.23, 33.973, 4489, 4394, 4516, 2918, 3622, 5270, 7818, 256, 256]


def test_page_needs_nothing_else(report: tuple[dict[str, Any], Path]) -> None:
    """One file: no script, no picture, style or font from elsewhere, and no host name."""
    _, out = report
    page = (out / "report.html").read_text()
    assert not re.search(r"<script|<img|<link|<iframe|@import|src=|url\((?!#)| on\w+=", page)
    links = re.findall(r'href="([^"]*)"', page)
    assert all(link.startswith("#") for link in links)
    assert "secret-host-name" not in page
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_markdown_shows_plots_that_exist(report: tuple[dict[str, Any], Path]) -> None:
    """Each picture of the Markdown is a PNG next to it."""
    _, out = report
    pictures = re.findall(r"\]\(([^)]*\.png)\)", (out / "report.md").read_text())
    assert len(pictures) >= 4
    assert sorted(pictures) == sorted(path.name for path in out.glob("*.png"))


def test_plots_say_unit_machine_and_source(report: tuple[dict[str, Any], Path]) -> None:
    """Each plot alone names its run, torch, GPU and source, and has no unparsed formula on an axis."""
    run, out = report
    loaded = load(next(out.parent.rglob("0001_run1.json")))
    for draw in [FIRST, *itertools.chain(*PLOTS.values())]:
        plot = draw(loaded)
        if isinstance(plot, str):
            continue
        said = f"{_texts(plot)} {plot.caption} {plot.where}".replace("\n", " ")
        assert "$" not in said
        assert run["machine_info"]["torch"] in said
        assert (run["machine_info"]["gpu"] or "no GPU") in said
        assert "0001_run1" in said
        assert re.search(r"Measured|Predicted", said)
        assert re.search(r" MB|MB,|ms a step|seconds|, %", said)


def test_a_bound_of_the_largest_batch_is_drawn_as_one(tmp_path: Path) -> None:
    """The plot of memory over batch size marks a largest batch that is only a bound with 'at most'."""
    run = synthetic_run(gpu=None)
    (row,) = [one["extra_info"] for one in run["benchmarks"] if one["extra_info"].get("trials")]
    assert "largest that would train: 10,240" in _texts(memory_over_batch_size(load(save(run, tmp_path))))
    row |= {"largest_batch": None, "largest_batch_at_most": 292, "trials": None}
    assert "largest that would train: at most 292" in _texts(
        memory_over_batch_size(load(save(run, tmp_path)))
    )
    row["largest_batch_at_most"] = 0
    assert "largest" not in _texts(memory_over_batch_size(load(save(run, tmp_path))))


def _texts(plot: Plot | str) -> str:
    assert isinstance(plot, Plot)
    return " ".join(text.get_text() for text in plot.figure.findobj(Text))


def _poison(value: Any) -> Any:
    """Put markup into every text, but for those that rows are chosen by."""
    if isinstance(value, dict):
        kept = ("question", "source", "timed", "datetime", "moment")
        return {name: inner if name in kept else _poison(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_poison(inner) for inner in value]
    return f"{value} {HOSTILE} $\\frac{{|}}$ `x` [a](javascript:b)" if isinstance(value, str) else value


def test_markup_in_names_is_shown_not_followed(tmp_path: Path) -> None:
    """No text of a saved run becomes a tag, a link, a formula or a new column."""
    run = load(save(_poison(synthetic_run(seeds=1)), tmp_path, "0001_<b>&run"))
    other = load(save(_poison(synthetic_run(seeds=1)), tmp_path, "0002_<b>&run"))
    page, markdown, *plots = write_report([run, other], tmp_path / "out")
    for text in (page.read_text(), markdown.read_text()):
        assert "<script" not in text
        assert "<b>" not in text
        assert "alert(" in text
    assert not re.search(r"(?<!\\)\]\(javascript", markdown.read_text())
    lines = [line for line in markdown.read_text().splitlines() if line.startswith("| ")]
    assert not any(re.search(r"\{\|", line) for line in lines)
    assert all(re.fullmatch(r"[A-Za-z0-9.-]+\.png", path.name) for path in plots)


def test_imports_neither_pytest_nor_torch() -> None:
    """Everything of the report room, imported in a fresh interpreter, leaves pytest and torch alone."""
    root = ROOT / "src"
    paths = [path.relative_to(root).with_suffix("") for path in (root / "stepcost" / "report").rglob("*.py")]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    assert len(names) > 10
    code = f"import sys; import {', '.join(names)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "pytest", "_pytest"} & set(done.stdout.split())


def test_list_loads_no_plotting(tmp_path: Path) -> None:
    """The table of saved runs is printed without loading what draws, renders or trains."""
    save(synthetic_run(), tmp_path)
    code = "import sys; from stepcost.report.command import list_runs; list_runs(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    *table, modules = done.stdout.splitlines()
    assert any("run1" in line and "Synthetic GPU" in line for line in table)
    assert not {"matplotlib", "jinja2", "numpy", "torch"} & set(modules.split())


@pytest.mark.parametrize(
    "arguments", [["nope"], ["--nope"], ["list", "x"], ["report", "nope"], ["report", "run1", "--out"]]
)
def test_wrong_commands_are_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong command is one line on standard error and exit code 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(find, "REFERENCE", tmp_path)
    assert stepcost(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
