"""``stepcost cards --parallel``: one step on every card, shared by several GPUs in every way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from stepcost.predicting import prediction, ranks, traces
from stepcost.predicting.trace import Trace
from stepcost.request import Request
from tests.command import predict, stepcost

STEP = ["small-cnn", "--optimizer", "adam", "--batch-size", "8", "--torch", "2.11"]
SHARED = ["--parallel", "none,zero1", "--gpus", "1,2,3"]


def asked(capsys: pytest.CaptureFixture[str], *more: str) -> list[dict[str, Any]]:
    """Return the rows that are printed for programs."""
    assert stepcost(["cards", *STEP, "--json", *more]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out).popitem()[1]
    return found


def test_each_way_is_asked_of_each_card(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each number of GPUs has a row a card, as ``predict`` says it; all cards share one trace of it."""
    made: list[tuple[str, int]] = []
    usual = ranks.trace_ranks

    def counted(request: Request, **options: Any) -> Sequence[Trace]:
        made.append((request.parallel, request.gpus))
        return usual(request, **options)

    for module in (prediction, traces):
        monkeypatch.setattr(module, "trace_ranks", counted)
    cards = "t4,h100-80gb,a100-80gb"
    rows = asked(capsys, *SHARED, "--gpu", cards, "--price", "t4=0.5")
    assert made == [("zero1", 2), ("zero1", 3)]
    by = {(one["card"], one["parallel"], one["gpus"]): one for one in rows}
    assert len(by) == len(rows) == 9
    assert by["t4", "zero1", 3]["hour_price"] == pytest.approx(1.5)
    for (card, parallel, gpus), one in by.items():
        way = [] if gpus == 1 else ["--parallel", parallel, "--gpus", str(gpus)]
        predict([*STEP, *way, "--gpu", card, "--json"])
        alone = json.loads(capsys.readouterr().out)
        for name in ("fits", "peak_reserved_bytes", "process_bytes", "context_likely_bytes", "ranks"):
            assert one[name] == alone[name], (name, card, parallel, gpus)


def test_nothing_is_a_bare_yes_where_nccl_was_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    """With torch 2.11 an H100's share of NCCL was read on two GPUs, and on no three; of a T4 on none."""
    rows = asked(capsys, *SHARED, "--gpu", "h100-80gb,t4", "--image-size", "224")
    words = {(one["card"], one["gpus"]): one["fits_in_words"] for one in rows}
    assert (words["h100-80gb", 1], words["h100-80gb", 2]) == ("yes", "yes")
    assert words["h100-80gb", 3] == "in range"
    assert {words["t4", gpus] for gpus in (1, 2, 3)} == {"likely"}


def test_one_gpu_is_said_to_fit_as_without_sharing(capsys: pytest.CaptureFixture[str]) -> None:
    """Away from the largest batch the row of one GPU says of each card what the search for that leads to."""
    alone = {one["card"]: one["fits_in_words"] for one in asked(capsys, "--batch-size", "4096")}
    rows = asked(capsys, *SHARED[:2], "--gpus", "2", "--batch-size", "4096")
    assert {one["card"]: one["fits_in_words"] for one in rows if one["gpus"] == 1} == alone


def test_the_answer_ends_with_the_cheapest(capsys: pytest.CaptureFixture[str]) -> None:
    """What was validated, what fits, then the cheapest arrangement; the table follows."""
    assert stepcost(["cards", *STEP, *SHARED, "--gpu", "h100-80gb,t4", "--price", "h100-80gb=$2.5"]) == 0
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert lines[0].startswith("1 GPU: validated with runs of image classifiers")
    assert (
        "zero1 on 3 GPUs: it is said to fit no card; h100-80gb too where the context is in its likely range"
        in "".join(lines)
    )
    assert lines[-1].startswith("Cheapest that fits: 1 h100-80gb, $2.50 an hour.")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--parallel", "ddp"], "--gpus says how many GPUs share the step"),
        (["--parallel", "ddp", "--gpus", "1,2"], "1 is of --parallel none, ddp takes 2 or more"),
        (["--parallel", "none,ddp", "--gpus", "1"], "1 is of --parallel none, ddp takes 2 or more"),
        (["--gpus", "2"], "--gpus 2: without --parallel a step has one"),
        ([*SHARED, "--epoch", "640"], "--epoch: times are predicted of one GPU"),
        ([*SHARED, "--engine", "fast"], "--engine: times are predicted of one GPU"),
        ([*SHARED, "--batch-size", "8,16"], "2 steps are asked about; cards takes one"),
        ([*SHARED, "--fsdp-precision", "bf16"], "it is of --parallel fsdp2"),
    ],
)
def test_a_wrong_request_is_one_line(capsys: pytest.CaptureFixture[str], more: list[str], says: str) -> None:
    """It names what is wrong, on standard error, with exit code 2."""
    assert stepcost(["cards", *STEP, *more]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert says in err
