"""The answers, from whole runs and from any part of one."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest

from stepcost.report import answers as registry
from stepcost.report.answers import answers
from stepcost.report.load import load
from stepcost.report.page.write import write_report
from stepcost.report.rows import Row, of_question
from stepcost.report.said import Answer, Said
from stepcost.report.separation import separate
from stepcost.report.terminal import print_answers
from stepcost.report.throttle import throttle
from tests.report.synthetic import rows_of, save, synthetic_run


def _by_question(run: dict[str, Any]) -> dict[str, Answer]:
    return {answer.question: answer for answer in answers(rows_of(run), run["machine_info"])}


def test_every_question_is_answered_in_order() -> None:
    """Each registered question has one answer, in order, with no rows at all too."""
    names = [question.name for question in registry.QUESTIONS]
    assert [answer.question for answer in answers(rows_of(synthetic_run()))] == names
    assert {answer.source for answer in answers([])} == {"skipped"}
    assert len(set(names)) == len(names)


def test_a_question_is_one_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A question added to the registry is answered in the terminal and on the page; the others stay."""

    def of_dropout(rows: list[Row], _machine: Any) -> Said:
        return Said(f"Dropout keeps {len(of_question(rows, '9z'))} masks.", "measured")

    run = synthetic_run()
    before = answers(rows_of(run))
    run["benchmarks"] += [
        {
            "name": f"test_dropout[{place}]",
            "extra_info": {"question": "9z", "source": "measured"},
            "stats": {},
        }
        for place in range(7)
    ]
    asked = registry.Question("9z", "What does dropout cost?", of_dropout)
    monkeypatch.setattr(registry, "QUESTIONS", (*registry.QUESTIONS, asked))
    said = answers(rows_of(run))
    assert said[:-1] == before
    terminal = io.StringIO()
    print_answers(said, terminal)
    page, markdown, *_ = write_report([load(save(run, tmp_path))], tmp_path / "out")
    for text in (terminal.getvalue(), page.read_text(), markdown.read_text()):
        assert "What does dropout cost?" in text
        assert "Dropout keeps 7 masks." in text


def test_rows_of_no_registered_question_are_counted() -> None:
    """Rows that carry another question's name are an answer that says how many there are."""
    other = {"question": "9z", "source": "predicted", "batch_size": 8}
    said = answers([*rows_of(synthetic_run()), other, other])
    assert (said[-1].question, said[-1].source) == ("9z", "predicted")
    assert said[-1].text == "2 rows; the tables of all rows show what was read."
    assert said[-1].title == "A question that is not registered"
    assert [one.title for one in said[:-1]] == [question.title for question in registry.QUESTIONS]
    assert len(said) == len(registry.QUESTIONS) + 1


def test_times_taken_while_throttled_are_marked() -> None:
    """The table of step times names the batch sizes timed while throttled, with the reason, and no others."""
    run = synthetic_run()
    for row in run["benchmarks"]:
        fields = row["extra_info"]
        if fields["question"] == "3b":
            fields["engine"] = "graph"
        if fields["question"] == "3a" and fields.get("batch_size"):
            hot = fields["batch_size"] == 64
            fields["clocks"] = {"throttle_reasons": ["power cap"] if hot else []}
            fields["throttled"] = hot
            # The training of these rows is of another optimizer unless told so.
            fields["optimizer"] = "adam"
    table = _by_question(run)["3c"].table
    assert table is not None
    assert table.caption.endswith("; taken while throttled: batch 64 (power cap)")
    engine_step = {"question": "4", "source": "measured", "timed": "engine step", "batch_size": 8}
    steps = [
        engine_step | {"engine": name, "stats": {"median": 0.1}, "clocks": {"throttle_reasons": reasons}}
        for name, reasons in (("eager", []), ("graph", ["hardware thermal slowdown"]))
    ]
    engines = next(answer.table for answer in answers(steps) if answer.question == "4")
    assert engines is not None
    assert engines.caption.endswith("; taken while throttled: batch 8, graph (hardware thermal slowdown)")
    before = _by_question(synthetic_run())["3c"].table
    assert before is not None and "throttled" not in before.caption


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, None),
        ({"clocks": None, "throttled": None}, None),
        ({"clocks": {"throttle_reasons": []}, "throttled": False}, None),
        ({"clocks": {"throttle_reasons": ["power cap"]}}, "power cap"),  # saved before the field was
        ({"clocks": {"throttle_reasons": ["a", "b"]}, "throttled": True}, "a, b"),
        ({"throttled": True}, "reason not stored"),
    ],
)
def test_throttled_is_told_with_its_reason(fields: dict[str, Any], why: str | None) -> None:
    """A row is marked where power or heat held the clocks back, and not where nobody could look."""
    assert throttle(fields) == why


def test_predicted_and_measured_keep_their_labels() -> None:
    """Without a GPU memory is predicted and accuracy measured, and each answer says its own."""
    said = _by_question(synthetic_run(gpu=None))
    assert said["2a"].source == "predicted"
    for question in ("3b", "3c", "3d"):
        assert said[question].source == "measured on small-cnn, this CPU: not resnet152"
        assert said[question].text.startswith("On small-cnn, this CPU, not resnet152: ")
    assert said["1b"].source == "skipped"
    both = synthetic_run()
    both["benchmarks"] += [
        row for row in synthetic_run(gpu=None)["benchmarks"] if row["extra_info"]["question"] == "2a"
    ]
    assert _by_question(both)["2a"].source == "measured"


@pytest.mark.parametrize(
    ("left_out", "touched"),
    [("1a", {"1a"}), ("1b", {"1b"}), ("1c", set()), ("2a", {"2a", "2b"}), ("3a", {"3a", "3c"}),
     ("3b", {"3b", "3c", "3d"})],
)  # fmt: skip
def test_a_selection_is_answered_as_far_as_it_goes(left_out: str, touched: set[str]) -> None:
    """Without the rows of one question only the answers that rest on them change."""
    rows = rows_of(synthetic_run())
    every = answers(rows)
    some = answers([row for row in rows if row["question"] != left_out])
    assert {one.question for one, other in zip(every, some, strict=True) if one != other} == touched


def test_out_of_memory_is_an_answer() -> None:
    """A row that ran out of memory is named, and its missing bytes are never a zero."""
    run = synthetic_run()
    for row in run["benchmarks"]:
        info = row["extra_info"]
        if info["question"] == "3a" and info.get("batch_size") == 256:
            for name in [name for name in info if name.endswith("_bytes")]:
                del info[name]
            info |= {"fits": False, "reason": "torch.OutOfMemoryError in backward", "ledger": None}
    answer = _by_question(run)["3a"]
    assert "out of memory at batch 256" in answer.text
    assert answer.table is not None
    assert answer.table.rows[-1][1:6] == ("out of memory",) * 5


def test_a_small_last_batch_is_pointed_out() -> None:
    """3b names batch sizes whose epoch ends with far fewer images, and none where those are left out."""
    run = synthetic_run()
    assert "The last step of an epoch is on 8 images at batch 64, at the" in _by_question(run)["3b"].text
    for row in run["benchmarks"]:
        info = row["extra_info"]
        if info["question"] == "3b":
            info["steps_per_epoch"] = info["train_images"] // info["batch_size"]
    assert "last step" not in _by_question(run)["3b"].text


def test_one_seed_never_names_a_winner() -> None:
    """With one seed a batch size may be highest, but is not called the most accurate."""
    assert "A tie" in _by_question(synthetic_run(seeds=1))["3b"].text
    assert "one seed" in _by_question(synthetic_run(seeds=1))["3b"].text


def test_separation_needs_seeds_and_test_images() -> None:
    """A winner needs ranges apart, enough seeds, and a gap that the test set resolves."""
    apart = {4: [0.50, 0.51, 0.52], 16: [0.80, 0.81, 0.82], 64: [0.60, 0.61, 0.62]}
    assert separate(apart, 10_000).wins
    assert separate(apart, 10_000).best == 16
    assert not separate({name: values[:1] for name, values in apart.items()}, 10_000).wins
    assert not separate({name: values[:2] for name, values in list(apart.items())[:2]}, 10_000).wins
    assert not separate(apart, 10).wins
    assert not separate({4: [0.9] * 40, 16: [0.5]}, 10_000).wins
    touching = {4: [0.1, 0.2, 0.5, 0.5], 16: [0.5, 0.6, 0.7, 0.8]}
    assert separate(touching, None).tied_with == (4,)
    assert separate({4: [0.1, 0.2, 0.3, 0.4], 16: [0.5, 0.6, 0.7, 0.8]}, None).wins
    # two seeds each are enough for eleven candidates: 11 / C(22, 2) = 1 / 21
    many = {size: [size / 100, size / 100 + 0.001] for size in range(1, 12)}
    assert separate(many, None).wins
    assert separate(many, None).chance == pytest.approx(1 / 21)
    assert not separate({size: many[size] for size in range(1, 11)}, None).wins
    # 1.96 * sqrt(2 * 0.25 / 2) = 0.98 is what two images resolve around one half
    assert separate({4: [0.0] * 4, 16: [1.0] * 4}, 1).wins  # no doubt at either end
    assert separate({4: [0.5] * 4, 16: [0.5] * 4}, 2).resolution == pytest.approx(0.98)
    assert not separate({4: [0.9] * 4}, None).wins
    with pytest.raises(ValueError, match=r"^no accuracies to compare$"):
        separate({4: []}, 10)
    overlapping = apart | {64: [0.60, 0.805, 0.62]}
    assert separate(overlapping, 10_000).tied_with == (64,)


def test_chance_of_separation_is_exact() -> None:
    """The stated chance is the share of all assignments in which one candidate holds the top places."""
    assert separate({1: [1.0] * 3, 2: [0.0] * 3}, None).chance == pytest.approx(2 / 20)
    assert separate({1: [1.0] * 3, 2: [0.0] * 3, 3: [0.0] * 3, 4: [0.0] * 3}, None).chance == pytest.approx(
        4 / 220
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1, 10**400, [{}], b""])
def test_wrong_types_are_ignored(bad: Any) -> None:
    """A value of the wrong type counts as one that was not read."""
    rows = rows_of(synthetic_run())
    wrong, none = (
        [dict.fromkeys(row, value) | {"question": row["question"]} for row in rows] for value in (bad, None)
    )
    assert answers(wrong, {"gpu": bad, "gpu_total_bytes": bad}) == answers(none, {"gpu": None})


def test_a_damaged_row_stops_no_answer() -> None:
    """A row of no parameters, and a timed step without its batch size, count as not read."""
    rows = rows_of(synthetic_run())
    for row in rows:
        row["engine"] = "graph" if row["question"] == "3b" else row.get("engine")
    none = {"question": "1a", "source": "measured", "parameters": 0, "parameter_bytes": 0}
    step = next(row for row in rows if row["question"] == "3a")
    damaged = {name: value for name, value in step.items() if name != "batch_size"}
    assert answers([none, damaged, *rows]) == answers(rows)


def test_terminal_shows_text_as_it_is() -> None:
    """Rich's markup in a name is printed, not followed, and each answer shows where it comes from."""
    run = synthetic_run()
    run["benchmarks"][0]["extra_info"]["model"] = "[red]bold[/nosuch]"
    out = io.StringIO()
    print_answers(answers(rows_of(run)), out)
    assert "[red]bold[/nosuch]" in out.getvalue()
    assert out.getvalue().count("[measured]") >= 7


def test_an_ascii_terminal_shows_lines() -> None:
    """What is shown of ASCII rows is ASCII; a name that the terminal cannot show costs its letters only."""
    run = synthetic_run()
    plain = io.StringIO()
    print_answers(answers(rows_of(run)), plain)
    assert plain.getvalue().isascii()
    run["benchmarks"][0]["extra_info"]["model"] = "r\u00e9seau\u2500152"
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_answers(answers(rows_of(run)), stream)
    stream.seek(0)
    lines = stream.read().splitlines()
    assert len(lines) == len(plain.getvalue().splitlines())
    assert any("r?seau?152 has 58,164,298" in line for line in lines)


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("file_kind", [io.StringIO, _Screen], ids=["pipe", "screen"])
def test_no_line_of_the_terminal_ends_in_blanks(
    file_kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is copied from the answers carries no blanks at line ends, in a pipe and in a coloured screen."""
    monkeypatch.setenv("TERM", "xterm")
    out = file_kind()
    print_answers(answers(rows_of(synthetic_run())), out)
    assert ("\x1b[" in out.getvalue()) == (file_kind is _Screen)
    lines = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue()).splitlines()
    assert len(lines) > 50
    assert not [line for line in lines if line != line.rstrip()]
