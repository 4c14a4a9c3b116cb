"""The first screen of the page, and where things stand: each figure under its label, in its unit, by hand."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

from stepcost.report.load import Run, load
from stepcost.report.page.headline import four_figures
from stepcost.report.page.plots_memory import activations_by_module, parts_of_the_peak
from stepcost.report.page.plots_runs import history
from stepcost.report.page.write import write_report
from tests.report.handmade import memory, search
from tests.report.synthetic import save, synthetic_run

LEDGER = {
    "parameter_bytes": 200_000_000, "buffer_bytes": 10_000_000, "gradient_bytes": 190_000_000,
    "optimizer_state_bytes": 400_000_000, "activation_bytes": 50_000_000, "input_bytes": 1_000_000,
    "workspace_bytes": 349_000_000, "slack_bytes": 300_000_000, "context_bytes": 700_000_000,
}  # fmt: skip
KEPT = [
    {"module": f"layers.*.fc{n}", "class_name": "Linear", "modules": 12, "kept_bytes": (30 - n) * 10**6}
    for n in range(14)
]


def _run(*rows: dict[str, Any], **about: Any) -> Run:
    machine = {"gpu": "Card", "gpu_total_bytes": 80_000_000_000}
    fields: dict[str, Any] = {"name": "run1", "path": Path("run1.json"), "rows": rows, "machine": machine}
    return Run(**fields | about)


def _rows(**more: Any) -> list[dict[str, Any]]:
    """SGD and Adam at batch 64, Adam on another engine, a search; all figures differ."""
    timed = {"timed": "training step", "stats": {"median": 0.0625}}
    return [
        memory("2a", "sgd", 64, (500, 600, 700, 710, 1410), **timed),
        memory("2a", "adam", 64, (900, 1200, 1500, 700, 2200), ledger=LEDGER, **timed | more),
        memory("3a", "sgd", 256, (800, 1300, 1600, 720, 2320)),
        memory("4", "adam", 64, (900, 1250), engine="graph", timed="engine step",
               stats={"median": 0.016}, energy_j=5.12, energy_interval_j=[5.0, 5.25]),
        search(largest_batch=22_941, smallest_batch_that_fails=23_115, optimizer="sgd"),
    ]  # fmt: skip


def _said(run: Run) -> dict[str, tuple[str, str, str]]:
    return {one.label: (one.value, one.note, one.source) for one in four_figures(run)}


def test_each_figure_stands_under_its_label() -> None:
    """Of the optimizer that takes most: 2.2 of 80 GB; 64 images in 16 ms are 4,000 a second, at 80 mJ."""
    assert _said(_run(*_rows())) == {
        "Peak of the process": ("2.20 GB", "2.8 % of 80.0 GB", "measured"),
        "Largest batch": ("22,941", "SGD; 23,115 did not fit", "measured"),
        "Time a step": ("16.0 ms", "graph, 4,000 images/s; eager 62.5 ms", "measured"),
        "Energy a step": ("5.12 J", "graph, 80.0 mJ an image; 5.00 J to 5.25 J", "measured"),
    }


def test_a_run_of_engines_alone_speaks_of_its_largest_step() -> None:
    """Where only engines were timed, the eager step that takes most, here 1.9 GB, and its fastest engine."""
    timed: dict[str, Any] = {"timed": "engine step"}
    said = _said(
        _run(
            memory("4", "adam", 4, (1, 2, 3, 4, 1100), **timed, stats={"median": 0.05}),
            memory("4", "adam", 8, (1, 2, 3, 4, 1900), **timed, stats={"median": 0.08}),
            memory("4", "adam", 8, (1, 2, 3, 4, 1800), **timed, stats={"median": 0.02}, engine="graph"),
        )
    )
    assert said["Peak of the process"][0] == "1.90 GB"
    assert said["Time a step"][:2] == ("20.0 ms", "graph, 400 images/s; eager 80.0 ms")


def test_energy_of_another_step_says_of_which() -> None:
    """A default run reads the energy of one step alone: 2.56 J of 64 images are 40 mJ each, with SGD."""
    timed: dict[str, Any] = {"timed": "engine step", "engine": "fast", "energy_j": 2.56}
    said = _said(
        _run(
            memory("2a", "adam", 64, (1, 2, 3, 4, 2200)),
            memory("4", "sgd", 64, (1, 2, 3, 4, 1500), **timed, stats={"median": 0.01}),
        )
    )
    assert said["Energy a step"] == ("2.56 J", "SGD, batch 64; fast, 40.0 mJ an image", "measured")


def test_what_was_not_read_says_so() -> None:
    """Without a search, a time and an energy each tile says that and why, and shows no number."""
    row = memory("2a", "adam", 64, (900, 1200, 1500), unread={"energy_j": "NVML refuses"})
    said = _said(_run(row))
    assert said["Peak reserved"] == (
        "1.50 GB",
        "1.9 % of 80.0 GB; without the context, which is not known",
        "measured",
    )
    assert said["Largest batch"] == ("not searched", "no search is in this run", "")
    assert said["Time a step"] == ("not read", "no step was timed", "")
    assert said["Energy a step"] == ("not read", "NVML refuses", "")
    assert {value for value, _, _ in _said(_run()).values()} == {"not read"}


def test_a_prediction_is_of_its_card() -> None:
    """A predicted peak is a share of its card, and is not said to fit where nobody knows."""
    row = memory("2a", "adam", 64, (900, 1200, 1500), source="predicted", card="h100-80gb", fits=None)
    said = _said(_run(row, search(source="predicted", largest_batch_at_most=900), machine={"gpu": None}))
    value, note, source = said["Peak reserved"]
    assert (value, source) == ("1.50 GB", "predicted")
    assert note.startswith("1.8 % of 85.0 GB")
    assert note.endswith("whether it fits is not known")
    assert said["Largest batch"] == ("at most 900", "Adam", "predicted")
    assert said["Time a step"][::2] == ("not read", "")


def test_the_first_plot_explains_the_first_figure() -> None:
    """Its parts are those of the ledger, by hand, and add up to the peak of the process."""
    plot = parts_of_the_peak(_run(*_rows()))
    assert not isinstance(plot, str)
    assert plot.title == "What the 2,200.0 MB are made of"
    assert "parameters, buffers 210.0 MB; gradients 190.0 MB; optimizer state 400.0 MB; " in plot.description
    assert "activations, inputs 51.0 MB; workspace, temporaries 349.0 MB; " in plot.description
    assert "allocator slack 300.0 MB; context 700.0 MB." in plot.description


def test_modules_stand_as_people_think_of_them() -> None:
    """Twelve kinds have a bar with how many they are, the other two one: 18 + 17 of 329 MB."""
    plot = activations_by_module(_run(*_rows(kept_by_modules=KEPT)))
    assert not isinstance(plot, str)
    assert plot.description.startswith("Bars. layers.*.fc0 x 12: 30.0 MB; layers.*.fc1 x 12: 29.0 MB; ")
    assert plot.description.endswith("layers.*.fc11 x 12: 19.0 MB; 2 other kinds: 35.0 MB.")
    assert "329.0 MB" in plot.title


def test_history_is_of_one_branch_by_date() -> None:
    """Three runs of a branch are a line by date; another branch is not in it, and two are none."""
    runs = [
        _run(memory("2a", "adam", 64, (1, 2, 3, 4, size)), name=f"run{day}", branch="main", commit="abc" * 5,
             date=f"2026-01-0{day} 10:00")
        for day, size in ((3, 30), (1, 10), (2, 20))
    ]  # fmt: skip
    other = _run(memory("2a", "adam", 64, (1, 2, 3, 4, 99)), branch="else", date="2026-01-04 10:00")
    plot = history([*runs, other])
    assert not isinstance(plot, str)
    words = plot.description.replace(":00,", ":00")
    assert re.findall(r"(run\d), \S+ \S+ abcabcabc: ([\d.]+) MB", words) == [
        ("run1", "10.0"), ("run2", "20.0"), ("run3", "30.0"),
    ]  # fmt: skip
    assert isinstance(history([*runs[1:], other]), str)


def test_the_branch_of_a_run_is_loaded(tmp_path: Path) -> None:
    """pytest-benchmark's branch and commit are kept; where it knew none there is none."""
    known = synthetic_run(seeds=1) | {"commit_info": {"id": "abc123", "branch": "main"}}
    run = load(save(known, tmp_path))
    assert (run.branch, run.commit) == ("main", "abc123")
    unknown = synthetic_run(seeds=1) | {"commit_info": {"id": "unknown", "branch": "(unknown)"}}
    run = load(save(unknown, tmp_path))
    assert (run.branch, run.commit) == (None, None)


def _page(folder: Path, run: dict[str, Any]) -> str:
    page, *_ = write_report([load(save(run, folder))], folder / "out")
    return unescape(page.read_text())


def test_each_plot_stands_under_its_answer(tmp_path: Path) -> None:
    """First the figures and their plot, then each answer with its own plots, then what is folded."""
    page = _page(tmp_path, synthetic_run(seeds=1))
    first, *answers = page.split('<section class="answer">')
    assert first.index('<dl class="figures">') < first.index('<p class="title">What the ')
    titles = {
        re.findall(r'class="number">(\w+)<', answer)[0]: re.findall(r'<p class="title">([^<]*)<', answer)
        for answer in answers
    }
    assert titles == {
        "1a": [], "1b": [], "1c": [], "2b": [],
        "2a": ["Memory in training by optimizer, at the peak of a step"],
        "3a": ["Memory over batch size"],
        "3b": ["Test accuracy over epochs"],
        "3c": ["Time of a training step, and images per second, over batch size"],
        "3d": ["Training accuracy over wall time"],
    }  # fmt: skip
    rest = answers[-1][answers[-1].index('<section class="rest">') :]
    assert re.findall(r"<details><summary>([^<:]*)", rest) == [
        "Not answered by this run", "The machine and the session", "All rows", "The write-up's figures",
    ]  # fmt: skip
    assert page.count("everywhere on this page") == 1


def test_the_page_fits_a_narrow_screen(tmp_path: Path) -> None:
    """Each plot is drawn for both widths; nothing has a least width; wide tables are stacked."""
    page = _page(tmp_path, synthetic_run(seeds=1))
    style = page[page.index("<style>") : page.index("</style>")]
    assert not re.search(r"min-width: (?!0)", style)
    wide, narrow = (
        re.findall(rf'<svg class="{name}"[^>]* viewBox="0 0 ([\d.]+)', page) for name in ("wide", "narrow")
    )
    assert len(wide) == len(narrow) > 5
    assert {float(width) for width in narrow} == {358}  # 390 less the margins
    for table in page.split('<figure class="table')[1:]:
        rows = re.findall(r"<tr>(.*?)</tr>", table.split("</table>")[0].partition("<tbody>")[2])
        cells = [re.findall(r">([^<]*)</t[hd]>", row) for row in rows]
        letters = sum(max(map(len, column)) for column in zip(*cells, strict=True))
        assert table.startswith(" stack") or letters <= 46


def test_exact_values_are_told_at_the_pointer(tmp_path: Path) -> None:
    """A bar and a mark say what they are and how much, without a script: Adam keeps 2 x 232.7 MB."""
    page = _page(tmp_path, synthetic_run(seeds=1))
    titles = re.findall(r"<title>([^<]*)</title>", page)
    assert "optimizer state: 465.3 MB" in titles
    assert any(re.fullmatch(r"process, batch 256: [\d,]+\.\d MB", title) for title in titles)


def test_no_cell_says_none(tmp_path: Path) -> None:
    """A page without a GPU has no cell for what only a GPU has, and marks what is predicted."""
    page = _page(tmp_path, synthetic_run(gpu=None, seeds=1))
    assert not re.search(r">(none|None|null)<", page)
    assert "compute capability" not in page
    assert '<span class="source predicted">predicted</span>' in page
