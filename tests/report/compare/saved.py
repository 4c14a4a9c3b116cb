"""Small saved runs in the shape of docs/schema.md for the tests. Every number is made up."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

PARAMETER_BYTES = 1_000_000
BATCHES = (4, 16, 64, 256)


def plain_run() -> dict[str, Any]:
    """Four training steps, measured on a GPU, with times that do not spread."""
    rows = [_row(batch) for batch in BATCHES]
    return {
        "machine_info": {
            "gpu": "Made-up GPU", "compute_capability": "9.0", "torch": "2.11.0", "cudnn": "9.19.0",
            "driver": "580", "cuda": "13.0", "cpu": {"brand_raw": "Made-up CPU", "count": 8},
        },
        "stepcost": {"schema_version": 1, "notes": [], "failed": []},
        "benchmarks": rows,
        "datetime": "2026-01-02T03:04:05.000000+00:00",
        "version": "5.3.0",
    }  # fmt: skip


def _row(batch: int) -> dict[str, Any]:
    rounds = [0.05 + 0.0001 * (place % 5) for place in range(20)]
    fields = {
        "schema_version": 1, "question": "3a", "source": "measured", "timed": "training step",
        "model": "made-up", "dataset": "random", "optimizer": "sgd", "batch_size": batch, "image_size": 32,
        "num_classes": 10, "precision": "fp32", "engine": "eager", "fits": True, "parameters": 250_000,
        "parameter_bytes": PARAMETER_BYTES, "tensor_bytes": PARAMETER_BYTES * 2 + 1000 * batch,
        "peak_allocated_bytes": PARAMETER_BYTES * 3 + 2000 * batch,
        "peak_reserved_bytes": PARAMETER_BYTES * 4 + 2000 * batch,
        "process_bytes": PARAMETER_BYTES * 9 + 2000 * batch, "process_bytes_from": "nvml process",
        "ledger": {"workspace_bytes": 4096}, "rounds_s": rounds, "gpu_busy_s": 0.01, "gpu_busy_share": 0.2,
    }  # fmt: skip
    stats = {"median": 0.0502, "mean": 0.0502, "stddev": 0.0001, "min": 0.05, "max": 0.0504, "rounds": 20}
    name = f"test_step[batch{batch}]"
    return {"name": name, "fullname": f"b.py::{name}", "extra_info": fields, "stats": stats}


ENGINES = (
    ("graph", "fp32"),
    ("fast", "fp32"),
    ("fast-compiled-bf16", "bf16"),
    ("eager", "bf16"),
)


def engine_run() -> dict[str, Any]:
    """The plain run with four rows of question 4 after it: one step launched in other ways."""
    run = plain_run()
    for place, (engine, precision) in enumerate(ENGINES):
        row = _row(64)
        row["name"] = f"test_engine[{engine}-{precision}]"
        row["extra_info"] |= {
            "question": "4", "timed": "engine step", "engine": engine, "precision": precision,
            "rounds_s": [(0.01 + 0.002 * place) * (1 + 0.001 * (turn % 5)) for turn in range(20)],
            "gpu_busy_s": 0.009, "gpu_busy_share": 0.9, "kernel_s": 0.011, "kernels": 1500,
        }  # fmt: skip
        run["benchmarks"].append(row)
    return run


def changed(run: dict[str, Any], place: int, **fields: Any) -> dict[str, Any]:
    """A copy with fields of one row changed."""
    planted = copy.deepcopy(run)
    planted["benchmarks"][place]["extra_info"].update(fields)
    return planted


def without(run: dict[str, Any], place: int) -> dict[str, Any]:
    """A copy without one row."""
    planted = copy.deepcopy(run)
    del planted["benchmarks"][place]
    return planted


def slower(run: dict[str, Any], factor: float, timed: str = "training step") -> dict[str, Any]:
    """A copy whose steps of this kind take ``factor`` times as long."""
    planted = copy.deepcopy(run)
    for row in planted["benchmarks"]:
        if row["extra_info"]["timed"] != timed:
            continue
        row["extra_info"]["rounds_s"] = [factor * one for one in row["extra_info"]["rounds_s"]]
    return planted


def save(run: Any, folder: Path, name: str) -> Path:
    """Store a run as pytest-benchmark does, under ``folder/.benchmarks``; text is written as it is."""
    path = folder / ".benchmarks" / "Linux-Made-up" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(run if isinstance(run, str) else json.dumps(run), encoding="utf-8")
    return path
