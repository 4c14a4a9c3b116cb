"""What fused attention makes and takes on CUDA, by the kernel that was chosen (``attention.py``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from stepcost.predicting.tape import REDUCTION, Rule, Tape

aten = torch.ops.aten
FLOAT_BYTES = 4
MOST_FEATURES_IN_REGISTERS = 128
CUDNN_BACKWARD_BYTES = CUDNN_FORWARD_BYTES = 256
"""cuDNN's own workspace in each call, as recorded with cuDNN 9.19."""
RNG_STATE_BYTES = 16


def _efficient(tape: Tape, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Make the output and the logarithms of its sums; the seed and offset of dropout stay on the CPU.

    An output of 16 bits and many features is accumulated in float32 (``kNeedsOutputAccumulatorBuffer`` in
    ``mem_eff_attention/kernel_forward.h``).
    """
    made = func(*args, **kwargs)
    tape.note(made[:2])
    out = made[0]
    wide = out.element_size() < FLOAT_BYTES and out.shape[-1] > MOST_FEATURES_IN_REGISTERS
    with tape.holding(*([out.numel() * FLOAT_BYTES] if wide else [])):
        return made


def _efficient_backward(tape: Tape, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Make the gradients, then row sums of gradient times output and a workspace.

    ``aten/src/ATen/native/transformers/cuda/attention_backward.cu``. The kernel of 16-bit types sums the rows
    itself; for float32 it is a product of its own and two more steps.
    """
    gradient, query, key, bias = args[0], args[1], args[2], args[4]
    made = func(*args, **kwargs)
    wants_bias = len(args) > 10 and args[10][3]
    sums = FLOAT_BYTES * query.shape[0] * query.shape[1] * query.shape[2]
    half = query.element_size() < FLOAT_BYTES
    scratch = _efficient_scratch_bytes(query, key, gradient.shape[-1], args[9] > 0)
    with tape.copied((gradient.transpose(1, 2), "nchw")):
        tape.note(made[:3])
        if wants_bias:  # rows are padded to 16 values
            *outer, columns = bias.shape
            tape.note(made[3:] if columns % 16 == 0 else torch.empty(*outer, -(-columns // 16) * 16))
        if half:
            with_sums = tape.hold(sums)
        else:
            product, first = tape.hold(gradient.numel() * FLOAT_BYTES), tape.hold(sums)
            with_sums = tape.hold(sums)
            tape.drop(first)
            tape.drop(product)
        with tape.holding(*([scratch] if scratch else [])):
            tape.drop(with_sums)
    return made if wants_bias else (*made[:3], None)


def _efficient_scratch_bytes(
    query: torch.Tensor, key: torch.Tensor, value_features: int, dropout: bool
) -> int:
    """Blocks of the gradient of the queries, and of keys and values where registers cannot hold these.

    ``Params.workspace_size`` in ``mem_eff_attention/kernel_backward.h``, with the tiles that
    ``kernels/generate_kernels.py`` makes for compute capability 8.0 and up: each block of accumulated
    gradients has 16 bytes to count who has added to it.
    """
    batch, heads, queries, features = query.shape
    keys, most = key.shape[2], max(query.shape[3], value_features)
    half = query.element_size() < FLOAT_BYTES
    rows, columns, in_registers = 64, 64, half
    if most > 64:
        rows = 128
        in_registers = half and most <= 128
        columns = 128 if in_registers and (most > 96 or dropout) else 64
    blocks = -(-queries // rows) * -(-features // columns)
    taken = blocks * (rows * columns * FLOAT_BYTES + 16)
    if half and not in_registers:
        splits = max(1, min(-(-keys // columns), 200 // (batch * heads)))
        padded = [-(-number // rows) * rows for number in (features, value_features)]
        taken += FLOAT_BYTES * splits * -(-keys // columns) * columns * sum(padded)
    return batch * heads * taken


@dataclass(frozen=True, slots=True)
class SplitKeys:
    """Flash attention over few queries divides the keys among more thread blocks, which meet in memory.

    ``set_params_splitkv`` and ``num_splits_heuristic`` in ``flash_attn/flash_api.cpp``.
    """

    rows: int
    """Batch size times heads times queries."""
    blocks: int
    """Thread blocks without a split."""
    key_blocks: int
    features: int

    def scratch_bytes(self, multiprocessors: int, _: int) -> tuple[int, ...]:
        """Bytes of logarithms and of outputs, of all parts; zeros where one block does all keys."""
        splits = self._splits(2 * multiprocessors)
        return (
            (0, 0)
            if splits == 1
            else (FLOAT_BYTES * splits * self.rows, FLOAT_BYTES * splits * self.rows * self.features)
        )

    def _splits(self, places: int) -> int:
        if not places or self.blocks >= 0.8 * places:
            return 1
        parts = range(1, min(128, places, self.key_blocks) + 1)
        able = [
            one for one in parts if one == 1 or -(-self.key_blocks // one) != -(-self.key_blocks // (one - 1))
        ]
        waves = {one: self.blocks * one / places for one in able}
        full = {one: number / -(-number // 1) for one, number in waves.items()}
        return next(one for one in able if full[one] >= 0.85 * max(full.values()))


def _flash(tape: Tape, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Make the output, the logarithms of its sums, and the state of the random numbers.

    ``mha_fwd`` in ``flash_attn/flash_api.cpp``.
    """
    made = func(*args, **kwargs)
    query, key = args[0], args[1]
    tape.note(made[:2])
    if len(args) < 4 or not args[3]:
        batch, heads, queries, features = query.shape
        block = 256 if features <= 64 else 128 if features <= 128 else 64
        blocks = batch * heads * -(-queries // 64)
        padded = _padded(features)
        split = SplitKeys(batch * heads * queries, blocks, -(-key.shape[2] // block), padded)
        tape.events.append((REDUCTION, split, None))
    seeds = [one for one in made[2:] if isinstance(one, torch.Tensor) and one.is_meta]
    tape.note(seeds)
    with tape.holding(RNG_STATE_BYTES):
        return made


def _padded(features: int) -> int:
    """Features as flash attention's kernels count them."""
    return -(-features // 32) * 32 if features <= 128 else -(-features // 64) * 64


def _flash_backward(tape: Tape, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Make the gradients; sum rows and accumulate the gradient of the queries in float32.

    ``mha_bwd`` in ``flash_attn/flash_api.cpp``: queries in blocks of 128. Where several heads of queries
    share one of keys, gradients of keys and values are made for each, then summed.
    """
    gradient, query, key, value, out = args[:5]
    made = func(*args, **kwargs)
    batch, heads, queries, features = query.shape
    rows = batch * heads * -(-queries // 128) * 128
    with tape.copied((gradient.transpose(1, 2), "nchw"), (out.transpose(1, 2), "nchw")):
        tape.note(made)
        shared = [
            batch * heads * one.shape[2] * one.shape[3] * one.element_size()
            for one in (key, value)
            if one.shape[1] != heads
        ]
        with tape.holding(FLOAT_BYTES * rows, FLOAT_BYTES * rows * _padded(features), *shared):
            return made


def _cudnn(tape: Tape, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Make seed and offset of dropout, then the output and the logarithms of its sums, then a workspace.

    ``_cudnn_attention_forward`` in ``aten/src/ATen/native/transformers/cuda/attention.cu``.
    """
    tape.loads_cudnn = True
    made = func(*args, **kwargs)
    tape.note([one for one in made[2:] if isinstance(one, torch.Tensor)])
    tape.note(made[:2])
    with tape.holding(CUDNN_FORWARD_BYTES):
        return made


def _cudnn_backward(tape: Tape, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Make the gradients; cuDNN accumulates that of the queries in float32.

    It also sums rows, and where several heads of queries share one of keys it makes gradients of keys and
    values for each of them. As recorded on an H100 with cuDNN 9.19.
    """
    query, key, value = args[1:4]
    made = func(*args, **kwargs)
    tape.note(made)
    batch, heads, queries, features = query.shape
    scratch = CUDNN_BACKWARD_BYTES + FLOAT_BYTES * batch * heads * queries * (features + 1)
    scratch += sum(
        batch * heads * one.shape[2] * one.shape[3] * one.element_size()
        for one in (key, value)
        if one.shape[1] != heads
    )
    with tape.holding(scratch):
        return made


ATTENTION_RULES: dict[Any, Rule] = {
    aten._scaled_dot_product_efficient_attention.default: _efficient,
    aten._scaled_dot_product_efficient_attention_backward.default: _efficient_backward,
    aten._scaled_dot_product_flash_attention.default: _flash,
    aten._scaled_dot_product_flash_attention_backward.default: _flash_backward,
    aten._scaled_dot_product_cudnn_attention.default: _cudnn,
    aten._scaled_dot_product_cudnn_attention_backward.default: _cudnn_backward,
}
