"""The lines that open the end of a run."""

from stepcost.report.first_lines import first_lines
from tests.report.handmade import memory, search, trained

H100 = {"gpu": "Card X", "gpu_nvml_total_bytes": 80 * 10**9}
LEDGER = {"optimizer_state_bytes": 420 * 10**6, "context_bytes": 720 * 10**6, "slack_bytes": 10}
BY_OPTIMIZER = [
    memory("2a", "sgd", 64, (100, 300, 400, 720, 1120)),
    memory("2a", "adam", 64, (500, 700, 1280, 720, 2000), ledger=LEDGER),
]


def test_a_measured_run_in_two_lines() -> None:
    """The optimizer that takes most, its share of the card and its largest parts; then batches."""
    rows = [
        *BY_OPTIMIZER,
        search(largest_batch=22_941),
        trained(25, (0.4, 0.4, 0.4)),
        trained(50, (0.2,) * 3),
    ]
    assert first_lines(rows, H100) == [
        "Adam, batch 64: 2.00 of 80.0 GB (context 36 %, optimizer state 21 %), measured",
        "largest batch 22,941 (Adam, measured) · fastest batch 50, 100 ms a step (measured)",
    ]


def test_a_prediction_names_its_card_and_a_stand_in_is_silent() -> None:
    """Memory is of the card predicted for; what was trained in the model's place is in no line."""
    predicted = {"source": "predicted", "card": "h100-80gb"}
    rows = [
        *(row | predicted for row in BY_OPTIMIZER),
        search(largest_batch=9, largest_batch_rests_on="a guess", **predicted),
        trained(50, (0.2,) * 3, stand_in_for="net"),
    ]
    assert first_lines(rows, {"gpu": None}) == [
        "Adam, batch 64: 2.00 of 85.0 GB (context 36 %, optimizer state 21 %), predicted for h100-80gb",
        "largest batch estimated 9 (Adam, predicted for h100-80gb)",
    ]


def test_what_is_not_known_is_said_beside_the_figure() -> None:
    """Without a context the figure is of less, a bound is called one, and nothing is said to fit."""
    row = memory("2a", "adam", 64, (500, 700, 1280), source="predicted", card="rtx4090", fits=None,
                 unread={"peak_reserved_bytes": "no workspaces"})  # fmt: skip
    bounds = search(
        source="predicted", card="rtx4090", largest_batch_at_most=90, largest_batch_likely=[70, 80]
    )
    assert first_lines([row, bounds], {}) == [
        "Adam, batch 64: at least 1.28 of 25.8 GB reserved, the context on top is not known, nor whether it "
        "fits, predicted for rtx4090",
        "largest batch at most 90 and likely 70 to 80 (Adam, predicted for rtx4090)",
    ]


def test_a_bound_from_above_is_called_one() -> None:
    """A step without one of the libraries takes at most the process of a step with both."""
    row = memory("2a", "sgd", 64, (100, 300, 400, 720, 1120), source="predicted", card="h100-80gb",
                 unread={"process_bytes": "at most: the context is smaller"})  # fmt: skip
    assert first_lines([row], {}) == ["SGD, batch 64: at most 1.12 of 85.0 GB, predicted for h100-80gb"]


def test_what_does_not_fit_is_said_first() -> None:
    """Out of memory with one optimizer is the line, and not the memory of another."""
    rows = [*BY_OPTIMIZER, memory("2a", "adamw", 64, (), fits=False)]
    assert first_lines(rows, H100) == ["AdamW, batch 64: does not fit, measured"]
    assert first_lines([], H100) == []


def test_a_model_trained_on_the_cpu_says_so() -> None:
    """A step time without a GPU is this CPU's, never the card's."""
    assert first_lines([trained(50, (0.2,))], {"gpu": None}) == [
        "fastest batch 50, 100 ms a step (measured on this CPU)"
    ]
