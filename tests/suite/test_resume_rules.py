"""The rules of ``--resume``, on a suite that measures nothing: what is kept, taken over and refused."""

from __future__ import annotations

import platform
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.resume import RunJournal, about_run, journal_path, reading_of
from stepcost.journal import KEPT, Kept, load_journal
from stepcost.machine import Machine, ModelInfo
from stepcost.request import Request
from stepcost.settings import FLAGS, settings_of

TIME_ONLY = {"question": "3b", "source": "measured", "train_s": 2.5}
NO_ROOM = {
    "question": "3a", "source": "measured", "fits": False, "reason": "no room",
    "model": "small-cnn", "optimizer": "sgd", "batch_size": 8,
}  # fmt: skip


class Suite:
    """A suite whose session keeps readings; ``benchmarks`` is what pytest-benchmark will save."""

    def __init__(self, storage: Any, *, goes_on: bool = False, **machine: Any) -> None:
        options = {"benchmark_storage": f"file://{storage}", "--resume": goes_on}
        self.benchmarks: list[Any] = []
        plugins = {"pytest-benchmark": SimpleNamespace(benchmarks=self.benchmarks)}
        self.config: Any = SimpleNamespace(
            getoption=options.__getitem__, pluginmanager=SimpleNamespace(get_plugin=plugins.get)
        )
        self.rows: list[Any] = []
        self.skipped: list[Any] = []
        self.notes: list[str] = []
        self.readings: dict[Request, Any] = {}
        given = {name: flag.default if flag.metavar else False for name, flag in FLAGS.items()}
        counts: dict[str, Any] = dict.fromkeys((*ModelInfo.__dataclass_fields__,), 7)
        plain = {"device": "cuda:0", "why_no_gpu": None, "torch": "2", "torchvision": "0.2", "cuda": "13",
                 "cudnn": "9", "gpu": "X", "driver": "5"}  # fmt: skip
        self.session: Any = SimpleNamespace(
            request=Request,
            remember=self.readings.__setitem__,
            settings=settings_of((given | {"dataset": "digits"}).__getitem__),
            machine=Machine(**(plain | machine)),
            model=ModelInfo(**(counts | {"name": "net", "parameter_shapes": ((7,),)})),
            dataset=SimpleNamespace(name="digits", train_images=[0] * 9),
        )


class Item:
    """A test by name, with the row that its benchmark stored."""

    def __init__(self, name: str, extra: dict[str, Any] | None = None) -> None:
        self.nodeid = f"b.py::{name}"
        self.markers: list[Any] = []
        self.add_marker = self.markers.append
        self.funcargs: dict[str, Any] = {}
        if extra is not None:
            self.funcargs["benchmark"] = SimpleNamespace(
                stats=SimpleNamespace(as_dict=lambda: row_of(name, extra))
            )

    def ends(self, journal: RunJournal, *, skipped: str | None = None, failed: str | None = None) -> None:
        """Report the test's three parts as pytest does; ``failed`` names the part that failed."""
        for when in ("setup", "call", "teardown"):
            why = ("b.py", 3, f"Skipped: {skipped}") if skipped and when == "call" else None
            report: Any = SimpleNamespace(
                when=when, failed=failed == when, skipped=why is not None, longrepr=why
            )
            journal.take(self, report)  # type: ignore[arg-type]


def row_of(name: str, extra: dict[str, Any]) -> dict[str, Any]:
    """A row as pytest-benchmark saves it: two rounds of three iterations."""
    return {
        "group": "training step", "name": name, "fullname": f"b.py::{name}", "params": {"size": 8},
        "param": "8", "extra_info": extra, "options": {"timer": "perf_counter"},
        "stats": {"data": [0.5, 0.25], "iterations": 3},
    }  # fmt: skip


def journal_of(suite: Suite, items: list[Item]) -> RunJournal:
    """Open the journal of a session with these tests."""
    return RunJournal(suite, items)  # type: ignore[arg-type]


@pytest.fixture
def interrupted(tmp_path):
    """A folder with the journal of a run that ended after two of three tests."""
    items = [Item("a", NO_ROOM), Item("b", TIME_ONLY), Item("c")]
    journal = journal_of(Suite(tmp_path), items)
    assert journal.note is None
    assert not journal.written
    items[0].ends(journal, skipped="an answer without bytes: no room")
    items[1].ends(journal)
    assert journal.written
    assert journal.kept == "2 rows"
    assert not journal.is_complete(items)
    return tmp_path


def test_rows_are_taken_over(interrupted):
    """Kept rows are saved again and answered from, their readings asked for, their tests skipped."""
    suite, items = Suite(interrupted, goes_on=True), [Item("a"), Item("b"), Item("c")]
    journal = journal_of(suite, items)
    assert journal.note == "resumed: 2 rows kept from the interrupted run, the others measured later"
    assert suite.notes == [f"{journal.note}; costs and clocks are those of the later part"]
    assert [[marker.kwargs for marker in item.markers] for item in items] == [
        [{"reason": KEPT}],
        [{"reason": KEPT}],
        [],
    ]
    assert suite.rows == [
        NO_ROOM | {"stats": {"data": [0.5, 0.25], "iterations": 3}},
        TIME_ONLY | {"stats": {"data": [0.5, 0.25], "iterations": 3}},
    ]
    assert suite.skipped == [{"test": "b.py::a", "reason": "an answer without bytes: no room"}]
    (reading,) = suite.readings.values()
    assert list(suite.readings) == [Request(model="small-cnn", optimizer="sgd", batch_size=8)]
    assert (reading.fits, reading.reason) == (False, "no room")
    first, _ = suite.benchmarks
    assert (first.name, first.fullname, first.group) == ("a", "b.py::a", "training step")
    assert (first.param, first.params, first.extra_info) == ("8", {"size": 8}, NO_ROOM)
    assert (first.iterations, first.options, first.has_error) == (3, {"timer": "perf_counter"}, False)
    assert first.stats.data == [0.5, 0.25]
    assert first.cprofile_stats is None

    items[2] = Item("c", TIME_ONLY)
    items[2].ends(journal)
    assert journal.kept == "3 rows"
    path = journal_path(str(interrupted))
    assert list(load_journal(path).kept) == ["b.py::a", "b.py::b", "b.py::c"]


def test_a_run_without_resume_leaves_the_rows_until_its_first(interrupted):
    """Without --resume a note says what an interrupted run left; its file goes with the first row."""
    path = journal_path(str(interrupted))
    before = path.read_bytes()
    items = [Item("a", TIME_ONLY), Item("b"), Item("c")]
    journal = journal_of(Suite(interrupted), items)
    assert journal.note == (
        "an interrupted run left 2 rows, which --resume would keep; the first row of this run replaces them"
    )
    assert (path.read_bytes(), journal.written, journal.kept) == (before, False, "0 rows")
    journal.remove()
    assert path.exists()
    items[0].ends(journal)
    assert journal.kept == "1 row"
    assert list(load_journal(path).kept) == ["b.py::a"]
    journal.remove()
    assert not path.exists()
    assert journal_of(Suite(interrupted), items).note is None


def test_a_journal_without_rows_is_not_worth_a_note(tmp_path):
    """An interrupted run that left no row is not mentioned; nor is one in a storage that is no folder."""
    suite = Suite(tmp_path)
    (tmp_path / "unfinished.jsonl").write_text('{"stepcost_journal": 1, "about": {}}\n')
    assert journal_of(suite, []).note is None


def test_nothing_to_go_on_with(tmp_path):
    """--resume without an interrupted run starts from the beginning, and says where it looked."""
    journal = journal_of(Suite(tmp_path, goes_on=True), [Item("a")])
    assert journal.note == (f"--resume: no interrupted run in {tmp_path}; this run starts from the beginning")
    assert journal.kept == "0 rows"


@pytest.mark.parametrize("name", ["gpu", "driver", "cuda", "cudnn", "torch", "torchvision", "device",
                                  "compute_capability", "gpu_total_bytes"])  # fmt: skip
def test_another_machine_is_refused(interrupted, name):
    """Rows of another card, driver or library do not stand in one file; one line says what differs."""
    items = [Item("a"), Item("b"), Item("c")]
    then = {"gpu": "X", "driver": "5", "cuda": "13", "cudnn": "9", "torch": "2", "torchvision": "0.2",
            "device": "cuda:0"}.get(name, "none")  # fmt: skip
    value = 1 if name.endswith("_bytes") else "other"
    with pytest.raises(pytest.UsageError) as refused:
        journal_of(Suite(interrupted, goes_on=True, **{name: value}), items)
    assert str(refused.value) == (
        f"--resume: the interrupted run had {name} {then}, here it is {value}; "
        "without --resume a new one starts"
    )


def test_other_tests_settings_models_and_data_are_refused(interrupted):
    """Other tests, settings, models and data are named; what changes no figure may differ."""
    items = [Item("a"), Item("b"), Item("c")]
    with pytest.raises(pytest.UsageError, match=r"had tests selected 3 \([0-9a-f]{8}\), here it is 2 \("):
        journal_of(Suite(interrupted, goes_on=True), items[:2])
    with pytest.raises(pytest.UsageError, match=r"had tests selected 3 \([0-9a-f]{8}\), here it is 3 \("):
        journal_of(Suite(interrupted, goes_on=True), items[::-1])
    suite = Suite(interrupted, goes_on=True)
    session = suite.session
    for part, changed, said in (
        ("settings", replace(session.settings, epochs=3), "epochs 10, here it is 3"),
        ("settings", replace(session.settings, seeds=(0, 1)), "seeds 0, here it is 0,1"),
        ("model", replace(session.model, parameters=8), "parameters 7, here it is 8"),
        (
            "dataset",
            SimpleNamespace(name="few.npz", train_images=[0] * 9),
            "data set digits, here it is few.npz",
        ),
        ("dataset", SimpleNamespace(name="digits", train_images=[0]), "train_images 9, here it is 1"),
    ):
        suite.session = SimpleNamespace(**(vars(session) | {part: changed}))
        with pytest.raises(pytest.UsageError, match=f"the interrupted run had {said};"):
            journal_of(suite, items)
    suite.session = SimpleNamespace(
        **(
            vars(session)
            | {"settings": replace(session.settings, time_limit_s=5, device="cuda", download=True)}
        )
    )
    assert "2 rows kept" in (journal_of(suite, items).note or "")


def test_what_a_run_is_about(tmp_path):
    """A run is about its schema, settings, machine, Python, model without shapes, and data."""
    suite = Suite(tmp_path)
    about = about_run(suite.session)
    assert list(about) == ["stepcost", "settings", "machine", "model", "dataset"]
    assert about["stepcost"] == {"schema_version": 1}
    left_out = {"device", "download", "time_limit_s"}
    assert set(about["settings"]) == set(asdict(suite.session.settings)) - left_out
    assert about["settings"]["batch_sizes"] == [4, 16, 64, 256]
    assert about["machine"] == {
        "node": platform.node(), "python": platform.python_version(), "device": "cuda:0", "torch": "2",
        "torchvision": "0.2", "cuda": "13", "cudnn": "9", "gpu": "X", "compute_capability": None,
        "gpu_total_bytes": None, "gpu_nvml_total_bytes": None, "gpu_nvml_reserved_bytes": None, "driver": "5",
    }  # fmt: skip
    assert about["model"]["name"] == "net"
    assert "parameter_shapes" not in about["model"]
    assert about["dataset"] == {"data set": "digits", "train_images": 9}


@pytest.mark.parametrize("failed", ["setup", "call", "teardown"])
def test_the_row_of_a_failed_test_is_not_kept(tmp_path, failed):
    """A test that failed in any part has had its turn, and is run again after a resume."""
    journal, item = journal_of(Suite(tmp_path), [Item("a")]), Item("a", TIME_ONLY)
    item.ends(journal, failed=failed)
    assert journal.kept == "0 rows"
    assert not journal.written
    assert journal.is_complete([item])


def test_a_test_without_a_benchmark_has_no_row(tmp_path):
    """Relations, and benchmarks that timed nothing, have their turn without a row."""
    items = [Item("relation"), Item("nothing timed"), Item("row", TIME_ONLY)]
    items[1].funcargs["benchmark"] = SimpleNamespace(stats=None)
    journal = journal_of(Suite(tmp_path), items)
    for place, item in enumerate(items):
        assert not journal.is_complete(items)
        item.ends(journal)
        assert journal.kept == ("1 row" if place == 2 else "0 rows")
    assert journal.is_complete(items)
    expected_to_fail: Any = SimpleNamespace(when="call", failed=False, skipped=True, longrepr=object())
    journal.take(items[0], expected_to_fail)
    no_arguments = Item("doctest")
    del no_arguments.funcargs
    no_arguments.ends(journal)
    assert journal.kept == "1 row"


def test_a_row_without_a_source_is_saved_and_not_answered_from(tmp_path):
    """A row that nothing was read for is in pytest-benchmark's file again, and in no answer."""
    about = about_run(Suite(tmp_path).session)
    first = journal_of(Suite(tmp_path), [])
    Item("a", {"question": "3b"}).ends(first)
    assert set(load_journal(journal_path(str(tmp_path))).about) == {*about, "selection"}
    suite = Suite(tmp_path, goes_on=True)
    journal_of(suite, [])
    assert (suite.rows, len(suite.benchmarks), suite.skipped, suite.readings) == ([], 1, [], {})


@pytest.mark.parametrize(
    ("storage", "folder"),
    [
        ("file://./.benchmarks", "./.benchmarks"),
        ("file:///runs", "/runs"),
        ("kept/here", "kept/here"),
        ("elasticsearch+http://host/index", ".benchmarks"),
    ],
)
def test_where_the_journal_lies(storage, folder):
    """The journal lies among the saved runs, and where they go elsewhere, where they are by default."""
    path = journal_path(storage)
    assert (str(path.parent), path.name) == (str(type(path)(folder)), "unfinished.jsonl")


@pytest.mark.parametrize("missing", ["batch_size", "source", "fits"])
def test_a_row_of_which_a_part_is_missing_gives_no_reading(missing):
    """A search has no batch size, and an older row may lack a field: what a relation needs is read again."""
    extra = {"question": "2a", "source": "measured", "fits": True, "batch_size": 4}
    assert reading_of(extra).fits is True
    assert reading_of(extra | {"question": "3a"}).source == "measured"
    assert reading_of({name: value for name, value in extra.items() if name != missing}) is None
    assert reading_of(extra | {"question": "4"}) is None


def test_rows_of_two_journals_are_told_apart_by_their_tests(interrupted):
    """A test that is measured again replaces its own row alone."""
    suite = Suite(interrupted, goes_on=True)
    items = [Item("a"), Item("b"), Item("c")]
    journal = journal_of(suite, items)
    Item("b", TIME_ONLY | {"train_s": 9.0}).ends(journal)
    kept = load_journal(journal_path(str(interrupted))).kept
    assert {name: one.row["extra_info"].get("train_s") for name, one in kept.items()} == {
        "b.py::a": None,
        "b.py::b": 9.0,
    }
    assert kept["b.py::a"] == Kept(row_of("a", NO_ROOM), "an answer without bytes: no room")
