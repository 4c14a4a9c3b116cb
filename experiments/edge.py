"""In which step does a batch near the largest run out of memory?

``python -m experiments.edge OUT vgg11:sgd:14960:64 ...`` takes some steps of each on this GPU, in a fresh
process, and writes a line each: the peaks of every step in bytes, and where it ran out of memory, if it did.
``--predict CARD`` writes what is predicted of the same steps instead, without a GPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.arguments import CONFIGURATION, begun_within, configuration, parser_of
from stepcost.catalog.cards import CARDS
from stepcost.request import Request


def main() -> None:
    """Measure or predict each configuration."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(_measured(Request(**json.loads(sys.argv[2])), int(sys.argv[3]))))
        return
    parser = parser_of("edge", __doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("configurations", nargs="+", type=configuration, metavar=CONFIGURATION)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--num-classes", type=int, default=1000)
    parser.add_argument("--predict", metavar="CARD", choices=list(CARDS))
    parser.add_argument("--torch", metavar="VERSION", default="2.11", help="with which torch it would run")
    parser.add_argument("--limit-s", type=float, default=float("inf"))
    options = parser.parse_args()
    with options.out.open("w") as file:
        for one in begun_within(options.limit_s, options.configurations):
            request = Request(**asdict(one) | {"num_classes": options.num_classes})
            if options.predict:
                found = _predicted(request, options.steps, options.predict, options.torch)
            else:
                found = _in_a_process(request, options.steps)
            file.write(json.dumps({"request": asdict(request), **found}) + "\n")
            file.flush()
            print(f"{request.model} {request.batch_size}: {found}", flush=True)


def _in_a_process(request: Request, steps: int) -> dict[str, Any]:
    program = [sys.executable, "-m", "experiments.edge", "--one", json.dumps(asdict(request)), str(steps)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {"died": done.stderr[-300:]}
    return found


def _measured(request: Request, steps: int) -> dict[str, Any]:
    import torch  # noqa: PLC0415 (only the child and predictions need it)

    from stepcost.measuring.child import STARTED  # noqa: PLC0415 (see above)
    from stepcost.measuring.configuration import Configuration  # noqa: PLC0415 (see above)

    STARTED.update(requested_at=time.perf_counter(), forked_at=time.perf_counter())
    taken: list[dict[str, int]] = []
    try:
        held = Configuration(request)
        for _ in range(steps):
            torch.cuda.reset_peak_memory_stats()
            held.step()
            taken.append(
                {
                    "allocated_bytes": torch.cuda.max_memory_allocated(),
                    "reserved_bytes": torch.cuda.max_memory_reserved(),
                    "retries": int(torch.cuda.memory_stats()["num_alloc_retries"]),
                }
            )
    except RuntimeError as error:  # every way to run out of memory is one
        return {"steps": taken, "out_of_memory": str(error).splitlines()[0]}
    free, _ = torch.cuda.mem_get_info()
    return {"steps": taken, "out_of_memory": None, "free_bytes": free}


def _predicted(request: Request, steps: int, card: str, torch_version: str) -> dict[str, Any]:
    from stepcost.predicting.simulate import simulate  # noqa: PLC0415 (imports torch)
    from stepcost.predicting.torch_versions import version_of  # noqa: PLC0415 (see above)
    from stepcost.predicting.trace import STEP_DONE, trace_run  # noqa: PLC0415 (see above)
    from stepcost.predicting.workspaces import workspaces_on  # noqa: PLC0415 (see above)

    workspaces = workspaces_on(CARDS[card], version_of(torch_version))
    found = simulate(trace_run(request, steps=steps), workspaces, CARDS[card].room_bytes)
    done = sum(name == STEP_DONE for name, _ in found.marks)
    peak = found.peak.allocated_bytes if found.peak else None
    return {"steps_done": done, "out_of_memory": found.out_of_memory_in, "peak_allocated_bytes": peak}


if __name__ == "__main__":
    main()
