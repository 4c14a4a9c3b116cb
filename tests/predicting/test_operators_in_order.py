"""Whole steps on the tape against an H100's: the operators that allocate, one after another."""

from __future__ import annotations

import gzip
import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from experiments.operator_cases import CASES
from experiments.operators_differ import predicted

SEEN = Path(__file__).parent / "operators-in-order-h100.json.gz"
SUMS = "aten.add.Tensor"
"""Some are made in place where nobody watches, as on the tape; on the GPU all operators were watched."""
NEEDS = {"gpt2": "transformers", "bert": "transformers", "vit_b_16": "torchvision"}


@cache
def seen() -> dict[str, list[str]]:
    """Return the names of the operators of each case that allocated on the GPU."""
    data: dict[str, Any] = json.loads(gzip.decompress(SEEN.read_bytes()))
    return {case: [data["names"][number] for number in numbers] for case, numbers in data["cases"].items()}


@pytest.mark.parametrize("name", sorted(seen()))
def test_a_step_runs_the_operators_that_it_ran_on_a_gpu(name: str) -> None:
    """Under autocast, with a scaler, checkpointed, over micro-batches, with each kernel of attention."""
    library = NEEDS.get(name.split(maxsplit=1)[0])
    if library is not None and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    case = next(case for case in CASES if case.name == name)
    ours = [
        operator
        for operator, _, changes in predicted(case)[0]
        if operator not in {"between", SUMS} and any(change > 0 for change in changes)
    ]
    assert ours == seen()[name]
