"""What the gradient of an embedding takes on CUDA: more than a few words are sorted, then summed in parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from stepcost.predicting import indexing
from stepcost.predicting.tape import REDUCTION, Rule, Tape

aten = torch.ops.aten
UNSORTED = 3072
"""So many words at most are added without sorting them."""
WORDS_PER_PART = 10
BLOCK_THREADS, WARP, BLOCKS_PER_MULTIPROCESSOR = 1024, 32, 4


@dataclass(frozen=True, slots=True)
class PartialSums:
    """Sums of parts, or for few rows a place for each part and, for 16-bit types, the gradient in float32."""

    rows: int
    features: int
    parts: int
    is_half: bool
    index_bytes: int

    def scratch_bytes(self, multiprocessors: int, _: int) -> tuple[int, ...]:
        """Bytes on a card, in the order in which they are taken."""
        padded = -(-self.features // WARP) * WARP
        blocks = -(-self.rows * padded // min(padded, BLOCK_THREADS))
        if blocks < multiprocessors * BLOCKS_PER_MULTIPROCESSOR and self.parts > 4 * blocks:
            whole = 4 * self.rows * self.features if self.is_half else 0
            return (self.parts * self.index_bytes, whole)
        return (4 * self.parts * self.features,)


def _embedding_dense_backward(
    tape: Tape, func: Any, gradient: torch.Tensor, words: torch.Tensor, *rest: Any
) -> Any:
    """Add few words as they come; sort many of them, and sum what belongs to each.

    ``Embedding.cu`` and ``EmbeddingBackwardKernel.cu`` in ``aten/src/ATen/native/cuda``.
    """
    scaled = rest[2]
    number, size = words.numel(), words.element_size()
    with tape.copied((words, "nchw"), (gradient, "nchw")):
        if number <= UNSORTED and not scaled:
            return tape.note(func(gradient, words, *rest))
        with tape.holding(size * number, size * number):  # the words sorted, and where they were
            with tape.holding(size * number, indexing.sort_bytes(number, 8 * size)):
                pass
            with tape.holding(*([size * number] if scaled else [])):
                made = tape.note(func(gradient, words, *rest))
                _sum_parts(tape, made, number, size)
    return made


def _sum_parts(tape: Tape, made: torch.Tensor, number: int, size: int) -> None:
    """Find where each word begins, divide its places into parts, sum these and add the sums."""
    rows, features = made.shape
    distinct = min(number, rows)
    parts = number // WORDS_PER_PART + distinct
    with tape.holding(size * number, 8):
        with tape.holding(size * number, indexing.scan_bytes(number)):
            pass
        with tape.holding(size * distinct, size * distinct):
            with tape.holding(indexing.scan_bytes(distinct)):
                pass
            with tape.holding(8, size * parts):
                sums = PartialSums(distinct, features, parts, made.element_size() < 4, size)
                tape.events.append((REDUCTION, sums, None))


EMBEDDING_RULES: dict[Any, Rule] = {aten.embedding_dense_backward.default: _embedding_dense_backward}
