"""Question 5 as its users ask it: --savers, what is skipped with which reason, and what is saved."""

import pytest

from tests.suite.copied import ENVIRONMENT, copy_suite, saved_run


@pytest.fixture
def suite(pytester, monkeypatch):
    """Ask question 5 in a copy of the suite with ``suite(*flags)``, in a process of its own."""
    copy_suite(pytester.path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    asked = ("--model", "small-cnn", "--device", "cpu", "--optimizers", "adam", "-rs")
    return lambda *flags: pytester.runpytest_subprocess(
        "benchmarks/test_memory_savers.py", *asked, *flags, timeout=300
    )


def test_ways_to_save_memory_are_read_beside_the_plain_step(suite, pytester):
    """Each way is a row under its name; what it cannot do, or the model, is skipped in its own line."""
    ways = "pure-bf16,accumulate,checkpoint,8-bit,fused+channels-last"
    result = suite("--savers", ways, "--batch-sizes", "8", "--benchmark-save=ways", "-k", "not largest")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "SKIPPED*--checkpoint: small-cnn has no block that is repeated; --checkpoint CLASS names *",
            "SKIPPED*8-bit: the catalog has no optimizer adam-8bit*",
            "Adam, batch 8: *predicted for h100-80gb",
            "5  What does each way to save memory buy*",
            "*saves most process memory*",
        ]
    )
    rows = [bench["extra_info"] for bench in saved_run(pytester.path)["benchmarks"]]
    named = {row["saver"]: row for row in rows}
    assert list(named) == ["plain", "pure-bf16", "accumulate", "fused+channels-last"]
    assert {row["question"] for row in rows} == {"5"}
    assert (named["accumulate"]["batch_size"], named["accumulate"]["accumulate"]) == (2, 4)
    assert named["pure-bf16"]["precision"] == "pure-bf16"
    assert 2 * named["pure-bf16"]["parameter_bytes"] == named["plain"]["parameter_bytes"]
    both = named["fused+channels-last"]
    assert (both["optimizer"], both["channels_last"]) == ("adam-fused", True)


def test_nothing_is_asked_without_the_flag(suite):
    """Without --savers the question is skipped with what would ask it; so is a batch that has no quarter."""
    result = suite()
    result.stdout.fnmatch_lines(["SKIPPED*not asked: --savers all, or a list of ways to save memory, *"])
    assert set(result.parseoutcomes()) <= {"skipped", "seconds"}
    result = suite("--savers", "accumulate", "--batch-sizes", "6", "-k", "step_with")
    result.stdout.fnmatch_lines(["SKIPPED*accumulate: a batch of 6 cannot be split into 4 micro-batches"])
