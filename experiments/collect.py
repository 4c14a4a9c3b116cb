"""Save runs of one build, plants among them: ``python -m experiments.collect FOLDER SECONDS FLAG ...``.

FLAGs say what each run measures, as for pytest (``-k step_on --engines fast``). Runs follow each other for
SECONDS in the order of `ORDER`, so that a drift of the host meets all kinds alike, and are saved in FOLDER as
``self1``, ``slow1``, ... for ``python -m experiments.saved_figures``. One interpreter and one fork server
serve them all; each step is timed in a fresh process, as ever.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from experiments import plant
from stepcost import jobs
from stepcost.session import Session

ORDER = ("self", "slow", "self", "fat", "self", "slow", "self", "busy")


def main(arguments: list[str]) -> int:
    """Run until the time is up; one line for each run. Returns 0, or 2 where an argument is wrong."""
    if len(arguments) < 2 or not arguments[1].isdecimal():
        print("name a folder, the seconds to go on for, and pytest's flags", file=sys.stderr)
        return 2
    folder, until = Path(arguments[0]).absolute(), time.monotonic() + int(arguments[1])
    _measure_the_card_once()
    taken: Counter[str] = Counter()
    longest_s = 0.0
    for kind in cycle(ORDER):
        start = time.monotonic()
        if start + longest_s > until:
            return 0
        taken[kind] += 1
        name = f"{kind}{taken[kind]}"
        storage = (f"--benchmark-storage=file://{folder}", f"--benchmark-save={name}")
        code, said = one_run(kind, ["benchmarks/", "-q", *storage, *arguments[2:]])
        spent_s = time.monotonic() - start
        if taken.total() > 1:  # the first one starts the fork server
            longest_s = max(longest_s, spent_s)
        print(f"{name}: exit code {code}, {spent_s:.1f} s; {said}", flush=True)
    return 0


def one_run(kind: str, flags: list[str]) -> tuple[int, str]:
    """Run the suite with that plant, or none; its exit code and the last line it said."""
    said = io.StringIO()
    plain = jobs.CONFIGURATION, jobs.ENGINE_STEP
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = int(pytest.main(flags)) if kind == "self" else plant.main([kind, *flags])
    finally:
        jobs.CONFIGURATION, jobs.ENGINE_STEP = plain
    return code, said.getvalue().strip().splitlines()[-1]


def _measure_the_card_once() -> None:
    """Let all sessions share the card's rates, which no comparison looks at and each would measure anew."""
    limits = Session.limits
    rates: dict[str, Any] = {}

    def shared(lab: Session, precision: str, batch_size: int) -> dict[str, Any]:
        for name in ("_rates", "_flops_per_image"):
            setattr(lab, name, getattr(lab, name) or rates.get(name))
        found = limits(lab, precision, batch_size)
        rates.update({name: getattr(lab, name) for name in ("_rates", "_flops_per_image")})
        return found

    Session.limits = shared  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
