"""Predictions of language models against what an H100 held (torch 2.11.0+cu130, transformers 5.17)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from stepcost.catalog.cards import CARDS
from stepcost.predicting import predict
from stepcost.request import Request

READINGS = Path(__file__).parent / "readings-h100-80gb-language.jsonl.gz"
ALIKE_IN_LATER_VERSIONS = ("gpt2", "bert-base")
"""Models whose operators are the same in later versions of transformers."""


def rows() -> list[Any]:
    """Requests with what was measured, as test parameters."""
    found = [json.loads(line) for line in gzip.decompress(READINGS.read_bytes()).splitlines()]
    return [
        pytest.param(one["request"], one["reading"], id=f"{number}-{one['request']['model']}")
        for number, one in enumerate(found)
        if one["request"]["model"] in ALIKE_IN_LATER_VERSIONS
        and one["request"]["optimizer"] == "adamw"
        and one["request"]["checkpoint"] is None
        and one["request"]["lora"] is None
    ]


@pytest.mark.parametrize(("asked", "measured"), rows())
def test_peaks_are_those_that_were_measured(asked: dict[str, Any], measured: dict[str, Any]) -> None:
    """In fp32, bf16, pure bf16 and fp16, with each kernel of attention: both peaks to the byte."""
    pytest.importorskip("transformers", reason="an extra: pip install 'stepcost[transformers]'")
    reading = predict(Request(**asked), CARDS["h100-80gb"], torch_version="2.11")
    assert reading.peak_allocated_bytes == measured["peak_allocated_bytes"]
    assert reading.peak_reserved_bytes == measured["peak_reserved_bytes"]
    assert reading.activation_bytes == measured["activation_bytes"]
