"""The baseline: what is kept of a cost, and what of a later one is said to have grown."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcost import baseline
from stepcost.activations import ModuleActivations, alike_together
from stepcost.baseline import Line
from stepcost.cost import Cost
from stepcost.ledger import Ledger
from stepcost.reading import Reading

LEDGER = Ledger(
    parameter_bytes=100,
    buffer_bytes=0,
    gradient_bytes=200,
    optimizer_state_bytes=300,
    input_bytes=400,
    activation_bytes=500,
    workspace_bytes=600,
    slack_bytes=700,
    context_bytes=None,
)


def reading(**changed):
    figures = {
        "source": "predicted",
        "fits": True,
        "peak_reserved_bytes": 10_000,
        "peak_allocated_bytes": 9_000,
        "parameter_bytes": 100,
        "leaked_bytes": 0,
        "ledger": LEDGER,
    }
    return Reading(**figures | changed)


def kept(module, size):
    return ModuleActivations(module=module, class_name="Linear", bytes=size)


def cost(
    of=None,
    modules=(("a.0.b", 10), ("a.1.b", 20), ("head", 5)),
    activations=(("a.0.b", 7), ("a.1.b", 7)),
    torch="2.11",
):
    return Cost(
        reading=replace(of or reading(), kept_by_modules=alike_together(kept(*one) for one in activations)),
        gpu="a card",
        build={"torch": torch},
        rests_on="",
        parameters_by_module=dict(modules),
    )


def line(**options):
    return baseline.line_of("test_x", cost(**options))


def test_a_line_keeps_what_is_known():
    """Unknown figures are left out, not kept as zero; modules that differ by a number alone are one."""
    found = line()
    assert found.figures == {
        "peak_reserved_bytes": 10_000,
        "peak_allocated_bytes": 9_000,
        "leaked_bytes": 0,
        "parameter_bytes": 100,
    }
    assert (found.ledger["workspace"], found.ledger["buffer"]) == (600, 0)
    assert "context" not in found.ledger
    assert found.modules == {"a.*.b x 2": [30, 14], "head": [5, 0]}
    assert found.key == ("test_x", "predicted", "a card")


def test_a_module_that_only_keeps_has_no_parameters():
    """Its count is that of its own paths."""
    found = line(modules=(), activations=(("relu", 3), ("b.0", 1), ("b.1", 1), ("b.2", 1)))
    assert found.modules == {"relu": [0, 3], "b.* x 3": [0, 3]}


def test_nothing_grew():
    """The same cost, and a smaller one, pass."""
    assert baseline.growth(line(), line()) is None
    assert baseline.growth(line(), line(of=reading(peak_reserved_bytes=9_999, parameter_bytes=99))) is None


def test_one_byte_is_growth_with_the_same_torch():
    """What grew is named in bytes, with the parts of the peak and the modules; what shrank among them too."""
    ledger = replace(LEDGER, activation_bytes=503, workspace_bytes=598)
    new = line(
        of=reading(peak_allocated_bytes=9_001, ledger=ledger),
        modules=(("a.0.b", 10), ("a.1.b", 25), ("head", 4)),
        activations=(("a.0.b", 7), ("a.1.b", 7), ("new", 2)),
    )
    assert baseline.growth(line(), new) == (
        "test_x grew (predicted for a card), in bytes:\n"
        "  peak_allocated_bytes: 9,000 -> 9,001 (+1; allowed: exact, same torch)\n"
        "  at the peak, activation: +3\n"
        "  at the peak, workspace: -2\n"
        "  a.*.b x 2, parameters: +5\n"
        "  new, kept for backward: +2"
    )


@pytest.mark.parametrize(("peak", "grew"), [(10_100, False), (10_101, True)])
def test_with_another_torch_a_tolerance_applies_and_is_said(peak, grew):
    """One per cent of 10,000 is 100; parameters follow from shapes and stay exact."""
    said = baseline.growth(line(), line(of=reading(peak_reserved_bytes=peak), torch="2.12"))
    assert (said is not None) is grew
    if said:
        assert "torch 2.11 -> 2.12" in said
        assert "10,000 -> 10,101 (+101; allowed: 1 %, other torch)" in said
    assert baseline.growth(line(), line(of=reading(parameter_bytes=101), torch="2.12"))


def test_a_figure_that_was_known_and_is_not_any_more_is_said():
    """It does not pass for unchanged."""
    said = baseline.growth(line(), line(of=reading(peak_reserved_bytes=None)))
    assert said is not None
    assert "peak_reserved_bytes: 10,000 before, not known now" in said
    assert baseline.growth(line(of=reading(peak_reserved_bytes=None)), line()) is None


def test_many_modules_are_cut():
    """Ten that grew most are named, the others added up."""
    modules = [(f"m{chr(97 + number)}", number) for number in range(13)]
    said = baseline.growth(line(modules=()), line(of=reading(parameter_bytes=101), modules=modules))
    assert said is not None
    assert "mm, parameters: +12\n" in said
    assert "md, parameters: +3\n" in said
    assert "mc, parameters" not in said
    assert said.endswith("2 more modules, parameters: +3")


names = st.text(min_size=1, max_size=8)
sizes = st.integers(-(2**40), 2**40)
lines = st.builds(
    Line,
    test=names,
    source=st.sampled_from(["measured", "predicted"]),
    gpu=st.none() | names,
    build=st.dictionaries(names, st.none() | names, max_size=2),
    figures=st.dictionaries(names, sizes, max_size=3),
    ledger=st.dictionaries(names, sizes, max_size=3),
    modules=st.dictionaries(names, st.lists(sizes, min_size=2, max_size=2), max_size=3),
)


@given(st.lists(lines, max_size=4))
def test_a_baseline_reads_back_as_it_was_written(tmp_path_factory, found):
    """Whatever the names; a line a test."""
    path = tmp_path_factory.mktemp("baseline") / baseline.FILE
    known = {one.key: one for one in found}
    baseline.save(path, known)
    assert baseline.load(path) == known
    assert len(path.read_text(encoding="utf-8").split("\n")) == len(known) + 1


def test_no_file_is_an_empty_baseline(tmp_path):
    """The first run of all."""
    assert baseline.load(tmp_path / baseline.FILE) == {}


@pytest.mark.parametrize(
    "text", ["{", "[]", "3", '{"test": "x"}', '{"extra": 1}', "<<<<<<< HEAD"], ids=lambda text: text
)
def test_a_broken_line_is_named(tmp_path, text):
    """With its number in the file, in one line."""
    path = tmp_path / baseline.FILE
    baseline.save(path, {line().key: line()})
    path.write_text(path.read_text() + "\n" + text + "\n")
    with pytest.raises(ValueError, match=r"^stepcost-baseline.jsonl, line 3: .*remove it") as raised:
        baseline.load(path)
    assert "\n" not in str(raised.value)


def test_a_size_that_is_no_integer_is_refused(tmp_path):
    """Bytes are integers; true is none."""
    path = tmp_path / baseline.FILE
    baseline.save(path, {line().key: line()})
    saved = json.loads(path.read_text())
    saved["figures"]["leaked_bytes"] = True
    path.write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="a size is no integer"):
        baseline.load(path)
