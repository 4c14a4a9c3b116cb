"""What steps cost before, a line a test in a file that is committed, and what grew since. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stepcost.activations import ModuleActivations, alike_together
from stepcost.cost import Cost
from stepcost.report.compare.tolerances import default_tolerance

FILE = "stepcost-baseline.jsonl"
"""Its name, in pytest's root directory."""
COMPARED = (
    "peak_reserved_bytes",
    "peak_allocated_bytes",
    "process_bytes",
    "activation_bytes",
    "leaked_bytes",
    "parameter_bytes",
    "buffer_bytes",
    "gradient_bytes",
    "optimizer_state_bytes",
    "input_bytes",
)
"""The figures that must not grow."""
MODULES_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one test's step costs, as kept."""

    test: str
    source: str
    """``measured`` or ``predicted``: the one is never compared with the other."""
    gpu: str | None
    build: dict[str, str | None]
    figures: dict[str, int]
    """Of ``COMPARED``, those that are known, in bytes."""
    ledger: dict[str, int] = field(default_factory=dict)
    """The parts of the peak, in bytes."""
    modules: dict[str, list[int]] = field(default_factory=dict)
    """Modules, alike ones together, to bytes of their parameters and bytes that they keep for backward."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What a line is found by."""
        return self.test, self.source, self.gpu or ""


def line_of(test: str, cost: Cost) -> Line:
    """Return what is kept of a cost."""
    reading = cost.reading
    known = {name: getattr(reading, name) for name in COMPARED}
    parts = {} if reading.ledger is None else asdict(reading.ledger)
    modules: dict[str, list[int]] = {}
    own = [ModuleActivations(module=m, class_name="", bytes=b) for m, b in cost.parameters_by_module.items()]
    for column, alike in enumerate((alike_together(own), reading.kept_by_modules or ())):
        for one in alike:
            label = one.module if one.modules == 1 else f"{one.module} x {one.modules}"
            modules.setdefault(label, [0, 0])[column] += one.kept_bytes
    return Line(
        test=test,
        source=reading.source,
        gpu=cost.gpu,
        build=cost.build,
        figures={name: size for name, size in known.items() if size is not None},
        ledger={name.removesuffix("_bytes"): size for name, size in parts.items() if size is not None},
        modules=modules,
    )


def load(path: Path) -> dict[tuple[str, str, str], Line]:
    """Read a baseline; a file that is not there is an empty one.

    Raises ``ValueError`` with one line that names the line of the file that is none.
    """
    found: dict[tuple[str, str, str], Line] = {}
    if not path.exists():
        return found
    for number, text in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not text.strip():
            continue
        try:
            line = Line(**json.loads(text))
            sizes = [
                *line.figures.values(),
                *line.ledger.values(),
                *(size for two in line.modules.values() for size in two),
            ]
            if not all(type(size) is int for size in sizes) or not isinstance(line.build, dict):
                raise ValueError("a size is no integer")
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path.name}, line {number}: {error}; remove it, and --stepcost-update writes it anew"
            ) from error
        found[line.key] = line
    return found


def save(path: Path, lines: dict[tuple[str, str, str], Line]) -> None:
    """Write a baseline in the order of the tests' names; the old file stays until the new one is whole."""
    texts = [json.dumps(asdict(lines[key]), ensure_ascii=False) for key in sorted(lines)]
    new = path.with_suffix(".new")
    new.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    new.replace(path)


def growth(base: Line, new: Line) -> str | None:
    """Say in lines what grew since ``base``, and where; ``None`` where nothing did.

    A figure may grow as far as ``stepcost compare`` lets it: not at all with the same torch (measured: the
    same capability and cuDNN too), otherwise by the stated tolerance, which is then said.
    """
    rows = [{"source": base.source}, {"source": new.source}]
    said = []
    for name, before in base.figures.items():
        after = new.figures.get(name)
        tolerance, why = default_tolerance(name, rows, base.build, new.build)
        if after is None:
            said.append(f"{name}: {before:,} before, not known now")
        elif tolerance is not None and after - before > tolerance.allowed_bytes(before):
            said.append(f"{name}: {before:,} -> {after:,} ({after - before:+,}; allowed: {tolerance}, {why})")
    if not said:
        return None
    parts = _changes(base.ledger, new.ledger)
    said += [f"at the peak, {name}: {change:+,}" for name, change in parts]
    said += list(_modules(base, new))
    how = "measured on" if new.source == "measured" else "predicted for"
    apart = [
        f"{name} {base.build.get(name)} -> {new.build[name]}"
        for name in new.build
        if base.build.get(name) != new.build[name]
    ]
    with_what = f"; {', '.join(apart)}" if apart else ""
    return "\n  ".join([f"{new.test} grew ({how} {new.gpu or 'no card'}{with_what}), in bytes:", *said])


def _changes(base: dict[str, int], new: dict[str, int]) -> list[tuple[str, int]]:
    """Return what differs, the largest growth first."""
    names = [*base, *(name for name in new if name not in base)]
    changes = [(name, new.get(name, 0) - base.get(name, 0)) for name in names]
    return sorted(((name, change) for name, change in changes if change), key=lambda one: -one[1])


def _modules(base: Line, new: Line) -> Iterator[str]:
    """Name the modules that grew, by their parameters and by what they keep for backward."""
    for column, what in enumerate(("parameters", "kept for backward")):
        before, after = (
            {name: sizes[column] for name, sizes in line.modules.items()} for line in (base, new)
        )
        grew = [(name, change) for name, change in _changes(before, after) if change > 0]
        for name, change in grew[:MODULES_SHOWN]:
            yield f"{name}, {what}: {change:+,}"
        rest: Any = grew[MODULES_SHOWN:]
        if rest:
            yield f"{len(rest)} more modules, {what}: {sum(change for _, change in rest):+,}"
