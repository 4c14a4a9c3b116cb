"""All that a row of a saved run holds of ours.

``python -m stepcost.row`` prints ``docs/schema.md``, which is made from these declarations.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stepcost.machine import throttled
from stepcost.reading import Reading
from stepcost.request import Request
from stepcost.row_times import Energy, EngineStep, PredictedTime, Times
from stepcost.schema import Count, Share, clean, fields_of, stored, union
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

ROW = union(*PARTS)
"""Every field of a row, by name."""


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


if __name__ == "__main__":
    from stepcost.schema_page import schema_page

    sys.stdout.write(schema_page())
