"""Measure on a GPU how far apart the joules of one step are in fresh processes.

``python -m experiments.energy_repeats`` prepares the step of ResNet-152, Adam, batch 64 on the engine
``fast`` in two processes, one after the other, and prints what each reads. Other work on the card is in it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from experiments.arguments import CONFIGURATION, configuration, parser_of, whole
from stepcost import jobs
from stepcost.catalog.engines import ENGINES
from stepcost.failures import MeasureError
from stepcost.measuring.process import Worker
from stepcost.report.rows import configuration as said_of
from stepcost.report.tables import Table
from stepcost.report.terminal import print_table
from stepcost.request import Request
from stepcost.row import described
from stepcost.units import percent, significant

STEPS_BEFORE = 100


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return the exit status."""
    parser = parser_of("energy_repeats", __doc__)
    parser.add_argument(
        "configuration", nargs="?", type=configuration, metavar=CONFIGURATION, default="resnet152:adam:64:32"
    )
    parser.add_argument("--engine", choices=ENGINES, default="fast", help="(default: %(default)s)")
    parser.add_argument("--processes", type=whole, default=2, metavar="N", help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("there is no GPU here")
    request = replace(options.configuration, engine=options.engine)
    try:
        read = [energy_of(request) for _ in range(options.processes)]
    except (MeasureError, LookupError) as error:
        parser.error(str(error))
    print_table(table_of(request, torch.cuda.get_device_name(request.device), read), sys.stdout)
    joules = [one["energy_j"] for one in read]
    print(f"joules a step lie within {percent((max(joules) - min(joules)) / min(joules))} of the least")
    return 0


def energy_of(request: Request) -> dict[str, Any]:
    """Read the energy of a step in a fresh process. Raises ``MeasureError``, ``LookupError`` if unread."""
    with Worker(jobs.ENGINE_STEP, request) as worker:
        worker.call("prepare")
        worker.call("timed_steps", STEPS_BEFORE)
        start = time.perf_counter()
        found, unread = worker.call("energy")
        took_s = time.perf_counter() - start
        if not found:
            raise LookupError(f"energy is unread: {unread['energy_j']}")
        return {**found, "took_s": took_s, "temperature_c": worker.call("clocks")["temperature_c"]}


def table_of(request: Request, gpu: str, read: Sequence[dict[str, Any]]) -> Table:
    """Return what each process read, a line each."""
    return Table(
        caption=f"Energy of a step, {said_of(described(request))}, measured on {gpu}; J a step, mJ an image, "
        "W, s = seconds that the reading took, C = degrees Celsius after it",
        columns=("process", "J", "from", "to", "windows", "mJ", "W", "idle W", "steady", "C", "s"),
        rows=tuple(
            (
                str(place),
                *(significant(value, 4) for value in (one["energy_j"], *one["energy_interval_j"])),
                " ".join(significant(value, 4) for value in one["energy_windows_j"]),
                significant(1000 * one["energy_j"] / request.batch_size),
                significant(one["power_w"]),
                significant(one["idle_power_w"]),
                {True: "yes", False: "no", None: "unread"}[one["temperature_steady"]],
                "unread" if one["temperature_c"] is None else str(one["temperature_c"]),
                significant(one["took_s"]),
            )
            for place, one in enumerate(read, start=1)
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
