"""Synthetic saved runs in the shape of docs/schema.md. Every number is made up; none was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PARAMETERS = 58_164_298
PARAMETER_BYTES = 4 * PARAMETERS
BATCHES = (4, 16, 64, 256)
STATE = {"sgd": 0, "sgd-momentum": 1, "adam": 2}


def synthetic_run(
    *,
    gpu: str | None = "Synthetic GPU 80GB",
    torch: str = "2.11.0+cu130",
    seeds: int = 3,
    slower: float = 1.0,
) -> dict[str, Any]:
    """A whole run with made-up numbers, measured on a GPU or (``gpu=None``) predicted without one.

    ``slower`` multiplies every time.
    """
    source = "measured" if gpu else "predicted"
    rows = [_model_row(), *([_gpu_row(gpu)] if gpu else [])]
    rows += [_memory_row("2a", optimizer, 64, source, slower) for optimizer in STATE]
    rows += [_memory_row("3a", "adam", batch, source, slower) for batch in BATCHES]
    rows += [_search_row(source)]
    rows += [_training_row(batch, seed, gpu, slower) for batch in BATCHES for seed in range(seeds)]
    if gpu:
        rows.insert(2, _context_row())
    skipped = [] if gpu else [{"test": "test_context_overhead.py", "reason": "needs a GPU (synthetic)"}]
    return {
        "machine_info": {
            "node": "secret-host-name",
            "python_version": "3.11.7",
            "cpu": {"brand_raw": "Synthetic CPU", "count": 16},
            "gpu": gpu,
            "gpu_total_bytes": 85_017_755_648 if gpu else None,
            "gpu_nvml_total_bytes": 85_520_809_984 if gpu else None,
            "gpu_nvml_reserved_bytes": 503_054_336 if gpu else None,
            "compute_capability": "9.0" if gpu else None,
            "driver": "580.0" if gpu else None,
            "cuda": "13.0" if gpu else None,
            "cudnn": "9.19.0" if gpu else None,
            "torch": torch,
            "torchvision": "0.26.0",
        },
        "commit_info": {"id": "unknown"},
        "stepcost": {
            "schema_version": 1,
            "command": ["benchmarks/", "--benchmark-save=run1"],
            "settings": {"model": "resnet152"},
            "model": {"name": "resnet152"},
            "dataset": {"name": "cifar10"},
            "skipped": skipped,
            "failed": [],
            "notes": ["every number of this run is synthetic"],
            "costs": [{"part": "training runs", "seconds": 512.25 * slower, "times": 12}],
        },
        "benchmarks": [_benchmark(place, row) for place, row in enumerate(rows)],
        "datetime": "2026-01-02T03:04:05.000000+00:00",
        "version": "5.3.1",
    }


def save(run: Any, folder: Path, name: str = "0001_run1") -> Path:
    """Store a run as pytest-benchmark does, under ``folder/.benchmarks``; text is written as it is."""
    path = folder / ".benchmarks" / "Linux-Synthetic" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(run if isinstance(run, str) else json.dumps(run), encoding="utf-8")
    return path


def rows_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows as `stepcost.report.answers.answers` takes them."""
    return [{**row["extra_info"], "stats": row["stats"]} for row in run["benchmarks"]]


def _benchmark(place: int, extra_info: dict[str, Any]) -> dict[str, Any]:
    step_s = extra_info.pop("_step_s", 0.0123 + place / 10_000)
    samples = [step_s * factor for factor in (0.97, 0.99, 1.0, 1.02, 1.05)]
    name = f"test_synthetic_{extra_info['question']}[{place}]"
    stats = {
        "median": step_s,
        "mean": sum(samples) / 5,
        "stddev": step_s * 0.03,
        "min": samples[0],
        "max": samples[-1],
        "rounds": 5,
        "data": samples,
    }
    return {
        "group": None,
        "name": name,
        "fullname": f"benchmarks/test_synthetic.py::{name}",
        "params": None,
        "param": None,
        "extra_info": extra_info,
        "stats": stats,
        "options": {},
    }


def _model_row() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "question": "1a",
        "source": "measured",
        "timed": "build",
        "model": "resnet152",
        "parameters": PARAMETERS,
        "parameters_closed_form": PARAMETERS,
        "parameter_bytes": PARAMETER_BYTES,
        "buffers": 151_891,
        "buffer_bytes": 606_952,
        "unread": {},
    }


def _gpu_row(gpu: str) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "question": "1b",
        "source": "measured",
        "timed": "identify",
        "gpu": gpu,
        "torch_total_bytes": 85_017_755_648,
        "nvml_total_bytes": 85_520_809_984,
        "nvml_reserved_bytes": 503_054_336,
    }


def _moments() -> list[dict[str, Any]]:
    reserved = (2_097_152, 245_366_784, 759_169_024)
    context = (543_162_368, 543_162_368, 796_917_760)
    names = ("first allocation", "model loaded", "training step")
    return [
        {"moment": name, "process_bytes": kept + other, "reserved_bytes": kept, "context_bytes": other}
        for name, kept, other in zip(names, reserved, context, strict=True)
    ]


def _context_row() -> dict[str, Any]:
    last = _moments()[-1]
    return {
        "schema_version": 1,
        "question": "1c",
        "source": "measured",
        "timed": "start",
        "model": "resnet152",
        "moments": _moments(),
        "process_bytes": last["process_bytes"],
        "process_bytes_from": "nvml process",
        "context_bytes": last["context_bytes"],
    }


def _memory_row(question: str, optimizer: str, batch: int, source: str, slower: float) -> dict[str, Any]:
    state = STATE[optimizer] * PARAMETER_BYTES
    parts = {
        "parameter_bytes": PARAMETER_BYTES,
        "buffer_bytes": 606_952,
        "gradient_bytes": PARAMETER_BYTES,
        "optimizer_state_bytes": state,
        "input_bytes": batch * (3 * 32 * 32 * 4 + 8),
        "activation_bytes": 1_500_160 * batch,
    }
    tensors = sum(parts.values())
    workspace = 154_664_960 + 400_000 * batch
    allocated = tensors + workspace
    slack = 31_457_280 + 777 * batch
    predicted = source == "predicted"
    context = None if predicted else 796_917_760
    process = None if predicted else allocated + slack + 796_917_760
    step_s = (0.0617 + batch / 40_000) * slower
    row = {
        "schema_version": 1,
        "question": question,
        "source": source,
        "timed": "prediction" if predicted else "training step",
        "model": "resnet152",
        "dataset": "random",
        "optimizer": optimizer,
        "batch_size": batch,
        "image_size": 32,
        "num_classes": 10,
        "precision": "fp32",
        "engine": "eager",
        "parameters": PARAMETERS,
        **parts,
        "buffers": 151_891,
        "optimizer_scalar_bytes": 0,
        "moments": [] if predicted else _moments(),
        "tensor_bytes": tensors,
        "first_step_peak_allocated_bytes": allocated - state,
        "peak_allocated_bytes": allocated,
        "peak_reserved_bytes": allocated + slack,
        "peak_moment": "optimizer step" if batch < 256 else "backward",
        "phase_peak_bytes": {
            "forward": allocated - 90_000_000,
            "backward": allocated - 40_000_000,
            "optimizer step": allocated,
        },
        "process_bytes": process,
        "process_bytes_from": None if predicted else "nvml process",
        "context_bytes": context,
        "ledger": {
            **parts,
            "workspace_bytes": workspace,
            "slack_bytes": slack,
            "context_bytes": context,
        },
        "fits": True,
        "steps_before_reading": 3,
        "seconds": 2.75,
        "unread": {"process_bytes": "no GPU", "context_bytes": "no GPU"} if predicted else {},
        "_step_s": step_s,
    }
    if not predicted:
        busy = {4: 0.19, 16: 0.24, 64: 0.33, 256: 0.41}[batch]
        row |= {"gpu_busy_s": busy * step_s, "gpu_busy_share": busy}
    return row


def _search_row(source: str) -> dict[str, Any]:
    tried = ((1024, True), (4096, True), (16_384, False), (8192, True), (12_288, False), (10_240, True))
    return {
        "schema_version": 1,
        "question": "3a",
        "source": source,
        "timed": "search",
        "model": "resnet152",
        "optimizer": "adam",
        "precision": "fp32",
        "engine": "eager",
        "image_size": 32,
        "largest_batch": 10_240,
        "smallest_batch_that_fails": 12_288,
        "largest_batch_at_full_speed": 4096,
        "trials": [
            {
                "batch_size": batch,
                "fits": fits,
                "peak_allocated_bytes": 7_450_000 * batch if fits else None,
                "step_s": 0.04 + batch / 20_000 if fits else None,
                "seconds": 3.5,
                "reason": None if fits else "torch.OutOfMemoryError in the forward pass",
            }
            for batch, fits in tried
        ],
    }


def _training_row(batch: int, seed: int, gpu: str | None, slower: float) -> dict[str, Any]:
    steps = -(-5000 // batch)
    epoch_s = (0.0633 if gpu else 0.0041) * steps * slower * (1 + seed / 100)
    ceiling = {4: 0.71, 16: 0.76, 64: 0.74, 256: 0.62}[batch] + 0.004 * seed
    epochs = [
        {
            "epoch": epoch,
            "train_seconds": epoch_s * (1 + epoch / 1000),
            "train_loss": 2.3 / epoch,
            "train_accuracy": round(ceiling * (1 - 0.8**epoch) + 0.1, 4),
            "test_accuracy": round(ceiling * (1 - 0.75**epoch) + 0.05, 4),
        }
        for epoch in range(1, 11)
    ]
    return {
        "schema_version": 1,
        "question": "3b",
        "source": "measured",
        "timed": "training run",
        "model": "resnet152" if gpu else "small-cnn",
        **({} if gpu else {"stand_in_for": "resnet152"}),
        "dataset": "cifar10",
        "optimizer": "adam",
        "batch_size": batch,
        "image_size": 32,
        "num_classes": 10,
        "precision": "fp32",
        "engine": "eager",
        "fits": True,
        "epochs": epochs,
        "train_s": sum(epoch["train_seconds"] for epoch in epochs),
        "wall_s": sum(epoch["train_seconds"] for epoch in epochs) * 1.2,
        "steps_per_epoch": steps,
        "seed": seed,
        "learning_rate": 0.001 * batch / 64,
        "learning_rate_rule": "linear",
        "train_images": 5000,
        "test_images": 1000,
        "chance_accuracy": 0.103,
        "_step_s": epoch_s,
    }
