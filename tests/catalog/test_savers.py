"""The ways to save memory: what each makes of the plain request, and what is refused."""

import re

import pytest

from stepcost.catalog.savers import PLAIN, SAVERS, changes_of, find_savers
from stepcost.request import Request
from tests.suite.test_relations import benchmark_module

ASKED = {"optimizer": "adam", "batch_size": 8, "precision": "fp32", "accumulate": 1, "checkpoint": None}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        (PLAIN, {}),
        ("bf16", {"precision": "bf16"}),
        ("checkpoint", {"checkpoint": "blocks"}),
        ("accumulate", {"batch_size": 2, "accumulate": 4}),
        ("fused", {"optimizer": "adam-fused"}),
        ("lora", {"lora": 8}),
        ("bf16+accumulate", {"precision": "bf16", "batch_size": 2, "accumulate": 4}),
    ],
)  # fmt: skip
def test_a_way_changes_what_it_says_and_nothing_else(name, changed):
    """The request of a way, or of several, is the plain one but for these fields."""
    assert changes_of(name, ASKED) == changed


@pytest.mark.parametrize("row", SAVERS.values(), ids=SAVERS)
def test_every_field_that_is_changed_is_one_of_a_request(row):
    """A row changes fields of a request, and nothing that there is not."""
    assert row.fields <= set(Request.__dataclass_fields__)
    assert row.fields


def test_every_way_has_a_rule():
    """What is asserted of a way stands in the benchmark under its name."""
    assert list(benchmark_module("test_memory_savers").RULES) == list(SAVERS)


@pytest.mark.parametrize(
    ("name", "asked", "line"),
    [
        ("bf61", {}, "unknown name 'bf61'; did you mean bf16? It takes bf16, pure-bf16"),
        ("bf16+pure-bf16", {}, "bf16+pure-bf16: bf16 and pure-bf16 both change precision"),
        ("checkpoint+checkpoint", {}, "checkpoint and checkpoint both change checkpoint"),
        ("fused+8-bit", {}, "fused and 8-bit both change optimizer"),
        ("accumulate", {"batch_size": 6}, "accumulate: a batch of 6 cannot be split into 4 micro-batches"),
        ("accumulate", {"accumulate": 2}, "accumulate: the plain step has it already"),
        ("bf16", {"precision": "bf16"}, "bf16: the plain step has it already"),
        ("fused", {"optimizer": "adam-fused"}, "fused: the plain step has it already"),
        ("fused", {"optimizer": "rmsprop"}, "fused: the catalog has no optimizer rmsprop-fused; there is"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_line(name, asked, line):
    """Unknown names, ways that change the same thing, and ways that change nothing are refused."""
    with pytest.raises(ValueError, match=f"^.*{re.escape(line)}.*$") as refused:
        changes_of(name, ASKED | asked)
    assert "\n" not in str(refused.value)


def test_a_combination_is_its_rows():
    """A name joined by + stands for its rows, in that order."""
    assert [row.name for row in find_savers("lora+bf16")] == ["lora", "bf16"]
