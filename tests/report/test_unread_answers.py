"""What answers say where something was not read, did not fit, or was never asked for: never a number."""

from __future__ import annotations

from typing import Any

import pytest

from tests.report.handmade import NET, Fields, answer, cell, memory, search, trained

# 1a to 1c


def test_a_model_of_which_little_was_read() -> None:
    """1a says whose size was not read, and bytes on average where parameters differ in size."""
    few = {"question": "1a", "source": "measured", "parameters": 4}
    assert answer("1a", [few]).text == "The model has 4 trainable parameters; their size was not read."
    mixed = few | {"parameter_bytes": 10, "model": "net", "parameters_closed_form": 5}
    text = answer("1a", [mixed]).text
    assert "2.50 bytes on average each." in text
    assert text.endswith("The closed form gives 5, which differs.")
    assert "Buffers" not in text
    partly = few | {"trainable_parameters": 1, "source": "predicted"}
    assert "Of these 1 are trainable, 2 are frozen." in answer("1a", [partly | {"frozen_parameters": 2}]).text
    assert "Of these 1 are trainable, 3 are frozen." in answer("1a", [partly]).text
    assert answer("1a", [partly]).source == "predicted"
    assert answer("1a", []).text == "No row of this run answers it."


@pytest.mark.parametrize(
    ("row", "machine", "said", "source"),
    [
        ({}, {"gpu": "X"}, "X; its memory was not read.", "measured"),
        ({}, {"gpu": "X", "gpu_total_bytes": 2_000_000_000},
         "X with 2.00 GB of memory as torch sees it.", "measured"),
        ({}, {"gpu": "X", "gpu_nvml_total_bytes": 3_000_000_000}, "X; NVML gives 3.00 GB.", "measured"),
        ({}, {"gpu": "X", "gpu_nvml_total_bytes": 3_000_000_000, "gpu_nvml_reserved_bytes": 40_000_000},
         "X; NVML gives 3.00 GB, of which the driver keeps 0.04 GB.", "measured"),
        ({"gpu": "Y", "torch_total_bytes": 1_000_000_000}, {"gpu": "X", "gpu_total_bytes": 2},
         "Y with 1.00 GB of memory as torch sees it.", "source not stored"),
        ({}, {"gpu": None}, "No GPU was used in this run: no memory of a GPU was measured.", "skipped"),
        ({}, {}, "No row of this run answers it.", "skipped"),
    ],
)  # fmt: skip
def test_a_gpu_of_which_little_was_read(row: Fields, machine: Fields, said: str, source: str) -> None:
    """1b gives of torch's and NVML's figures those that were read, the row's before the machine's."""
    found = answer("1b", [{"question": "1b"} | row] if row else [], machine=machine)
    assert (found.text, found.source) == (said, source)


@pytest.mark.parametrize(
    ("unread", "said"),
    [
        ({"context_bytes": "NVML: a", "process_bytes": "b"}, "The context was not read: NVML: a."),
        ({"process_bytes": "b", "moments": "c"}, "The context was not read: b."),
        ({"moments": "c", "seconds": "d"}, "The context was not read: c."),
        ({"seconds": "d"}, "The context was not read."),
        (None, "The context was not read."),
    ],
)
def test_a_context_that_was_not_read(unread: Any, said: str) -> None:
    """1c gives the reason of the row, or says that nobody asked."""
    row = {"question": "1c", "source": "measured", "unread": unread}
    found = answer("1c", [row])
    assert (found.text, found.source, found.table) == (said, "skipped", None)
    assert answer("1c", []).text == "The context was not read in this run."


def test_moments_of_which_one_was_read() -> None:
    """1c says nothing of growth where the context does not grow, and of each moment what was not read."""
    moments = [
        {"moment": "first allocation", "reserved_bytes": 2_000_000},
        {"moment": "after lunch", "process_bytes": 9_000_000, "context_bytes": 7_000_000},
        {"moment": "training step", "context_bytes": 7_000_000},
    ]
    row = {"question": "3a", "source": "measured", "moments": moments, "process_bytes_from": "nvml process"}
    found = answer("1c", [row, {"question": "1c", "moments": [{"moment": "model loaded"}]}])
    assert found.source == "skipped", "the question's own row comes first, and has nothing"
    found = answer("1c", [row])
    assert found.text == (
        "The CUDA context takes 7.0 MB after lunch and 7.0 MB after a training step (process memory less "
        "what the allocator reserves). Process memory comes from: nvml process."
    )
    assert found.table is not None
    assert found.table.columns == ("moment", "process", "reserved", "context")
    assert found.table.rows == (
        ("first allocation", "not read", "2.0", "not read"),
        ("after lunch", "9.0", "not read", "7.0"),
        ("training step", "not read", "not read", "7.0"),
    )
    assert found.table.caption == "Context at each moment, measured; in MB (10**6 bytes)"


# 2a to 3a


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([{"reason": "no room"}], "no room"),
        ([{"unread": {"process_bytes": "no NVML", "peak_allocated_bytes": "x"}}], "no NVML"),
        ([{"unread": {"peak_allocated_bytes": "no counters"}}], "no counters"),
        ([{}, {"unread": {"peak_allocated_bytes": "later"}}], "later"),
        ([{"unread": {"seconds": "no"}}, {}], "the rows do not say why"),
    ],
)
def test_memory_of_which_nothing_was_read(rows: list[Fields], why: str) -> None:
    """2a and 3a give the first reason that a row has, and a table that says 'not read' in every cell."""
    some = [memory("3a", "adam", batch, (), fits=None) | fields for batch, fields in enumerate(rows, start=1)]
    found = answer("3a", some)
    assert found.text == f"No memory was read: {why}. The largest batch was not searched for in this run."
    assert found.source == "measured"
    assert found.table is not None
    assert found.table.rows[0] == ("1", *["not read"] * 6)
    assert answer("2a", [row | {"question": "2a"} for row in some]).source == "measured"


def test_a_batch_that_ran_out_of_memory_has_no_bytes() -> None:
    """3a names it in place of its memory, in the table too, but keeps what was read before it ran out."""
    rows = [
        memory("3a", "adam", 1200, (12, 13, 14)),
        memory("3a", "adam", 4800, (0, 44), fits=False, reason="no room"),
    ]
    found = answer("3a", rows)
    assert (
        "Reserved memory is 14.0 MB at batch 1,200 and out of memory at batch 4,800 (net, Adam" in found.text
    )
    assert found.table is not None
    assert found.table.rows == (
        ("1,200", "12.0", "13.0", "14.0", "not read", "not read", "not read"),
        ("4,800", "out of memory", "44.0", *["out of memory"] * 3, "not read"),
    )
    assert found.table.columns[0] == "batch size"
    assert found.table.caption == (
        "Memory by batch size: net, Adam, 16x16 images, fp32, eager; measured; in MB (10**6 bytes), "
        "allocated and reserved at their peaks"
    )


def test_zero_bytes_were_read() -> None:
    """A figure of no bytes is a figure; only one that is missing was not read."""
    found = answer("3a", [memory("3a", "adam", 4, (12, 13, 14), context_bytes=0)])
    assert [cell(found, name, "4") for name in ("context", "process")] == ["0.0", "not read"]


def test_other_configurations_are_counted() -> None:
    """2a is of the largest group of rows that differ in the optimizer alone, and counts the others."""
    rows = [memory("2a", optimizer, 8, (12, 13, 14)) for optimizer in ("sgd", "adam")]
    other = [memory("2a", "adam", batch, (22, 23, 24)) for batch in (16, 32)]
    assert "configuration" not in answer("2a", rows).text
    for some in ([*rows, *other], [*other, *rows]):
        assert answer("2a", some).text.startswith(
            "Reserved memory is 14.0 MB with SGD and 14.0 MB with Adam (net, batch 8,"
        )
    assert answer("2a", [*rows, other[0]]).text.endswith(" eager). 1 more configuration in the tables.")
    assert answer("2a", [*rows, *other]).text.endswith(" 2 more configurations in the tables.")
    table = answer("2a", rows).table
    assert table is not None
    assert table.columns[0] == "optimizer"
    assert table.caption.startswith(
        "Memory by optimizer: net, batch 8, 16x16 images, fp32, eager; measured; "
    )


def told(optimizer: str, peak_mb: float, state_mb: float, **more: Any) -> Fields:
    """A row of 2a by its peak and its state, with 1 MB of parameters."""
    sizes = {"parameter_bytes": 1_000_000, "optimizer_state_bytes": round(state_mb * 1e6)}
    return memory("2a", optimizer, 8, (0, peak_mb), **sizes, **more)


def test_what_peaks_have_to_do_with_state() -> None:
    """2b says how far the peaks are apart, in which phase, and what of it is not state, if 1 % is not."""
    sgd, momentum = told("sgd", 30, 0), told("sgd-momentum", 31, 1)
    text = answer("2b", [sgd, momentum]).text
    assert text == (
        "SGD with momentum takes the most allocated memory, 31.0 MB: SGD with momentum keeps 1 x 1.0 MB of "
        "velocities. SGD keeps nothing between steps. The peaks of SGD with momentum and SGD are 1.0 MB "
        "apart, and their state 1.0 MB."
    )
    for phase, said in (("backward", "the backward pass"), ("optimizer step", "the optimizer step")):
        assert (
            f"(SGD with momentum peaks in {said})."
            in answer("2b", [sgd, momentum | {"peak_moment": phase}]).text
        )
    text = answer("2b", [momentum, told("adam", 40, 2)]).text
    assert "9.0 MB apart, and their state 1.0 MB; the other 8.0 MB are what else is alive" in text
    # 1.00 of 100 MB is not worth a clause, 1.01 is
    assert "other" not in answer("2b", [sgd, told("adam", 130, 99)]).text
    assert "the other 1.0 MB" in answer("2b", [sgd, told("adam", 130, 98.99)]).text
    level = answer("2b", [sgd, told("adam", 30, 2)]).text
    assert level.endswith("30.0 MB: SGD keeps nothing between steps. Adam keeps 2 x 1.0 MB of moments.")
    unread = {"peak_allocated_bytes": None}
    tensors = [row | unread | {"tensor_bytes": size} for row, size in ((sgd, 3), (momentum, 4_000_000))]
    text = answer("2b", tensors).text
    assert text.startswith("SGD with momentum takes the most tensor memory, 4.0 MB: ")
    assert text.endswith(" SGD keeps nothing between steps.")


def test_what_is_not_known_of_some_optimizers_names_them() -> None:
    """2a names the optimizer of which something is not known or estimated, and why; 2b says that it does."""
    some = [
        told("sgd", 30, 0, source="predicted"),
        told("adam", 40, 2, source="predicted", unread={"process_bytes": "no NVML"}),
        told("adamw", 35, 2, source="predicted", ledger={"workspace_bytes": 3},
             unread={"optimizer_scalar_bytes": "b", "workspace_bytes": "c"}),
    ]  # fmt: skip
    said = (
        "; not known: process with Adam (no NVML), optimizer scalar with AdamW (b); "
        "estimated: workspace with AdamW (c)"
    )
    assert f"eager){said}." in answer("2a", some).text
    assert (
        "40.0 MB: Adam keeps 2 x 1.0 MB of moments; not all of it is known (2a says what). "
        "SGD keeps nothing between steps; "
        "AdamW keeps 2 x 1.0 MB of moments. The peaks" in answer("2b", some).text
    )
    half = [row | {"parameter_bytes": None} for row in some[:2]] + [some[2]]
    assert answer("2b", half).text.startswith("Only one optimizer was read: AdamW keeps 2 x")


def test_a_figure_that_is_there_is_an_estimate() -> None:
    """A figure that the row has, though it says why it may be wrong, is estimated and not unknown."""
    row = memory("2a", "adam", 8, (31, 41, 52), unread={"peak_reserved_bytes": "by a rule"})
    assert answer("2a", [row]).text.endswith("; estimated: peak reserved (by a rule).")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"unread": {"fits": "a"}, "reason": "b"}, "a"),
        ({"unread": {"peak_moment": "a"}, "reason": "b"}, "b"),
        ({}, "it does not say why"),
    ],
)
def test_why_a_prediction_does_not_say_whether_it_fits(fields: Fields, said: str) -> None:
    """2a says in the sentence with the bytes that it is not known whether they fit, and why."""
    row = memory("2a", "adam", 8, (31, 41, 52), source="predicted") | {"fits": None} | fields
    text = answer("2a", [row]).text
    assert text.endswith(
        f"with Adam (net, batch 8, 16x16 images, fp32, eager); not known: whether it fits ({said})."
    )


def test_what_an_optimizer_keeps_in_other_words() -> None:
    """2b counts state in parameters where it is a multiple, and in bytes where not or where none is known."""
    odd = told("adam", 30, 1.5)
    assert answer("2b", [odd]).text == "Only one optimizer was read: Adam keeps 1.5 MB of moments."
    own = told("mine:Own", 31, 3)
    assert answer("2b", [own]).text == "Only one optimizer was read: mine:Own keeps 3 x 1.0 MB of state."
    zero = own | {"parameter_bytes": 0}
    assert answer("2b", [zero]).text == "Only one optimizer was read: mine:Own keeps 3.0 MB of state."
    assert answer("2b", [odd | {"optimizer_state_bytes": None}]).text == "The optimizer state was not read."
    assert answer("2b", [odd | {"peak_allocated_bytes": None}]).text == "The optimizer state was not read."
    assert answer("2b", []).text == "No row of this run answers it."


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"largest_batch": 7, "largest_batch_rests_on": "3 convolutions"},
         "The largest batch that trained is 7 (estimated: 3 convolutions), measured."),
        ({"largest_batch": 7, "largest_batch_rests_on": "x", "unread": {"largest_batch": "said"}},
         "The largest batch that trained is 7 (said), measured."),
        ({"largest_batch": 1, "smallest_batch_that_fails": 2},
         "The largest batch that trained is 1; 2 did not fit, measured."),
        ({"largest_batch_at_least": 1024}, "The largest batch that trains is at least 1,024, where the search"
         " ended, measured."),
        ({"largest_batch_at_most": 1024, "largest_batch_likely": [512]},
         "The largest batch that trains is at most 1,024; likely 512 or more, measured."),
        ({"unread": {"largest_batch": "none"}}, "The largest batch is not known (none), measured."),
        ({"source": "predicted", "unread": {"largest_batch": "?"}}, "The largest batch is not known (?), "
         "predicted."),
        ({"source": None}, "The search for the largest batch did not end, source not stored."),
        ({"smallest_batch_that_fails": 2}, "No batch that trains was found; 2 did not fit, measured."),
        ({"trials": [{"batch_size": 2, "fits": True}] * 1000},
         "Not even one image trains (1,000 batch sizes tried), measured."),
    ],
)  # fmt: skip
def test_what_a_search_found(fields: Fields, said: str) -> None:
    """3a says of the search alone what was found, what it rests on, what did not fit and what was tried."""
    found = answer("3a", [search(**fields)])
    assert (found.text, found.table) == (said, None)
    assert answer("3a", [search(**fields), search(source="measured", largest_batch=9)]).text == said


def test_a_search_alone_has_its_own_source() -> None:
    """3a is predicted where its search is, and both where the rows of the table were measured."""
    predicted = search(source="predicted", largest_batch=9)
    assert answer("3a", [predicted]).source == "predicted"
    both = answer("3a", [predicted, memory("3a", "adam", 4, (12, 13, 14))])
    assert both.source == "measured and predicted"
    assert both.text.endswith(" eager). The largest batch that would train is 9, predicted.")


# 3b to 3d


def test_runs_that_ran_out_of_memory() -> None:
    """3b, 3c and 3d name the batch sizes of which no run finished, or say that none was asked for."""
    failed = [
        NET | {"question": "3b", "batch_size": batch, "fits": False, "source": "measured"}
        for batch in (1200, None, 4800)
    ]
    elsewhere = [row | {"question": "3a", "batch_size": 7} for row in failed]
    for question in ("3b", "3c", "3d"):
        found = answer(question, [*elsewhere, *failed])
        assert found.text == "No training run finished: batch 1,200 and 4,800 ran out of memory."
        assert found.source == "measured"
        assert answer(question, elsewhere).text == "No row of this run answers it."
        assert answer(question, [failed[0] | {"fits": True}]).source == "skipped"
        assert answer(question, [*failed, trained(4, (1.0, 2.0))]).text != found.text


# 4


def step(batch: int, engine: str, median_s: float | None, **more: Any) -> Fields:
    """A step of an engine: timed, or out of memory without a median."""
    if median_s is None:
        more |= {"timed": "attempt that ran out of memory", "fits": False}
    stats = {"stats": {"median": median_s}}
    return (
        NET | {"question": "4", "timed": "engine step", "batch_size": batch, "engine": engine} | stats | more
    )


def test_engines_of_which_some_ran_out_of_memory() -> None:
    """4 names what ran out of memory, shows 'out of memory' and '?' for its figures, and ranks the others."""
    rows = [
        step(1200, "eager", None),
        step(1200, "fast", 0.987654, kernel_s=0.4994, least_s=0.987654 / 7),
        step(1200, "graph", None),
        step(8, "graph", 0.02),
        step(8, "eager", 0.01),
    ]
    found = answer("4", rows)
    assert found.text == (
        "The fastest step: batch 8 eager (10.0 ms), batch 1,200 fast (988 ms). "
        "Out of memory: batch 1,200 eager, batch 1,200 graph."
    )
    assert found.table is not None
    assert found.table.label_columns == 2
    assert found.table.columns == (
        "batch", "engine", "step ms", "images /s", "x eager", "kernels", "/ kernels", "least", "/ least"
    )  # fmt: skip
    assert found.table.rows == (
        ("8", "graph", "20.0", "400", "0.500", "?", "?", "?", "?"),
        ("8", "eager", "10.0", "800", "1.00", "?", "?", "?", "?"),
        ("1,200", "eager", "out of memory", "?", "?", "?", "?", "?", "?"),
        ("1,200", "fast", "988", "1,215", "?", "499", "1.98", "141", "7.00"),
        ("1,200", "graph", "out of memory", "?", "?", "?", "?", "?", "?"),
    )
    assert found.table.caption.startswith("Steps by engine: net, 16x16 images; measured; ms = milliseconds")
    nothing = answer("4", [])
    assert nothing.text == "No row of this run answers it (--engines all compares them)."
    assert (nothing.source, nothing.table) == ("skipped", None)


def test_losses_of_engines() -> None:
    """4 gives each engine's distance from eager's losses in fp64, and nothing of another precision."""
    losses = [
        NET | {"question": "4", "engine": engine, "precision": precision, "loss_difference": apart}
        for engine, precision, apart in (
            ("graph", "fp64", 3.1e-9),
            ("fast", "fp64", 0.0),
            ("bf16", "bf16", 0.2),
            (None, "fp64", 0.3),
        )
    ]
    text = answer("4", [*losses, step(8, "eager", 0.01)]).text
    assert text.endswith(
        ": batch 8 eager (10.0 ms). In fp64 a step's loss is never further than this share "
        "from eager's: graph 3e-09 and fast 0e+00."
    )
    assert answer("4", losses).source == "skipped"
    only = answer("4", [step(8, "eager", None, fits=False), step(8, "fast", 0.1, timed="attempt", fits=True)])
    assert only.text == "Out of memory: batch 8 eager."


def test_an_instrument_of_which_little_was_read() -> None:
    """A figure whose partner was not read is left out; an engine that is not stored is said to be so."""
    rows = [
        {"question": "instrument"} | fields
        for fields in (
            {"border_s": 0.1, "source": "measured"},
            {"border_share": 0.1},
            {"warm_start_s": 1.0},
            {"fresh_start_s": 2.0},
        )
    ]
    assert answer("instrument", rows).text == "No row of this run answers it."
    both = rows[0] | {"border_share": 0.5}
    spread = {"question": "instrument", "spread_share": 0.25}
    found = answer("instrument", [*rows, both, spread])
    assert found.text == (
        "The border between processes adds 100 ms to a step (50.0 %). "
        "The same step in fresh processes differs by 25.0 % (engine not stored)."
    )
    assert found.source == "measured"
