"""Single operators on a tape: the temporaries that CUDA takes and the meta device does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from stepcost.predicting.as_on_cuda import as_on_cuda
from stepcost.predicting.indexing import sort_bytes
from stepcost.predicting.rules import RULES
from stepcost.predicting.tape import ALLOC, FREE, Tape
from stepcost.reading import BACKWARD


def taken(run: Callable[[], Any], phase: str = BACKWARD) -> list[int]:
    """Bytes that ``run`` takes (positive) and gives back (negative), in order, what it returns kept."""
    tape = Tape(RULES)
    tape.phase = phase
    with as_on_cuda(tape), tape:
        made = run()
        events = [event for event in tape.events if event[0] in (ALLOC, FREE)]
        del made
    return [size if action == ALLOC else -size for action, _, size in events]


@pytest.mark.parametrize(
    ("shape", "dims", "expected"),
    [
        ((2, 8, 8), (1,), [512]),
        ((2, 8, 8), (1, 2), [512, 512, -512]),
        ((2, 8, 8), (0, 1, 2), [512, 512, 512, -512, -512]),
    ],
)
def test_a_roll_goes_one_dimension_at_a_time(
    shape: tuple[int, ...], dims: tuple[int, ...], expected: list[int]
) -> None:
    """Each dimension is rolled into memory of its own, and only the last is kept."""
    tensor = torch.empty(shape, device="meta")
    assert taken(lambda: torch.roll(tensor, (1,) * len(dims), dims)) == expected


def test_a_roll_copies_what_is_not_contiguous() -> None:
    """The copy is given back before the second dimension is rolled."""
    tensor = torch.empty((2, 8, 8), device="meta").transpose(1, 2)
    assert taken(lambda: torch.roll(tensor, (1, 1), (1, 2))) == [512, 512, -512, 512, -512]


def test_a_number_written_into_a_tensor_stays_on_the_cpu() -> None:
    """Filling part of a tensor takes nothing; a scalar tensor that is asked for does."""

    def fill() -> torch.Tensor:
        tensor = torch.empty((4, 4), device="meta")
        tensor[:2, 1:3] = 1.0
        return tensor

    assert taken(fill) == [64]
    assert taken(lambda: torch.scalar_tensor(1.0, device="meta")) == [4]


def test_the_gradient_of_a_softmax_needs_a_product() -> None:
    """Gradient times output lives as long as the operator, after the gradient is made."""
    out = torch.empty((4, 64), device="meta")
    run = torch.ops.aten._softmax_backward_data
    assert taken(lambda: run(out, out, 1, torch.float32)) == [1024, 1024, -1024]


def test_layer_norm_makes_contiguous_gradients() -> None:
    """A gradient in another layout is copied, and the gradient of the images is contiguous all the same."""
    images = torch.empty((2, 3, 8), device="meta")
    gradient = torch.empty((2, 8, 3), device="meta").transpose(1, 2)
    stats, weight = torch.empty((2, 3, 1), device="meta"), torch.empty(8, device="meta")
    made: list[Any] = []

    def run() -> Any:
        made.extend(
            torch.ops.aten.native_layer_norm_backward(
                gradient, images, [8], stats, stats, weight, weight, [True, True, False]
            )
        )
        return made

    assert taken(run) == [192, 32, 192, -192]
    assert made[0].is_contiguous()
    assert made[2] is None


def test_the_gradient_of_an_index_is_summed_in_place_by_sorting() -> None:
    """What a run of swin_t asked for (window 7, 24 heads): 2,401 indices into a table of 169 rows."""
    table = torch.empty((169, 24), device="meta")
    index = torch.empty(2401, dtype=torch.int64, device="meta")
    values = torch.empty((24, 2401), device="meta").t()
    one = 19208
    expected = [one, one, -one, 230496, one, one, one, 3583, -3583, -one, -one, -one, -230496, -one]

    @torch.no_grad()  # as autograd's own sums are made
    def add() -> Any:
        zeros = torch.zeros_like(table)
        return torch.ops.aten.index_put(zeros, [index], values, True)

    assert taken(add) == [169 * 24 * 4, *expected]
    assert taken(add, "forward")[1:3] == [169 * 24 * 4, -169 * 24 * 4]


def test_the_gradient_of_two_indices_adds_up_their_addresses() -> None:
    """One word of each of 4 sentences, ``x[rows, places]``: the second index takes two more temporaries."""
    rows, places = (torch.empty(4, dtype=torch.int64, device="meta") for _ in range(2))
    values = torch.empty((4, 512), device="meta")
    first, second = [32, 32, -32], [32, 32, -32, -32]

    @torch.no_grad()
    def add() -> Any:
        zeros = torch.zeros((4, 77, 512), device="meta")
        return torch.ops.aten.index_put(zeros, [rows, places], values, True)

    sort = [32, 32, 32, 1, -1, -32, -32, -32]
    assert taken(add) == [4 * 77 * 512 * 4, *first, *second, *sort, -32]


def test_the_norms_of_a_list_take_a_sum_for_each_chunk() -> None:
    """Two tensors, the longer of two chunks of 65,536 values: four sums while the two norms are made."""
    tensors = [torch.empty(65_537, device="meta"), torch.empty(8, device="meta")]
    assert taken(lambda: torch._foreach_norm(tensors, 2)) == [16, 4, 4, -16]


@pytest.mark.parametrize(
    ("numbers", "bits", "expected"),
    [(2304, 8, 1), (2401, 8, 3583), (4608, 8, 3583), (4609, 8, 4607), (2401, 9, 44543), (4096, 64, 83455)],
)
def test_a_sort_takes_what_cub_asks_for(numbers: int, bits: int, expected: int) -> None:
    """One byte for one tile; else histograms, a look-back a tile, copies where it takes two passes."""
    assert sort_bytes(numbers, bits) == expected


def test_a_root_mean_square_is_one_kernel() -> None:
    """Output (4, 64) and an inverse root (4, 1) in float32; it keeps those for backward, and nothing else."""
    rows, weight = torch.empty((4, 64), device="meta"), torch.empty(64, device="meta", requires_grad=True)

    def run() -> Any:
        return torch.nn.functional.rms_norm(rows, (64,), weight)

    assert taken(run) == [1024, 16]


def test_what_a_checkpoint_sums_again_is_not_summed_in_place() -> None:
    """Autograd writes over a gradient that nobody else holds; a recorded sum has memory of its own."""
    left, right = (torch.empty((4, 64), device="meta") for _ in range(2))

    def unrecorded() -> Any:
        with torch.no_grad():
            return left * 1 + right

    def recorded() -> Any:
        return left.requires_grad_() * 1 + right

    assert taken(unrecorded) == [1024]
    assert taken(recorded) == [1024, 1024, -1024]
