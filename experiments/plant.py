"""Run the suite with a regression planted in the training step, to see whether the gate finds it.

``python -m experiments.plant slow benchmarks/ --benchmark-save=slow1``; slow, fat or busy
(``planted.py`` says what each is), then what pytest takes. The saved run's notes say that it was planted.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest

from stepcost import jobs

PLANTS = {name: f"experiments.planted:{name.capitalize()}" for name in ("slow", "fat", "busy")}


class _Note:
    """Leaves a note in what is saved."""

    def __init__(self, name: str) -> None:
        self.name = name

    @pytest.hookimpl(trylast=True)
    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        session = output_json.setdefault("stepcost", {})
        session["notes"] = [*session.get("notes", []), f"planted: {PLANTS[self.name]}"]


def main(arguments: list[str]) -> int:
    """Plant, then run pytest. Returns its exit code, or 2 where the plant has no such name."""
    if not arguments or arguments[0] not in PLANTS:
        print(f"name what to plant: {', '.join(PLANTS)}", file=sys.stderr)
        return 2
    jobs.CONFIGURATION = PLANTS[arguments[0]]
    if arguments[0] == "slow":
        jobs.ENGINE_STEP = f"{PLANTS['slow']}Engine"
    rest = arguments[2:] if arguments[1:2] == ["--"] else arguments[1:]
    return int(pytest.main(rest, plugins=[_Note(arguments[0])]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
