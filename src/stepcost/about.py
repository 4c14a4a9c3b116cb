"""What a session says of itself: its header, what a reader must know, and what is stored for all its rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from stepcost.catalog.kinds import IMAGES, OWN, TOKENS
from stepcost.machine import Machine
from stepcost.reading import SCHEMA_VERSION
from stepcost.request import step_words
from stepcost.schema import fields_of
from stepcost.session import Session
from stepcost.session_record import CutOff
from stepcost.units import counted, gb, mb

IDENTITY = tuple(fields_of(Machine))
"""Fields of a machine that identify it; its other fields are of one session."""


def header_lines(session: Session) -> list[str]:
    """Return lines that name machine, model, data and engines, and what a reader must know of them."""
    machine, settings = session.machine, session.settings
    lines = [
        f"stepcost: {_device_line(machine, settings.card)}",
        f"stepcost: torch {machine.torch}, torchvision {machine.torchvision}, "
        f"CUDA {machine.cuda or 'none'}, cuDNN {machine.cudnn or 'none'}",
        f"stepcost: model {session.model.name}, {session.model.parameters:,} parameters; "
        f"{_shape(session)}; optimizers {', '.join(settings.optimizers)}; "
        f"batch sizes {', '.join(map(str, settings.batch_sizes))}",
        f"stepcost: {_training_line(session)}",
    ]
    return lines + [f"stepcost: note: {note}" for note in notes(session)]


def _training_line(session: Session) -> str:
    """Say what questions 3b to 3d train on, and how."""
    settings, data = session.settings, session.dataset
    if session.model.kind != IMAGES:
        return f"no data set: {session.model.name} takes no images, so that no accuracy is asked for"
    return (
        f"data set {data.name}, {len(data.train_images):,} + {len(data.test_images):,} images "
        f"({data.source}); {counted(settings.epochs, 'epoch')}, engine {session.study_engine}, "
        f"{settings.batch_optimizer}, seeds {', '.join(map(str, settings.seeds))}"
        f"{'; last partial batches left out' if settings.drop_last else ''}"
    )


def _shape(session: Session) -> str:
    """Say what a batch is of, and how the step differs from the plain one in fp32."""
    settings, kind = session.settings, session.model.kind
    lengths = ", ".join(map(str, settings.sequence_lengths))
    parts = {
        IMAGES: f"images {settings.image_size}x{settings.image_size}",
        TOKENS: f"sequences of {lengths} tokens",
        OWN: "a workload of its own",
    }
    return ", ".join((parts[kind], *step_words(asdict(session.any_step))))


def _device_line(machine: Machine, card: str) -> str:
    if machine.gpu is None:
        return (
            f"no GPU ({machine.why_no_gpu}): memory is predicted for {card} (--gpu), "
            "what only a GPU can tell is skipped"
        )
    total = gb(machine.gpu_total_bytes or 0, 1)
    return f"{machine.gpu} ({machine.device}, {total}), driver {machine.driver or 'unknown (no NVML)'}"


def notes(session: Session) -> list[str]:
    """Return what a reader must know to read the numbers right."""
    machine = session.machine
    found = list(machine.notes)
    for other in machine.neighbours:
        held = "an unknown amount" if other.bytes is None else mb(other.bytes)
        found.append(
            f"process {other.pid} ({other.name}) holds {held} on {machine.device}; "
            "readings here are of the suite's own processes only, times may suffer"
        )
    if session.predictions.validation is not None:
        found.append(f"predictions: {session.predictions.validation}")
    if session.predictions.validation_of_ranks is not None:
        found.append(f"predictions of several GPUs: {session.predictions.validation_of_ranks}")
    return [*found, *session.notes]


def record_of(
    session: Session,
    *,
    command: Iterable[str],
    skipped: list[Any],
    failed: list[Any],
    cut_off: CutOff | None,
    more_notes: list[str],
) -> dict[str, Any]:
    """Return what all rows of a session have in common, as plain data for the saved file."""
    model = asdict(session.model)
    del model["parameter_shapes"]
    data = session.dataset
    return {
        "schema_version": SCHEMA_VERSION,
        "command": list(command),
        "settings": session.settings.as_dict(),
        "device": session.machine.device,
        "why_no_gpu": session.machine.why_no_gpu,
        "clocks": session.machine.clocks,
        "model": model,
        "dataset": {
            "name": data.name,
            "source": data.source,
            "train_images": len(data.train_images),
            "test_images": len(data.test_images),
        },
        "skipped": skipped,
        "failed": failed,
        "cut_off": cut_off and asdict(cut_off),
        "notes": [*notes(session), *more_notes],
        "costs": session.costs.table(),
    }


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say in which values of ``now`` an earlier record differs, one phrase each."""
    return [
        f"{name} {_text(then.get(name))}, here it is {_text(value)}"
        for name, value in now.items()
        if then.get(name) != value
    ]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)
