"""FSDP2's step, traced without a GPU: by hand, and against what H200s held (torch 2.11.0+cu130)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stepcost.catalog.cards import CARDS
from stepcost.ledger import PARALLEL
from stepcost.predicting import predict
from stepcost.predicting.fsdp import FSDP_RULES, Sharded, parts_of
from stepcost.predicting.largest import largest_batch
from stepcost.predicting.ranks import group_of_nobody, trace_ranks
from stepcost.predicting.tape import ALLOC, FREE, MARK, REDUCTION, Tape
from stepcost.predicting.torch_versions import installed_torch, version_of
from stepcost.predicting.trace import Trace, trace_steps
from stepcost.request import Request
from stepcost.step import TrainingStep

REFERENCE = Path(__file__).parents[2] / "reports" / "reference"
DRIVER = {"process_bytes", "context_bytes", "communicator_bytes"}
SHARED = Request(
    model="blocks", optimizer="sgd", batch_size=2, image_size=None, num_classes=None, parallel="fsdp2", gpus=4
)


class Block(nn.Module):
    """A matrix of 6 rows of 6 values, 144 bytes."""

    def __init__(self) -> None:
        """Build it on the meta device."""
        super().__init__()
        self.matrix = nn.Linear(6, 6, bias=False, device="meta")

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Multiply ``values`` (N, 6) by it."""
        product: torch.Tensor = self.matrix(values)
        return product


class Dropped(nn.Module):
    """Three blocks of which nobody uses what the first makes."""

    def __init__(self) -> None:
        """Build it on the meta device."""
        super().__init__()
        self.first, self.second, self.third = Block(), Block(), Block()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Run all three on ``values`` (N, 6); return what the last two make."""
        self.first(values)
        made: torch.Tensor = self.third(self.second(values))
        return made


def two_blocks() -> nn.Module:
    """Build two blocks and a last matrix of 1 x 6 values."""
    return nn.Sequential(Block(), Block(), nn.Linear(6, 1, bias=False, device="meta"))


def blocks_traced(rank: int, build: Callable[[], nn.Module] = two_blocks, **asked: Any) -> Trace:
    """Trace a step of a model of blocks as one of four ranks takes it, with what is asked of FSDP2."""
    model = build()

    def step(model: nn.Module) -> TrainingStep:
        def objective(forward: Any, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return (made := forward(batch)).sum(), made

        return TrainingStep(
            model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), objective=objective
        )

    with group_of_nobody(SHARED.gpus, rank):
        return trace_steps(
            model, lambda: torch.empty(2, 6, device="meta"), step, gpu=Sharded(replace(SHARED, **asked))
        )


def of_last_step(traced: Trace) -> list[tuple[Any, Any, Any]]:
    """Return the events of a trace's last step."""
    begins = [n for n, event in enumerate(traced.events) if event[:2] == (MARK, "step begins")]
    return traced.events[begins[-1] :]


def test_what_is_gathered_and_scattered_has_streams_of_its_own() -> None:
    """6 rows on 4 ranks are 2 each, so 8 are gathered, 192 bytes, and 2 scattered, 48, on two other streams.

    A block is gathered in forward and in backward; the last matrix, which has 4 rows for 1, is kept between.
    """
    gathers, scatters = streams_of(blocks_traced(0))
    assert gathers == {192: 4, 96: 1}
    assert scatters == {48: 2, 24: 1}


def streams_of(traced: Trace) -> list[Counter[int]]:
    """Return, of the streams of FSDP2 in order, how often how many bytes are made in the last step."""
    made: dict[int, Counter[int]] = {stream: Counter() for stream in sorted({*traced.streams.values()})}
    for action, what, size in of_last_step(traced):
        if action == ALLOC and what in traced.streams:
            made[traced.streams[what]][size] += 1
    return list(made.values())


def test_in_bf16_half_as_much_is_gathered_and_as_much_scattered() -> None:
    """A rank's 2 rows are cast, 24 bytes, and 8 gathered, 96; gradients are summed in float32, 48 bytes."""
    gathers, scatters = streams_of(blocks_traced(0, fsdp_precision="bf16"))
    assert gathers == {24: 4, 96: 4, 12: 1, 48: 1}
    assert scatters == {48: 2, 24: 1}


def test_what_is_kept_is_gathered_once() -> None:
    """Each block is gathered in forward alone, and given back in backward."""
    gathers, _ = streams_of(blocks_traced(0, fsdp_keep_gathered=True))
    assert gathers == {192: 2, 96: 1}


def test_what_was_gathered_is_given_back_after_each_use() -> None:
    """What is copied out of it on the main stream, 192 bytes, is there twice a step, and never at its end."""
    traced = blocks_traced(0)
    events = [event for event in of_last_step(traced) if event[1] not in traced.streams]
    sizes = Counter((action, size) for action, _, size in events if size == 192)
    # Of each block: gathered in forward and in backward, and the gradients that are scattered.
    assert sizes == {(ALLOC, 192): 6, (FREE, 192): 6}
    assert {traced.kinds.get(what) for _, what, size in events if size == 192} == {PARALLEL}


def test_a_block_that_is_gathered_for_nothing_is_let_go() -> None:
    """Before the second block has its backward the first is gathered, which has none; nothing is left."""
    events = of_last_step(traced := blocks_traced(0, Dropped))
    gathered = {
        what for action, what, size in events if action == ALLOC and size == 192 and what in traced.streams
    }
    assert len(gathered) == 3 + 3
    assert gathered <= {what for action, what, _ in events if action == FREE}


@pytest.mark.parametrize(("rank", "rows"), [(0, 2 + 2 + 1), (1, 2 + 2), (2, 2 + 2), (3, 0)])
def test_a_rank_holds_its_rows(rank: int, rows: int) -> None:
    """Of 6 rows four ranks hold 2, 2, 2 and none, of one row the first rank holds it: 24 bytes each."""
    counted = blocks_traced(rank).counted
    assert counted["parameter_bytes"] == counted["gradient_bytes"] == 24 * rows


def test_ranks_with_as_many_rows_are_alike() -> None:
    """Of 6 rows and a single one the two ranks in the middle hold as many; alike ranks have one trace."""
    model = nn.Sequential(Block(), nn.Linear(6, 1, bias=False))
    assert parts_of(model, 4) == [(2, 1), (2, 0), (2, 0), (0, 0)]
    model = nn.Sequential(nn.Linear(3, 8))
    assert parts_of(model, 4) == [(2, 2)] * 4
    first, *others = trace_ranks(
        Request(model="resnet18", optimizer="sgd", batch_size=2, parallel="fsdp2", gpus=2)
    )
    assert [one is first for one in others] == [True]


def test_a_storage_that_is_resized_is_another_allocation() -> None:
    """Emptied it is given back at once, filled again it is taken anew; dropped while empty it is gone."""
    tape = Tape(FSDP_RULES)
    with Sharded(SHARED).around(tape), tape:
        values = torch.empty(100, device="meta")
        values.untyped_storage().resize_(0)
        values.untyped_storage().resize_(800)
        values.untyped_storage().resize_(0)
        del values
    assert tape.events == [(ALLOC, 1, 400), (FREE, 1, 400), (ALLOC, 2, 800), (FREE, 2, 800)]


def test_copies_are_told_where_by_lists_of_numbers() -> None:
    """Pieces of 12,000 and 400 bytes are copied by 6 blocks and by 1: 16 numbers of 8 bytes say what.

    Into what is scattered as many copy, with 21 numbers.
    """
    tape = Tape(FSDP_RULES)
    with tape:
        gathered = torch.empty(2, 3100, device="meta")
        out = [torch.empty(2, size, device="meta") for size in (3000, 100)]
        before = len(tape.events)
        torch.ops.fsdp.split_with_sizes_copy(gathered, [3000, 100], dim=1, out=out)
        torch.ops.fsdp.chunk_cat(out, dim=0, num_chunks=2, out=gathered)
    (action, copies, _), *others = tape.events[before:]
    assert action == REDUCTION
    assert copies.scratch_bytes(132, 2048) == ((4 * 2 + 1 + 6 + 1) * 8,)
    assert [(what, size) for what, _, size in others] == [(ALLOC, 21 * 8), (FREE, 21 * 8)]


def test_a_copy_of_much_takes_more_rounds() -> None:
    """2 pieces of 32,800 blocks, of which an H100 takes 4,224 at a time: 16 rounds, 8 of them of each piece.

    So 4,100 blocks copy, with a number each and 5 more.
    """
    tape = Tape(FSDP_RULES)
    size = 32_800 * 512
    with tape:
        gathered = torch.empty(2, size, device="meta")
        out = [torch.empty(2, size, device="meta")]
        torch.ops.fsdp.split_with_sizes_copy(gathered, [size], dim=1, out=out)
    copies = tape.events[-1][1]
    assert copies.scratch_bytes(132, 2048) == ((4100 + 5) * 8,)


def test_torch_refuses_the_meta_device_otherwise() -> None:
    """The check that a trace leaves out is there, and would refuse (tried with torch 2.11 and 2.15)."""
    gpu, tape = Sharded(SHARED), Tape(FSDP_RULES)
    with group_of_nobody(SHARED.gpus):
        with gpu.around(tape), tape:
            model = gpu.place(nn.Sequential(Block(), Block()), tape)
        group = next(model.children())._get_fsdp_state()._fsdp_param_group  # type: ignore[operator]
        with pytest.raises(RuntimeError, match="materialized from meta device"):
            group._validate_no_meta_params()


def test_the_largest_batch_is_found() -> None:
    """From few traces too, whose copies have as many numbers at every batch: 1 % more does not fit."""
    asked = Request(model="small-cnn", optimizer="adam", batch_size=64, parallel="fsdp2", gpus=2)
    card = replace(CARDS["h200-141gb"], total_bytes=4 * 2**30)
    found = largest_batch(asked, card, torch_version="2.11").largest_batch
    assert found is not None
    sizes = (found, -(-found * 101 // 100))
    fits = [predict(replace(asked, batch_size=size), card, torch_version="2.11").fits for size in sizes]
    assert [one is not False for one in fits] == [True, False]


def test_whose_fsdp2_it_was_is_said() -> None:
    """It is that of the installed torch: where another is asked about, both peaks say so."""
    asked = Request(model="small-cnn", optimizer="sgd", batch_size=2, parallel="fsdp2", gpus=2)
    here = version_of(installed_torch())
    other = "2.11" if here != (2, 11) else "2.10"
    said = predict(asked, CARDS["h200-141gb"], torch_version=other).unread["peak_reserved_bytes"]
    assert f"with the FSDP2 of torch {here[0]}.{here[1]}, which is installed" in said
    own = predict(asked, CARDS["h200-141gb"], torch_version=installed_torch())
    assert "peak_reserved_bytes" not in own.unread


@pytest.mark.parametrize(("run", "gpus"), [("x2-gpt2", 2), ("x4-gpt2", 4)])
def test_every_byte_of_a_rank_is_where_it_was_measured(run: str, gpus: int) -> None:
    """All that a reference run reads of each rank is predicted, and the ledger of its peak by part."""
    pytest.importorskip("transformers", reason="an extra: pip install 'stepcost[transformers]'")
    saved = json.loads((REFERENCE / f"h200-141gb-{run}-ranks.json").read_text())
    rows = [one["extra_info"] for one in saved["benchmarks"]]
    row = next(one for one in rows if one.get("parallel") == "fsdp2" and one["gpus"] == gpus)
    asked = {name: row[name] for name in Request.__dataclass_fields__ if name in row}
    reading = predict(Request(**asked), CARDS["h200-141gb"], torch_version="2.11")
    assert len(reading.ranks) == len(row["ranks"]) == gpus
    for predicted, measured in zip(reading.ranks, row["ranks"], strict=True):
        for name in measured.keys() - DRIVER - {"ledger"}:
            assert getattr(predicted, name) == measured[name], name
        for name in measured["ledger"].keys() - DRIVER:
            assert getattr(predicted.ledger, name) == measured["ledger"][name], name
