"""Questions 1b and 1c: which GPU is it, and what does a CUDA context cost before any tensor?"""

from dataclasses import asdict

import pytest

DRIVER_SHARE = 0.02
"""NVML and torch may differ by what the driver reserves, and that is below this share of the card."""


def test_gpu_is_one_and_the_same(benchmark, row, session, gpu):
    """1b. Do NVML and torch name the same card, and agree on its memory but for the driver's share?"""
    row(
        question="1b",
        source="measured",
        timed="identify",
        gpu=gpu.gpu,
        torch_total_bytes=gpu.gpu_total_bytes,
        nvml_total_bytes=gpu.gpu_nvml_total_bytes,
        nvml_reserved_bytes=gpu.gpu_nvml_reserved_bytes,
        unread={} if gpu.driver else {"nvml_total_bytes": "; ".join(gpu.notes)},
    )
    again = benchmark.pedantic(session.machine_again, rounds=1)
    assert again.gpu == gpu.gpu
    if gpu.gpu_nvml_total_bytes is None:
        pytest.skip(f"NVML's total is unread: {'; '.join(gpu.notes)}")
    assert 0 <= gpu.gpu_nvml_total_bytes - gpu.gpu_total_bytes <= DRIVER_SHARE * gpu.gpu_nvml_total_bytes


def test_context_at_three_moments(gpu, time_rounds, row, measure_fitting, settings):
    """1c. What does the context hold after the first allocation, with the model loaded, after a step?"""
    ask = {"optimizer": settings.batch_optimizer, "batch_size": settings.optimizer_batch_size}
    row(question="1c", timed="start")
    reading = measure_fitting(**ask)
    time_rounds.took(reading.seconds)
    row(
        source=reading.source,
        model=settings.model,
        **ask,
        moments=[asdict(moment) for moment in reading.moments],
        process_bytes=reading.process_bytes,
        process_bytes_from=reading.process_bytes_from,
        context_bytes=reading.context_bytes,
        unread=reading.unread,
    )
    assert [m.moment for m in reading.moments] == ["first allocation", "model loaded", "training step"]
    contexts = [m.context_bytes for m in reading.moments]
    if None in contexts:
        pytest.skip(f"context bytes are unread: {reading.unread['context_bytes']}")
    assert contexts[0] > 0
    assert contexts == sorted(contexts), "a context does not shrink"
