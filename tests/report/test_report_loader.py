"""Whatever a saved file holds, loading gives a run or one clear line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stepcost.report import find
from stepcost.report.answers import answers
from stepcost.report.find import runs_named
from stepcost.report.load import LoadError, Run, load
from stepcost.report.page.all_rows import tables_of_all_rows
from stepcost.report.page.facts import machine_table, session_tables
from stepcost.report.page.writeup import compared_with_writeup
from stepcost.report.tables import Table
from tests.report.synthetic import save, synthetic_run

SLOW_OK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400)
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def _no_reference_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(find, "REFERENCE", tmp_path / "no-reference")


def _shown(run: Run) -> None:
    """Build everything of the page but the plots."""
    said = answers(run.rows, run.machine)
    writeup = compared_with_writeup(run, said)
    for table in (
        machine_table(run), *([writeup] if isinstance(writeup, Table) else []), *session_tables(run),
        *tables_of_all_rows(run), *(answer.table for answer in said if answer.table),
    ):  # fmt: skip
        assert all(len(row) == len(table.columns) for row in table.rows)


def _one_line(error: LoadError) -> None:
    assert len(str(error).splitlines()) == 1


def _load_or_line(path: Path) -> None:
    try:
        run = load(path)
    except LoadError as error:
        _one_line(error)
        return
    _shown(run)


@SLOW_OK
@given(content=st.binary(max_size=200))
def test_any_bytes(content: bytes, tmp_path: Path) -> None:
    """Any bytes at all are a run or one line."""
    path = tmp_path / "0001_any.json"
    path.write_bytes(content)
    _load_or_line(path)


@SLOW_OK
@given(length=st.integers(0, 20_000))
def test_cut_anywhere(length: int, tmp_path: Path) -> None:
    """A file cut anywhere short of its end is one line."""
    whole = json.dumps(synthetic_run(seeds=1))
    path = save(whole[: min(length, len(whole) - 1)], tmp_path)
    with pytest.raises(LoadError, match=r"empty|cut off"):
        load(path)


@SLOW_OK
@given(data=st.data())
def test_any_value_replaced(data: st.DataObject, tmp_path: Path) -> None:
    """With any values of a whole run replaced by anything, all of the page can still be built."""
    run = synthetic_run(seeds=1)
    for _ in range(data.draw(st.integers(1, 4))):
        _replace_one(run, data)
    _load_or_line(save(json.dumps(run), tmp_path))


def _replace_one(value: Any, data: st.DataObject) -> None:
    """Walk to a random place and put something else there."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if not isinstance(value[key], dict | list) or data.draw(st.integers(0, 9)) == 0:
            value[key] = data.draw(ANY_JSON)
            return
        value = value[key]


def test_bad_values_become_notes(tmp_path: Path) -> None:
    """A NaN or a text where a number belongs is left out, and a note names row and field."""
    saved = synthetic_run()
    saved["benchmarks"][3]["extra_info"]["peak_allocated_bytes"] = "many"
    saved["benchmarks"][4]["extra_info"]["process_bytes"] = math.nan
    run = load(save(saved, tmp_path))
    assert run.rows[3]["peak_allocated_bytes"] is None
    assert run.rows[4]["process_bytes"] is None
    assert any("peak_allocated_bytes left out: not a number" in note for note in run.notes)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "empty"),
        ("{", "cut off or not JSON"),
        ("[]", "not a file saved by pytest-benchmark"),
        ('{"benchmarks": 3}', "not a file saved by pytest-benchmark"),
        ("[" * 100_000, "JSON"),
        ('{"benchmarks": [' + "9" * 5000 + "]}", "JSON that no benchmark writes"),
    ],
)
def test_damaged_files_are_one_line(content: str, line: str, tmp_path: Path) -> None:
    """Each kind of damage has its own words."""
    with pytest.raises(LoadError, match=line):
        load(save(content, tmp_path))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """A binary file says that it is not text."""
    path = tmp_path / "picture.json"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(LoadError, match="not text"):
        load(path)


def test_plain_pytest_benchmark_file(tmp_path: Path) -> None:
    """A file without our fields loads, says so, and shows its times."""
    saved = synthetic_run()
    del saved["stepcost"]
    saved["machine_info"] = {"node": "somewhere", "python_version": "3.12.0"}
    for row in saved["benchmarks"]:
        row["extra_info"] = {}
    run = load(save(saved, tmp_path))
    assert any("plain pytest-benchmark" in note for note in run.notes)
    assert len(tables_of_all_rows(run)) == 1


@pytest.mark.parametrize(
    ("version", "words"), [(0, "older schema"), (99, "schema version 99"), (None, "older schema")]
)
def test_other_schema_versions(version: int | None, words: str, tmp_path: Path) -> None:
    """Older and newer schemas load with a note."""
    saved = synthetic_run()
    saved["stepcost"]["schema_version"] = version
    run = load(save(saved, tmp_path))
    assert any(words in note for note in run.notes)
    _shown(run)


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (
            {"why": "stopping after 1 failures", "not_run": 1200, "selected": 1300},
            "this run was cut off (stopping after 1 failures): 1,200 of 1,300 selected tests did not run",
        ),
        ({"not_run": 3}, "this run was cut off (why is not stored)"),
        (None, None),
    ],
)
def test_a_run_that_was_cut_off_says_so_first(stored: Any, said: str | None, tmp_path: Path) -> None:
    """Before other notes it is said that a run ended early; of a whole one, and an old file, nothing."""
    run = synthetic_run()
    whole = load(save(run, tmp_path / "old.json")).notes
    run["stepcost"]["cut_off"] = stored
    notes = load(save(run, tmp_path / "new.json")).notes
    assert notes == ((said, *whole) if said else whole)


def test_names_resolve_as_typed(tmp_path: Path) -> None:
    """A name, a number with or without zeros, both together, and a path all find the file."""
    path = save(synthetic_run(), tmp_path)
    save(synthetic_run(), tmp_path, "0002_other")
    for name in (
        "run1",
        "0001",
        "1",
        "0001_run1",
        "0001_run1.json",
        "run1.json",
        str(path),
        str(path.relative_to(tmp_path)),
    ):
        assert find.find_run(name, tmp_path).samefile(path)


def test_wrong_and_ambiguous_names_list_the_candidates(tmp_path: Path) -> None:
    """A name that no run or several runs have is one line with what there is."""
    save("{}", tmp_path)
    save("{}", tmp_path, "0002_run1")
    with pytest.raises(LoadError, match=r"'run1' is 2 runs: .*0001_run1.*0002_run1"):
        find.find_run("run1", tmp_path)
    with pytest.raises(LoadError, match=r"no saved run 'nope'; saved are 0001_run1, 0002_run1"):
        find.find_run("nope", tmp_path)
    with pytest.raises(LoadError, match="nothing is saved"):
        find.find_run("run1", tmp_path / "elsewhere")


@pytest.mark.parametrize("wrong", ["RUN1", "rnu1", "0001_run", "run*1?"])
def test_the_likest_names_come_first(wrong: str, tmp_path: Path) -> None:
    """Of many runs, the reference runs among them, the one that was meant is in the line."""
    for place in range(20):
        save("{}", tmp_path, f"{place + 2:04}_other{place}")
    save("{}", tmp_path, "0001_run1")
    with pytest.raises(LoadError, match=r"saved are 0001_run1, .* more$"):
        runs_named(wrong, tmp_path)


@SLOW_OK
@given(name=st.text(max_size=300))
@example(name="x" * 300)
@example(name="\0/")
def test_any_name_is_a_run_or_one_line(name: str, tmp_path: Path) -> None:
    """Whatever is typed as a name, the answer is a path or one line."""
    save("{}", tmp_path)
    try:
        find.find_run(name, tmp_path)
    except LoadError as error:
        _one_line(error)


def test_a_constant_schedule_is_as_one_not_stored(tmp_path: Path) -> None:
    """Files from before the field and files with a constant rate load alike; another schedule is kept."""
    loaded = {}
    for stored in (None, "constant", "cosine"):
        saved = synthetic_run()
        for row in saved["benchmarks"]:
            row["extra_info"] |= {"schedule": stored} if stored else {}
        loaded[stored] = [row.get("schedule") for row in load(save(saved, tmp_path)).rows]
    assert set(loaded[None]) == set(loaded["constant"]) == {None}
    assert set(loaded["cosine"]) == {"cosine"}


def test_every_instrument_time_is_read(tmp_path: Path) -> None:
    """What the instrument rows store of their border, start and planted faults is loaded and shown."""
    saved = synthetic_run()
    stored = {
        "question": "instrument",
        "border_s": 0.00125,
        "start_parts_s": {"model": 1.5, "first step": 0.25},
        "busy_shares": {"no fault": 0.905, "copy": 0.5},
    }
    saved["benchmarks"].append({"name": "test_instrument", "extra_info": stored})
    run = load(save(saved, tmp_path))
    assert {name: run.rows[-1][name] for name in stored} == stored
    table = next(one for one in tables_of_all_rows(run) if "Question instrument" in one.caption)
    cells = table.rows[-1]
    assert cells[table.columns.index("border")] == "1.25 ms"
    assert cells[table.columns.index("start parts")] == "model 1.50 s, first step 250 ms"
    assert cells[table.columns.index("busy shares")] == "no fault 90.5 %, copy 50.0 %"


def test_what_the_benchmark_says_of_itself_wins(tmp_path: Path) -> None:
    """Names and seconds of a row are pytest-benchmark's, whatever a row stores under the same names."""
    run = synthetic_run()
    first = run["benchmarks"][0]
    first["extra_info"] |= {"name": "another", "fullname": "another", "stats": {"median": 99.0}}
    (row, *_) = load(save(run, tmp_path)).rows
    assert (row["name"], row["fullname"]) == (first["name"], first["fullname"])
    assert row["stats"]["median"] == first["stats"]["median"]
