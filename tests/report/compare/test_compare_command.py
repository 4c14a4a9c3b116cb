"""The door in the terminal: ``python -m reports compare`` by exit code and by what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepcost.report.compare.tolerances import DEFAULT_FIELDS
from tests.command import stepcost
from tests.report.compare.saved import changed, engine_run, plain_run, save, slower, without

Compare = Callable[..., tuple[int, str, str]]
BASE = plain_run()


@pytest.fixture
def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Compare:
    """``compare(new, *flags, base=...)``: save both and run the command; gives exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(new: Any, *flags: str, base: Any = BASE) -> tuple[int, str, str]:
        save(base, tmp_path, "0001_base")
        save(new, tmp_path, "0002_new")
        code = stepcost(["compare", "base", "new", *flags])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.parametrize("flag", [None, "--markdown", "--json"])
def test_a_build_compared_with_itself_is_not_worse(compare: Compare, flag: str | None) -> None:
    """Without a plant nothing fires, whatever the output."""
    code, output, errors = compare(BASE, *([flag] if flag else []))
    assert (code, errors) == (0, "")
    assert output


@pytest.mark.parametrize(
    "field", ["tensor_bytes", "peak_allocated_bytes", "peak_reserved_bytes", "process_bytes"]
)
def test_one_byte_more_is_worse(compare: Compare, field: str) -> None:
    """On the same build one byte more in one row fires and is named; one byte less is shown as better."""
    value = BASE["benchmarks"][1]["extra_info"][field]
    code, output, _ = compare(changed(BASE, 1, **{field: value + 1}))
    assert code == 1
    assert field in output
    assert "+1" in output
    code, output, _ = compare(changed(BASE, 1, **{field: value - 1}))
    assert code == 0
    assert "1 better" in output


def test_a_tensor_of_a_thousandth_of_the_peak_is_caught_across_builds_only_when_asked(
    compare: Compare,
) -> None:
    """Another torch is given its tolerance; an explicit one is taken as it is."""
    peak = BASE["benchmarks"][0]["extra_info"]["peak_allocated_bytes"]
    new = changed(BASE, 0, peak_allocated_bytes=peak + peak // 1000)
    assert compare(new)[0] == 1
    new["machine_info"]["torch"] = "2.12.0"
    assert compare(new)[0] == 0
    assert compare(new, "--memory", "peak_*_bytes:0.05%")[0] == 1


def test_only_the_figures_named_are_gated(compare: Compare) -> None:
    """``--memory`` replaces the default figures, and reaches into the ledger."""
    new = changed(BASE, 0, tensor_bytes=9_000_000, ledger={"workspace_bytes": 5000})
    assert compare(new, "--memory", "peak_*_bytes")[0] == 0
    assert compare(new, "--memory", "ledger.workspace_bytes")[0] == 1


def test_a_row_that_disappeared_is_worse(compare: Compare) -> None:
    """Gone fires unless it is allowed; the same row on the new side only is listed as new."""
    assert compare(without(BASE, 2))[0] == 1
    assert compare(without(BASE, 2), "--allow-gone")[0] == 0
    code, output, _ = compare(BASE, base=without(BASE, 2))
    assert code == 0
    assert "1 new" in output


def test_no_longer_fits_is_worse(compare: Compare) -> None:
    """A configuration that used to fit and now runs out of memory fires; the other way round is better."""
    bytes_gone = dict.fromkeys((*DEFAULT_FIELDS, "ledger", "gpu_busy_s"))
    new = changed(
        BASE, 3, **bytes_gone, fits=False, reason="out of memory", timed="attempt that ran out of memory"
    )
    code, output, _ = compare(new)
    assert code == 1
    assert "out of memory" in output
    assert compare(BASE, base=new)[0] == 0


@pytest.mark.parametrize(
    "field",
    ["model", "dataset", "precision", "engine", "source", "batch_size", "optimizer", "seed", "train_images"],
)
def test_a_different_configuration_is_never_matched(compare: Compare, field: str) -> None:
    """Another model, data set, precision, engine, source or batch is gone and new, and said to differ."""
    other = (
        5
        if field in ("batch_size", "seed", "train_images")
        else "predicted"
        if field == "source"
        else "another"
    )
    code, output, _ = compare(changed(BASE, 0, **{field: other}))
    assert code == 1
    assert "1 gone" in output
    assert f"{field} " in output


def test_nothing_in_common_could_not_be_compared(compare: Compare) -> None:
    """Runs without a row in common exit with 2 and say in what the nearest rows differ."""
    new = BASE
    for place in range(4):
        new = changed(new, place, precision="bf16")
    code, output, errors = compare(new)
    assert (code, output) == (2, "")
    assert "precision fp32 -> bf16" in errors


def test_a_slower_step_is_worse(compare: Compare) -> None:
    """Steps that take 1.5 times as long fire with one run each; 20 % may be the moment of a run."""
    code, output, _ = compare(slower(BASE, 1.5))
    assert code == 1
    assert "step_s" in output
    assert compare(slower(BASE, 1.2))[0] == 0
    assert compare(slower(BASE, 1.5), "--memory-only")[0] == 0


def test_steps_timed_while_throttled_are_a_warning(compare: Compare) -> None:
    """The side whose steps were timed while throttled is named, with row and reason; a cool side is not."""
    hot = changed(BASE, 2, clocks={"throttle_reasons": ["power cap"]}, throttled=True)
    code, output, _ = compare(hot)
    said = " ".join(output.split())
    assert code == 0
    assert "new side taken while throttled: 3a, made-up, SGD, batch 64" in said
    assert "(power cap)" in said
    assert "base side" not in said
    assert "base side taken while throttled" in " ".join(compare(BASE, base=hot)[1].split())
    assert "throttled" not in compare(BASE)[1]


def test_another_processor_is_not_a_regression(compare: Compare) -> None:
    """Step times of another processor are shown with the GPU-busy share and not gated."""
    new = slower(BASE, 2.0)
    new["machine_info"]["cpu"] = {"brand_raw": "Another CPU", "count": 4}
    code, output, _ = compare(new)
    assert code == 0
    assert "GPU busy" in output


def test_another_card_is_compared_on_what_can_be_compared(compare: Compare) -> None:
    """With one build on two cards bytes must agree exactly; totals and contexts stand side by side."""
    base = changed(BASE, 0, context_bytes=700_000_000)
    new = changed(BASE, 0, context_bytes=800_000_000)
    new["machine_info"] |= {"gpu": "Larger GPU", "gpu_total_bytes": 150_000_000_000}
    code, output, _ = compare(new, base=base)
    assert code == 0
    assert "that should agree exactly" in output
    assert "150.00" in output
    assert "+100,000,000" in output
    peak = BASE["benchmarks"][0]["extra_info"]["peak_allocated_bytes"]
    assert compare(changed(new, 0, peak_allocated_bytes=peak + 1), base=base)[0] == 1


def test_busy_seconds_are_gated_with_one_run_each(compare: Compare) -> None:
    """5 % more GPU work in a step fires though the step's own time did not change."""
    new = BASE
    for place in range(4):
        new = changed(new, place, gpu_busy_s=0.0105)
    assert compare(new)[0] == 1


def test_json_is_one_object_with_the_verdict(compare: Compare) -> None:
    """Programs read verdict, exit code and every change from standard output."""
    peak = BASE["benchmarks"][0]["extra_info"]["peak_allocated_bytes"]
    _, output, _ = compare(changed(BASE, 0, peak_allocated_bytes=peak + 8), "--json")
    read = json.loads(output)
    assert (read["exit_code"], read["worse"]) == (1, True)
    (worse,) = [change for change in read["changes"] if change["verdict"] == "worse"]
    assert worse["new"] - worse["base"] == 8


def test_markdown_escapes_what_a_file_holds(compare: Compare) -> None:
    """A name from a file cannot break the table of a pull request."""
    _, output, _ = compare(changed(BASE, 0, model="a|b<script>"), "--markdown")
    assert "a\\|b&lt;script&gt;" in output


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "empty"), ("{", "cut off"), ("[]", "not a file saved by"), ('{"benchmarks": []}', "no rows")],
)
def test_damaged_and_foreign_files_are_one_line(compare: Compare, content: str, said: str) -> None:
    """Whatever a file holds, the command says so in one line and exits with 2."""
    code, output, errors = compare(content)
    assert (code, output) == (2, "")
    assert said in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["base", "nwe"], "0002_new"),
        (["base"], "one run alone"),
        (["base", "base"], "both sides"),
        ([], "required"),
        (["base", "new", "--memory", "median:1%"], "no figure"),
        (["base", "new", "--false-alarm", "2"], "share"),
    ],
)
def test_wrong_arguments_are_one_line(
    compare: Compare, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """Wrong names list the candidates, wrong flags say what they take; exit code 2, no traceback."""
    compare(BASE)
    assert stepcost(["compare", *arguments]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELD_NAMES = st.sampled_from([*BASE["benchmarks"][0]["extra_info"], "epochs", "largest_batch"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(fields=st.dictionaries(FIELD_NAMES, JSON_VALUES, max_size=4))
def test_no_value_in_a_file_makes_it_crash(compare: Compare, fields: dict[str, Any]) -> None:
    """Any value under any field name leads to a verdict, which the exit code repeats, or to one line."""
    code, output, errors = compare(changed(BASE, 0, **fields))
    assert output.startswith(("Nothing worse: 0 worse", "WORSE: ", "")[code])
    assert errors.count("\n") == (code == 2)


def test_several_runs_stand_side_by_side(compare: Compare, capsys: pytest.CaptureFixture[str]) -> None:
    """A pattern of several runs gives one table over runs and judges nothing."""
    compare(changed(BASE, 0, tensor_bytes=5_000_000))
    assert stepcost(["compare", "*"]) == 0
    output = capsys.readouterr().out
    assert "0001_base" in output
    assert "5.0" in output


ENGINES = engine_run()


def test_engine_steps_compared_with_themselves_are_not_worse(compare: Compare) -> None:
    """Rows of question 4 are matched with themselves, and nothing fires."""
    code, output, errors = compare(ENGINES, base=ENGINES)
    assert (code, errors) == (0, "")
    assert "0 gone, 0 new" in output


@pytest.mark.parametrize(
    ("place", "field", "other"),
    [(4, "engine", "graph-channels-last"), (4, "precision", "bf16"), (6, "precision", "fp32")],
)
def test_another_engine_or_precision_is_never_matched(
    compare: Compare, place: int, field: str, other: str
) -> None:
    """A step by another engine or in another precision is gone and new, and said to differ in that."""
    code, output, _ = compare(changed(ENGINES, place, **{field: other}), base=ENGINES)
    assert code == 1
    assert "1 gone, 1 new" in output
    assert f"{field} {ENGINES['benchmarks'][place]['extra_info'][field]} -> {other}" in output


def test_slower_engine_steps_are_worse(compare: Compare) -> None:
    """Times of engine steps are gated as those of the eager step are, and apart from them."""
    code, output, _ = compare(slower(ENGINES, 1.5, "engine step"), base=ENGINES)
    assert code == 1
    assert "fp32, fast" in output
    assert "all engine steps together" in output
    worse = output.partition("All timed steps")[0]
    assert "3a" not in worse
    assert "all steps together" not in worse


def test_more_bytes_with_an_engine_are_worse(compare: Compare) -> None:
    """One byte more in one engine's row fires."""
    peak = ENGINES["benchmarks"][5]["extra_info"]["peak_allocated_bytes"]
    assert compare(changed(ENGINES, 5, peak_allocated_bytes=peak + 1), base=ENGINES)[0] == 1


def test_kernel_times_of_engines_are_shown(compare: Compare) -> None:
    """Kernel and GPU-busy seconds of an engine are not gated; a change is shown."""
    new = ENGINES
    for place in range(4, 7):  # the captured ones
        new = changed(new, place, kernel_s=0.022, gpu_busy_s=0.018)
    for flags in ((), ("--json",)):
        code, output, _ = compare(new, *flags, base=ENGINES)
        assert code == 0
        assert "kernel_s" in output
        assert "gpu_busy_s" in output


def test_an_engine_that_no_longer_fits_is_worse(compare: Compare) -> None:
    """A row of question 4 that ran out of memory is still the engine step that it tried to be."""
    gone = dict.fromkeys((*DEFAULT_FIELDS, "ledger", "gpu_busy_s", "kernel_s"))
    timed = "attempt that ran out of memory"
    code, output, _ = compare(changed(ENGINES, 5, **gone, fits=False, timed=timed), base=ENGINES)
    assert code == 1
    assert "1 worse, 0 better, 0 gone, 0 new" in output


def test_a_training_run_that_no_longer_fits_is_worse(compare: Compare) -> None:
    """A training run out of memory has no epochs, and is still the run that it tried to be."""
    fields = {"question": "3b", "timed": "training run", "seed": 0}
    base = changed(BASE, 3, **fields, epochs=[{"train_seconds": 1.0}] * 3, train_s=3.0)
    new = changed(BASE, 3, **fields | {"timed": "attempt that ran out of memory"}, fits=False)
    code, output, _ = compare(new, base=base)
    assert code == 1
    assert "1 worse, 0 better, 0 gone, 0 new" in output
    code, output, _ = compare(base, base=new)
    assert code == 0
    assert "0 worse, 1 better, 0 gone, 0 new" in output


def test_side_by_side_shows_every_kind_of_result(
    compare: Compare, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over runs, times, largest batches and accuracies that differ are listed, and rows that a run lacks."""
    base = changed(BASE, 3, largest_batch=1000)
    base = changed(base, 2, question="3b", timed="training run", train_s=2.0, epochs=[{"test_accuracy": 0.5}])
    new = changed(changed(slower(base, 1.5), 3, largest_batch=900), 2, epochs=[{"test_accuracy": 0.25}])
    compare(without(new, 0), base=base)
    assert stepcost(["compare", "000?_*"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    for said in ("step, ms 50.2 75.3", "largest batch 1,000 900", "test accuracy 50.0 % 25.0 %", "no row"):
        assert said in output


def test_another_schedule_is_never_matched(compare: Compare) -> None:
    """A constant rate is what files without the field had; a cosine one is another row, and named."""
    base = changed(BASE, 3, question="3b", timed="training run", seed=0, train_s=3.0)
    assert compare(changed(base, 3, schedule="constant"), base=base)[0] == 0
    code, output, _ = compare(changed(base, 3, schedule="cosine"), base=base)
    assert code == 1
    assert "1 gone, 1 new" in output
    assert "schedule None -> cosine" in output
    assert "cosine schedule" in output


@pytest.mark.parametrize("field", ["kernel_s", "gpu_busy_s"])
def test_more_gpu_work_of_a_captured_step_is_shown_from_one_run_a_side(compare: Compare, field: str) -> None:
    """20 % more is beyond the noise assumed of the GPU's times, however far a host drifts; 1 % is not."""
    for factor, seen in ((1.2, True), (1.01, False)):
        new = ENGINES
        for place in range(4, 7):
            value_s = ENGINES["benchmarks"][place]["extra_info"][field]
            new = changed(new, place, **{field: factor * value_s})
        code, output, _ = compare(new, base=ENGINES)
        assert code == 0
        shown = output.partition("Not gated, and different")[2].partition("All timed steps")[0]
        assert (field in shown) is seen
