"""The range of the error to expect of a prediction: what runs showed (``docs/prediction.md``)."""

from __future__ import annotations

from stepcost.catalog.cards import Card
from stepcost.predict.prediction import OTHER_BATCH
from stepcost.reading import Reading

MEASURED_ON = "h100-80gb"
MEASURED_WITH_TORCH = "2.11"
"""The runs say nothing of another torch, which may bring another cuDNN and keep other workspaces."""
Ranges = dict[str, tuple[float, float]]
RECORDED: Ranges = {
    "peak_allocated_bytes": (-0.0007, 0.0005),
    "peak_reserved_bytes": (0.0, 0.0),
    "process_bytes": (-0.0008, 0.0019),
}
"""Lowest and highest of predicted / measured - 1 over 43 runs with every convolution in the table."""
OTHER_BATCHES: Ranges = {"peak_allocated_bytes": (-0.0101, 0.0073), "peak_reserved_bytes": (-0.1647, 0.041)}
"""The same over 45 runs with each convolution estimated from other batch sizes (``--leave-out batch``)."""
OTHER_CONVOLUTIONS: Ranges = {"peak_allocated_bytes": (-0.418, 0.293), "peak_reserved_bytes": (-0.522, 0.278)}
"""The same with each estimated from other convolutions (``--leave-out convolutions``)."""


def expected_error(reading: Reading, card: Card | None, torch_version: str) -> Ranges | None:
    """Return lowest and highest error seen, as shares, by figure; ``None`` where no run can tell."""
    compared = torch_version == MEASURED_WITH_TORCH or torch_version.startswith(f"{MEASURED_WITH_TORCH}.")
    if card is None or card.name != MEASURED_ON or not compared:
        return None
    estimated = reading.unread.get("workspace_bytes")
    if estimated is None:
        return RECORDED
    return OTHER_BATCHES if estimated.endswith(OTHER_BATCH) else OTHER_CONVOLUTIONS
