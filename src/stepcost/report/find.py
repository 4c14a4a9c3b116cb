"""From what a user types for one run, or for several by a pattern, to the runs."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

from stepcost.report.load import LoadError, Run, load, split_name
from stepcost.schema import text

STORAGE = ".benchmarks"
"""pytest-benchmark's default storage, in the directory where pytest was started."""
_IN_THE_PACKAGE = Path(__file__).parent / "reference"
_IN_THE_CHECKOUT = Path(__file__).parents[3] / "reports" / "reference"
REFERENCE = _IN_THE_PACKAGE if _IN_THE_PACKAGE.is_dir() else _IN_THE_CHECKOUT
"""Runs committed with the project; an installed package carries two of them."""
MOST_CANDIDATES = 8
LONGEST = 100
"""Letters of a wrong name that are compared with those of the runs."""


def saved_files(root: Path = Path(), storage: str = STORAGE) -> list[Path]:
    """List every saved run: those in ``storage`` (under ``root``) by machine and number, then the references.

    ``storage`` is a folder, or ``file://`` and a folder, as for pytest-benchmark.
    """
    folder = root / storage.removeprefix("file://")
    return [*sorted(folder.glob("*/*.json")), *sorted(REFERENCE.glob("*.json"))]


def find_run(name: str, root: Path = Path(), storage: str = STORAGE) -> Path:
    """Find the one saved run called ``name``.

    It takes a path, a number (``0001`` or ``1``), a name (``run1``), or both
    (``0001_run1``). Raises `LoadError` with one line that lists the candidates
    when no run or more than one answers to it.
    """
    as_path = root / name
    if name.endswith(".json") or "/" in name:
        if _is_file(as_path):
            return as_path
        if "/" in name:
            raise LoadError(f"no file {text(name)!r}; {_known(name, saved_files(root, storage), storage)}")
        name = name.removesuffix(".json")
    files = saved_files(root, storage)
    matches = [path for path in files if _answers_to(path, name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise LoadError(
            f"{text(name)!r} is {len(matches)} runs: {_listed(matches, root)}; give one by its path"
        )
    if _is_file(as_path):
        return as_path
    raise LoadError(f"no saved run {text(name)!r}; {_known(name, files, storage)}")


def is_pattern(name: str) -> bool:
    """Whether the name stands for any number of runs."""
    return any(letter in name for letter in "*?[")


def runs_named(name: str, root: Path = Path(), storage: str = STORAGE) -> list[Run]:
    """Every run that answers to a name, number, path or pattern (``base*``, ``runs/base*.json``).

    A pattern is tried on names, on numbers with names, and on paths. Runs are
    ordered as a reader counts: ``torch2.9`` before ``torch2.11``. Raises
    `LoadError` with one line that lists the candidates.
    """
    if not is_pattern(name):
        return [load(find_run(name, root, storage))]
    files = saved_files(root, storage)
    matches = [path for path in files if _fits(path, name)] or _on_disk(name, root)
    if not matches:
        raise LoadError(f"no saved run fits {text(name)!r}; {_known(name, files, storage)}")
    return [load(path) for path in sorted(matches, key=_as_counted)]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the file system, or with a null byte
        return False


def _answers_to(path: Path, name: str) -> bool:
    number, own_name = split_name(path)
    if name in (path.stem, own_name, number):
        return True
    return number is not None and name.isdecimal() and len(name) < 10 and int(number) == int(name)


def _known(name: str, files: list[Path], storage: str) -> str:
    """Say which runs there are, the likest to ``name`` first."""
    if not files:
        return f"nothing is saved in {storage} yet (pytest benchmarks/ --benchmark-save=run1 saves a run)"
    from difflib import SequenceMatcher  # noqa: PLC0415 (needed only where a name is wrong)

    def unlike(path: Path) -> float:
        own = (path.stem, split_name(path)[1])
        return -max(SequenceMatcher(None, name[:LONGEST].lower(), one.lower()).ratio() for one in own)

    names = [text(path.stem) for path in sorted(files, key=unlike)]
    more = f" and {len(names) - MOST_CANDIDATES} more" if len(names) > MOST_CANDIDATES else ""
    return f"saved are {', '.join(names[:MOST_CANDIDATES])}{more}"


def _listed(matches: list[Path], root: Path) -> str:
    return ", ".join(text(_relative(path, root)) for path in matches[:MOST_CANDIDATES])


def _relative(path: Path, root: Path) -> str:
    for start in (root, Path.cwd()):
        try:
            return str(path.relative_to(start))
        except ValueError:
            continue
    return str(path)


def _fits(path: Path, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (path.stem, split_name(path)[1]))


def _on_disk(pattern: str, root: Path) -> list[Path]:
    """Files that fit a pattern of paths, relative to ``root`` or absolute."""
    anchor = Path(pattern).anchor
    try:
        found = (Path(anchor) if anchor else root).glob(pattern[len(anchor) :])
        return [path for path in found if path.is_file()]
    except (OSError, ValueError, NotImplementedError, IndexError):
        return []


def _as_counted(path: Path) -> list[tuple[int, str]]:
    """Digits compare as numbers, the rest as text; the saved number comes last."""
    number, name = split_name(path)
    parts = re.split(r"(\d+)", f"{name} {number or ''} {path}")
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
