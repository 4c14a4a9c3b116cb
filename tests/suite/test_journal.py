"""The journal of an unfinished run: what a kill, a crash or a foreign file leaves of it."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.resume import first_difference, reading_of
from stepcost.journal import Journal, Kept, load_journal
from stepcost.ledger import Ledger
from stepcost.reading import Moment, Reading

ABOUT = {"settings": {"model": "small-cnn"}}


def row(name, rounds=(0.1, 0.25)):
    """A finished benchmark as pytest-benchmark saves it."""
    return Kept(
        {
            "name": name,
            "fullname": f"benchmarks/test_x.py::{name}",
            "extra_info": {"question": "2a", "peak_allocated_bytes": 12345678901},
            "options": {"timer": "perf_counter"},
            "stats": {"data": list(rounds), "iterations": 1},
        }
    )


ROWS = [row("a"), replace(row("b"), skipped="an answer without bytes: none left"), row("ü")]


@pytest.fixture
def path(tmp_path):
    """A journal of three rows in a folder that does not exist before the first."""
    path = tmp_path / "storage" / "unfinished.jsonl"
    journal = Journal(path, ABOUT)
    for one in ROWS:
        journal.add(one)
    return path


again = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def test_what_is_written_is_read(path):
    """Rows come back as they were, under their tests' names, with what the run is about."""
    journal = load_journal(path)
    assert list(journal.kept.values()) == ROWS
    assert journal.about == ABOUT


@again
@given(data=st.data())
def test_cut_anywhere_it_loses_the_last_line_only(path, data):
    """A journal cut at any byte holds every row whose line is whole, and takes further rows."""
    whole = path.read_bytes()
    ends = [place for place in range(len(whole)) if whole[place : place + 1] == b"\n"]
    near = st.builds(sum, st.tuples(st.sampled_from(ends), st.integers(-1, 1)))  # where it can go wrong
    cut = whole[: data.draw(near | st.integers(0, len(whole)))]
    victim = path.with_name("cut.jsonl")
    victim.write_bytes(cut)
    journal = load_journal(victim)
    lines = sum(end <= len(cut) for end in ends)  # a line that lacks its newline only is whole
    if lines == 0:
        assert journal is None
        return
    assert list(journal.kept.values()) == ROWS[: lines - 1]
    journal.resume()
    journal.add(row("later"))
    assert list(load_journal(victim).kept.values()) == [*ROWS[: lines - 1], row("later")]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
damaged_rows = st.builds(
    lambda name, value: {"row": asdict(ROWS[0])["row"] | {name: value}},
    st.sampled_from(["name", "fullname", "extra_info", "options", "stats"]),
    json_values,
)
foreign_lines = st.binary(max_size=40) | st.builds(
    lambda value: json.dumps(value).encode(), json_values | damaged_rows
)


@again
@given(foreign=st.lists(foreign_lines, max_size=4), place=st.integers(1, 4))
def test_foreign_lines_cost_nothing_else(path, foreign, place):
    """Lines that are no rows are passed over; the rows around them stay."""
    lines = path.read_bytes().splitlines()
    victim = path.with_name("foreign.jsonl")
    victim.write_bytes(b"\n".join([*lines[:place], *foreign, *lines[place:], b""]))
    kept = load_journal(victim).kept
    assert {name: kept[name] for name in (one.row["fullname"] for one in ROWS[1:])} == {
        one.row["fullname"]: one for one in ROWS[1:]
    }


@again
@given(foreign=st.binary(max_size=80) | st.builds(lambda value: json.dumps(value).encode(), json_values))
def test_foreign_file_is_no_journal(tmp_path, foreign):
    """A file that is something else is no journal, and no fault."""
    victim = tmp_path / "unfinished.jsonl"
    victim.write_bytes(foreign + b"\n")
    assert load_journal(victim) is None


def test_older_journal_is_replaced_with_the_first_row_only(path):
    """A new run leaves an older journal alone until it has a row, and never removes what is not its own."""
    fresh = Journal(path, ABOUT)
    fresh.remove()
    assert len(load_journal(path).kept) == 3
    fresh.add(row("new"))
    assert list(load_journal(path).kept.values()) == [row("new")]
    fresh.remove()
    assert load_journal(path) is None


def test_rows_are_kept_in_memory_too_and_folders_are_made(tmp_path):
    """The journal of a run holds the rows that it wrote; its file may be of folders that do not exist yet."""
    journal = Journal(tmp_path / "a" / "b" / "unfinished.jsonl", ABOUT)
    journal.add(ROWS[0])
    journal.add(ROWS[1])
    assert journal.kept == {"benchmarks/test_x.py::a": ROWS[0], "benchmarks/test_x.py::b": ROWS[1]}
    assert load_journal(journal.path).kept == journal.kept


def test_going_on_changes_nothing_that_is_whole(path):
    """A file whose last line is whole stays as it is; a line cut short is ended."""
    whole = path.read_bytes()
    load_journal(path).resume()
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-5])
    load_journal(path).resume()
    assert path.read_bytes() == whole[:-5] + b"\n"


def test_a_file_that_is_gone_is_removed(path):
    """Removing the journal of a run is no error where someone has removed it before."""
    journal = load_journal(path)
    journal.resume()
    path.unlink()
    journal.remove()


@pytest.mark.parametrize(
    "head",
    [{"stepcost_journal": 2, "about": ABOUT}, {"stepcost_journal": 1, "about": []}, {"about": ABOUT}],
)
def test_another_format_is_no_journal(path, head):
    """A first line of another format, or that does not say what the run is about, makes no journal."""
    rows = path.read_text().splitlines()[1:]
    path.write_text("\n".join([json.dumps(head), *rows]))
    assert load_journal(path) is None


def test_what_json_lacks_is_named(path):
    """A parameter of a test that JSON cannot hold is written as pytest-benchmark writes it."""
    odd = row("odd")
    journal = load_journal(path)
    journal.resume()
    journal.add(Kept(odd.row | {"params": {"optimizer": {1, 2}}}))
    kept = load_journal(path).kept["benchmarks/test_x.py::odd"]
    assert kept.row["params"] == {"optimizer": "UNSERIALIZABLE[{1, 2}]"}


@pytest.mark.parametrize(
    "stats",
    [
        {"data": [0.5], "iterations": "1"},
        {"data": [0.5], "iterations": None},
        {"data": 5, "iterations": 1},
        {"data": [], "iterations": 1},
        {"data": [0.5, float("inf")], "iterations": 1},
        {"data": [0.5, 1], "iterations": 1},
        {"iterations": 1},
    ],
)
def test_a_row_without_its_rounds_is_no_row(path, stats):
    """A row whose seconds or iterations are not what pytest-benchmark writes is measured again."""
    journal = load_journal(path)
    journal.resume()
    journal.add(Kept(row("bad").row | {"stats": stats}))
    assert list(load_journal(path).kept.values()) == ROWS


def test_a_reason_that_is_no_text_is_none(path):
    """Why a test was skipped is text, or nobody knows."""
    journal = load_journal(path)
    journal.resume()
    journal.add(Kept(row("odd").row, 5))
    assert load_journal(path).kept["benchmarks/test_x.py::odd"].skipped is None


LEDGER = Ledger(**dict.fromkeys([*Ledger.__dataclass_fields__], 7))
MOMENT = Moment(moment="model loaded", process_bytes=None, reserved_bytes=2, context_bytes=None)
FULL = Reading(
    source="measured", fits=True, ledger=LEDGER, moments=(MOMENT,), phase_peak_bytes={"forward": 3}
)


@pytest.mark.parametrize("reading", [FULL, Reading(source="measured", fits=False, reason="none left")])
def test_reading_comes_back_from_its_row(reading):
    """A reading stored in a row, and read back from JSON, is the same reading."""
    stored = {"question": "2a", "optimizer": "sgd", "batch_size": 4, **asdict(reading)}
    assert reading_of(json.loads(json.dumps(stored))) == reading


@pytest.mark.parametrize("changed", [{"question": "3b"}, {"ledger": {"parts": 1}}, {"moments": [{}]}])
def test_other_rows_hold_no_reading(changed):
    """Rows of training runs, and rows of another version, give no reading: it is read again."""
    assert reading_of({"question": "2a", "batch_size": 4, **asdict(FULL), **changed}) is None


def test_differences_name_what_differs_first():
    """Only the first part that differs is named, with both values; the same differs in nothing."""
    then = {"settings": {"model": "a", "batch_sizes": [8]}, "machine": {"torch": "2.6", "driver": None}}
    now = {"settings": {"model": "a", "batch_sizes": [8, 64]}, "machine": {"torch": "2.7", "driver": "1"}}
    assert first_difference(then, now) == "batch_sizes 8, here it is 8,64"
    settings_alike = then | {"settings": now["settings"]}
    assert first_difference(settings_alike, now) == "torch 2.6, here it is 2.7; driver none, here it is 1"
    assert first_difference(now, now) is None
    damaged = {"settings": None, "machine": []}
    assert first_difference(damaged, now) == "model none, here it is a; batch_sizes none, here it is 8,64"
