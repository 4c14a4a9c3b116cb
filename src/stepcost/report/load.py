"""The one place that reads a saved run. Whatever the file holds, the result is a `Run` or one clear line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from stepcost.reading import SCHEMA_VERSION
from stepcost.row import ROW
from stepcost.schema import clean, text
from stepcost.session_record import MACHINE, SESSION

MOST_COMPLAINTS = 20
"""A run with more bad values than this gets one note for the rest."""
LONGEST_NAME = 200


class LoadError(Exception):
    """A file that cannot be shown; its text is one line that says why."""


@dataclass(frozen=True)
class Run:
    """One saved run. Every value is of the type that docs/schema.md gives it, or ``None``, or absent."""

    name: str
    """As saved: ``run1``."""
    path: Path
    number: str | None = None
    """pytest-benchmark's: ``0001``; ``None`` for other files."""
    date: str | None = None
    """When it was saved, UTC: ``2026-01-02 03:04``."""
    branch: str | None = None
    """Of the repository it was run in, where pytest-benchmark knew."""
    commit: str | None = None
    rows: tuple[dict[str, Any], ...] = ()
    """``extra_info`` of each benchmark with its ``name``, ``fullname`` and ``stats`` (seconds)."""
    machine: dict[str, Any] = field(default_factory=dict)
    session: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What a reader must know: of the file first (old schema, values left out), then the session's own."""

    @property
    def label(self) -> str:
        """``0001_run1``, or the name alone."""
        return f"{self.number}_{self.name}" if self.number else self.name

    @property
    def cut_off(self) -> str | None:
        """That the run ended early, and how far it was; ``None`` of a whole one, and of an older file."""
        found = self.session.get("cut_off")
        if not found:
            return None
        numbers = found.get("not_run"), found.get("selected")
        how_far = "" if None in numbers else ": {:,} of {:,} selected tests did not run".format(*numbers)
        return f"cut off ({found.get('why') or 'why is not stored'}){how_far}"

    @property
    def gpu(self) -> str:
        """The GPU's name, or what to say without one."""
        if not self.machine.get("gpu"):
            return "no GPU" if "gpu" in self.machine else "not stored"
        return str(self.machine["gpu"])

    @property
    def torch(self) -> str:
        """The torch version, or that it was not stored."""
        return self.machine.get("torch") or "not stored"


def load(path: Path) -> Run:
    """Read one saved file. Raises `LoadError` with one line if there is nothing in it to show."""
    return run_of(_read(path), path)


def run_of(data: Mapping[str, Any], path: Path) -> Run:
    """Make a `Run` of what pytest-benchmark wrote, or would write, to ``path``."""
    number, name = split_name(path)
    about_commit = _object(data, "commit_info")
    machine, of_machine = clean(_object(data, "machine_info"), MACHINE)
    session, of_session = clean(_object(data, "stepcost"), SESSION)
    rows, of_rows = _rows(data.get("benchmarks") or [])
    complaints = [*of_machine, *of_session, *of_rows]
    notes = _about_file(data, rows) + complaints[:MOST_COMPLAINTS]
    if len(complaints) > MOST_COMPLAINTS:
        notes.append(f"{len(complaints) - MOST_COMPLAINTS} more values left out")
    run = Run(
        name=name,
        path=path,
        number=number,
        date=_date(data.get("datetime")),
        branch=_name(about_commit.get("branch")),
        commit=_name(about_commit.get("id")),
        rows=tuple(rows),
        machine=machine,
        session=session,
    )
    of_end = [f"this run was {run.cut_off}"] if run.cut_off else []
    return replace(run, notes=(*of_end, *notes, *(session.get("notes") or [])))


def split_name(path: Path) -> tuple[str | None, str]:
    """``0001_run1.json`` is number ``0001`` and name ``run1``; other names have no number."""
    number, separator, name = path.stem.partition("_")
    if number.isdecimal() and len(number) >= 4:
        return number, text(name) if separator and name else number
    return None, text(path.stem)


def _read(path: Path) -> dict[str, Any]:
    shown = text(str(path))
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a usable path"
        raise LoadError(f"{shown}: cannot be read ({reason})") from None
    if not content.strip():
        raise LoadError(f"{shown}: empty")
    try:
        data = json.loads(content)
    except UnicodeDecodeError:
        raise LoadError(f"{shown}: not text, so not a saved run") from None
    except json.JSONDecodeError as error:
        raise LoadError(f"{shown}: cut off or not JSON, at line {error.lineno}") from None
    except (ValueError, RecursionError):
        raise LoadError(
            f"{shown}: JSON that no benchmark writes (numbers too long or nested too deep)"
        ) from None
    if not isinstance(data, dict) or not isinstance(data.get("benchmarks"), list):
        raise LoadError(f"{shown}: JSON, but not a file saved by pytest-benchmark (no list 'benchmarks')")
    return data


def _object(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _rows(benchmarks: list[Any]) -> tuple[list[dict[str, Any]], list[str]]:
    rows, complaints = [], []
    for place, benchmark in enumerate(benchmarks, start=1):
        if not isinstance(benchmark, dict):
            complaints.append(f"row {place} left out: not an object")
            continue
        # The row's own names win over anything that extra_info might hold under them.
        stored = _object(benchmark, "extra_info") | {
            name: benchmark[name] for name in ("name", "fullname", "stats") if name in benchmark
        }
        row, wrong = clean(stored, ROW)
        complaints += [f"{row.get('name') or f'row {place}'}: {complaint}" for complaint in wrong]
        rows.append(row)
    return rows, complaints


def _about_file(data: Mapping[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """Return what is unusual about the file as a whole."""
    notes = []
    if not isinstance(data.get("machine_info"), dict):
        notes.append("the file does not say which machine it was saved on")
    if not rows:
        notes.append("the file has no rows")
    foreign = sum(not row.get("question") for row in rows)
    if rows and foreign == len(rows):
        notes.append(
            "no row has stepcost's fields: the file is from plain pytest-benchmark, and only times are shown"
        )
        return notes
    if foreign:
        notes.append(
            f"{foreign} of {len(rows)} rows have none of stepcost's fields: only their times are shown"
        )
    session = data.get("stepcost")
    if not isinstance(session, dict):
        notes.append("the file does not describe its session: the command and what was skipped are unknown")
        session = {}
    versions = [
        session.get("schema_version"),
        *(row.get("schema_version") for row in rows if row.get("question")),
    ]
    numbers = {version for version in versions if isinstance(version, int) and not isinstance(version, bool)}
    newer = [version for version in numbers if version > SCHEMA_VERSION]
    older = [version for version in numbers if version < SCHEMA_VERSION]
    if newer:
        notes.append(
            f"saved with schema version {max(newer)}; this is version {SCHEMA_VERSION}, "
            "and fields it does not know are not shown"
        )
    if older or None in versions:
        which = f"version {min(older)}" if older else "no version in some places"
        notes.append(f"saved with an older schema ({which}); fields that it lacks are shown as not read")
    return notes


def _date(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return text(value)[:40] or None


def _name(value: Any) -> str | None:
    """Return a name as one line; ``None`` for anything else, and where pytest-benchmark found none."""
    if not isinstance(value, str) or value in ("unknown", "(unknown)", "(detached head)"):
        return None
    return text(value)[:LONGEST_NAME] or None
