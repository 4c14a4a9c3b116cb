"""In which numbers a step computes: one row each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Precision:
    """One way to compute; dtypes are torch's names."""

    name: str
    description: str
    weights: str = "float32"
    """Of the parameters, hence of gradients and optimizer state."""
    autocast: str | None = None
    """What ``torch.autocast`` casts forward and loss to."""
    scaled: bool = False
    """Whether the loss is scaled, so that small gradients do not vanish."""
    least_capability: tuple[int, int] | None = None
    """Compute capability from which a GPU has arithmetic for it; ``None``: all that torch supports have."""


PRECISIONS: dict[str, Precision] = {
    row.name: row
    for row in (
        Precision(name="fp32", description="float32 throughout"),
        Precision(
            name="bf16",
            description="forward and loss under autocast to bfloat16; weights and state stay in float32",
            autocast="bfloat16",
            least_capability=(8, 0),
        ),
        Precision(
            name="pure-bf16",
            description="bfloat16 throughout: weights, gradients and optimizer state too",
            weights="bfloat16",
            least_capability=(8, 0),
        ),
        Precision(
            name="fp16",
            description="autocast to float16, with a gradient scaler",
            autocast="float16",
            scaled=True,
        ),
    )
}


def emulated_on(precision: str, compute_capability: str) -> str | None:
    """Say in words that a GPU has no arithmetic for a precision, which torch then emulates; else ``None``.

    ``torch.cuda.is_bf16_supported``: from compute capability 8.0 on, and below it by emulation.
    """
    least = PRECISIONS[precision].least_capability if precision in PRECISIONS else None
    major, _, minor = compute_capability.partition(".")
    if least is None or (int(major), int(minor or 0)) >= least:
        return None
    return (
        f"a GPU of compute capability {compute_capability} has no arithmetic for bfloat16 "
        f"({least[0]}.{least[1]} and newer have), which torch emulates"
    )
