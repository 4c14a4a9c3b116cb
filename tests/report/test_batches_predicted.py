"""3c without a GPU: the fastest batch on a card, by hand."""

from __future__ import annotations

from tests.report.handmade import NET, Fields, answer, trained


def step(batch: int, likely_ms: float, **more: object) -> Fields:
    """A step of question 3a, predicted to within 5 %."""
    seconds = likely_ms / 1000
    return (
        NET
        | {"question": "3a", "source": "predicted", "optimizer": "adam", "batch_size": batch, "fits": True}
        | {"card": "h100-80gb", "step_engine": "fast", "step_s": seconds, "kernels": 1000}
        | {"step_low_s": 0.95 * seconds, "step_high_s": 1.05 * seconds, "kernel_s": 0.9 * seconds}
        | more
    )


def test_the_fastest_batch_is_predicted_with_its_reason() -> None:
    """4 images in 10 ms are 400 a second, 256 in 16 ms 16,000: 64 times the batch in 1.6 times the time."""
    found = answer("3c", [step(4, 10), step(256, 16), step(64, 12)])
    assert found.source == "predicted"
    assert found.text == (
        "Predicted for the card h100-80gb, fast: batch 256 is the fastest, 16,000 images a second, 16.0 ms a "
        "step (15.2 ms to 16.8 ms); the slowest is batch 4, 400 images a second, 10.0 ms a step (9.50 ms to "
        "10.5 ms). 64.0 times the batch takes 1.60 times as long: the kernels of batch 4 do not fill the "
        "card (1,000 of them, 9.00 us each)."
    )


def test_what_the_intervals_do_not_tell_apart_is_said() -> None:
    """10,000 and 10,204 images a second lie within 5 % of each other; no reason is made up."""
    text = answer("3c", [step(100, 10), step(200, 19.6)]).text
    assert "batch 200 is the fastest (not to be told apart from batch 100)" in text
    assert "do not fill" not in text


def test_it_stands_beside_what_was_trained() -> None:
    """Epochs that a CPU trained are measured, steps on the card predicted, and the label says both."""
    found = answer("3c", [trained(4, [1.0, 1.0]), step(4, 10), step(256, 16)])
    assert found.source == "measured and predicted"
    assert "Predicted for the card h100-80gb" in found.text
    small = trained(4, [1.0, 1.0]) | {"model": "small-cnn", "stand_in_for": "net"}
    stand_in = answer("3c", [small, step(4, 10), step(256, 16)])
    assert stand_in.source.startswith("measured on small-cnn")
    assert stand_in.source.endswith("; predicted for h100-80gb"), "nothing is predicted of the stand-in"
    alone = answer("3c", [trained(4, [1.0, 1.0]), step(4, 10)])
    assert alone.source == "measured"
