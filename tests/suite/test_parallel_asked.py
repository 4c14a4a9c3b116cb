"""Question 6 as its users ask it: --parallel, --gpus, what is skipped and why, and what is saved."""

import json

import pytest

from stepcost.row import clean_row
from tests.suite.copied import ENVIRONMENT, copy_suite, saved_run
from tests.suite.test_flags_with_a_gpu import CONFTEST

ASKED = ("--model", "small-cnn", "--optimizers", "adam", "--batch-sizes", "8", "-rs")
TWO_GPUS = '''
from dataclasses import replace

from stepcost.failures import ChildDied
from stepcost.ledger import ALLOCATED, Ledger
from stepcost.measuring import measurements
from stepcost.reading import Rank


class Children(Child):
    """Answer as those of two GPUs would, as one; with zero1 one of them is killed."""

    def __init__(self, job, *arguments, time_limit_s):
        super().__init__(job, *arguments)

    def reading(self):
        if self.told[0]["parallel"] == "zero1":
            raise ChildDied("rank 1 of 2: the child was killed by SIGKILL")
        parts = {f"{name}_bytes": 0 for name in ALLOCATED} | {"parallel_bytes": 1}
        one = Rank(peak_allocated_bytes=1, parameter_bytes=1, gradient_bytes=1, optimizer_state_bytes=0,
                   bucket_bytes=1, ledger=Ledger(**parts))
        ranks = tuple(replace(one, peak_reserved_bytes=size) for size in (1, 2))
        return replace(super().reading(), ranks=ranks)


measurements.Group = Children
'''


@pytest.fixture
def suite(pytester, monkeypatch):
    """Ask question 6 in a copy of the suite with ``suite(*flags)``, in a process of its own."""
    copy_suite(pytester.path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return lambda *flags: pytester.runpytest_subprocess(
        "benchmarks/test_several_gpus.py", *ASKED, *flags, timeout=120
    )


@pytest.fixture
def two_gpus(suite, pytester):
    """The same on two GPUs, whose children only say what they were asked."""
    (pytester.path / "conftest.py").write_text(CONFTEST + TWO_GPUS)
    return suite


def test_without_a_gpu_it_is_predicted(suite, pytester):
    """Without a GPU each rank is predicted, on as many GPUs as are named, and losses are compared by gloo."""
    strategies = "none,zero1,fsdp2"
    result = suite("--parallel", strategies, "--gpus", "2,3", "--device", "cpu", "--benchmark-save=ranks")
    assert result.ret == 0
    assert result.parseoutcomes() == {"passed": 19, "skipped": 6}
    rows = [clean_row(bench["extra_info"]) for bench in saved_run(pytester.path)["benchmarks"]]
    assert [(row["parallel"], row["gpus"], row["source"], len(row["ranks"])) for row in rows] == [
        (None, None, "predicted", 0),
        ("zero1", 2, "predicted", 2),
        ("zero1", 3, "predicted", 3),
        ("fsdp2", 2, "predicted", 2),
        ("fsdp2", 3, "predicted", 3),
        ("zero1", 2, "predicted", 2),  # half of the batch; 8 is not split between 3
        ("fsdp2", 2, "predicted", 2),
    ]
    result.stdout.fnmatch_lines(
        ["stepcost: note: predictions of several GPUs: Validated with runs of * on *H200*"]
    )
    result.stdout.fnmatch_lines(["6  What do several GPUs *predicted*"])


def test_what_is_asked_of_fsdp2_is_in_its_rows_alone(suite, pytester):
    """What is gathered in bf16 and kept is predicted so; in fp64 losses are those of one process."""
    options = ("--fsdp-precision", "bf16", "--fsdp-keep-gathered", "--device", "cpu")
    result = suite("--parallel", "none,fsdp2", *options, "--benchmark-save=ranks")
    assert result.parseoutcomes() == {"passed": 6, "skipped": 4}
    rows = [clean_row(bench["extra_info"]) for bench in saved_run(pytester.path)["benchmarks"]]
    asked = [(row["fsdp_precision"], row["fsdp_keep_gathered"]) for row in rows]
    assert asked == [(None, None), ("bf16", True), ("bf16", True)], (
        "with a batch each, and with one that is split"
    )


def test_nothing_is_asked_without_the_flag(suite):
    """Without --parallel the question is skipped with what would ask it."""
    result = suite("--device", "cpu")
    result.stdout.fnmatch_lines(["SKIPPED*not asked: --parallel all, or a list of ways to share a step*"])
    assert set(result.parseoutcomes()) <= {"skipped", "seconds"}


def test_a_rank_that_is_killed_costs_its_own_row(two_gpus, pytester):
    """Each strategy is a row with what its GPUs hold; where a rank is killed, no other row is lost."""
    result = two_gpus("--parallel", "none,ddp,zero1,fsdp2", "-k", "step_with", "--benchmark-save=ranks")
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(
        ["*rank 1 of 2: the child was killed by SIGKILL", "6  What do several GPUs *"]
    )
    rows = [clean_row(bench["extra_info"]) for bench in saved_run(pytester.path)["benchmarks"]]
    assert [(row["parallel"], row["gpus"], row["question"], len(row["ranks"])) for row in rows] == [
        (None, None, "6", 0),  # as rows from before the field
        ("ddp", 2, "6", 2),
        ("fsdp2", 2, "6", 2),
    ]
    second = rows[1]["ranks"][1]
    assert (second["peak_reserved_bytes"], second["ledger"]["parallel_bytes"]) == (2, 1)
    lines = (pytester.path / "asked.jsonl").read_text().splitlines()
    asked = [told[0] for _, method, told, _ in map(json.loads, lines) if method == "timed_steps"]
    assert [(one["parallel"], one["gpus"], one["batch_size"]) for one in asked] == [
        ("none", 1, 8),
        ("ddp", 2, 8),
        ("fsdp2", 2, 8),
    ]


def test_the_batch_of_one_gpu_is_split(two_gpus, pytester):
    """Each of two GPUs gets 4 of a batch of 8; one of 7 is not split, and the skip says so."""
    result = two_gpus("--parallel", "none,ddp", "-k", "split", "--benchmark-save=ranks")
    assert result.parseoutcomes()["passed"] == 1
    assert [row["extra_info"]["batch_size"] for row in saved_run(pytester.path)["benchmarks"]] == [4]
    result = two_gpus("--parallel", "ddp", "-k", "split", "--batch-sizes", "7")
    result.stdout.fnmatch_lines(["SKIPPED*a batch of 7 is not split between 2 GPUs"])


def test_several_numbers_of_gpus_are_asked_in_one_run(two_gpus):
    """Each strategy is asked with each number, one GPU once; a number that is too large ends the run."""
    asked = ("--parallel", "none,ddp", "--gpus", "2,4", "-k", "agree")
    result = two_gpus(*asked, "--collect-only", "-q")
    found = [line.partition("::")[2] for line in result.outlines if "::" in line]
    assert found == [f"test_gpus_agree[{name}]" for name in ("none", "ddp-2", "ddp-4")]
    two_gpus(*asked).stderr.fnmatch_lines(["ERROR: --gpus 4: from cuda:0 on there are 2"])


def test_what_cannot_be_is_said_in_one_line(two_gpus):
    """More GPUs than there are end the run before it starts, and so do those that make no sense."""
    result = two_gpus("--gpus", "3", "--parallel", "ddp")
    result.stderr.fnmatch_lines(["ERROR: --gpus 3: from cuda:0 on there are 2"])
    result = two_gpus("--gpus", "1", "--parallel", "ddp")
    result.stderr.fnmatch_lines(["ERROR: --gpus: '1' is not a whole number of 2 or more"])
    result = two_gpus("--parallel", "dpp")
    result.stderr.fnmatch_lines(
        ["ERROR: --parallel: unknown name 'dpp'; did you mean ddp? It takes none, ddp*"]
    )


def test_one_gpu_shares_nothing(two_gpus, pytester):
    """From the last GPU on there is one: the skip says so."""
    result = two_gpus("--parallel", "ddp", "--device", "cuda:1")
    result.stdout.fnmatch_lines(["SKIPPED*only several GPUs can tell: this machine has one from cuda:1 on"])
