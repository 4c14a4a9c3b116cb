from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stepcost.catalog.cards import CARDS
from stepcost.predicting.convolution import (
    BACKWARD_DATA,
    BACKWARD_WEIGHT,
    FORWARD,
    Convolution,
    describe,
    layout_of,
)
from stepcost.predicting.recorded import Table, find_table
from stepcost.predicting.simulate import simulate
from stepcost.predicting.tape import ALLOC, FREE, WORKSPACE, Event
from stepcost.predicting.trace import Trace
from stepcost.predicting.workspaces import Workspaces, workspaces_on

ONE = Convolution(
    inputs=3,
    outputs=8,
    size=(9, 9),
    kernel=(3, 3),
    stride=(2, 2),
    padding=(1, 1),
    dilation=(1, 1),
    groups=1,
    dtype="fp32",
    input_layout="nchw",
    weight_layout="nchw",
)


def known(cudnn: str = "9.19", **rows: list[list[int]]) -> Workspaces:
    """Workspaces with a table of ``ONE`` alone, of cuDNN 9.19; ``b4=[...]`` is its row at batch 4."""
    row = {name.removeprefix("b"): sizes for name, sizes in rows.items()}
    return Workspaces(
        cublas_bytes=0,
        cublaslt_bytes=0,
        cublas_keeps=True,
        table=Table(about={"cudnn": 91900}, convolutions={ONE.key: row}),
        cudnn=cudnn,
    )


def test_a_recorded_convolution_is_looked_up() -> None:
    """The row of the batch and the column of the direction, with its fallbacks."""
    workspaces = known(b4=[[10], [30, 20], [0]])
    assert workspaces.of(ONE, 4, FORWARD) == [10]
    assert workspaces.of(ONE, 4, BACKWARD_DATA) == [30, 20]
    assert workspaces.missing == workspaces.missing_batches == set()


def test_what_another_cudnn_took_is_said_to_be_of_another() -> None:
    """Recorded sizes say so where the torch brings a cuDNN that is neither the table's nor installed."""
    same, other = known(b4=[[10], [30], [0]]), known("9.26", b4=[[10], [30], [0]])
    assert same.of(ONE, 4, FORWARD) == other.of(ONE, 4, FORWARD) == [10]
    assert same.why_estimated is None
    said = "1 convolution was recorded with cuDNN 9.19, and this torch brings cuDNN 9.26"
    assert other.why_estimated == said


def test_what_ran_where_there_was_no_room_runs_the_next_time_too() -> None:
    """As torch keeps plans: 20 MB for want of room for 60, then 20 with room for both; without room, none."""
    workspaces = known(b4=[[60_000_000, 20_000_000, 0], [0], [0]])
    convolve: Event = (WORKSPACE, ONE, (4, FORWARD))
    events: list[Event] = [
        *((ALLOC, 1, 50_000_000), convolve, (FREE, 1, 50_000_000), convolve),
        *((ALLOC, 2, 90_000_000), convolve, (FREE, 2, 90_000_000), convolve),
    ]
    asked = simulate(Trace(events=events, kinds={}), workspaces, 100_000_000).requests
    assert [size for action, size in asked if action == "alloc"] == [
        *(50_000_000, 20_000_000, 20_000_000),
        90_000_000,
    ]


def test_a_batch_between_two_recorded_ones_lies_on_the_line_between_them() -> None:
    """What grows with the batch and what does not are both met, and the estimate is noted."""
    workspaces = known(b4=[[100], [70], [8]], b8=[[200], [70], [10]], b64=[[1600], [70], [10]])
    assert workspaces.of(ONE, 6, FORWARD) == [150]
    assert workspaces.of(ONE, 32, FORWARD) == [800]
    assert workspaces.of(ONE, 32, BACKWARD_DATA) == [70]
    assert workspaces.of(ONE, 6, BACKWARD_WEIGHT) == [9]
    assert workspaces.missing_batches == {ONE.key}
    assert not workspaces.missing


def test_where_the_algorithm_changes_between_two_batches_the_smaller_one_is_scaled() -> None:
    """Less for more images, or more than in proportion, is not one algorithm."""
    workspaces = known(b4=[[100], [100, 20], [0]], b8=[[80], [800], [40]])
    assert workspaces.of(ONE, 6, FORWARD) == [150]
    assert workspaces.of(ONE, 6, BACKWARD_DATA) == [150, 30]
    assert workspaces.of(ONE, 6, BACKWARD_WEIGHT) == [0]


def test_fallbacks_between_two_batches_are_estimated_too() -> None:
    """Where only one of them was recorded with a fallback, the other's is what it takes anyway."""
    workspaces = known(b4=[[40], [0], [0]], b8=[[80, 20], [0], [0]])
    assert workspaces.of(ONE, 6, FORWARD) == [60, 30]


def test_a_batch_beyond_the_recorded_ones_scales_the_nearest() -> None:
    """Below the first and above the last row that row is scaled with the batch."""
    workspaces = known(b4=[[100], [0], [0]], b8=[[300, 80], [0], [0]])
    assert workspaces.of(ONE, 2, FORWARD) == [50]
    assert workspaces.of(ONE, 16, FORWARD) == [600, 160]


def test_a_convolution_that_was_not_recorded_takes_the_nearest_of_its_kind() -> None:
    """Another width scales with what goes in and out; another kernel is nothing to go by."""
    workspaces = known(b4=[[100], [0], [0]])
    doubled = replace(ONE, inputs=6, outputs=16)
    assert workspaces.of(doubled, 4, FORWARD) == [200]
    assert workspaces.of(replace(ONE, kernel=(5, 5), padding=(2, 2)), 4, FORWARD) == []
    assert len(workspaces.missing) == 2


def test_a_key_is_read_back() -> None:
    """A convolution and its line in a table say the same."""
    assert Convolution.from_key(ONE.key) == ONE


def test_the_recorded_table_names_its_source() -> None:
    """The table for compute capability 9.0 says on what it was recorded."""
    table = find_table("9.0")
    assert table is not None
    assert table.about["compute_capability"] == "9.0"
    assert {"gpu", "cudnn", "torch", "cuda"} <= table.about.keys()
    assert find_table("1.0") is None


def test_a_table_survives_the_file(tmp_path: Path) -> None:
    """What is saved is what is loaded, and the same table gives the same file."""
    table = Table(about={"cudnn": 91900}, convolutions={ONE.key: {"4": [[1], [2], [3]]}})
    for name in ("a.json.gz", "b.json.gz"):
        table.save(tmp_path / name)
    assert Table.load(tmp_path / "a.json.gz") == table
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


@pytest.mark.parametrize(
    ("card", "torch_version", "kib"),
    [
        ("h100-80gb", (2, 6), 32 << 10),
        ("a100-40gb", (2, 15), 8320),
        ("b200", (2, 11), 8320),
        ("b200", (2, 12), 32 << 10),
        ("rtx5090", (2, 15), 32 << 10),
    ],
)
def test_cublas_takes_more_on_newer_cards(card: str, torch_version: tuple[int, int], kib: int) -> None:
    """32 MiB on compute capability 9, since torch 2.12 on 10 and 12 too, and 8,320 KiB on others."""
    assert workspaces_on(CARDS[card], torch_version).cublas_bytes == kib * 2**10


def test_cublas_gives_back_since_2_15() -> None:
    """Up to torch 2.14 the workspace is kept."""
    assert workspaces_on(CARDS["h100-80gb"], (2, 14)).cublas_keeps
    assert not workspaces_on(CARDS["h100-80gb"], (2, 15)).cublas_keeps


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 3, 1, 1), (1, 3, 4, 4), (1, 3, 1, 1), (2, 1, 4, 4)])
def test_layouts_are_those_torch_sees(shape: tuple[int, int, int, int]) -> None:
    """Ambiguous strides are read as torch reads them: a copy in the layout found keeps the strides."""
    batch, channels, height, width = shape
    plain = torch.empty(shape)
    permuted = torch.empty((batch, height, width, channels)).permute(0, 3, 1, 2)
    assert layout_of(plain) == "nchw"
    for tensor in (plain, permuted):
        nhwc = layout_of(tensor) == "nhwc"
        memory_format = torch.channels_last if nhwc else torch.contiguous_format
        assert torch.empty(shape, memory_format=memory_format).stride() == tensor.stride() or channels == 1


def test_a_description_gives_the_output_that_torch_gives() -> None:
    """Output size, layout and gradient shape of a described convolution are torch's own."""
    images, weight = torch.zeros(2, 3, 9, 9), torch.zeros(8, 3, 3, 3)
    out = torch.nn.functional.conv2d(images, weight, stride=2, padding=1)
    one = describe(images, weight, ([2, 2], [1, 1], [1, 1]), 1)
    assert one == ONE
    assert (2, one.outputs, *one.output_size) == out.shape
    assert one.tensors(2, "cpu")[2].shape == out.shape
