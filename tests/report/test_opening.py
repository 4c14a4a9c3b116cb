"""What the terminal and the page open with is one row, one figure and one card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepcost.report.first_lines import first_lines
from stepcost.report.load import Run
from stepcost.report.page.headline import four_figures
from tests.report.handmade import memory

H100 = {"gpu": "Card", "gpu_total_bytes": 85_017_493_504, "gpu_nvml_total_bytes": 85_520_809_984}
SGD, ADAM = (memory("2a", name, 64, (1, 2, 3, 4, size)) for name, size in (("sgd", 1410), ("adam", 2200)))
PREDICTED: dict[str, Any] = {"source": "predicted", "card": "h100-80gb"}
FULL = memory("2a", "adamw", 64, (), fits=False, reason="no room")


@pytest.mark.parametrize(
    ("rows", "machine", "line", "figure"),
    [
        # 2.2 / 85.0175 is 2.588 %; the card that is predicted for has as much as the one that is measured
        ([SGD, ADAM], H100, "Adam, batch 64: 2.20 of 85.0 GB, measured", ("2.20 GB", "2.6 % of 85.0 GB")),
        ([ADAM | PREDICTED], {}, "Adam, batch 64: 2.20 of 85.0 GB, predicted for h100-80gb",
         ("2.20 GB", "2.6 % of 85.0 GB")),
        ([SGD, FULL, ADAM], H100, "AdamW, batch 64: does not fit, measured", ("does not fit", "no room")),
        ([memory("4", "sgd", 8, (1, 2, 3, 4, 1700), engine="graph")], H100,
         "SGD, batch 8, graph: 1.70 of 85.0 GB, measured", ("1.70 GB", "2.0 % of 85.0 GB")),
        ([SGD, memory("2a", "adam", 64, (1, 2, 3, 4, 9000), stand_in_for="net", model="small")], H100,
         "SGD, batch 64: 1.41 of 85.0 GB, measured", ("1.41 GB", "1.7 % of 85.0 GB")),
    ],
)  # fmt: skip
def test_terminal_and_page_open_with_the_same(
    rows: list[dict[str, Any]], machine: dict[str, Any], line: str, figure: tuple[str, str]
) -> None:
    """Both speak of the same step, and of what processes can have of the card: torch's total, not NVML's."""
    run = Run(name="run1", path=Path("run1.json"), rows=tuple(rows), machine=machine)
    assert first_lines(rows, machine) == [line]
    peak = four_figures(run)[0]
    assert (peak.value, peak.note) == figure
