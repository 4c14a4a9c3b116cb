"""Question 5: what does each way to save memory buy in bytes, and cost in time?"""

import math
import re

import pytest

from stepcost.catalog.savers import AND, PLAIN, find_savers

ROUNDING = 0.05
"""By this share of the tensors' bytes two peaks may differ that are the same by the tensors: the allocator
rounds each up to 512 bytes, and of a block that it finds leaves up to 1 MiB unsplit, now here, now there."""
LOSSES_AGREE = 1e-9
"""Largest relative difference of a step's loss from the plain step's, both in fp64."""
SMALLEST_IN_8_BITS, BLOCK, LEVELS = 4096, 256, 256
"""An 8-bit optimizer leaves tensors of fewer elements in 32 bits; of the others so many share a scale, and
all of a kind the table of what so many values stand for (bitsandbytes, ``Optimizer2State.init_state``)."""


def test_step_with_each_saver(step_of, with_saver, saver_or_plain):
    """5. What does a training step hold with each way to save memory, and how long does it take?"""
    reading = step_of("5", saver=saver_or_plain, **with_saver(saver_or_plain))
    if reading.fits is False:
        pytest.skip(f"an answer without bytes: {reading.reason}")
    assert reading.gradient_bytes == reading.trainable_parameter_bytes - reading.without_gradient_bytes
    if reading.ledger is not None:
        assert reading.ledger.allocated_bytes == reading.peak_allocated_bytes
        assert reading.ledger.parameter_bytes >= reading.parameter_bytes, "rounded up to 512 bytes a tensor"


def test_largest_batch_with_each_saver(predicted_largest_batch, with_saver, saver_or_plain):
    """5. Without a GPU: which batch would the card of --gpu train with each way to save memory?"""
    largest = predicted_largest_batch(saver=saver_or_plain, **with_saver(saver_or_plain))
    assert largest.largest_batch_at_most != 0, "not even a batch of one would fit"


def test_saves_what_its_rule_says(measure_with, saver, model):
    """5. Does each way save what its rule says, and leave the rest?

    The rules stand in ``RULES``; each is asked of the step with and without that way.
    """
    for row in find_savers(saver):
        rest = [other.name for other in find_savers(saver) if other is not row]
        saved, without = measure_with(saver), measure_with(AND.join(rest) or PLAIN)
        if row.micro_batches > 1:
            without = measure_with(saver, accumulate=1)
        RULES[row.name](saved, without, model)


def test_losses_stay(losses_with, saver):
    """5. In fp64, are the losses of the plain step those of a step that only computes them otherwise?"""
    others = [row.name for row in find_savers(saver) if not row.same_losses]
    if others:
        pytest.skip(f"its losses are not the plain step's: {', '.join(others)} computes other numbers")
    plain, saved = losses_with(PLAIN), losses_with(saver)
    assert len({*plain}) == len(plain), "each step changes the loss, or nothing is compared"
    assert saved == pytest.approx(plain, rel=LOSSES_AGREE, abs=0)


def room(reading):
    """Bytes by which blocks may differ where tensors do not."""
    return ROUNDING * reading.tensor_bytes


def leaves_the_tensors(saved, without, _model):
    """Parameters, gradients and optimizer state are the same bytes."""
    for name in ("parameter_bytes", "gradient_bytes", "optimizer_state_bytes"):
        assert getattr(saved, name) == getattr(without, name), name


def casts_for_a_while(saved, without, model):
    """Autocast leaves the tensors, and by the optimizer step all that it cast is gone."""
    leaves_the_tensors(saved, without, model)
    last, usual = (one.phase_peak_bytes["optimizer step"] for one in (saved, without))
    assert last <= usual + room(without), f"{last - usual:,} bytes more are alive in the optimizer step"


def halves_the_tensors(saved, without, model):
    """Parameters and gradients are two bytes a number instead of four."""
    if model.dtypes != ("float32",):
        pytest.skip(f"the model is {', '.join(model.dtypes)} as it is built")
    for name in ("parameter_bytes", "gradient_bytes"):
        assert 2 * getattr(saved, name) == getattr(without, name), name


def keeps_the_inputs_of_blocks(saved, without, model):
    """Of each block one thing is kept at the most, its output, which is the next one's input.

    So of what the blocks hold one module each keeps anything, the one that makes the output; nothing
    else in them keeps a byte.
    """
    leaves_the_tensors(saved, without, model)
    assert saved.checkpointed_modules, "no block is checkpointed"
    assert saved.activation_bytes < without.activation_bytes
    if saved.kept_by_modules is None or without.kept_by_modules is None:
        pytest.skip(f"what modules keep is unread: {(saved.unread | without.unread)['kept_by_modules']}")
    usual_bytes = {one.module: one.kept_bytes for one in without.kept_by_modules}
    for block, count in saved.checkpointed_modules.items():
        inside = [one for one in saved.kept_by_modules if one.kept_bytes and is_in(one.module, block)]
        keeping = ", ".join(f"{one.module} ({one.modules})" for one in inside)
        assert sum(one.modules for one in inside) <= count, f"{block} ({count}) keeps more: {keeping}"
        for one in inside:
            assert one.kept_bytes <= usual_bytes.get(one.module, 0) + room(without), one.module


def is_in(module, block):
    """Whether a path is that of a block or below it: ``layers.0.fc`` and ``layers.*.fc`` in ``layers.*``."""
    pattern = re.escape(block).replace(re.escape("*"), r"(\*|\d+)")
    return re.fullmatch(rf"{pattern}(\..+)?", module) is not None


def peaks_as_one_micro_batch(saved, micro, model):
    """The gradients are alive from the second micro-batch on, and of the one before nothing else.

    So forward peaks at what it does with one micro-batch, plus the gradients, and the whole step no higher.
    """
    leaves_the_tensors(saved, micro, model)
    above = saved.phase_peak_bytes["forward"] - micro.phase_peak_bytes["forward"]
    more = f"forward peaks {above:,} bytes higher, the gradients are {saved.gradient_bytes:,}"
    assert abs(above - saved.gradient_bytes) <= room(micro), more
    assert abs(saved.activation_bytes - micro.activation_bytes) <= room(micro)
    assert saved.peak_allocated_bytes <= micro.peak_allocated_bytes + saved.gradient_bytes + room(micro)


def needs_no_temporaries(saved, without, model):
    """The fused update leaves the tensors, and peaks no higher than the one that makes temporaries."""
    leaves_the_tensors(saved, without, model)
    last, usual = (one.phase_peak_bytes["optimizer step"] for one in (saved, without))
    assert last <= usual + room(without)


def keeps_a_byte_a_number(saved, without, model):
    """State is a quarter, but for small tensors, with 4 bytes of scale a block and a table of the levels."""
    sizes = [math.prod(shape) for shape in model.parameter_shapes]
    if saved.trainable_parameters != sum(sizes) or saved.without_gradient_bytes:
        pytest.skip("the rule is of a model all of whose parameters are trained")
    kept, rest = divmod(without.optimizer_state_bytes, without.trainable_parameter_bytes)
    assert rest == 0, "state is whole tensors a parameter"
    large = [size for size in sizes if size >= SMALLEST_IN_8_BITS]
    small = sum(sizes) - sum(large)
    scales = 4 * sum(-(-size // BLOCK) for size in large)
    table = 4 * LEVELS if large else 0
    assert saved.optimizer_state_bytes == kept * (sum(large) + 4 * small + scales + table)


def trains_what_it_adds(saved, without, _model):
    """The model is frozen as it is; gradients are of the adapters alone."""
    assert saved.frozen_parameters == without.parameters
    assert saved.trainable_parameters == saved.parameters - without.parameters
    assert 0 < saved.gradient_bytes < without.gradient_bytes


RULES = {
    "bf16": casts_for_a_while,
    "pure-bf16": halves_the_tensors,
    "fp16": casts_for_a_while,
    "checkpoint": keeps_the_inputs_of_blocks,
    "accumulate": peaks_as_one_micro_batch,
    "channels-last": leaves_the_tensors,
    "fused": needs_no_temporaries,
    "8-bit": keeps_a_byte_a_number,
    "lora": trains_what_it_adds,
}
"""What must hold of a step with each way to save memory and one without, of that model; by its name."""
