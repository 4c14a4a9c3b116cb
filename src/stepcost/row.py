"""All that a saved run holds of ours: the fields of its rows, of its session and of its machine.

``python -m stepcost.row`` prints ``docs/schema.md``, which is made from these declarations.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stepcost.machine import Clocks, Machine, throttled
from stepcost.reading import SCHEMA_VERSION, Reading
from stepcost.request import Request
from stepcost.schema import REQUIRED, Count, Field, Share, clean, fields_of, stored
from stepcost.search import PredictedLargest, PredictedLongest, Search


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a row is about, alongside the request."""

    name: str | None = stored("the benchmark's name (pytest-benchmark's own)")
    fullname: str | None = stored("the same with its file (pytest-benchmark's own)")
    question: str | None = stored(
        "`1a`, `1b`, `1c`, `2a`, `3a`, `3b`, `4`, `5`, `6`, `7` or `instrument`. A `2a` row answers 2b too, "
        "a `3b` row 3c and 3d",
        identifies=True,
    )
    timed: str | None = stored(
        "what pytest-benchmark's seconds are of: `training step`, `engine step` (question 4), `epoch of "
        "single steps`, `training run`, `prediction`, `search`, `build`, `identify`, `round trip`, `start`, "
        "`start and 20 steps`, `profiled steps` or `attempt that ran out of memory`",
        identifies=True,
    )
    dataset: str | None = stored(
        "`random` for memory and step times (neither depends on the values), else the data set trained on",
        identifies=True,
    )
    card: str | None = stored(
        "in predicted rows: the card predicted for, a name in the catalog", identifies=True
    )
    saver: str | None = stored(
        "question 5: the way to save memory, a name in the catalog or several joined by `+`; `plain` is the "
        "step that they are compared with",
        identifies=True,
    )
    stand_in_for: str | None = stored(
        "the model asked for, where a smaller one was trained in its place (no GPU)", identifies=True
    )


@dataclass(frozen=True, kw_only=True)
class Model:
    """Question 1a, alongside the counts of a reading."""

    parameters_closed_form: int | None = stored("`parameters` by formula; null where the model has none")
    buffers: int | None = stored("elements of the buffers (batch-norm statistics)")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """Question 1b."""

    gpu: str | None = stored("name of the GPU")
    torch_total_bytes: int | None = stored("its memory by torch")
    nvml_total_bytes: int | None = stored("its memory by NVML")
    nvml_reserved_bytes: int | None = stored("what the driver keeps of it, by NVML")


@dataclass(frozen=True, kw_only=True)
class Derived:
    """What follows from other fields and is stored for readers of the file."""

    tensor_bytes: int | None = stored(
        "live tensors at the end of the forward pass: parameters + buffers + optimizer state + inputs + "
        "activations. No gradients (they come while activations go) and no workspace, so it grows with the "
        "batch and stays below the peak",
        gated=True,
    )
    throttled: bool | None = stored(
        "whether `clocks` has any `throttle_reasons`; null where they could not be read. Tables of times, "
        "the end of a run and a comparison name such rows"
    )
    largest_batch_at_full_speed: int | None = stored(
        "of the batch sizes that a search tried, the largest within 5 % of the best rate"
    )


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


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch of a training run."""

    epoch: int | None = stored("from 1")
    train_seconds: float | None = stored("this epoch alone, evaluation off the clock")
    train_loss: float | None = stored("mean over the epoch while it trains")
    train_accuracy: Share | None = stored("mean over the epoch while it trains")
    test_accuracy: Share | None = stored("afterwards, in evaluation mode")


@dataclass(frozen=True, kw_only=True)
class Training:
    """Questions 3b to 3d."""

    epochs: tuple[Epoch, ...] | None = stored("in order")
    train_s: float | None = stored("sum of `train_seconds`")
    wall_s: float | None = stored("the whole run by an outer clock that stops for evaluation too")
    steps_per_epoch: Count | None = stored("with the last partial batch counted", identifies=True)
    learning_rate: float | None = stored("after scaling", unit="")
    learning_rate_rule: str | None = stored("`linear` in the batch size, or `none`", identifies=True)
    schedule: str | None = stored(
        "how the rate changes over the epochs: a name in the catalog", identifies=True, absent="constant"
    )
    train_images: Count | None = stored("images trained on", identifies=True)
    test_images: Count | None = stored("images evaluated on")
    chance_accuracy: Share | None = stored("share of the most frequent class in the test set")


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """What measuring itself costs."""

    round_trip_s: float | None = stored("an empty call through the border between two processes")
    bare_step_s: float | None = stored("median of steps by the clock inside the child")
    piped_step_s: float | None = stored("median of the same steps by the clock outside")
    border_s: float | None = stored("median of the differences between the two clocks")
    border_share: float | None = stored("its share of the step")
    warm_start_s: float | None = stored("from request to first finished step, from the warm fork server")
    fresh_start_s: float | None = stored("the same from a fresh interpreter")
    start_ratio: float | None = stored("fresh over warm")
    start_parts_s: dict[str, float] | None = stored("where the time of the warm start goes")
    process_medians_s: tuple[float, ...] | None = stored("median step in each of several fresh processes")
    spread_share: float | None = stored("their range over their median")
    busy_shares: dict[str, float] | None = stored(
        "`gpu_busy_share` of steps without a fault and with a planted one", unit="share"
    )


STEPS_TIMED = ("training step", "engine step")
"""What the seconds of a row are of where they are a training step's."""
OUT_OF_MEMORY_TIMED = "attempt that ran out of memory"
"""What the seconds of a row are of where nothing could be timed."""
PARTS = (
    Asked,
    Request,
    Model,
    Gpu,
    Reading,
    Derived,
    Times,
    Search,
    PredictedLargest,
    PredictedLongest,
    PredictedTime,
    EngineStep,
    Energy,
    Training,
    Instrument,
)
"""What a row is made of."""


def _union(*parts: type) -> dict[str, Field]:
    found: dict[str, Field] = {}
    for part in parts:
        twice = found.keys() & fields_of(part).keys()
        if twice:
            raise TypeError(f"declared twice: {', '.join(sorted(twice))}")
        found |= fields_of(part)
    return found


ROW = _union(*PARTS)
"""Every field of a row, by name."""


@dataclass(frozen=True, kw_only=True)
class Processor:
    """The host's processor, as pytest-benchmark describes it."""

    brand_raw: str | None = stored("its name")
    count: int | None = stored("cores")


@dataclass(frozen=True, kw_only=True)
class Host:
    """Alongside our fields, what is used of pytest-benchmark's own."""

    python_version: str | None = stored("version of Python")
    cpu: Processor | None = stored("the processor")


MACHINE = _union(Machine, Host)
"""What is used of ``machine_info``."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """A model or a data set."""

    name: str | None = stored("its name")


@dataclass(frozen=True, kw_only=True)
class Skip:
    """A test that was skipped."""

    test: str | None = stored("its node id")
    reason: str | None = stored("why")


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A test that failed: a relation that did not hold, or a child that died."""

    test: str | None = stored("its node id")
    message: str | None = stored("one line")


@dataclass(frozen=True, kw_only=True)
class CutOff:
    """How a run ended before its end."""

    why: str | None = stored(
        "`interrupted` (Ctrl-C, a time limit), or what pytest says: `stopping after 1 failures`"
    )
    not_run: int | None = stored("how many of the tests selected did not run to their end")
    selected: int | None = stored("how many were selected")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Where the time of a run went."""

    part: str = stored("what was done", default=REQUIRED)
    seconds: float = stored("in all", default=REQUIRED)
    times: int | None = stored("how often")


@dataclass(frozen=True, kw_only=True)
class SessionRecord:
    """What all rows of a session have in common."""

    schema_version: int | None = stored("version of this page")
    command: tuple[str, ...] | None = stored("the arguments given to pytest")
    settings: dict[str, Any] | None = stored("every flag of the suite with the value used")
    device: str | None = stored("`cuda:N` or `cpu`")
    why_no_gpu: str | None = stored("the reason for the latter")
    clocks: Clocks | None = stored("when the session started; null without a GPU")
    model: Named | None = stored("as described in the header")
    dataset: Named | None = stored("as described in the header")
    skipped: tuple[Skip, ...] | None = stored("which tests, and why")
    failed: tuple[Failed, ...] | None = stored("which tests, with one line each")
    cut_off: CutOff | None = stored(
        "of a run that ended before every selected test had run; null of a whole one, absent from older files"
    )
    notes: tuple[str, ...] | None = stored(
        "what a reader must know: another process on the GPU, NVML missing, a stand-in model, a resumed run"
    )
    costs: tuple[Cost, ...] | None = stored("costliest first; of a resumed run, the later part's")


SESSION = fields_of(SessionRecord)
"""What is stored under ``stepcost``, next to ``benchmarks``."""


def clean_row(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what a row may hold, without complaints; cleaning twice changes nothing."""
    return clean(values, ROW)[0]


def described(request: Request) -> dict[str, Any]:
    """Return what a row stores of its request."""
    return {name: getattr(request, name) for name in fields_of(Request) if name != "seed"}


def measured(reading: Reading) -> dict[str, Any]:
    """Return what a row stores of its reading, as plain data."""
    return asdict(reading) | {"tensor_bytes": reading.tensor_bytes}


def checked(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields for a row, with what follows from them. Raises ``KeyError`` for an undeclared one."""
    unknown = fields.keys() - ROW.keys()
    if unknown:
        raise KeyError(f"not declared in stepcost.row: {', '.join(sorted(unknown))}")
    return fields | {"throttled": throttled(fields["clocks"])} if "clocks" in fields else fields


PREAMBLE = f"""\
# What is stored

`pytest benchmarks/ --benchmark-save=run1` writes one pytest-benchmark file,
`.benchmarks/<machine>/0001_run1.json`. What it holds of ours is listed here, from the declarations in the
code: `python -m stepcost.row > docs/schema.md`. Schema version: **{SCHEMA_VERSION}**.

Sizes are integers in bytes, times are floats in seconds, shares and accuracies are fractions between 0 and 1.
`null` means 'could not be read', and the row's `unread` says why. A figure is never zero because it is
missing. *Identifies*: rows are compared only where all these agree. *Gated*: a comparison fails where it
grows ([compare.md](compare.md)).
"""


def schema_page() -> str:
    """Return the text of ``docs/schema.md``."""
    lines = [PREAMBLE, "## The rows: `extra_info` of each benchmark", ""]
    for part in PARTS:
        lines += [f"### {(part.__doc__ or '').strip().splitlines()[0]}", "", *_table(fields_of(part)), ""]
    lines += ["## The session: `stepcost`, next to `benchmarks`", "", *_table(SESSION), ""]
    lines += ["## The machine: in `machine_info`", "", *_table(MACHINE), ""]
    return "\n".join(lines)


def _table(known: dict[str, Field]) -> Iterator[str]:
    yield "| name | unit | meaning |"
    yield "|---|---|---|"
    for name, one in known.items():
        marks = [mark for mark, holds in (("identifies", one.identifies), ("gated", one.gated)) if holds]
        meaning = one.meaning + (f" *({', '.join(marks)})*" if marks else "")
        yield f"| `{name}` | {one.unit} | {meaning} |"
        if one.parts is not None:
            for inner in fields_of(one.parts).values():
                yield f"| `{name}.{inner.name}` | {inner.unit} | {inner.meaning} |"


if __name__ == "__main__":
    sys.stdout.write(schema_page())
