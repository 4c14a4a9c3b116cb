"""``python -m experiments.readings REQUESTS OUT``: measure requests, each in a fresh process on this GPU.

``REQUESTS`` has a line of JSON for each, ``{"request": {...}}``; ``OUT`` gets the same lines with the
reading, as ``experiments.accuracy`` takes them. ``--predict CARD`` predicts instead, without a GPU; what such
readings are compared by is written, with the card.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.accuracy import FIGURES, requests_of
from experiments.arguments import begun_within, parser_of_requests
from stepcost.catalog.cards import CARDS
from stepcost.failures import MeasureError
from stepcost.measuring.measurements import Measurements
from stepcost.request import Request, step_words


def main() -> None:
    """Measure or predict each request; what cannot be is written with its reason."""
    options = parser_of_requests("readings", __doc__).parse_args()
    measurements = Measurements(120.0)
    with options.out.open("w") as file:
        for request in begun_within(options.limit_s, requests_of(options.requests)):
            begun = time.perf_counter()
            line: dict[str, Any] = {"card": options.predict} if options.predict else {}
            try:
                reading = (
                    _predicted(request, options)
                    if options.predict
                    else asdict(measurements.measured(request))
                )
            except (MeasureError, ValueError) as error:
                reading = {"source": None, "reason": str(error)}
            file.write(json.dumps(line | {"request": asdict(request), "reading": reading}) + "\n")
            file.flush()
            figures = " ".join(f"{reading.get(name) or 0:,}" for name in FIGURES)
            unread = {name: why[:80] for name, why in (reading.get("unread") or {}).items()}
            print(
                f"{words(request)}: {reading.get('reason') or figures} {unread or ''} "
                f"{time.perf_counter() - begun:.1f} s",
                flush=True,
            )


def _predicted(request: Request, options: Any) -> dict[str, Any]:
    """Predict what readings are compared by."""
    from stepcost.predicting import predict  # noqa: PLC0415 (imports torch)

    found = asdict(predict(request, CARDS[options.predict], torch_version=options.torch))
    names = [name.replace("_bytes", likely) for name in FIGURES for likely in ("_bytes", "_likely_bytes")]
    of_each = [*(name for name in names if name in found), "context_bytes", "optimizer_state_bytes"]
    kept = {name: found[name] for name in (*of_each, *("source", "fits", "reason", "unread", "seconds"))}
    return kept | {"ranks": [{name: rank[name] for name in of_each} for rank in found["ranks"]]}


def words(request: Request) -> str:
    """Say in a few words which step a request is."""
    size = request.sequence_length or request.image_size
    name = Path(request.model).stem
    return " ".join([name, request.optimizer, f"{request.batch_size}x{size}", *step_words(asdict(request))])


if __name__ == "__main__":
    main()
