"""Count how often the gate raises an alarm on real runs, with a regression planted in some.

``python -m experiments.alarms_planted RUNS``: RUNS is a folder in which ``experiments.planted_runs``
saved, or an archive of one, such as ``experiments/samples/h100-planted.tar.gz``. Runs are of one build on one
machine and named by what is planted in them: ``self*`` nothing; of ``slow*``, ``fat*`` and ``busy*``
``planted_steps.py`` says what. Every comparison is of whole runs, as ``stepcost compare`` makes it. Those
that share a run are not independent: the shares say what happened, not how sure it is.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations, permutations
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.arguments import parser_of
from stepcost.report.compare.result import CannotCompareError, Comparison
from stepcost.report.compare.sides import compare_sides
from stepcost.report.load import LoadError, Run, load, split_name

PLANTS = ("slow", "fat", "busy")
MOST = 300
"""Comparisons of one kind; of more, so many are drawn (seeded)."""

Sides = tuple[Sequence[Run], Sequence[Run]]


def main(arguments: list[str] | None = None) -> int:
    """Print the shares as a Markdown table; return the exit status."""
    parser = parser_of("alarms_planted", __doc__)
    parser.add_argument("runs", type=Path, help="a folder of saved runs, or an archive of one")
    options = parser.parse_args(arguments)
    try:
        print("\n".join(table(runs_in(options.runs))))
    except (LoadError, CannotCompareError) as error:
        parser.error(str(error))
    return 0


def runs_in(place: Path) -> dict[str, list[Run]]:
    """Load the runs in a folder or archive by what is planted in them, ``self`` first. Raises `LoadError`."""
    with _unpacked(place) as folder:
        files = sorted(folder.rglob("*.json"))
        found = {
            kind: [load(path) for path in files if split_name(path)[1].startswith(kind)]
            for kind in ("self", *PLANTS)
        }
    if len(found["self"]) < 2:
        raise LoadError(f"{place}: fewer than two saved runs called self*")
    return found


@contextmanager
def _unpacked(place: Path) -> Iterator[Path]:
    if not place.is_file():
        yield place
        return
    with TemporaryDirectory() as folder:
        try:
            shutil.unpack_archive(place, folder, filter="data")
        except shutil.ReadError:
            raise LoadError(f"{place}: neither a folder nor an archive of saved runs") from None
        yield Path(folder)


def table(runs: dict[str, list[Run]]) -> list[str]:
    """One line for each kind of comparison. Raises `CannotCompareError`."""
    selves = runs["self"]
    lines = [
        "| base | new | comparisons | alarms | in bytes | in step times | in GPU-busy times |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name in ("self", *(name for name in PLANTS if runs[name])):
        for size in sizes(len(selves) - (name == "self")):
            sides = drawn(selves, None if name == "self" else runs[name], size)
            found = [compare_sides(base, new) for base, new in sides]
            lines.append(f"| {size} self | 1 {name} | {len(found)} | {' | '.join(shares(found))} |")
        if name != "self" and len(runs[name]) > 1:
            found = [compare_sides(selves, runs[name])]
            lines.append(
                f"| {len(selves)} self | {len(runs[name])} {name} | 1 | {' | '.join(shares(found))} |"
            )
    return lines


def sizes(most: int) -> list[int]:
    """How many runs of a base are tried: one, some and all."""
    return sorted({size for size in (1, 2, 4, 9, most) if size <= most})


def drawn(selves: Sequence[Run], planted: Sequence[Run] | None, size: int) -> list[Sides]:
    """Every base of ``size`` runs with every new run that is not in it, or `MOST` of them."""
    if planted is None and size == 1:
        return _some(([one], [other]) for one, other in permutations(selves, 2))
    return _some(
        (base, [new])
        for base in combinations(selves, size)
        for new in (planted if planted is not None else selves)
        if all(new is not one for one in base)
    )


def _some(sides: Iterator[Sides]) -> list[Sides]:
    every = list(sides)
    return every if len(every) <= MOST else random.Random(7).sample(every, MOST)


def shares(found: Sequence[Comparison]) -> Iterator[str]:
    """Share of comparisons with an alarm: any, in bytes, in step times, in GPU-busy times."""
    of: tuple[Callable[[str], bool], ...] = (
        lambda figure: "_bytes" in figure,
        lambda figure: figure in ("step_s", "step_ratio"),
        lambda figure: figure in ("gpu_busy_s", "gpu_busy_ratio"),
    )
    yield _share([one.is_worse for one in found])
    for is_one in of:
        yield _share([any(is_one(change.figure) for change in one.of("worse")) for one in found])


def _share(raised: Sequence[bool]) -> str:
    return f"{100 * sum(raised) / len(raised):.1f} %"


if __name__ == "__main__":
    sys.exit(main())
