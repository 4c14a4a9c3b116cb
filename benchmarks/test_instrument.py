"""What measuring itself costs: the process border, and starting a configuration."""

from statistics import median
from time import perf_counter

import pytest

from stepcost import jobs

STEPS = 20
PROCESSES = 5
FAULT_SHOWS = 0.9
"""A fault shows where the busy share falls below this share of what it was."""
SPREAD_SHARE_MAX = 0.02
"""Largest difference between the medians of fresh processes, as a share of their median."""
BORDER_SHARE_MAX = 0.01
"""What the border may add to a step of the model that is measured."""


def test_process_border(benchmark, row, session, settings):
    """What does the pipe between the processes add to a training step?"""
    model = session.study_model
    ask = {"optimizer": settings.batch_optimizer, "batch_size": settings.optimizer_batch_size, "model": model}
    with session.configuration(session.request(**ask)) as worker:
        worker.call("timed_steps", 5)
        bare, piped = [], []
        # The same step by both clocks, inside the child and out here: steps differ among
        # themselves by more than the border adds.
        for _ in range(STEPS):
            start = perf_counter()
            bare += worker.call("timed_steps", 1)
            piped.append(perf_counter() - start)
        row(question="instrument", timed="round trip")
        benchmark.pedantic(worker.call, args=("ping",), rounds=200, warmup_rounds=20)
    border_s = median(outer - inner for outer, inner in zip(piped, bare, strict=True))
    border_share = border_s / median(bare)
    row(
        source="measured",
        **ask,
        bare_step_s=median(bare),
        piped_step_s=median(piped),
        border_s=border_s,
        border_share=border_share,
        round_trip_s=benchmark.stats["median"] if benchmark.stats else None,
    )
    if session.on_gpu:
        assert border_share < BORDER_SHARE_MAX


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("loop", ["plain", "study"])
def test_spread_over_processes(measure_fitting, benchmark, row, session, loop):
    """How far apart are the medians of the same step in five fresh processes?"""
    ask = {"optimizer": session.settings.batch_optimizer, "batch_size": session.settings.optimizer_batch_size}
    measure_fitting(**ask)
    request = session.request(**ask, engine="eager" if loop == "plain" else session.study_engine)
    medians = []

    def one_process():
        with session.worker(jobs.ENGINE_STEP, request) as worker:
            worker.call("prepare")
            medians.append(median(worker.call("timed_steps", STEPS)))

    row(question="instrument", timed="start and 20 steps")
    with session.costs.of("start five processes and time their steps"):
        benchmark.pedantic(one_process, rounds=PROCESSES)
    spread_share = (max(medians) - min(medians)) / median(medians)
    row(
        source="measured",
        **ask,
        model=request.model,
        engine=request.engine,
        precision=request.precision,
        process_medians_s=medians,
        spread_share=spread_share,
    )
    assert spread_share <= SPREAD_SHARE_MAX


def test_start_of_a_configuration(benchmark, row, session, settings):
    """How much faster is a warm fork server than a fresh interpreter, from request to first step?"""
    ask = {
        "optimizer": settings.batch_optimizer,
        "batch_size": settings.optimizer_batch_size,
        "model": session.study_model,
    }
    request = session.request(**ask)
    parts = {}

    def warm_start():
        with session.configuration(request) as worker:
            parts.update(worker.call("first_step"))

    row(question="instrument", timed="start")
    benchmark.pedantic(warm_start, rounds=3, warmup_rounds=1)
    with session.costs.of("start a fresh interpreter, to compare"):
        fresh_s = session.instrument.fresh_interpreter_s(request)
    warm_s = benchmark.stats["median"] if benchmark.stats else None
    row(
        source="measured",
        **ask,
        fresh_start_s=fresh_s,
        warm_start_s=warm_s,
        start_ratio=fresh_s / warm_s if warm_s else None,
        start_parts_s=parts,
    )
    if warm_s:
        assert warm_s < fresh_s


@pytest.mark.usefixtures("gpu")
def test_busy_share_shows_faults(measure_fitting, benchmark, row, session, settings):
    """Does the busy share fall when a step copies its batch from the host, or waits after every layer?"""
    ask = {"optimizer": settings.batch_optimizer, "batch_size": max(settings.batch_sizes)}
    measure_fitting(**ask)
    request = session.request(**ask, engine=session.study_engine)
    row(question="instrument", timed="profiled steps")
    with session.costs.of("plant faults in a step"), session.worker(jobs.PLANTED_STEP, request) as worker:
        shares = benchmark.pedantic(worker.call, args=("busy_shares",), rounds=1)
    row(source="measured", **ask, model=settings.model, engine=request.engine, busy_shares=shares)
    assert shares["study with copy"] < FAULT_SHOWS * shares["study"]
    assert shares["plain with synchronisation"] < FAULT_SHOWS * shares["plain"]
