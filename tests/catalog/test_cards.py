"""What is known of a card, and what is likely of one that was never measured."""

import json
from pathlib import Path

import pytest

from stepcost.catalog.cards import CARDS, CONTEXTS_SEEN, MULTIPROCESSORS_SEEN, find_card

REFERENCE = Path(__file__).parents[2] / "reports" / "reference"
PUBLISHED = {
    # name by the driver, compute capability, GiB, CUDA cores, of which so many in a multiprocessor, GDDR ECC
    "t4": ("Tesla T4", "7.5", 16, 2560, 64, True),
    "v100-16gb": ("Tesla V100-SXM2-16GB", "7.0", 16, 5120, 64, False),
    "v100-32gb": ("Tesla V100-SXM2-32GB", "7.0", 32, 5120, 64, False),
    "a10": ("NVIDIA A10", "8.6", 24, 9216, 128, True),
    "a100-40gb": ("NVIDIA A100-SXM4-40GB", "8.0", 40, 6912, 64, False),
    "a100-80gb": ("NVIDIA A100-SXM4-80GB", "8.0", 80, 6912, 64, False),
    "l4": ("NVIDIA L4", "8.9", 24, 7424, 128, True),
    "l40s": ("NVIDIA L40S", "8.9", 48, 18176, 128, True),
    "rtx3090": ("NVIDIA GeForce RTX 3090", "8.6", 24, 10496, 128, False),
    "rtx4090": ("NVIDIA GeForce RTX 4090", "8.9", 24, 16384, 128, False),
    "rtx5090": ("NVIDIA GeForce RTX 5090", "12.0", 32, 21760, 128, False),
    "h100-80gb": ("NVIDIA H100 80GB HBM3", "9.0", 80, 16896, 128, False),
    "h200-141gb": ("NVIDIA H200", "9.0", 141, 16896, 128, False),
    "b200": ("NVIDIA B200", "10.0", 180, 18944, 128, False),
}
"""Memory and CUDA cores as NVIDIA's data sheets have them, cores in a multiprocessor as the white paper of
its architecture does (Volta, Turing, Ampere, Ada, Hopper, Blackwell), capability as NVIDIA's list of CUDA
GPUs. Of the B200, memory is an eighth of a DGX B200's, and the cores are those of 148 multiprocessors as
drivers report.
"""
MEASURED = [card for card in CARDS.values() if card.is_measured]
OTHERS = [card for card in CARDS.values() if not card.is_measured]


def test_every_card_is_named_here():
    """The table above has every card of the catalog, each under its own name."""
    assert {name: card.name for name, card in CARDS.items()} == {name: name for name in PUBLISHED}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_figures_are_the_published_ones(name):
    """Name, capability, memory and multiprocessors of each card are as its maker publishes them.

    A process sees the published GiB but for less than one percent, or for the sixteenth that ECC takes of
    GDDR memory.
    """
    gpu, capability, gib, cores, in_one, has_gddr_ecc = PUBLISHED[name]
    card = CARDS[name]
    assert (card.gpu, card.compute_capability) == (gpu, capability)
    assert card.multiprocessors * in_one == cores
    usable = gib * 15 / 16 if has_gddr_ecc else gib
    assert 0.99 < card.total_bytes / (usable * 2**30) <= 1


@pytest.mark.parametrize("name", [card.name for card in MEASURED])
def test_measured_figures_are_those_of_the_committed_runs(name):
    """Memory, what the driver keeps and the context are as the runs committed for this card read them."""
    run = json.loads((REFERENCE / f"{name}.json").read_text())
    rows = [bench["extra_info"] for bench in run["benchmarks"]]
    (card,) = [row for row in rows if row["question"] == "1b"]
    told = (card["gpu"], card["nvml_total_bytes"], card["nvml_reserved_bytes"])
    assert told == (CARDS[name].gpu, CARDS[name].total_bytes, CARDS[name].driver_reserved_bytes)
    contexts = [row["context_bytes"] for row in rows if row["question"] == "2a"]
    assert CARDS[name].context_bytes in contexts
    assert run["machine_info"]["compute_capability"] == CARDS[name].compute_capability


@pytest.mark.parametrize("card", MEASURED, ids=lambda card: card.name)
def test_a_measured_card_has_one_room(card):
    """Where driver and context are known, so is what torch's allocator can reserve."""
    assert card.likely_room_bytes == (card.room_bytes, card.room_bytes)
    assert card.room_bytes == card.total_bytes - card.driver_reserved_bytes - card.context_bytes


@pytest.mark.parametrize("card", OTHERS, ids=lambda card: card.name)
def test_another_card_has_a_range_below_all_of_it(card):
    """Unknown is never zero: less is likely left than all, and what was seen elsewhere is in the range."""
    least, most = card.likely_room_bytes
    assert 0 < least < most < card.room_bytes == card.total_bytes
    low, high = card.context_range_bytes
    assert low <= CONTEXTS_SEEN[0] < CONTEXTS_SEEN[1] <= high
    low, high = card.driver_range_bytes
    assert all(low <= one.driver_reserved_bytes <= high for one in MEASURED)


def test_the_range_follows_the_size_of_the_card():
    """A card with fewer multiprocessors may have a smaller context, one with more a larger one."""
    assert CARDS["t4"].context_range_bytes[0] < CARDS["rtx4090"].context_range_bytes[0] < CONTEXTS_SEEN[0]
    assert CARDS["b200"].context_range_bytes[1] > CONTEXTS_SEEN[1]


def test_ranges_by_hand():
    """Half the multiprocessors: from half the smallest context seen to the largest; memory likewise."""
    a10 = CARDS["a10"]
    assert MULTIPROCESSORS_SEEN == 132
    assert a10.context_range_bytes == (CONTEXTS_SEEN[0] * 72 // 132, CONTEXTS_SEEN[1])
    seen = {"h100-80gb": 503_316_480, "h200-141gb": 644_939_776}
    in_proportion = [kept * a10.total_bytes // CARDS[name].total_bytes for name, kept in seen.items()]
    assert a10.driver_range_bytes == (min(in_proportion), 644_939_776)
    b200 = CARDS["b200"]
    assert b200.context_range_bytes == (CONTEXTS_SEEN[0], CONTEXTS_SEEN[1] * 148 // 132)


def test_an_unknown_card_is_one_line():
    """A name close to one in the catalog gets a hint."""
    with pytest.raises(ValueError, match="did you mean h100-80gb"):
        find_card("H100")


MATRIX_OPERATIONS = {
    "7.0": 1024,
    "7.5": 1024,
    "8.0": 2048,
    "8.6": 1024,
    "8.9": 1024,
    "9.0": 4096,
    "10.0": 8192,
    "12.0": 1024,
}
"""Dense operations in 16 bits that one multiprocessor makes in a clock (white papers, as above)."""
BUS_BYTES = {"t4": 32, "l4": 24, "a10": 48, "l40s": 48, "rtx3090": 48, "rtx4090": 48, "rtx5090": 64}
"""Width of the memory bus; of stacked memory (HBM) by architecture: 512, 640, 768 or 1024."""
HBM_BYTES = {"v100": 512, "a100": 640, "h100": 640, "h200": 768, "b200": 1024}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_rates_are_those_of_clocks_and_units(name):
    """Published rates are what multiprocessors, bus and clocks make of them, to 12 %.

    GeForce cards make half as many 16-bit operations where sums are in fp32. Hopper's and Blackwell's rates
    are published for a lower clock.
    """
    card = CARDS[name]
    _, capability, _, cores, _, _ = PUBLISHED[name]
    halved = 2 if "GeForce" in card.gpu else 1
    clock = card.clock_mhz * 1e6
    width = BUS_BYTES.get(name) or HBM_BYTES[name.partition("-")[0]]
    assert card.memory_gb_per_s * 1e9 == pytest.approx(2 * card.memory_clock_mhz * 1e6 * width, rel=0.12)
    assert card.fp32_tflops * 1e12 == pytest.approx(2 * cores * clock, rel=0.12)
    made = card.multiprocessors * clock * MATRIX_OPERATIONS[capability] / halved
    assert card.half_tflops * 1e12 == pytest.approx(made, rel=0.12)
    if card.tf32_tflops is None:
        assert float(capability) < 8
    else:
        assert card.tf32_tflops == pytest.approx(card.half_tflops / 2, rel=0.03)
