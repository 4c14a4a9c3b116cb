"""Record on a GPU what operators of captured steps take in place: a row a step, each in a fresh process."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stepcost import jobs
from stepcost.catalog.engines import ENGINES
from stepcost.failures import MeasureError
from stepcost.measuring.process import Worker, warm_up_server
from stepcost.request import Request, name_of_step

TIME_LIMIT_S = 60.0
PREBUILT = ("gpt2", "", "", 0)
"""Built by the fork server, so that it has ``transformers`` imported: seconds for each language model."""
Row = dict[str, Any]


def record_times(
    requests: Iterable[Request],
    path: Path,
    *,
    limit_s: float,
    say: Callable[[str], object] = lambda _: None,
) -> int:
    """Record each request and append its row to ``path`` (gzipped lines of JSON) as it comes.

    The first line says ``about`` which card and libraries, with its rates. A step that fails costs its own
    row, which then has a ``reason``. Begins none after ``limit_s`` seconds; returns how many were recorded.
    Raises ``MeasureError`` where there is no GPU.
    """
    started = time.perf_counter()
    warm_up_server(PREBUILT)
    _append(path, {"about": about()})
    recorded = 0
    for request in requests:
        begun = time.perf_counter()
        if begun - started > limit_s:
            say(f"the limit of {limit_s:g} s is reached")
            break
        row: Row = {"request": {key: value for key, value in asdict(request).items() if key != "device"}}
        why_not = None if ENGINES[request.engine].captured else f"engine {request.engine} captures no step"
        try:
            if why_not is None:
                with Worker(jobs.TIMED_STEP, request, time_limit_s=TIME_LIMIT_S) as worker:
                    row |= worker.call("times")
                recorded += 1
        except MeasureError as error:
            why_not = str(error)
        _append(path, row | ({} if why_not is None else {"reason": why_not}))
        say(_line(request, row, why_not, time.perf_counter() - begun))
    return recorded


def _line(request: Request, row: Row, why_not: str | None, took_s: float) -> str:
    asked = name_of_step(asdict(request))
    if why_not is not None:
        return f"{asked}: not recorded: {why_not} ({took_s:.1f} s)"
    kernels = [kernel for _, each in row["calls"] for kernel in each]
    nameless = sum(len(each) for operator, each in row["calls"] if operator < 0)
    busy_s = sum(nanoseconds for _, nanoseconds in kernels) / 1e9
    return (
        f"{asked}: step {1e3 * row['step_s']:.3f} ms, {len(kernels)} kernels in {1e3 * busy_s:.3f} ms, "
        f"{row['unmatched']} unmatched, {nameless} without operator ({took_s:.1f} s)"
    )


def _append(path: Path, row: Row) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "at") as file:
        file.write(json.dumps(row, separators=(",", ":")) + "\n")


def about() -> Row:
    """Say what is recorded on: the card, its rates and its libraries, asked in a child."""
    with Worker(jobs.INSPECTION, time_limit_s=TIME_LIMIT_S) as worker:
        machine = worker.call("machine", "cuda")
    with Worker(jobs.LIMITS, time_limit_s=TIME_LIMIT_S) as worker:
        rates = worker.call("rates", machine.device)
    names = ("gpu", "compute_capability", "driver", "torch", "torchvision", "cuda", "cudnn")
    return {name: getattr(machine, name) for name in names} | {"rates": rates}
