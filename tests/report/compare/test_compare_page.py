"""The page of a comparison and of several runs: what it says first, and that its plots are true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from stepcost.report.compare.result import Comparison
from stepcost.report.compare.sides import compare_sides
from stepcost.report.load import load
from stepcost.report.page.palette import GREEN, GREY, RED
from stepcost.report.page.plots_compare import MOST_ROWS, ratios
from stepcost.report.page.plots_runs import metrics_over_runs
from tests.command import stepcost
from tests.report.compare.saved import changed, engine_run, plain_run, save, slower

BASE = plain_run()


def _found(folder: Path, base: Any, new: Any) -> Comparison:
    return compare_sides([load(save(base, folder, "0001_base"))], [load(save(new, folder, "0002_new"))])


def _drawn(found: Comparison) -> tuple[set[tuple[str, float]], list[tuple[str, float, float]]]:
    """Dots by colour and ratio, intervals by colour and ends, over both panels."""
    plot = ratios(found)
    assert not isinstance(plot, str)
    dots, lines = set(), []
    for axes in plot.figure.axes:
        for line in axes.lines[:-1]:  # the last one stands at 1
            xs = [float(x) for x in np.asarray(line.get_xdata())]
            color = to_hex(line.get_color())
            if len(xs) == 1:
                dots.add((color, round(xs[0], 6)))
            else:
                lines.append((color, xs[0], xs[1]))
    return dots, lines


def test_nothing_planted_draws_nothing_worse(tmp_path: Path) -> None:
    """A build compared with itself has every dot at 1, none of them red or green."""
    dots, _ = _drawn(_found(tmp_path, BASE, BASE))
    assert dots == {(GREY, 1.0)}


def test_what_is_worse_is_red_at_its_ratio(tmp_path: Path) -> None:
    """Each figure that got worse or better is a dot at its ratio, in the colour of its verdict."""
    new = changed(slower(BASE, 1.5), 0, peak_allocated_bytes=6_000_000, ledger={"workspace_bytes": 1})
    found = _found(tmp_path, BASE, changed(new, 1, process_bytes=8_000_000))
    dots, lines = _drawn(found)
    for verdict, color in (("worse", RED), ("better", GREEN)):
        assert {x for its, x in dots if its == color} == {
            round(change.ratio or 0, 6) for change in found.changes if change.verdict == verdict
        }
    slowed = [c for c in found.changes if c.figure == "step_s" and c.interval]
    assert len(slowed) == 4
    for change in slowed:
        assert change.interval is not None
        assert (RED, *change.interval) in lines


def test_what_changed_most_is_drawn_of_many_rows(tmp_path: Path) -> None:
    """Of more rows than fit, the one that changed is kept, and the caption counts the rest."""
    run = plain_run()
    run["benchmarks"] = [changed(run, 0, batch_size=place + 1)["benchmarks"][0] for place in range(60)]
    for place, row in enumerate(run["benchmarks"]):
        row["name"] = f"test_step[{place}]"
    found = _found(tmp_path, run, changed(run, 55, peak_allocated_bytes=5_000_000))
    plot = ratios(found)
    assert not isinstance(plot, str)
    names = [text.get_text() for text in plot.figure.axes[0].get_yticklabels()]
    assert "3a, batch 56" in names
    assert len(names) == MOST_ROWS
    assert f"{61 - MOST_ROWS} more rows" in plot.caption


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run, a slower one, and one with engines; the command is run in it."""
    monkeypatch.chdir(tmp_path)
    save(engine_run(), tmp_path, "0001_base")
    save(slower(engine_run(), 1.5, "engine step"), tmp_path, "0002_new")
    save(engine_run(), tmp_path, "0003_third")
    return tmp_path


def test_out_writes_tables_before_plots(folder: Path) -> None:
    """``compare --out`` keeps its exit code and writes a page: verdict, every table, then both plots."""
    assert stepcost(["compare", "base", "new", "--out", "page"]) == 1
    page = (folder / "page" / "report.html").read_text()
    assert page.index("WORSE") < page.index("<table") < page.rindex("</table>") < page.index("<svg")
    assert page.count("<details open>") == page.count("<table")
    assert page.count("<svg") == 2 * 2  # for wide and for narrow screens
    assert not re.search(r"<script|<img|src=", page)
    markdown = (folder / "page" / "report.md").read_text()
    for name in ("ratios.png", "metrics-over-runs.png"):
        assert f"]({name})" in markdown
        assert (folder / "page" / name).read_bytes().startswith(b"\x89PNG")


def test_without_out_a_gate_writes_nothing(folder: Path) -> None:
    """Two sides are judged without touching the disk."""
    assert stepcost(["compare", "base", "third"]) == 0
    assert [path.name for path in folder.iterdir()] == [".benchmarks"]


def test_a_page_that_cannot_be_written_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file where the folder should be is exit code 2 and one line."""
    (folder / "taken").touch()
    assert stepcost(["compare", "base", "third", "--out", "taken/page"]) == 2
    errors = capsys.readouterr().err
    assert "cannot write" in errors
    assert errors.count("\n") == 1


def test_side_by_side_is_tabulated_and_plotted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Several runs give the tables on the screen and a page with the same and the plots."""
    assert stepcost(["compare", "000?_*"]) == 0
    said = capsys.readouterr()
    for column in ("0001_base", "0002_new", "0003_third"):
        assert column in said.out
    page = folder / said.err.removeprefix("plots: ").strip()
    assert page.read_text().count("<svg") == 2
    assert page.with_name("metrics-over-runs.png").exists()


def test_the_report_of_two_runs_says_what_got_worse_first(folder: Path) -> None:
    """``report base new`` starts with the verdict, after links to both runs and before what each says."""
    assert stepcost(["report", "base", "new", "--out", "page"]) == 0
    page = (folder / "page" / "report.html").read_text()
    assert page.index("</nav>") < page.index("WORSE") < page.index("<svg") < page.index("<article")
    links = re.findall(r'<a href="#([^"]+)"><strong>([^<]*)', page)
    assert [label for _, label in links] == ["0001_base", "0002_new"]
    assert [link for link, _ in links] == re.findall(r'<article id="([^"]+)"', page)


def test_the_report_of_two_unlike_runs_shows_both(folder: Path) -> None:
    """Two runs with nothing in common stand side by side instead of failing."""
    other = plain_run()
    for place in range(4):
        other = changed(other, place, model="another")
    save(other, folder, "0004_other")
    assert stepcost(["report", "base", "other", "--out", "page"]) == 0
    assert "side by side" in (folder / "page" / "report.html").read_text()


def test_every_engine_and_precision_has_its_own_line(folder: Path) -> None:
    """Over runs, engine steps of two precisions are separate lines at their own medians."""
    files = sorted((folder / ".benchmarks").rglob("*.json"))
    plot = metrics_over_runs([load(path) for path in files])
    assert not isinstance(plot, str)
    panels = {axes.get_title(loc="left").replace("\n", " "): axes for axes in plot.figure.axes}
    lines = panels["time a step by engine, ms, measured"].lines
    drawn = [np.asarray(line.get_ydata()) for line in lines]
    heights = sorted(round(float(ys[0]), 2) for ys in drawn if len(ys) > 1)  # the others are marks
    assert heights == [10.02, 12.02, 14.03, 16.03]
