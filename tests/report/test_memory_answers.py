"""Answers 1a to 3a, each number under its label and in its unit, worked out by hand."""

from __future__ import annotations

import pytest

from tests.report.handmade import NET, Fields, answer, cell, memory, search

FOOTPRINT: Fields = {
    "question": "1a",
    "source": "measured",
    "model": "net",
    "parameters": 2_500_000,
    "parameters_closed_form": 2_500_000,
    "parameter_bytes": 10_000_000,
    "buffer_bytes": 70_000,
}
PARTLY_FROZEN: Fields = FOOTPRINT | {
    "trainable_parameters": 500_000,
    "frozen_parameters": 2_000_000,
    "trainable_parameter_bytes": 2_000_000,
}
BY_OPTIMIZER = [
    memory("2a", "sgd", 8, (31, 41, 52, 603, 655), parameter_bytes=10_000_000, optimizer_state_bytes=0,
           peak_moment="backward"),
    memory("2a", "adam", 8, (51, 66, 74, 607, 681), parameter_bytes=10_000_000,
           optimizer_state_bytes=20_000_000, peak_moment="optimizer step"),
]  # fmt: skip
BY_BATCH = [memory("3a", "adam", batch, sizes) for batch, sizes in (
    (2, (12, 13, 14, 615, 629)), (32, (112, 123, 134, 616, 750)))]  # fmt: skip


# 1a


def test_parameters_frozen_ones_included() -> None:
    """1a gives all parameters and their size, then the trainable and the frozen ones."""
    text = answer("1a", [PARTLY_FROZEN]).text
    assert "net has 2,500,000 parameters, which take 10.00 MB: 4 bytes each" in text
    assert "Of these 500,000 are trainable (2.00 MB), 2,000,000 are frozen" in text
    assert "Buffers (batch-norm statistics) take 0.07 MB more" in text
    assert "closed form gives the same count" in text


def test_parameters_of_an_older_row_are_the_trainable_ones() -> None:
    """Rows from before frozen parameters were counted hold trainable ones, and 1a says so."""
    assert "net has 2,500,000 trainable parameters, which take 10.00 MB" in answer("1a", [FOOTPRINT]).text
    every = FOOTPRINT | {"trainable_parameters": 2_500_000, "frozen_parameters": 0}
    assert "net has 2,500,000 parameters, all trainable, which take" in answer("1a", [every]).text


def test_1a_is_about_the_model_of_the_run() -> None:
    """Rows of another model, and of one trained in place of the run's own, do not take its place in 1a."""
    other = FOOTPRINT | {"model": "other", "parameters": 7_000}
    stand_in = {"question": "3b", "model": "small", "stand_in_for": "net", "parameters": 9_000}
    own = NET | {"question": "2a", "parameters": 2_500_000}
    assert answer("1a", [other, FOOTPRINT], model="net").text.startswith("net has 2,500,000")
    assert answer("1a", [stand_in, own]).text.startswith("net has 2,500,000")
    assert answer("1a", [own, other], model="net").text.startswith("net has 2,500,000")


# 1b, 1c


def test_gpu_memory_by_torch_and_by_nvml() -> None:
    """1b says which figure is torch's, which NVML's, and which the driver's."""
    row = {"question": "1b", "source": "measured", "gpu": "Card X", "torch_total_bytes": 80_000_000_000,
           "nvml_total_bytes": 81_500_000_000, "nvml_reserved_bytes": 520_000_000}  # fmt: skip
    text = answer("1b", [row]).text
    assert "Card X with 80.00 GB of memory as torch sees it" in text
    assert "NVML gives 81.50 GB, of which the driver keeps 0.52 GB" in text


def test_context_at_each_moment() -> None:
    """1c gives the context at each moment, its growth, and the figures it is the difference of."""
    moments = [
        {"moment": name, "process_bytes": process, "reserved_bytes": kept, "context_bytes": process - kept}
        for name, process, kept in (
            ("first allocation", 540_000_000, 2_000_000),
            ("model loaded", 560_000_000, 21_000_000),
            ("training step", 900_000_000, 300_000_000),
        )
    ]
    found = answer("1c", [{"question": "1c", "source": "measured", "moments": moments}])
    assert (
        "538.0 MB after the first allocation, 539.0 MB with the model loaded and 600.0 MB after" in found.text
    )
    assert "grows by 62.0 MB" in found.text
    assert [cell(found, name, "training step") for name in ("process", "reserved", "context")] == [
        "900.0", "300.0", "600.0"]  # fmt: skip


# 2a, 2b


def test_memory_by_optimizer() -> None:
    """2a gives process memory with each optimizer, and every figure in its column."""
    found = answer("2a", BY_OPTIMIZER)
    assert "Process memory is 655.0 MB with SGD and 681.0 MB with Adam (net, batch 8, 16x16" in found.text
    columns = ("tensors", "allocated", "reserved", "context", "process", "peak in")
    assert [cell(found, name, "Adam") for name in columns] == [
        "51.0", "66.0", "74.0", "607.0", "681.0", "optimizer step"]  # fmt: skip
    assert "MB (10**6 bytes)" in (found.table.caption if found.table else "")


def test_why_optimizers_differ() -> None:
    """2b names the one that takes the most, its state in parameters, and what state does not explain."""
    text = answer("2b", BY_OPTIMIZER).text
    assert "Adam takes the most process memory, 681.0 MB: Adam keeps 2 x 10.0 MB of moments" in text
    assert "SGD keeps nothing" in text
    assert "The peaks of Adam and SGD are 25.0 MB apart, and their state 20.0 MB" in text
    assert "the other 5.0 MB" in text


def test_state_is_counted_in_trainable_parameters() -> None:
    """Of a model that is mostly frozen, Adam keeps twice the trainable part, not a share of all."""
    rows = [row | {"trainable_parameter_bytes": 2_000_000, "optimizer_state_bytes": state}
            for row, state in zip(BY_OPTIMIZER, (0, 4_000_000), strict=True)]  # fmt: skip
    assert "Adam keeps 2 x 2.0 MB of moments" in answer("2b", rows).text


def test_equal_memory_names_no_winner() -> None:
    """Optimizers with the same process memory tie, whichever row comes first."""
    level = [row | {"process_bytes": 681_000_000} for row in BY_OPTIMIZER]
    for rows in (level, level[::-1]):
        text = answer("2b", rows).text
        assert "takes the most" not in text
        assert "A tie: SGD and Adam take the same process memory, 681.0 MB" in text
    third = memory("2a", "adamw", 8, (51, 66, 74, 607, 681), parameter_bytes=10_000_000,
                   optimizer_state_bytes=20_000_000)  # fmt: skip
    text = answer("2b", [*BY_OPTIMIZER, third]).text
    assert "Adam and AdamW take the most process memory, 681.0 MB each" in text


def test_one_that_ran_out_of_memory_is_not_compared() -> None:
    """2b leaves out an optimizer that ran out of memory, whose figures are not those of a step."""
    failed = NET | {"question": "2a", "optimizer": "sgd-momentum", "batch_size": 8, "fits": False,
                    "parameter_bytes": 10_000_000, "optimizer_state_bytes": 10_000_000}  # fmt: skip
    assert "Adam takes the most" in answer("2b", [*BY_OPTIMIZER, failed]).text
    assert "out of memory with SGD with momentum" in answer("2a", [*BY_OPTIMIZER, failed]).text


# 3a, and what is not known


def test_memory_by_batch_size_and_the_largest() -> None:
    """3a gives process memory at each batch, the largest that trained, its neighbour and the fastest."""
    trials = [{"batch_size": 300, "fits": True}, {"batch_size": 303, "fits": False}]
    row = search(largest_batch=300, smallest_batch_that_fails=303, largest_batch_at_full_speed=150,
                 trials=trials)  # fmt: skip
    found = answer("3a", [*BY_BATCH, row])
    assert "Process memory is 629.0 MB at batch 2 and 750.0 MB at batch 32 (net, Adam, 16x16" in found.text
    assert "The largest batch that trained is 300; 303 did not fit" in found.text
    assert "within 5 % of the best images per second is 150 (2 batch sizes tried), measured." in found.text
    assert cell(found, "allocated", "32") == "123.0"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            search(smallest_batch_that_fails=1, trials=[{"batch_size": 1, "fits": False}]),
            "Not even one image trains (1 batch size tried), measured.",
        ),
        (search(source="predicted"), "Not even one image would train, predicted."),
        (
            search(smallest_batch_that_fails=3, trials=[{"batch_size": 3, "fits": False}]),
            "No batch that trains was found; 3 did not fit",
        ),
        (search(source="predicted", largest_batch_at_most=0), "Not even one image would train, predicted."),
    ],
)  # fmt: skip
def test_a_search_that_found_none_is_an_answer(row: Fields, said: str) -> None:
    """A search that was made and found no batch is told apart from one that was not made."""
    text = answer("3a", [*BY_BATCH, row]).text
    assert said in text
    assert "not searched for" not in text
    assert "not searched for" in answer("3a", BY_BATCH).text


def test_a_largest_batch_that_is_not_known_is_a_bound() -> None:
    """Where a part is unknown the largest batch is 'at most', with the likely range and the reason."""
    bound = search(
        largest_batch=None, largest_batch_at_most=292, largest_batch_likely=[241, 283],
        unread={"largest_batch": "rtx4090: context not measured"},
    ) | {"source": "predicted"}  # fmt: skip
    text = answer("3a", [bound]).text
    assert (
        "The largest batch that would train is at most 292; likely 241 to 283 (rtx4090: context not" in text
    )
    assert text.endswith("measured), predicted.")


def test_a_search_that_ended_early_is_a_bound() -> None:
    """A largest batch beyond the end of the search is 'at least'; a likely range may have no upper end."""
    text = answer("3a", [search(source="predicted", largest_batch_at_least=1_048_576)]).text
    assert (
        "The largest batch that would train is at least 1,048,576, where the search ended, predicted." in text
    )
    text = answer("3a", [search(source="predicted", largest_batch_likely=[241, None])]).text
    assert "is not known; likely 241 or more, predicted." in text


def test_what_is_unknown_is_said_with_the_figure() -> None:
    """A prediction names in the same sentence what it does not know, what it estimates, and why."""
    rows = [
        memory("2a", optimizer, 8, sizes, source="predicted", card="rtx4090", fits=None, unread={
            "process_bytes": "no context was measured", "context_bytes": "no context was measured",
            "workspace_bytes": "3 convolutions are not in the table", "fits": "the context is unknown",
        }, ledger={"workspace_bytes": 5_000_000})
        for optimizer, sizes in (("sgd", (31, 41, 52)), ("adam", (51, 66, 74)))
    ]  # fmt: skip
    sentence = answer("2a", rows).text.split(". ")[0]
    assert "Reserved memory is 52.0 MB with SGD and 74.0 MB with Adam" in sentence
    assert "not known: context and process (no context was measured)" in sentence
    assert "whether it fits (that depends on them)" in sentence
    assert "estimated: workspace (3 convolutions are not in the table)" in sentence
    assert answer("2a", rows).source == "predicted"
    winner = answer("2b", [row | {"parameter_bytes": 4, "optimizer_state_bytes": 0} for row in rows]).text
    assert winner.startswith("Adam takes the most reserved memory, 74.0 MB: Adam keeps nothing between")
    assert "not all of it is known (2a says what). SGD keeps nothing between steps." in winner


def test_bounds_name_no_winner() -> None:
    """Where a figure is only a bound, 2b ranks nothing, and says what each optimizer keeps."""
    rows = [
        memory("2a", optimizer, 8, (31, 41, 52), source="predicted", card="rtx4090", fits=None,
               parameter_bytes=4, optimizer_state_bytes=state,
               unread={"peak_reserved_bytes": "no workspaces in it", "process_bytes": "no context"})
        for optimizer, state in (("sgd", 0), ("adam", 8))
    ]  # fmt: skip
    text = answer("2b", rows).text
    assert text.startswith("No winner is named: reserved memory is not all known (2a says why).")
    assert "most" not in text


def test_a_bound_of_the_process_leaves_what_is_reserved_to_rank() -> None:
    """Where the context is smaller than it was measured, 2b ranks by what is reserved: 52 MB, not 47."""
    rows = [
        memory("2a", optimizer, 8, (31, 41, reserved, 700, reserved + 700), source="predicted",
               card="h100-80gb", parameter_bytes=4, optimizer_state_bytes=state,
               unread=dict.fromkeys(("process_bytes", "context_bytes"), "at most: one library less"))
        for optimizer, state, reserved in (("sgd", 0, 47), ("adam", 8, 52))
    ]  # fmt: skip
    text = answer("2b", rows).text
    assert text.startswith("Adam takes the most reserved memory, 52.0 MB")
    assert "not all of it is known (2a says what)" in text


def test_a_reason_of_some_rows_names_them() -> None:
    """What is estimated at one batch size only is said of that one."""
    rows = [row | {"source": "predicted"} for row in BY_BATCH]
    rows[1] |= {"unread": {"workspace_bytes": "2 convolutions guessed"}, "ledger": {"workspace_bytes": 5}}
    assert "estimated: workspace at batch 32 (2 convolutions guessed)" in answer("3a", rows).text


def test_a_measured_run_lists_only_what_its_figures_lack() -> None:
    """A measured row without NVML says that process memory was not read, and nothing of other fields."""
    unread = {"process_bytes": "no NVML", "context_bytes": "no NVML", "step_flops": "?!"}
    rows = [row | {"process_bytes": None, "context_bytes": None, "unread": unread} for row in BY_BATCH]
    text = answer("3a", rows).text
    assert "not known: context and process (no NVML)" in text
    assert "?!" not in text
