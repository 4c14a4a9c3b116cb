"""``python -m experiments.operators OUT``: what each operator of a step allocates on this machine's GPU.

One fresh process a case; two warm-up steps, then one in which every operator is written down with the
allocations and frees inside it, in order. ``--differ OUT [WORDS]`` compares what was written with the
prediction, without a GPU (``experiments.operators_differ``).
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from experiments.operator_cases import Case, hugging_face, vision
from experiments.operator_probes import CASES

WARM_UP_STEPS = 2


def spec_of(value: Any) -> str:
    """Describe an argument in a few characters: dtype, shape and whether it is contiguous."""
    if isinstance(value, torch.Tensor):
        strides = "" if value.is_contiguous() else f"|{','.join(map(str, value.stride()))}"
        return f"{str(value.dtype).removeprefix('torch.')}[{','.join(map(str, value.shape))}{strides}]"
    return repr(value)[:20]


class Operators(TorchDispatchMode):
    """Write down each operator with the allocator's counters before and after it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[str, list[str], tuple[int, int], tuple[int, int]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator."""
        specs = [spec_of(one) for one in tree_leaves((args, kwargs or {}))][:12]
        before = counters()
        made = func(*args, **(kwargs or {}))
        self.seen.append((str(func), specs, before, counters()))
        return made


def counters() -> tuple[int, int]:
    """How often memory was allocated and freed so far."""
    stats = torch.cuda.memory_stats()
    return stats["allocation.all.allocated"], stats["allocation.all.freed"]


def measure(case: Case) -> dict[str, Any]:
    """Take the steps of a case on the GPU; return its operators, and the figures of the whole step."""
    device = torch.device("cuda")
    torch.manual_seed(0)
    held = torch.zeros(1, device=device)
    step, batch = case.build(device)
    for _ in range(WARM_UP_STEPS):
        step(batch)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step(batch)
    torch.cuda.synchronize()
    figures = {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
        "allocated_bytes": torch.cuda.memory_allocated(),
    }
    torch.cuda.memory._record_memory_history(enabled="all", context=None, max_entries=4_000_000)
    first = counters()
    operators = Operators()
    with operators:
        step(batch)
    torch.cuda.synchronize()
    last = counters()
    trace = torch.cuda.memory._snapshot()["device_traces"][0]
    changes = [
        (1 if one["action"] == "alloc" else -1) * one["size"]
        for one in trace
        if one["action"] in ("alloc", "free_completed")
    ]
    del held
    return {"case": case.name, **figures, "operators": partition(operators.seen, changes, first, last)}


def partition(
    seen: list[tuple[str, list[str], tuple[int, int], tuple[int, int]]],
    changes: list[int],
    first: tuple[int, int],
    last: tuple[int, int],
) -> list[tuple[str, list[str], list[int]]]:
    """Give each operator the changes made in it; ``between`` has those made outside of all."""
    found: list[tuple[str, list[str], list[int]]] = []
    place, now = 0, list(first)

    def until(counts: tuple[int, int]) -> list[int]:
        nonlocal place
        start = place
        while tuple(now) != counts and place < len(changes):
            now[0 if changes[place] > 0 else 1] += 1
            place += 1
        return changes[start:place]

    for name, specs, before, after in seen:
        between = until(before)
        if between:
            found.append(("between", [], between))
        found.append((name, specs, until(after)))
    rest = until(last)
    if rest:
        found.append(("between", [], rest))
    return found


def _in_child(case: Case, queue: Any) -> None:
    try:
        queue.put(measure(case))
    except Exception as error:
        queue.put({"case": case.name, "error": f"{type(error).__name__}: {str(error)[:300]}"})


def main() -> None:
    """Run every case, or those whose name contains one of the words given."""
    if sys.argv[1] == "--differ":
        from experiments.operators_differ import differ  # noqa: PLC0415 (a circle)

        differ(Path(sys.argv[2]), sys.argv[3:])
        return
    out, words = Path(sys.argv[1]), sys.argv[2:]
    context = multiprocessing.get_context("fork")
    with torch.device("meta"):
        for kind in ("gpt2", "bert", "llama", "qwen2", "t5", "mistral", "gemma3"):
            hugging_face(kind)  # imports once what each child needs
        vision("resnet50")
    with out.open("w") as file:
        for case in CASES:
            if words and not any(word in case.name for word in words):
                continue
            started = time.perf_counter()
            queue = context.Queue()
            child = context.Process(target=_in_child, args=(case, queue))
            child.start()
            found: dict[str, Any] = {"case": case.name, "error": "it died or took longer than a minute"}
            with contextlib.suppress(Exception):
                found = queue.get(timeout=60)
            child.join(5)
            if child.is_alive():
                child.kill()
            file.write(json.dumps(found) + "\n")
            file.flush()
            names = Counter(name for name, _, _ in found.get("operators", []))
            said = found.get("error") or f"{found['peak_allocated_bytes']:,}"
            print(
                f"{case.name}: {said} ({len(names)} operators, {time.perf_counter() - started:.1f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
