"""From what a user types for one side of a comparison to its runs; patterns too."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

from stepcost.report.find import find_run, known, saved_files
from stepcost.report.load import LoadError, Run, load, split_name
from stepcost.schema import text


def is_pattern(name: str) -> bool:
    """Whether the name stands for any number of runs."""
    return any(letter in name for letter in "*?[")


def runs_named(name: str, root: Path = Path()) -> list[Run]:
    """Every run that answers to a name, number, path or pattern (``base*``, ``runs/base*.json``).

    A pattern is tried on names, on numbers with names, and on paths. Runs are
    ordered as a reader counts: ``torch2.9`` before ``torch2.11``. Raises
    `LoadError` with one line that lists the candidates.
    """
    if not is_pattern(name):
        return [load(find_run(name, root))]
    files = saved_files(root)
    matches = [path for path in files if _fits(path, name)] or _on_disk(name, root)
    if not matches:
        raise LoadError(f"no saved run fits {text(name)!r}; {known(name, files)}")
    return [load(path) for path in sorted(matches, key=_as_counted)]


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
