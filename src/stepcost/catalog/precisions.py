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


PRECISIONS: dict[str, Precision] = {
    row.name: row
    for row in (
        Precision(name="fp32", description="float32 throughout"),
        Precision(
            name="bf16",
            description="forward and loss under autocast to bfloat16; weights and state stay in float32",
            autocast="bfloat16",
        ),
        Precision(
            name="pure-bf16",
            description="bfloat16 throughout: weights, gradients and optimizer state too",
            weights="bfloat16",
        ),
        Precision(
            name="fp16",
            description="autocast to float16, with a gradient scaler",
            autocast="float16",
            scaled=True,
        ),
    )
}
