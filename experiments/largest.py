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
from typing import Any

from experiments.arguments import begun_within, parser_of_requests
from experiments.readings import words
from stepcost.catalog.cards import CARDS
from stepcost.failures import MeasureError
from stepcost.measuring.measurements import Measurements
from stepcost.request import Request


def main() -> None:
    """Predict or try each request of a file."""
    options = parser_of_requests("largest", __doc__).parse_args()
    lines = options.requests.read_text().splitlines()
    with options.out.open("w") as file:
        for line in begun_within(options.limit_s, lines):
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
