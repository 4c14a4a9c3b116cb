"""What NCCL adds to the context of each of several GPUs: from a recorded table, or likely as it was seen."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepcost.catalog.cards import Card, Range
from stepcost.predicting.record_nccl import RANKS
from stepcost.predicting.recorded import find_table
from stepcost.predicting.torch_versions import Version, version_of

FILE = Path(__file__).parent / "tables" / "communicators.json"
"""``recorded``: ``bytes`` by compute capability, torch with its NCCL, communicators and GPUs of one host."""
LEAST_SEEN_BYTES = 566 << 20
"""The least that NCCL was seen to add, on a pair of H100s that summed and did no other collective."""


@functools.cache
def _recorded() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(FILE.read_text())["recorded"]
    return found


def communicator_bytes(card: Card, gpus: int, version: Version) -> int | None:
    """Return what NCCL adds with so many GPUs of one host, in bytes; ``None`` where nobody read it.

    What ``stepcost record`` read on two GPUs stands with the table of workspaces.
    """
    table = find_table(card.compute_capability)
    here = {} if table is None else table.about
    if gpus == RANKS and "communicator_bytes" in here and version_of(here["torch"]) == version:
        return int(here["communicator_bytes"])
    torch = ".".join(map(str, version))
    asked = {"compute_capability": card.compute_capability, "torch": torch, "gpus": gpus}
    found = (one["bytes"] for one in _recorded() if asked.items() <= one.items())
    return next(found, None)


def likely_bytes(gpus: int) -> Range:
    """Return what NCCL likely adds where nobody read it: as seen elsewhere, or in proportion to the GPUs."""
    most = max(_recorded(), key=lambda one: one["gpus"])
    return LEAST_SEEN_BYTES, most["bytes"] * max(gpus, most["gpus"]) // most["gpus"]


def card_among(card: Card, gpus: int, version: Version) -> Card:
    """Return a card as it is where ``gpus`` of one host share a step: NCCL is part of its context.

    Where NCCL's part was not recorded the context is unknown, and likely in a range.
    """
    if gpus == 1:
        return card
    known = communicator_bytes(card, gpus, version)
    if known is not None and card.context_bytes is not None:
        without_cudnn = card.context_without_cudnn_bytes
        return replace(
            card,
            context_bytes=card.context_bytes + known,
            context_without_cudnn_bytes=None if without_cudnn is None else without_cudnn + known,
        )
    least, most = card.context_range_bytes
    low, high = likely_bytes(gpus) if known is None else (known, known)
    torch = ".".join(map(str, version))
    asked = f"{gpus} GPUs, torch {torch} and compute capability {card.compute_capability}"
    return replace(
        card,
        context_bytes=None,
        context_without_cudnn_bytes=None,
        context_likely_bytes=(least + low, most + high),
        why_unmeasured=card.why_unmeasured if known else f"not known: NCCL's part was not read with {asked}",
    )
