"""Is the largest batch that is predicted the largest? Tried on this GPU, and 1 % above it.

``python -m experiments.largest REQUESTS OUT --predict CARD`` adds ``predicted`` to each line of ``REQUESTS``
(``{"request": {...}}``), without a GPU. ``python -m experiments.largest PREDICTED OUT`` then tries each
number and the next one that is at least 1 % larger, two steps in a fresh process each.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from experiments.arguments import parser_of
from experiments.readings import words
from stepcost.catalog.cards import CARDS
from stepcost.failures import MeasureError
from stepcost.measuring.measurements import Measurements
from stepcost.request import Request


def main() -> None:
    """Predict or try each request of a file."""
    parser = parser_of("largest", __doc__)
    parser.add_argument("requests", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--predict", metavar="CARD", choices=list(CARDS))
    parser.add_argument("--torch", metavar="VERSION", default="2.11", help="with which torch it would run")
    parser.add_argument(
        "--limit-s", type=float, default=float("inf"), help="begin nothing after so many seconds"
    )
    options = parser.parse_args()
    started = time.perf_counter()
    with options.out.open("w") as file:
        for line in options.requests.read_text().splitlines():
            if time.perf_counter() - started > options.limit_s:
                break
            row = json.loads(line)
            request = Request(**row["request"])
            begun = time.perf_counter()
            said = _predicted(request, options) if options.predict else _tried(request, row["predicted"])
            file.write(json.dumps({**row, **said}) + "\n")
            file.flush()
            print(f"{words(request)}: {said} {time.perf_counter() - begun:.1f} s", flush=True)


def _predicted(request: Request, options: Any) -> dict[str, Any]:
    from stepcost.predicting.largest import largest_batch  # noqa: PLC0415 (imports torch)

    found = largest_batch(request, CARDS[options.predict], torch_version=options.torch)
    return {"predicted": found.largest_batch, "rests_on": found.largest_batch_rests_on}


def _tried(request: Request, predicted: int) -> dict[str, Any]:
    measurements = Measurements(120.0)
    tried = {}
    for number in (predicted, math.ceil(predicted * 1.01)):
        try:
            trial = asdict(measurements.trial(replace(request, batch_size=number)))
        except MeasureError as error:
            trial = {"fits": None, "reason": str(error)}
        tried[number] = {name: trial.get(name) for name in ("fits", "peak_allocated_bytes", "reason")}
    return {"tried": tried}


if __name__ == "__main__":
    main()
