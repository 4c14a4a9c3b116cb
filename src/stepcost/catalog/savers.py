"""The ways to save memory that question 5 compares with the plain step: one row each."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepcost.catalog.optimizers import OPTIMIZERS
from stepcost.catalog.precisions import PRECISIONS

PLAIN = "plain"
"""The step that all are compared with: the one that the other flags ask for."""
AND = "+"
"""Between the names of a combination: ``bf16+checkpoint``."""


@dataclass(frozen=True, kw_only=True)
class Saver:
    """One way to save memory: what it changes in the request of the plain step."""

    name: str
    description: str
    changes: tuple[tuple[str, Any], ...] = ()
    """Fields of the request, with what they become."""
    micro_batches: int = 1
    """Into how many the examples of a step are split."""
    optimizer: str = ""
    """What stands behind the optimizer's name in the row of the catalog that is taken in its place."""
    same_losses: bool = False
    """The arithmetic is that of the plain step: with exact numbers the losses are, too."""

    @property
    def fields(self) -> set[str]:
        """The fields of a request that it changes."""
        split = {"batch_size", "accumulate"} if self.micro_batches > 1 else set()
        return {name for name, _ in self.changes} | split | ({"optimizer"} if self.optimizer else set())


SAVERS: dict[str, Saver] = {
    row.name: row
    for row in (
        *(
            Saver(name=row.name, description=row.description, changes=(("precision", row.name),))
            for row in PRECISIONS.values()
            if row.name != "fp32"
        ),
        Saver(
            name="checkpoint",
            description="each block is computed again in backward, and only its input is kept",
            changes=(("checkpoint", "blocks"),),
            same_losses=True,
        ),
        Saver(
            name="accumulate",
            description="the same number of examples in 4 micro-batches, whose gradients are summed",
            micro_batches=4,
        ),
        Saver(
            name="channels-last",
            description="weights and images in channels-last memory format",
            changes=(("channels_last", True),),
            same_losses=True,
        ),
        Saver(
            name="fused",
            description="the optimizer's update in one kernel, without temporaries",
            optimizer="fused",
            same_losses=True,
        ),
        Saver(
            name="8-bit",
            description="optimizer state in 8 bits a number, with a scale for each block of 256",
            optimizer="8bit",
        ),
        Saver(
            name="lora",
            description="adapters of rank 8 are trained in place of the weights",
            changes=(("lora", 8),),
        ),
    )
}


def find_savers(name: str) -> tuple[Saver, ...]:
    """Return the rows that a name stands for: one, several joined by ``+``, or none (``plain``).

    Raises ``ValueError`` in one line for an unknown name, and for ways that do not go together.
    """
    if name == PLAIN:
        return ()
    found: list[Saver] = []
    for part in name.split(AND):
        if part not in SAVERS:
            close = difflib.get_close_matches(part, SAVERS, n=1)
            hint = f"did you mean {close[0]}? It" if close else "it"
            takes = f"{', '.join(SAVERS)}, some of them joined by {AND}, or all"
            raise ValueError(f"unknown name {part!r}; {hint} takes {takes}")
        row = SAVERS[part]
        for other in found:
            if both := other.fields & row.fields:
                raise ValueError(f"{name}: {other.name} and {row.name} both change {' and '.join(both)}")
        found.append(row)
    return tuple(found)


def changes_of(name: str, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a way to save memory, or a combination, changes in the fields of the plain request.

    Raises ``ValueError`` in one line where it cannot, or where the plain step has it already.
    """
    changed: dict[str, Any] = {}
    for row in find_savers(name):
        changed |= _changes(row, plain)
    return changed


def _changes(row: Saver, plain: Mapping[str, Any]) -> dict[str, Any]:
    changed = dict(row.changes)
    if row.optimizer:
        changed["optimizer"] = f"{plain['optimizer']}-{row.optimizer}"
        if plain["optimizer"].endswith(f"-{row.optimizer}"):
            raise ValueError(f"{row.name}: the plain step has it already")
        if changed["optimizer"] not in OPTIMIZERS:
            having = [one for one in OPTIMIZERS if one.endswith(f"-{row.optimizer}")]
            takes = f"; there is {' and '.join(having)}" if having else ""
            raise ValueError(f"{row.name}: the catalog has no optimizer {changed['optimizer']}{takes}")
    if row.micro_batches > 1:
        size, parts = plain["batch_size"], row.micro_batches
        if plain.get("accumulate", 1) > 1:
            raise ValueError(f"{row.name}: the plain step has it already")
        if size % parts:
            raise ValueError(f"{row.name}: a batch of {size} cannot be split into {parts} micro-batches")
        changed |= {"batch_size": size // parts, "accumulate": parts}
    if all(plain.get(name) == value for name, value in changed.items()):
        raise ValueError(f"{row.name}: the plain step has it already")
    return changed
