"""The stored fields and their types, and how a foreign or damaged value is left out with a note.

Everything shown passes through here, so the rest of `reports` may trust a
field to be absent, ``None`` or of its type: no NaN, no text where a number
belongs, no control characters in a name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

LONGEST_TEXT = 2000
"""Longer texts are cut: a name or a reason is one line, whatever a file holds."""

Kind = Callable[[Any], Any]
"""Returns the value as its type, or raises ``ValueError`` with what it should have been."""


def number(value: Any) -> int | float:
    """A finite number from 0 to 2**63 (no stored quantity is negative or larger)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    if not 0 <= value < 2**63:  # NaN and the infinities fail this too
        raise ValueError("not a number that a size, count or time can have")
    return value


def integer(value: Any) -> int:
    """A whole number from 0 to 2**63."""
    whole = number(value)
    if whole != int(whole):
        raise ValueError("not a whole number")
    return int(whole)


def positive(value: Any) -> int:
    """A whole number from 1 to 2**63."""
    whole = integer(value)
    if whole == 0:
        raise ValueError("zero")
    return whole


def fraction(value: Any) -> int | float:
    """A number from 0 to 1."""
    share = number(value)
    if share > 1:
        raise ValueError("not a fraction between 0 and 1")
    return share


def boolean(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def text(value: Any) -> str:
    """One line of printable text."""
    if not isinstance(value, str):
        raise ValueError("not text")
    printable = "".join(letter if letter.isprintable() else " " for letter in value[:LONGEST_TEXT])
    return printable.encode("utf-8", "replace").decode("utf-8").strip()


def schedule(value: Any) -> str | None:
    """How the learning rate changes; ``None`` for constant, which files from before the field do not say."""
    name = text(value)
    return None if name == "constant" else name


def record(kinds: Mapping[str, Kind], needed: tuple[str, ...] = ()) -> Kind:
    """An object with those fields; bad ones are ``None``, an object without the ``needed`` ones is bad."""

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError("not an object")
        kept, _ = clean(value, kinds)
        missing = [name for name in needed if kept.get(name) is None]
        if missing:
            raise ValueError(f"without {', '.join(missing)}")
        return {name: kept.get(name) for name in kinds}

    return check


def list_of(kind: Kind) -> Kind:
    """A list; items that are not of ``kind`` are left out."""

    def check(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise ValueError("not a list")
        kept = []
        for item in value:
            try:
                kept.append(kind(item))
            except ValueError:
                continue
        if value and not kept:
            raise ValueError("a list with nothing usable in it")
        return kept

    return check


def map_of(kind: Kind) -> Kind:
    """An object with names of its own; entries that are not of ``kind`` are left out."""

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError("not an object")
        kept = {}
        for name, item in value.items():
            try:
                kept[text(name)] = kind(item)
            except ValueError:
                continue
        return kept

    return check


CLOCKS = record(
    {
        "sm_mhz": number,
        "sm_max_mhz": number,
        "memory_mhz": number,
        "temperature_c": number,
        "throttle_reasons": list_of(text),
    }
)
LEDGER_PARTS = (
    "parameter_bytes",
    "buffer_bytes",
    "gradient_bytes",
    "optimizer_state_bytes",
    "input_bytes",
    "activation_bytes",
    "workspace_bytes",
    "slack_bytes",
    "context_bytes",
)
MOMENT = record(
    {"moment": text, "process_bytes": integer, "reserved_bytes": integer, "context_bytes": integer},
    needed=("moment",),
)
EPOCH = record(
    {
        "epoch": integer,
        "train_seconds": number,
        "train_loss": number,
        "train_accuracy": fraction,
        "test_accuracy": fraction,
    }
)
TRIAL = record(
    {
        "batch_size": positive,
        "fits": boolean,
        "peak_allocated_bytes": integer,
        "step_s": number,
        "seconds": number,
        "reason": text,
    },
    needed=("batch_size", "fits"),
)

_TEXTS = (
    "name fullname question source timed model dataset optimizer precision engine gpu peak_moment "
    "process_bytes_from reason card learning_rate_rule stand_in_for"
)
_POSITIVES = "batch_size image_size num_classes steps_per_epoch train_images test_images parameters"
_INTEGERS = (
    "schema_version parameters_closed_form parameter_bytes buffers buffer_bytes torch_total_bytes "
    "nvml_total_bytes nvml_reserved_bytes gradient_bytes optimizer_state_bytes optimizer_scalar_bytes "
    "input_bytes activation_bytes tensor_bytes first_step_peak_allocated_bytes peak_allocated_bytes "
    "peak_reserved_bytes process_bytes context_bytes steps_before_reading largest_batch leaked_bytes "
    "smallest_batch_that_fails largest_batch_at_full_speed seed "
    "least_bytes steps norm_steps optimizer_steps"
)
_NUMBERS = (
    "seconds gpu_busy_s gpu_busy_share train_s wall_s learning_rate round_trip_s bare_step_s "
    "piped_step_s border_share warm_start_s fresh_start_s start_ratio spread_share transfer_s "
    "prepare_s border_s kernel_s kernels least_s step_flops copy_bytes_per_s "
    "matrix_flops_per_s loss_difference"
)

ROW: dict[str, Kind] = {
    **dict.fromkeys(_TEXTS.split(), text),
    **dict.fromkeys(_POSITIVES.split(), positive),
    **dict.fromkeys(_INTEGERS.split(), integer),
    **dict.fromkeys(_NUMBERS.split(), number),
    "schedule": schedule,
    "chance_accuracy": fraction,
    "fits": boolean,
    "clocks": CLOCKS,
    "throttled": boolean,
    "ledger": record(dict.fromkeys(LEDGER_PARTS, integer)),
    "moments": list_of(MOMENT),
    "epochs": list_of(EPOCH),
    "trials": list_of(TRIAL),
    "phase_peak_bytes": map_of(integer),
    **dict.fromkeys(("start_parts_s", "busy_shares"), map_of(number)),
    **dict.fromkeys(("losses", "losses_eager", "process_medians_s"), list_of(number)),
    "rounds_s": list_of(number),
    "unread": map_of(text),
    "stats": record(
        {
            **dict.fromkeys(("median", "mean", "stddev", "min", "max"), number),
            "rounds": integer,
            "data": list_of(number),
        }
    ),
}
"""Every field of a row, by name, as ``docs/schema.md`` describes it."""

MACHINE: dict[str, Kind] = {
    **dict.fromkeys(("gpu", "compute_capability", "driver", "cuda", "cudnn", "torch", "torchvision"), text),
    **dict.fromkeys(("gpu_total_bytes", "gpu_nvml_total_bytes", "gpu_nvml_reserved_bytes"), integer),
    "python_version": text,
    "clocks": CLOCKS,
    "cpu": record({"brand_raw": text, "count": integer}),
}

SESSION: dict[str, Kind] = {
    "schema_version": integer,
    "command": list_of(text),
    "why_no_gpu": text,
    "clocks": CLOCKS,
    "model": record({"name": text}),
    "dataset": record({"name": text}),
    "skipped": list_of(record({"test": text, "reason": text})),
    "failed": list_of(record({"test": text, "message": text})),
    "notes": list_of(text),
    "costs": list_of(record({"part": text, "seconds": number, "times": integer}, needed=("part", "seconds"))),
}


def clean(values: Mapping[str, Any], kinds: Mapping[str, Kind]) -> tuple[dict[str, Any], list[str]]:
    """Keep the known fields of ``values`` that are of their type.

    Returns the fields kept (``None`` where the file says so or the value was
    bad) and one line for each value left out. Unknown fields are dropped.
    """
    kept: dict[str, Any] = {}
    complaints: list[str] = []
    for name, kind in kinds.items():
        if name not in values:
            continue
        value = values[name]
        kept[name] = None
        if value is None:
            continue
        try:
            kept[name] = kind(value)
        except (ValueError, TypeError) as error:
            complaints.append(f"{name} left out: {error}")
    return kept, complaints


def clean_row(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what a row may hold, without complaints; cleaning twice changes nothing."""
    return clean(values, ROW)[0]
