"""What was predicted of an H200 at image sizes that no table has, against what its steps held afterwards."""

from pathlib import Path

from experiments.accuracy import FIGURES, compare, predictions_of
from stepcost.catalog.cards import CARDS

HERE = Path(__file__).parent
CARD = "h200-141gb"
WRITTEN = HERE.parents[1] / "experiments" / f"cudnn-predictions-3-{CARD}.jsonl"


def test_images_held_what_was_predicted_before():
    """Of 24 steps 17 peaks of allocated and 20 of reserved are exact; none of them, nor a process, is 0.2 % off."""
    before = predictions_of(WRITTEN, CARD)
    readings = HERE / f"readings-{CARD}-images-blind.jsonl.gz"
    errors = list(compare(readings, CARDS[CARD], "2.11", False, before))
    assert len(errors) == 24
    allocated, reserved, process = ([one[figure] for one in errors] for figure in FIGURES)
    assert (sum(not one for one in allocated), sum(not one for one in reserved)) == (17, 20)
    assert max(map(abs, [*allocated, *reserved, *process])) < 0.002
