"""Where operators of a predicted step differ from those that a GPU ran: ``experiments.operators --differ``.

An operator that a GPU ran while all operators were written down may differ from a plain step's: autograd sums
gradients in place only where nobody watches. Peaks are those of a plain step.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from experiments.operator_cases import Case
from experiments.operator_probes import CASES
from experiments.operators import spec_of
from stepcost.catalog.cards import CARDS
from stepcost.predicting.simulate import simulate
from stepcost.predicting.tape import MARK, Tape
from stepcost.predicting.trace import STEP_DONE, STEPS, Trace, trace_steps
from stepcost.predicting.workspaces import workspaces_on

Operator = tuple[str, list[str], list[int]]
"""Name, arguments, and bytes allocated (positive) and freed (negative) in order."""
GPU = CARDS["h100-80gb"]
TORCH = (2, 11)
INSIDE, OUTSIDE = "operator ", "between "
SHOWN = 40


class Marks(TorchDispatchMode):
    """Mark on the tape where each operator begins and ends."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tape = tape
        self.seen: list[tuple[str, list[str]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator."""
        number = len(self.seen)
        self.seen.append((str(func), [spec_of(one) for one in tree_leaves((args, kwargs or {}))][:12]))
        self._tape.mark(f"{INSIDE}{number}")
        made = func(*args, **(kwargs or {}))
        self._tape.mark(f"{OUTSIDE}{number}")
        return made


def predicted(case: Case) -> tuple[list[Operator], dict[str, int]]:
    """Trace a case; return the operators of its fourth step, and figures of the third, as on a GPU."""
    marks: list[Marks] = []

    @contextlib.contextmanager
    def marked(tape: Tape) -> Iterator[None]:
        with Marks(tape) as mode:
            marks.append(mode)
            yield

    with torch.device("meta"):
        model = case.module()
    traced = trace_steps(model, lambda: case.batch_on("meta"), case.step_of, STEPS + 1, last_step=marked)
    done = [number for number, event in enumerate(traced.events) if event[:2] == (MARK, STEP_DONE)]
    steady = Trace(events=traced.events[: done[STEPS - 1] + 1], kinds=traced.kinds, owners=traced.owners)
    simulation = simulate(steady, workspaces_on(GPU, TORCH), None)
    figures = {
        "peak_allocated_bytes": max(simulation.phase_peak_bytes.values()),
        "peak_reserved_bytes": simulation.allocator.peak_reserved_bytes,
        "allocated_bytes": simulation.allocator.allocated_bytes,
    }
    whole = simulate(traced, workspaces_on(GPU, TORCH), None)
    found: list[Operator] = []
    limits = [*whole.marks, ("", len(whole.requests))]
    started = False
    for (name, start), (_, end) in pairwise(limits):
        changes = [size if action == "alloc" else -size for action, size in whole.requests[start:end]]
        if name.startswith(INSIDE):
            found.append((*marks[0].seen[int(name.removeprefix(INSIDE))], changes))
            started = True
        elif started and changes and found[-1][0] == "between":
            found[-1][2].extend(changes)
        elif started and changes:
            found.append(("between", [], changes))
    return found, figures


def differ(measured: Path, words: list[str]) -> None:
    """Print for each case, or those whose name contains one of the words, where the two differ."""
    cases = {case.name: case for case in CASES}
    groups: dict[tuple[str, str], list[tuple[str, Operator, Operator]]] = {}
    lines = []
    for line in measured.read_text().splitlines():
        row = json.loads(line)
        name = row["case"]
        if "error" in row or (words and not any(word in name for word in words)):
            continue
        started = time.perf_counter()
        try:
            ours, figures = predicted(cases[name])
        except Exception as error:
            lines.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
            print(lines[-1], flush=True)
            continue
        seconds = time.perf_counter() - started
        print(f"== {name}")
        theirs: list[Operator] = [(operator, specs, changes) for operator, specs, changes in row["operators"]]
        print(
            f"  highest, watched: measured {_highest(theirs)}\n                    predicted {_highest(ours)}"
        )
        _sequences(name, theirs, ours, groups)
        said = [f"{key.removesuffix('_bytes')} {_against(figures[key], row[key])}" for key in figures]
        lines.append(f"{name:32} {'; '.join(said)}; {seconds:.1f} s")
    print("\n== operators that allocate otherwise, most bytes apart first")
    apart = sorted(groups.items(), key=lambda item: -max(_apart(*pair[1:]) for pair in item[1]))
    for (operator, dtypes), pairs in apart:
        where, theirs_, ours_ = max(pairs, key=lambda pair: _apart(*pair[1:]))
        print(f"{operator} {dtypes}: {len(pairs)} times, such as in {where}: {', '.join(theirs_[1])}")
        print(f"    measured  {theirs_[2]}\n    predicted {ours_[2]}")
    print("\n== the steady step, as measured (predicted less measured)")
    print("\n".join(lines))


def _sequences(
    case: str,
    theirs: list[Operator],
    ours: list[Operator],
    groups: dict[tuple[str, str], list[tuple[str, Operator, Operator]]],
) -> None:
    """Align two steps by their operators; print where they differ, and group what allocates otherwise."""
    measured, traced = ([one for one in step if one[0] != "between"] for step in (theirs, ours))
    names, others = ([one[0] for one in step] for step in (measured, traced))
    shown = 0
    for tag, i, j, k, m in difflib.SequenceMatcher(None, names, others, autojunk=False).get_opcodes():
        if tag == "equal":
            for one, other in zip(measured[i:j], traced[k:m], strict=True):
                if one[2] != other[2]:
                    dtypes = " ".join(spec.split("[")[0] for spec in one[1] if "[" in spec)
                    groups.setdefault((one[0], dtypes), []).append((case, one, other))
        elif shown < SHOWN and any(one[2] for one in measured[i:j] + traced[k:m]):
            shown += 1
            after = names[i - 1] if i else "the beginning"
            print(f"  after {i} operators ({after}):")
            for sign, part in (("measured ", measured[i:j]), ("predicted", traced[k:m])):
                for operator, specs, changes in part[:8]:
                    print(f"    {sign} {operator} {', '.join(specs)} {changes}")


def _highest(step: list[Operator]) -> str:
    """Say how far a step rises above its start, where old gradients are gone, and in which operator."""
    now = highest = at = 0
    for number, (_, _, changes) in enumerate(step):
        if not highest and sum(changes) < 0:
            continue
        for change in changes:
            now += -(-abs(change) // 512) * 512 * (1 if change > 0 else -1)
            if now > highest:
                highest, at = now, number
    return (
        f"{highest:,} bytes above its start, in {at} of {len(step)}: {step[at][0]} {', '.join(step[at][1])}"
    )


def _apart(one: Operator, other: Operator) -> int:
    """By how many bytes two operators differ: the larger of the difference of their sums and peaks."""
    sums = abs(sum(one[2]) - sum(other[2]))
    return max(sums, abs(_peak(one[2]) - _peak(other[2])))


def _peak(changes: list[int]) -> int:
    now = highest = 0
    for change in changes:
        now += change
        highest = max(highest, now)
    return highest


def _against(ours: int, theirs: int) -> str:
    """Say two figures in bytes."""
    apart = "exact" if ours == theirs else f"{ours - theirs:+,} {100 * (ours / theirs - 1):+.3f} %"
    return f"{theirs:,} ({apart})"
