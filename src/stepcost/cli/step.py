"""The steps that a subcommand is asked about: their flags, how GPUs share them, and what time costs."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from stepcost.catalog.engines import ENGINES
from stepcost.catalog.kinds import IMAGES, TOKENS
from stepcost.catalog.precisions import PRECISIONS
from stepcost.cli.parser import Parser, add_flag, value
from stepcost.flags import MOST_GPUS, names_of, whole, wholes
from stepcost.request import ALONE, FSDP2, FSDP_OPTIONS, PARALLEL, Request, without_images
from stepcost.settings import FLAGS, check_fsdp

STEP_FLAGS = ("checkpoint", "accumulate", "channels_last", "attention", "lora")
"""Flags of the suite that say what a step is, under the names of the request's fields."""
USUAL_EPOCH = "50000"


def add_step(parser: Parser) -> None:
    """Add the flags that say which steps are asked about; those that take several make one of each."""
    parser.add_argument("model", metavar="MODEL", help=FLAGS["model"].help)
    add_flag(parser, "optimizers", default="sgd", help="comma-separated, or a class: package.module:Class")
    add_flag(parser, "batch_sizes", default="64")
    add_flag(parser, "image_size", default="32")
    parser.add_argument("--num-classes", default="10", metavar="N", help="classes (default: %(default)s)")
    add_flag(parser, "sequence_lengths", default=FLAGS["sequence_lengths"].default)
    names = ", ".join(PRECISIONS)
    add_flag(parser, "precision", default="fp32", help=f"in what it computes: comma-separated, from {names}")
    for field in STEP_FLAGS:
        add_flag(parser, field, default=FLAGS[field].default)


def _check_sizes(options: argparse.Namespace, kind: str) -> None:
    """Refuse a size that was asked of what has none, rather than leave it out without a word."""
    usual = {"image_size": "32", "sequence_lengths": FLAGS["sequence_lengths"].default}
    if kind == TOKENS and options.image_size != usual["image_size"]:
        raise ValueError(f"--image-size {options.image_size}: {options.model} takes no images")
    if kind == IMAGES and options.sequence_lengths != usual["sequence_lengths"]:
        raise ValueError(
            f"--sequence-length {options.sequence_lengths}: {options.model} takes images, not sequences"
        )


def steps_asked(
    options: argparse.Namespace, kind: str, shared: Sequence[Mapping[str, Any]] = ({},)
) -> list[Request]:
    """Return the requests of the steps that are asked about, of a model of that kind.

    ``shared`` says how several GPUs share a step, by the request's fields. Raises ``ValueError`` in one line
    for what makes no sense.
    """
    _check_sizes(options, kind)
    step = {field: value(options, field) for field in STEP_FLAGS}
    lengths = value(options, "sequence_lengths") if kind == TOKENS else (None,)
    return [
        without_images(
            Request(
                model=options.model,
                optimizer=optimizer,
                batch_size=batch_size,
                image_size=value(options, "image_size"),
                num_classes=whole(1)("--num-classes", options.num_classes),
                sequence_length=length,
                precision=precision,
                **way,
                **step,
            ),
            kind,
        )
        for optimizer, batch_size, length, precision, way in itertools.product(
            value(options, "optimizers"),
            value(options, "batch_sizes"),
            lengths,
            value(options, "precision", names_of(PRECISIONS)),
            shared,
        )
    ]


def add_shared(parser: Parser) -> None:
    """Add the flags that say how several GPUs share a step."""
    names = ", ".join(PARALLEL)
    add_flag(
        parser,
        "parallel",
        default=ALONE,
        help=f"how several GPUs share the step: comma-separated, from {names}, or all",
    )
    add_flag(
        parser, "gpus", default=None, help="how many GPUs share it: comma-separated; the batch is of each"
    )
    for field in FSDP_OPTIONS:
        add_flag(parser, field, default=None)


def ways_to_share(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return each way to share a step with each number of GPUs, by the request's fields.

    Raises ``ValueError`` in one line.
    """
    ways = value(options, "parallel") or (ALONE,)
    gpus = value(options, "gpus", wholes(1, MOST_GPUS)) if options.gpus else ()
    several = [way for way in ways if way != ALONE]
    numbers = [number for number in gpus if number > 1]
    if numbers and not several:
        raise ValueError(f"--gpus {options.gpus}: without --parallel a step has one")
    if several and not gpus:
        raise ValueError(f"--parallel {several[0]}: --gpus says how many GPUs share the step")
    if several and (not numbers or (1 in gpus and ALONE not in ways)):
        raise ValueError(f"--gpus {options.gpus}: 1 is of --parallel {ALONE}, {several[0]} takes 2 or more")
    fsdp = {field: value(options, field) for field in FSDP_OPTIONS}
    check_fsdp(ways, fsdp)
    return [
        {"parallel": way, "gpus": number} | (fsdp if way == FSDP2 else {})
        for way in ways
        for number in ((1,) if way == ALONE else numbers)
    ]


def add_time(parser: Parser, *, engine: str | None) -> None:
    """Add the flags of a predicted time and of what it costs."""
    timed = ", ".join(name for name, row in ENGINES.items() if row.why_not_timed is None)
    said = "(default: memory alone)" if engine is None else "(default: %(default)s)"
    parser.add_argument(
        "--engine",
        default=engine,
        metavar="NAME",
        help=f"how the step is launched for its time: {timed} {said}",
    )
    parser.add_argument(
        "--price", metavar="CARD=MONEY,...", help="what an hour of a card costs: h100-80gb=2.50,a10=$0.60"
    )
    parser.add_argument(
        "--epoch",
        default=USUAL_EPOCH,
        metavar="N",
        help="images, sequences or examples in an epoch (default: %(default)s, as CIFAR-10 has)",
    )
