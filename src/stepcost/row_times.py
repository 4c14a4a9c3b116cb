"""Fields of a row that are seconds, joules and what bounds them."""

from __future__ import annotations

from dataclasses import dataclass

from stepcost.machine import Clocks
from stepcost.schema import REQUIRED, stored


@dataclass(frozen=True, kw_only=True)
class Stats:
    """pytest-benchmark's statistics of the seconds that ``timed`` names."""

    median: float | None = stored("", unit="s")
    mean: float | None = stored("", unit="s")
    stddev: float | None = stored("", unit="s")
    min: float | None = stored("", unit="s")
    max: float | None = stored("", unit="s")
    rounds: int | None = stored("how many were timed")
    data: tuple[float, ...] | None = stored("seconds of each, where they were saved")


@dataclass(frozen=True, kw_only=True)
class Times:
    """Of rows that were timed, most of them on a GPU."""

    stats: Stats | None = stored(
        "of the seconds that `timed` names, the device synchronised at the end of each"
    )
    rounds_s: tuple[float, ...] | None = stored("seconds of each timed round, in order")
    clocks: Clocks | None = stored("right after the timed rounds")
    gpu_busy_s: float | None = stored(
        "time in a step during which a kernel runs (profiler; copies within the GPU count, others do not)"
    )
    gpu_busy_share: float | None = stored("its share of the median step time")
    kernel_s: float | None = stored("sum of the kernels' times in a step")
    kernels: float | None = stored("how many kernels there are in a step")
    transfer_s: float | None = stored("time of copies between host and GPU in a step")
    communication_s: float | None = stored(
        "of several GPUs: time in a step during which NCCL's kernels run, on the GPU that waits least"
    )
    exposed_communication_s: float | None = stored("that of it during which no other kernel runs there")


@dataclass(frozen=True, kw_only=True)
class PredictedTime:
    """Of predicted rows: what a captured step would take."""

    step_s: float | None = stored("a step, the optimizer included")
    step_low_s: float | None = stored("with `step_high_s` the interval that the measured step is expected in")
    step_high_s: float | None = stored("its other end")
    step_basis: str | None = stored(
        "what that rests on: `recorded on this card`, or another one, `from rates`"
    )
    step_engine: str | None = stored("the engine that launches that step; `engine` is that of the memory")


@dataclass(frozen=True, kw_only=True)
class PredictedStep:
    """Of a measured row, beside what was measured."""

    step_s: float = stored("a step", default=REQUIRED)
    step_low_s: float = stored("with `step_high_s` the interval it is expected in", default=REQUIRED)
    step_high_s: float = stored("its other end", default=REQUIRED)
    step_basis: str | None = stored("as of predicted rows")
    recorded_torch: str | None = stored("torch under which its operators were recorded")
    by_operator_s: dict[str, float] | None = stored("as `by_operator_s` of the row")


@dataclass(frozen=True, kw_only=True)
class EngineStep:
    """Question 4."""

    prepare_s: float | None = stored(
        "warm-up, compilation and capture, from the built model to the first finished step of the engine"
    )
    least_bytes: int | None = stored(
        "what any engine must move in this step ([performance.md](performance.md))"
    )
    step_flops: float | None = stored("operations of a step, a multiplication and an addition counted as two")
    copy_bytes_per_s: float | None = stored(
        "the card's rate, measured in the run: a copy of 1 GiB, read and written", unit="bytes/s"
    )
    matrix_flops_per_s: float | None = stored(
        "the same of an 8192 x 8192 product in TF32 or bf16", unit="operations/s"
    )
    least_s: float | None = stored(
        "the longer of `least_bytes / copy_bytes_per_s` and `step_flops / matrix_flops_per_s`"
    )
    by_operator_s: dict[str, float] | None = stored(
        "seconds of each operator of a captured step on the GPU, the largest first: its kernels were timed "
        "in place, and which operator launched which follows from the step's trace "
        "([prediction-time.md](prediction-time.md))"
    )
    predicted_step: PredictedStep | None = stored(
        "what was predicted of that step, from operators that were recorded before this run"
    )
    losses: tuple[float, ...] | None = stored("loss of each step of one epoch in fp64")
    losses_eager: tuple[float, ...] | None = stored("the same of the eager engine")
    loss_difference: float | None = stored("the largest relative difference between the two")
    steps: int | None = stored("steps of that epoch")
    norm_steps: int | None = stored("what batch norm counted of them; null where there is none")
    optimizer_steps: int | None = stored("what the optimizer counted of them; null where it counts none")


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Question 4, in joules: of the whole card, by NVML's energy counter ([method.md](method.md))."""

    energy_j: float | None = stored(
        "of a step, over steps that follow each other; joules by image or sequence are derived"
    )
    energy_interval_j: tuple[float, ...] | None = stored(
        "from and to: the counter's resolution and, at 95 %, the spread over the windows of one process"
    )
    energy_windows_j: tuple[float, ...] | None = stored("of a step in each window, in order")
    power_w: float | None = stored("mean power in those windows")
    idle_power_w: float | None = stored(
        "the same right before, with a context and nothing to do. `1 - idle_power_w / power_w` is the share "
        "of `energy_j` above idle"
    )
    temperature_steady: bool | None = stored(
        "whether the temperature had been steady for a second before the windows began"
    )
