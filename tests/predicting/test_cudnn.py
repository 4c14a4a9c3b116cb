"""What torch's convolutions take by cuDNN's own heuristics; asked without a GPU where it is installed."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stepcost.catalog.cards import CARDS
from stepcost.predicting import cudnn_child, cudnn_library, devices
from stepcost.predicting.convolution import (
    BACKWARD_DATA,
    BACKWARD_WEIGHT,
    DIRECTIONS,
    FORWARD,
    Convolution,
)
from stepcost.predicting.cudnn_left_out import NONE_LEFT_OUT, LeftOut, Tree, learned, signatures
from stepcost.predicting.cudnn_library import FOLDERS, Library, Plan, device_here, find_folder
from stepcost.predicting.cudnn_plans import choice_of, workspaces_of
from stepcost.predicting.devices import MULTIPROCESSORS, described
from stepcost.predicting.recorded import Table, find_table
from stepcost.predicting.simulate import simulate
from stepcost.predicting.times.convolved import convolved
from stepcost.predicting.times.table import table_of
from stepcost.predicting.trace import trace_run
from stepcost.predicting.unasked import Unasked, unasked_on
from stepcost.predicting.workspaces import Estimated, Workspaces, workspaces_on
from stepcost.request import Request

H100 = CARDS["h100-80gb"]
RECORDED = json.loads(
    gzip.decompress((Path(__file__).parent / "cudnn-first-plans-h100.json.gz").read_bytes())
)
"""What one H100 chose first (torch 2.11, cuDNN 9.19) for 300 ``convolution;batch;direction``: engine,
workspace in bytes, knobs."""
ANSWERED = json.loads(
    gzip.decompress((Path(__file__).parent / "cudnn-workspaces-h100.json.gz").read_bytes())
)["workspaces"]
"""What the first plans of 400 ``convolution;batch;direction`` take in bytes, asked on that H100: of measured
steps, from whose convolutions at their batch sizes nothing was learned."""
ASKED = os.environ.pop("STEPCOST_CUDNN_OF_TESTS", "")


@pytest.fixture(scope="module")
def cudnn() -> Library:
    """Return cuDNN 9.19, asked about the H100 as its data sheet describes it."""
    before = os.environ.pop(FOLDERS, None)
    os.environ[FOLDERS] = ASKED
    folder = find_folder("9.19")
    os.environ[FOLDERS] = before or ""
    if folder is None:
        pytest.skip("cuDNN 9.19 is not installed: pip install --target DIR nvidia-cudnn-cu13==9.19.*")
    return Library(folder, described(H100))


def conv(key: str) -> Convolution:
    return Convolution.from_key(key)


SQUARE = conv("64>128 16x16 3x3 1x1 1x1 1x1 g1 fp32 nchw/nchw")
PRODUCT = conv("64>256 14x14 1x1 1x1 0x0 1x1 g1 fp32 nchw/nchw")
WIDE = conv("48>64 35x35 5x5 1x1 2x2 1x1 g1 fp32 nchw/nchw")
DEPTHWISE = conv("32>32 14x14 3x3 1x1 1x1 1x1 g32 fp32 nchw/nchw")


class Answering(Library):
    """A library that answers with given plans."""

    def __init__(self, *plans: Plan) -> None:
        super().__init__(Path("nowhere"), {})
        self.given = list(plans)

    def plans(self, one: Convolution, batch_size: int, direction: str, most: int) -> list[Plan]:
        return self.given[:most]

    def listed(self, one: Convolution, batch_size: int, direction: str) -> list[Any]:
        return [len(self.given), *(str(plan.engine) for plan in self.given)]


def tells(**known: Any) -> LeftOut:
    """What is left out, as far as a test says so."""
    return LeftOut(**({"cudnn": "9.19", "families": {}, "trees": [], "sizes": {}} | known))


def asked(library: Library, one: Convolution, direction: str = FORWARD, batch: int = 4) -> list[int] | None:
    return workspaces_of(library, one, batch, direction, multiprocessors=132, unasked=None)


def plan(workspace: int, unsplit: int | None = None, **knobs: int) -> Plan:
    named = {f"CUDNN_KNOB_TYPE_{name}": value for name, value in knobs.items()}
    return Plan(engine=67, workspace=workspace, knobs=named, unsplit=unsplit)


def test_cudnn_chooses_without_a_gpu_what_it_chose_with_one(cudnn: Library) -> None:
    """Engine, knobs and workspace of each first plan, but for those that are left out without a device."""
    exact = close = compared = 0
    for cell, (engine, size, knobs) in RECORDED["first_plans"].items():
        key, batch, direction = cell.split(";")
        first = cudnn.plans(conv(key), int(batch), direction, 1)[0]
        if (first.engine, first.knobs) != (engine, knobs or {}):
            # cuBLASLt's 1x1 convolutions, Winograd's and Fourier's gradients of weights.
            assert engine in (17, 18, 58, 62, 63), cell
            continue
        compared += 1
        sizes = workspaces_of(cudnn, conv(key), int(batch), direction, multiprocessors=132, unasked=None)
        depthwise = conv(key).kind[3] == "depthwise"  # torch's own kernel takes its place
        exact += depthwise or (sizes is not None and abs(sizes[0] - size) <= 512)
        close += depthwise or (sizes is not None and abs(sizes[0] - size) <= 6 << 20)
    assert compared > 150
    assert exact / compared > 0.85
    assert close == compared


def test_what_an_h100_answered_is_predicted_without_one(cudnn: Library) -> None:
    """Of what nothing was learned from: nine of ten workspaces to a block, 0.5 MiB off in the mean."""
    unasked = unasked_on("9.0", "9.19")
    off = []
    for cell, size in ANSWERED.items():
        key, batch, direction = cell.split(";")
        got = workspaces_of(cudnn, conv(key), int(batch), direction, multiprocessors=132, unasked=unasked)
        assert got is not None, cell
        off.append(abs(got[0] - size))
    assert sum(size <= 512 for size in off) > 0.9 * len(off)
    assert sum(off) / len(off) < 2**19


@pytest.mark.parametrize("model", ["shufflenet_v2_x0_5", "resnext50_32x4d", "vgg11"])
def test_steps_are_predicted_with_cudnn_alone(cudnn: Library, model: str) -> None:
    """Measured on an H100; no table is used: 1 % of peak allocated, 3 % of peak reserved."""
    lines = gzip.decompress((Path(__file__).parent / "readings-h100-80gb-images.jsonl.gz").read_bytes())
    row = next(row for row in map(json.loads, lines.splitlines()) if row["request"]["model"] == model)
    workspaces = replace(workspaces_on(H100, (2, 11)), table=None, library=cudnn)
    simulation = simulate(trace_run(Request(**row["request"])), workspaces, H100.room_bytes)
    assert simulation.peak is not None
    allocated, reserved = simulation.peak.allocated_bytes, simulation.allocator.peak_reserved_bytes
    assert allocated == pytest.approx(row["reading"]["peak_allocated_bytes"], rel=0.01)
    assert reserved == pytest.approx(row["reading"]["peak_reserved_bytes"], rel=0.03)


@pytest.mark.parametrize("card", {card.compute_capability: name for name, card in CARDS.items()}.values())
def test_cudnn_takes_the_description_of_every_kind_of_card(cudnn: Library, card: str) -> None:
    """A card of each compute capability of the catalog is answered for, in float32 and in float16."""
    library = Library(cudnn.folder, described(CARDS[card]))
    for dtype in ("fp32", "fp16"):
        assert library.plans(replace(SQUARE, dtype=dtype), 8, BACKWARD_DATA, 1), library.broken


def test_a_card_is_described_as_it_is_where_it_was_read() -> None:
    """Of the H100 all that is a card's own is what cuDNN reads on one, but for its memory."""
    of_a_machine = {"pciDeviceId", "driverVer", "totalGlobalMem"}
    read = RECORDED["about"]["device"]
    made = described(H100)
    assert made.keys() == read.keys()
    assert {name for name in read if made[name] != read[name]} <= of_a_machine


def test_every_card_has_a_capability_that_can_be_described() -> None:
    """A card of a new compute capability needs its row."""
    assert {card.compute_capability for card in CARDS.values()} <= MULTIPROCESSORS.keys()


def test_the_first_plan_is_what_is_taken() -> None:
    """A small workspace has no fallbacks told; a large one has those that take less."""
    assert asked(Answering(plan(100), plan(50)), SQUARE) == [100]
    large = 64 << 20
    plans = [plan(large), plan(2 * large), plan(100), plan(200), plan(0)]
    assert asked(Answering(*plans), SQUARE) == [large, 100, 0]
    assert asked(Answering(), SQUARE) is None


SPLIT = plan(1000, 500, TILE_SIZE=0, TILE_CGA_M=1, TILE_CGA_N=1)
TILE = 65536
"""Bytes of a tile of 128x128 sums."""


def done(left: int, parts: int) -> int:
    """Bytes that tell which parts of a tile are done."""
    return 4 * (left * parts + 7)


def test_partial_sums_are_added_by_rule() -> None:
    """48 images of 16x16 by 128 rows are 96 tiles of 128x128, which 132 blocks hold once: nothing to split.

    4 images are 8 tiles: 16 parts of each would fit, but a sum of 64 * 9 = 576 is cut into no two of 512.
    With 512 inputs it is 4,608 long: 4 parts of at least 1,056, or 8 of at least 512. 140 images are 280
    tiles: two rounds of 132, and 16 left, of which 8 parts fit; sums of 576 are cut into two of 256.
    """
    assert asked(Answering(SPLIT), SQUARE, batch=48) == [500]
    assert asked(Answering(SPLIT), SQUARE, batch=4) == [500]
    assert asked(Answering(SPLIT), replace(SQUARE, inputs=512), batch=4) == [500 + 8 * 8 * TILE + done(8, 7)]
    assert asked(Answering(SPLIT), SQUARE, batch=140) == [500 + 16 * 2 * TILE + done(16, 1)]
    # 160 inputs make sums of 1,440: 7 parts of at least 200. Small tiles want longer parts.
    wide = replace(SQUARE, inputs=160)
    assert asked(Answering(SPLIT), wide, batch=140) == [500 + 16 * 7 * TILE + done(16, 7)]
    small = plan(1000, 500, TILE_SIZE=1, TILE_CGA_M=1, TILE_CGA_N=1)  # twice as many, again 16 left
    assert asked(Answering(small), wide, batch=70) == [500 + 16 * 4 * TILE // 2 + done(16, 3)]


def test_clusters_use_fewer_multiprocessors() -> None:
    """Four blocks along the columns, of which there is one tile: 8 tiles of rows are 32, and 120 fit.

    3 parts then, which sums of 4,608 allow; 4 parts, a power of two, would not fit.
    """
    clustered = plan(1000, 500, TILE_SIZE=0, TILE_CGA_M=1, TILE_CGA_N=4)
    got = asked(Answering(clustered), replace(SQUARE, inputs=512), batch=4)
    assert got == [500 + 32 * 3 * TILE + done(32, 3)]


def test_sums_of_16_bit_values_are_split_where_that_is_worth_it() -> None:
    """A weight gradient of 2 * 9 tiles of 128x64 (18), of which 7 parts fit; sums of 256 an image.

    Two parts must save 4,800 of the sum: 9,600 are too few for 37 images, enough for 38. Four parts from
    19,200 on. All seven save 3/28 of it, so from 44,800 on.
    """
    half = replace(SQUARE, dtype="bf16", inputs=64, outputs=256)
    split = plan(1000, 500, TILE_SIZE=1, TILE_CGA_M=1, TILE_CGA_N=1)
    tile = 128 * 64 * 4
    for batch, parts in ((37, 0), (38, 2), (74, 2), (75, 4), (174, 4), (176, 7)):
        flags = done(18, parts if parts == 7 else parts - 1) if parts else 0
        assert asked(Answering(split), half, BACKWARD_WEIGHT, batch) == [500 + 18 * parts * tile + flags]
    # 2 * 1 tiles: 66 parts fit, of at least 1,088, and none below 9,800.
    few = replace(half, kernel=(1, 1), padding=(0, 0))
    assert asked(Answering(split), few, BACKWARD_WEIGHT, 38) == [500]
    assert asked(Answering(split), few, BACKWARD_WEIGHT, 40) == [500 + 2 * 9 * tile + done(2, 9)]


def test_torchs_own_depthwise_kernels_take_nothing() -> None:
    """In channels first; in channels last it is cuDNN's, as is float16 where torch's condition holds."""
    library = Answering(plan(100))
    assert asked(library, DEPTHWISE) == [0]
    assert asked(library, replace(DEPTHWISE, dtype="bf16")) == [0]
    assert asked(library, replace(DEPTHWISE, input_layout="nhwc")) == [100]
    half = replace(DEPTHWISE, dtype="fp16")
    assert asked(library, half) == [100]
    for other in (
        replace(half, inputs=16, outputs=16, groups=16),
        replace(half, size=(6, 6)),
        replace(half, kernel=(7, 7), padding=(3, 3)),
        replace(half, stride=(2, 2)),
        replace(half, dilation=(2, 2)),
    ):
        assert asked(library, other) == [0]
    halved = replace(half, stride=(2, 2))
    assert asked(library, halved, batch=1) == [100]
    assert asked(library, replace(halved, inputs=512, outputs=512, groups=512)) == [100]


def test_depthwise_gradients_in_16_bits_come_in_parts() -> None:
    """Eight parts of each of 4 images, of 64 channels (48 in blocks of 32) with 9 float32 values."""
    last = replace(DEPTHWISE, inputs=48, outputs=48, groups=48, dtype="bf16", input_layout="nhwc")
    unasked = Unasked(tells())
    assert unasked.bytes_of(last, 4, BACKWARD_WEIGHT) == 4 * 8 * 64 * 9 * 4
    assert unasked.bytes_of(last, 4, FORWARD) == 0
    assert unasked.bytes_of(replace(last, dtype="fp32"), 4, BACKWARD_WEIGHT) is None


def test_a_list_tells_what_is_left_out_of_it() -> None:
    """What came first with the same list; a longer start of it decides where it says something else."""
    first, other, third = [9, "62,1:0", "67"], [9, "62,1:1", "67"], [9, "62,1:2", "67"]
    rows = [
        (signatures(SQUARE, FORWARD, listed), family)
        for listed, family in (
            (first, "winograd"),
            (first, "winograd"),
            (other, NONE_LEFT_OUT),
        )
    ]
    left_out = tells(families=learned(rows))
    assert left_out.first(SQUARE, 8, FORWARD, first) == "winograd"
    assert left_out.first(SQUARE, 8, FORWARD, other) == NONE_LEFT_OUT
    assert left_out.first(SQUARE, 8, FORWARD, third) == "winograd"  # as most with these engines
    assert left_out.first(SQUARE, 8, FORWARD, [8, *first[1:]]) is None
    assert left_out.first(SQUARE, 8, BACKWARD_DATA, first) is None
    assert left_out.first(SQUARE, 8, FORWARD, []) is None


def test_a_product_whose_list_is_not_known_is_judged_by_trees() -> None:
    """One tree that asks for the batch (the fourth size, as a logarithm); other kernels have none."""
    tree: Tree = [[3, 4.5, 1, 2], [-1.0], [1.0]]
    left_out = tells(trees=[tree])
    listed = [9, "62,1:0", "67"]
    assert left_out.first(PRODUCT, 16, FORWARD, listed) == NONE_LEFT_OUT
    assert left_out.first(PRODUCT, 32, FORWARD, listed) == "product"
    assert left_out.first(SQUARE, 32, FORWARD, listed) is None
    unasked = Unasked(left_out)
    assert unasked.bytes_of(PRODUCT, 32, BACKWARD_WEIGHT, listed) == 32 * 64 * 256 * 4
    assert unasked.bytes_of(PRODUCT, 16, BACKWARD_WEIGHT, listed) is None


def test_where_no_list_tells_sizes_do() -> None:
    """Trees that ask for the batch (the fourth size, as a logarithm), of each family, direction and width."""
    by_image, winograd = 8 * 64 * 256 * 4, 36 * (64 * 128 + (64 + 128) * 8 * 16) * 4
    # 35 + 5 - 1 is within 64: half a transform of 64 x 33 complex values, twice, of all channels of 8 images.
    fourier = 8 * ((48 + 64) * 2 * 64 * 33 * 8 + 64 * 35 * 35 * 4)
    above_8: list[Tree] = [[[3, 3.5, 1, 2], [-1.0], [1.0]]]
    up_to_8: list[Tree] = [[[3, 3.5, 1, 2], [1.0], [-1.0]]]
    unasked = Unasked(
        tells(
            sizes={
                "product forward fp32 nchw": up_to_8,
                "product backward-weight fp32 nchw": above_8,
                "winograd backward-weight fp32 nchw": up_to_8,
                "fourier backward-weight fp32 nchw": up_to_8,
            }
        )
    )
    assert unasked.bytes_of(PRODUCT, 8, FORWARD) == 0
    assert unasked.bytes_of(PRODUCT, 16, FORWARD) is None
    assert unasked.bytes_of(PRODUCT, 16, BACKWARD_WEIGHT) == 2 * by_image
    assert unasked.bytes_of(PRODUCT, 8, BACKWARD_WEIGHT) is None
    assert unasked.bytes_of(PRODUCT, 8, BACKWARD_DATA) is None
    assert unasked.bytes_of(SQUARE, 8, BACKWARD_WEIGHT) == winograd
    assert unasked.bytes_of(SQUARE, 8, FORWARD) is None
    assert unasked.bytes_of(WIDE, 8, BACKWARD_WEIGHT) == fourier
    assert unasked.bytes_of(replace(SQUARE, dtype="bf16"), 8, BACKWARD_WEIGHT) is None
    assert unasked.bytes_of(replace(PRODUCT, stride=(2, 2)), 8, FORWARD) is None


@pytest.mark.parametrize(("capability", "cudnn"), [("9.0", "9.26"), ("8.0", "9.19"), ("8.0", None)])
def test_another_card_or_cudnn_is_judged_by_sizes_as_the_h100_chose(
    capability: str, cudnn: str | None
) -> None:
    """Of products' weights that an H100 was recorded to make by image or not, 95 % are told right."""
    found, table = unasked_on(capability, cudnn), find_table("9.0")
    assert found is not None
    assert table is not None
    assert not found.left_out.families
    right = []
    for key, cells in table.convolutions.items():
        if " 1x1 1x1 0x0 1x1 g1 fp32 nchw" not in key:
            continue
        one = conv(key)
        for batch, (_, _, (size, *_)) in cells.items():
            by_image = int(batch) * one.inputs * one.outputs * 4
            told = found.bytes_of(one, int(batch), BACKWARD_WEIGHT)
            right.append((told is not None) == (by_image <= size <= by_image + 512))
    assert len(right) > 10_000
    assert sum(right) > 0.95 * len(right)


def known(library: Library | None, cudnn: str = "9.19") -> Workspaces:
    table = Table(about={"cudnn": 91900}, convolutions={SQUARE.key: {"4": [[10], [20], [30]]}})
    return Workspaces(
        cublas_bytes=0, cublaslt_bytes=0, cublas_keeps=True, table=table, library=library, cudnn=cudnn
    )


def test_what_was_recorded_comes_first_then_cudnn_then_the_estimate() -> None:
    """The batch in the table is the table's, another one cuDNN's; without cuDNN it is estimated."""
    workspaces = known(Answering(plan(77)))
    assert [workspaces.of(SQUARE, 4, direction) for direction in DIRECTIONS] == [[10], [20], [30]]
    assert workspaces.estimated is None
    assert workspaces.of(SQUARE, 5, FORWARD) == [77]
    assert workspaces.estimated is Estimated.BY_CUDNN
    why = "1 convolution is by cuDNN 9.19's own heuristics; not validated on this card"
    assert workspaces.why_estimated == why
    estimated = known(None)
    assert estimated.of(SQUARE, 8, FORWARD) == [20]
    assert estimated.estimated is Estimated.FROM_BATCHES


@pytest.mark.parametrize(
    ("card", "torch_version", "unvalidated"),
    [
        ("h100-80gb", (2, 11), None),
        ("h200-141gb", (2, 15), "with this torch"),
        ("a100-80gb", (2, 11), "on this card"),
    ],
)
def test_what_was_compared_with_runs_is_said(
    card: str, torch_version: tuple[int, int], unvalidated: str | None
) -> None:
    """The measured cards with the cuDNN of their table; of others it is said what was not compared."""
    assert workspaces_on(CARDS[card], torch_version).unvalidated == unvalidated


def test_what_another_cudnn_was_recorded_to_take_is_asked_again() -> None:
    """A table of 9.19 says nothing exact of the 9.26 that another torch brings, if that can be asked."""
    assert known(Answering(plan(77)), cudnn="9.26").of(SQUARE, 4, FORWARD) == [77]
    assert known(None, cudnn="9.26").of(SQUARE, 4, FORWARD) == [10]


def test_a_question_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many layers and steps take the same convolution; another batch size is another question."""
    library = Answering(plan(77))
    told: list[int] = []
    usual = library.plans

    def plans(one: Convolution, batch_size: int, *more: Any) -> list[Plan]:
        told.append(batch_size)
        return usual(one, batch_size, *more)

    monkeypatch.setattr(library, "plans", plans)
    for batch in (4, 4, 8, 4):
        assert known(library, cudnn="9.26").of(SQUARE, batch, FORWARD) == [77]
    assert told == [4, 8]


def test_lists_are_asked_for_only_where_some_were_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of an H100 tell which plan comes first; of a card without any none is asked for."""
    library = Answering(plan(77))
    told: list[Convolution] = []

    def listed(one: Convolution, *_: Any) -> list[Any]:
        told.append(one)
        return []

    monkeypatch.setattr(library, "listed", listed)
    for capability, times in (("8.6", 0), ("9.0", 1)):
        unasked = unasked_on(capability, "9.19")
        assert workspaces_of(library, SQUARE, 4, FORWARD, multiprocessors=132, unasked=unasked) == [77]
        assert len(told) == times


def test_cards_that_one_table_stands_for_learn_from_it_once() -> None:
    """Neither a T4 nor an A10 has a table: the same is learned for both; an H100 has lists besides."""
    assert unasked_on("7.5", "9.19") is unasked_on("8.6", "9.19")
    assert unasked_on("9.0", "9.19") is not unasked_on("8.6", "9.19")


def test_a_16_bit_convolution_never_takes_what_float32_was_recorded_to_take() -> None:
    """Neither at that batch size nor as the nearest of its kind."""
    workspaces = known(None)
    assert workspaces.of(replace(SQUARE, dtype="bf16"), 4, FORWARD) == []
    assert workspaces.missing == {replace(SQUARE, dtype="bf16").key}


def test_a_library_that_ends_its_process_leaves_the_estimate(tmp_path: Path) -> None:
    """A folder without cuDNN: no traceback, the table's estimate, and one line says why."""
    library = Library(tmp_path, described(H100))
    workspaces = known(library)
    assert workspaces.of(SQUARE, 8, FORWARD) == [20]
    assert workspaces.why_estimated is not None
    assert "cuDNN 9.19 cannot be asked" in workspaces.why_estimated
    assert library.broken


def test_no_cudnn_is_asked_where_that_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """``STEPCOST_CUDNN=off``: predictions are the same on every machine."""
    monkeypatch.setenv(FOLDERS, "off")
    assert workspaces_on(H100, (2, 11)).library is None
    assert find_folder("9.19") is None


def test_a_cudnn_in_a_folder_of_its_own_is_found_by_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``pip install --target`` lays it out; 9.1 is not 9.19."""
    lib = tmp_path / "nvidia/cudnn/lib"
    lib.mkdir(parents=True)
    (lib / cudnn_child.LIBRARY).touch()
    made = tmp_path / "nvidia_cudnn_cu13-9.19.0.56.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: nvidia-cudnn-cu13\nVersion: 9.19.0.56\n")
    monkeypatch.setenv(FOLDERS, str(tmp_path))
    assert find_folder("9.19") == lib
    assert find_folder("9.1") != lib


def test_a_gpu_describes_itself_for_predictions_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the child prints is the description; a child that fails gives one line."""
    said: dict[str, Any] = {"deviceVer": 900}
    program = tmp_path / "child.py"
    program.write_text(f"print('{json.dumps(said)}')")
    monkeypatch.setattr(cudnn_library, "find_folder", lambda version: tmp_path)
    monkeypatch.setattr(cudnn_child, "__file__", str(program))
    assert device_here("9.19") == said
    program.write_text("raise SystemExit('no GPU')")
    with pytest.raises(ValueError, match="does not describe this GPU: no GPU"):
        device_here("9.19")


class Nvml:
    """The processes of a simulated GPU; the driver keeps 480 MiB."""

    nvmlMemory_v2 = object()
    NVMLError = RuntimeError

    def __init__(self, *processes: tuple[int, int]) -> None:
        self.processes = [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in processes]

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(reserved=480 << 20),
            "nvmlDeviceGetComputeRunningProcesses": self.processes,
        }
        return lambda *_, **__: answers.get(name)


@pytest.mark.parametrize(
    ("processes", "said"),
    [
        ([(os.getpid(), 900 << 20), (1, 50)], {"context_bytes": 800 << 20}),
        ([(1, 900 << 20)], {"context_bytes": 800 << 20}),  # another number in a container
        ([(1, 900 << 20), (2, 50)], {"context_unread": "NVML does not list this process"}),
    ],
)
def test_recording_says_what_a_gpu_is_and_what_its_context_takes(
    monkeypatch: pytest.MonkeyPatch, processes: list[tuple[int, int]], said: dict[str, Any]
) -> None:
    """cuDNN's description under the driver's name, what the driver keeps, the process less 100 MiB held."""
    monkeypatch.setattr(devices, "pynvml", Nvml(*processes))
    monkeypatch.setattr(devices, "device_here", lambda version: {"version": version})
    monkeypatch.setattr("torch.backends.cudnn.version", lambda: 91900)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a GPU")
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda: 100 << 20)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: SimpleNamespace(uuid="0"))
    device = {"version": "9.19", "deviceName": "a GPU"}
    assert devices.described_here() == {"device": device, "driver_reserved_bytes": 480 << 20, **said}


def test_a_description_that_was_recorded_is_the_one_that_is_asked_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the card by that name, not of another one of its compute capability."""
    asked_with = []
    recorded = {"deviceName": H100.gpu, "smClockRateKHz": 1}
    table = Table(about={"cudnn": 91900, "device": recorded}, convolutions={})
    where = "stepcost.predicting.workspaces"
    monkeypatch.setattr(f"{where}.find_table", lambda capability: table)
    monkeypatch.setattr(f"{where}.find_library", lambda version, card: asked_with.append((version, card)))
    workspaces_on(H100, (2, 11))
    workspaces_on(CARDS["h200-141gb"], (2, 15))
    assert asked_with == [("9.19", recorded), ("9.26", described(CARDS["h200-141gb"]))]


def chosen(
    library: Library, one: Convolution, batch: int, direction: str, unasked: Unasked | None = None
) -> tuple[str, int] | None:
    return choice_of(library, one, batch, direction, multiprocessors=H100.multiprocessors, unasked=unasked)


def test_choice_is_the_engine_of_the_first_plan() -> None:
    """Engine and workspace of the first plan; depthwise in channels first is torch's own."""
    library = Answering(Plan(engine=67, workspace=512, knobs={}), Plan(engine=46, workspace=0, knobs={}))
    assert chosen(library, SQUARE, 16, FORWARD) == ("67", 512)
    assert chosen(library, DEPTHWISE, 16, FORWARD) == ("torch", 0)
    assert chosen(Answering(), SQUARE, 16, FORWARD) is None


def test_table_of_times_has_what_this_cudnn_answers(cudnn: Library) -> None:
    """Every fiftieth recorded convolution is run as the table says, in each direction."""
    table = table_of(H100)
    assert table is not None
    unasked = unasked_on("9.0", "9.19")
    for key in sorted(table.choices)[::50]:
        one = convolved(key)
        assert one is not None
        described = one.described()
        assert described is not None
        found = [chosen(cudnn, described, one.images[0], each, unasked) for each in one.directions]
        assert found == [tuple(each) for each in table.choices[key]], key
