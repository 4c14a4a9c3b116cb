"""``python -m experiments.operator_calls MEASURED``: hold the rules against what each operator allocated.

MEASURED is what ``experiments.operators`` wrote on a GPU. Each distinct call of it is made on the meta
device, as a prediction makes it; those that allocate otherwise are listed, most bytes first. ``--write``
writes down the distinct calls, which ``tests/predicting`` replays, and which operators agree, which a
prediction asks. Convolutions, whose workspaces come from a table, are left out.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from experiments.operator_arguments import SHORT, arguments_of, made, operator
from stepcost.catalog.cards import CARDS
from stepcost.predicting.as_on_cuda import as_on_cuda
from stepcost.predicting.compared import FILE as COMPARED
from stepcost.predicting.rules import RULES
from stepcost.predicting.simulate import simulate
from stepcost.predicting.tape import ALLOC, Tape
from stepcost.predicting.trace import Trace, trace_run
from stepcost.predicting.workspaces import workspaces_on
from stepcost.request import Request

ROOT = Path(__file__).parents[1]
CALLS = ROOT / "tests" / "predicting" / "operators-h100-torch2.11.json.gz"
HISTORIES = ROOT / "tests" / "predicting" / "histories"
"""Runs whose every allocation is predicted, so that their operators agree."""
GPU, TORCH = "h100-80gb", "2.11.0+cu130"
ESTIMATED = "convolution"
Changes = list[int]
"""Bytes as requested, in order: allocated, or freed where negative."""


class Call(NamedTuple):
    """One call of an operator; tensors among its arguments are text such as ``float32[2,3|1,2]``."""

    name: str
    arguments: list[Any]
    options: dict[str, Any]
    changes: Changes

    @property
    def dtypes(self) -> str:
        """Dtypes of the tensors that it takes."""
        texts = json.dumps([self.arguments, self.options]).split('"')
        return " ".join(
            sorted({text.split("[")[0] for text in texts if text.endswith("]") and text[0].isalpha()})
        )


def calls_of(measured: Path) -> Iterator[Call]:
    """Distinct calls that allocated, with their arguments as the operator takes them."""
    seen = set()
    with measured.open() as file:
        for line in file:
            for name, leaves, changes in json.loads(line).get("operators", []):
                key = (name, *leaves)
                if not changes or key in seen or not name.startswith("aten.") or ESTIMATED in name:
                    continue
                seen.add(key)
                listed = "_foreach_" in name and len(leaves) == SHORT
                try:
                    yield Call(name, *arguments_of(name, leaves), changes[:SHORT] if listed else changes)
                except LookupError as error:
                    print(f"{name} {leaves}: {error}", file=sys.stderr)


def replay(calls: Iterable[Call]) -> Iterator[tuple[Call, Changes, set[str]]]:
    """Make calls as a prediction for an H100 and torch 2.11 does.

    Yields each with the bytes that it takes and gives back, and the operators in it that were never compared.
    """
    # In a steady step cuBLAS has its workspaces.
    workspaces = dataclasses.replace(workspaces_on(CARDS[GPU], (2, 11)), cublas_bytes=0, cublaslt_bytes=0)
    tape = Tape(RULES)
    with as_on_cuda(tape), tape:
        for call in calls:
            arguments = made(call.arguments)
            options = {name: made(one) for name, one in call.options.items()}
            tape.events, tape.uncompared = [], set()
            kept = operator(call.name)(*arguments, **options)
            events, tape.events = tape.events, []  # what is made dies later
            del kept
            requests = simulate(Trace(events=events, kinds={}), workspaces, None).requests
            yield call, [size if action == ALLOC else -size for action, size in requests], tape.uncompared


def load(path: Path = CALLS) -> list[Call]:
    """Read calls that were written down."""
    with gzip.open(path, "rt") as file:
        return [Call(*one) for one in json.load(file)]


def write(calls: list[Call]) -> None:
    """Write down the calls, and which operators agree: theirs, and those of the recorded runs."""
    text = json.dumps([list(call) for call in calls], separators=(",", ":"))
    CALLS.write_bytes(gzip.compress(text.encode(), mtime=0))
    empty: dict[str, Any] = {"gpu": GPU, "torch": TORCH, "operators": {}}
    COMPARED.write_text(json.dumps(empty))
    agreeing: set[str] = set()
    differing: set[str] = set()
    for call, changes, names in replay(calls):
        (agreeing if changes == call.changes else differing).update(names)
    for path in sorted(HISTORIES.glob("*.json.gz")):
        with gzip.open(path, "rt") as file:
            about = json.load(file)["about"]
        keys = ("model", "optimizer", "batch_size", "image_size")
        agreeing |= trace_run(Request(**{key: about[key] for key in keys})).uncompared
    by_dtype: dict[str, list[str]] = defaultdict(list)
    for name in sorted(agreeing - differing):
        operator_name, _, dtype = name.removesuffix(")").partition(" (")
        by_dtype[dtype].append(operator_name)
    COMPARED.write_text(json.dumps(empty | {"operators": dict(sorted(by_dtype.items()))}, indent=1) + "\n")


def main() -> None:
    """List what differs; write down what was measured, where that is asked."""
    calls = list(calls_of(Path(sys.argv[1])))
    if "--write" in sys.argv[2:]:
        write(calls)
    differing: dict[tuple[str, str], list[tuple[int, Call, Changes]]] = defaultdict(list)
    for call, predicted, _ in replay(calls):
        if predicted != call.changes:
            differing[call.name, call.dtypes].append((max(map(abs, call.changes)), call, predicted))
    for (name, dtypes), found in sorted(differing.items(), key=lambda one: -max(most for most, *_ in one[1])):
        of = sum((call.name, call.dtypes) == (name, dtypes) for call in calls)
        print(f"\n{name} ({dtypes}): {len(found)} of {of} differ")
        for _, call, predicted in sorted(found, key=lambda one: -one[0])[:3]:
            print(f"  {call.arguments} {call.options}")
            print(f"    measured  {call.changes[:16]}\n    predicted {predicted[:16]}")
    print(f"\n{sum(map(len, differing.values()))} of {len(calls)} calls differ")


if __name__ == "__main__":
    main()
