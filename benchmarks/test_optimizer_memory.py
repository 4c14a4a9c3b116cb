"""Questions 2a and 2b: what does training hold with each optimizer, and why?"""

from itertools import pairwise

import pytest

from stepcost.catalog.optimizers import find_optimizer


def test_step_with_each_optimizer(step_of, optimizer, settings):
    """2a. What does a training step hold, and how long does it take, with each optimizer?"""
    reading = step_of("2a", optimizer=optimizer.name, batch_size=settings.optimizer_batch_size)
    if reading.fits is False:
        pytest.skip(f"an answer without bytes: {reading.reason}")
    assert reading.gradient_bytes == reading.trainable_parameter_bytes - reading.without_gradient_bytes
    assert reading.peak_allocated_bytes >= reading.tensor_bytes
    assert reading.peak_reserved_bytes >= reading.peak_allocated_bytes
    assert reading.leaked_bytes == 0, "a steady step leaves allocated memory as it found it"


def test_ledger_adds_up(measure_fitting, optimizer, settings):
    """2b. Do the parts of the peak add up to the peak, and all of it to the process?"""
    reading = measure_fitting(optimizer=optimizer.name, batch_size=settings.optimizer_batch_size)
    if reading.ledger is None:
        pytest.skip(f"the ledger is unread: {reading.unread['ledger']}")
    ledger = reading.ledger
    assert ledger.allocated_bytes == reading.peak_allocated_bytes
    assert ledger.allocated_bytes + ledger.slack_bytes == reading.peak_reserved_bytes
    assert ledger.optimizer_state_bytes >= reading.optimizer_state_bytes  # rounded up to 512 a tensor
    if reading.process_bytes is None:
        pytest.skip(f"process bytes are unread: {reading.unread['process_bytes']}")
    assert ledger.allocated_bytes + ledger.slack_bytes + ledger.context_bytes == reading.process_bytes


def test_state_follows_the_update_rule(measure_fitting, model, optimizer, settings):
    """2b. Does each optimizer keep exactly the tensors its update rule needs?"""
    if optimizer.state_tensors is None and optimizer.state_rule is None:
        pytest.skip(f"what {optimizer.name} keeps of a shape is not declared: {optimizer.rule}")
    reading = measure_fitting(optimizer=optimizer.name, batch_size=settings.optimizer_batch_size)
    trained_bytes = reading.trainable_parameter_bytes - reading.without_gradient_bytes
    if optimizer.state_rule is None:
        assert reading.optimizer_state_bytes == optimizer.state_tensors * trained_bytes
        return
    if trained_bytes != reading.parameter_bytes or reading.parameters != model.parameters:
        pytest.skip(f"what {optimizer.name} keeps goes by shape, and other parameters than the model's train")
    element_bytes = reading.parameter_bytes // reading.parameters
    expected = optimizer.state_rule(model.parameter_shapes, element_bytes)
    assert reading.optimizer_state_bytes == expected


def test_more_state_means_a_higher_peak(measure_fitting, settings):
    """2b. Does the peak rise with the state an update rule keeps: SGD < momentum < Adam?"""
    declared = [row for row in map(find_optimizer, settings.optimizers) if row.state_tensors is not None]
    rows = sorted(declared, key=lambda row: row.state_tensors)
    readings = {r: measure_fitting(optimizer=r.name, batch_size=settings.optimizer_batch_size) for r in rows}
    pairs = [(a, b) for a, b in pairwise(rows) if a.state_tensors < b.state_tensors]
    if not pairs:
        pytest.skip("the optimizers chosen all keep the same amount of state")
    for less, more in pairs:
        low, high = readings[less].peak_allocated_bytes, readings[more].peak_allocated_bytes
        assert low < high, f"{less.name} peaks at {low:,} bytes, {more.name} at {high:,}"


def test_repeats_to_the_byte(measure_fitting, measure_again, optimizer, settings, machine):
    """2a. Does a second fresh process give the same bytes?"""
    if machine.why_no_gpu:
        pytest.skip(f"only a GPU can tell whether readings repeat: {machine.why_no_gpu}")
    ask = {"optimizer": optimizer.name, "batch_size": settings.optimizer_batch_size}
    first, second = measure_fitting(**ask), measure_again(**ask)
    for name in ("peak_allocated_bytes", "peak_reserved_bytes", "activation_bytes", "phase_peak_bytes"):
        assert getattr(first, name) == getattr(second, name), name
