"""Running out of memory on a GPU: an answer in one line that names the phase, and a card left as it was."""

import pytest

pytestmark = pytest.mark.gpu

MIB = 2**20


def one_line(reason, phase):
    """Whether a reason names the phase in which memory ran out, in one line."""
    return reason.startswith(f"out of memory in {phase}: ") and "\n" not in reason


@pytest.mark.parametrize(
    ("moment", "phase"), [("start", "forward"), ("forward", "backward"), ("backward", "optimizer step")]
)
def test_each_phase_of_a_step(planted, request_of, card, moment, phase):
    """A card that is too small from a phase on is 'out of memory' in that phase, and no bytes are told."""
    with card.left_as_it_was():
        reading = planted("ShortOfMemory", moment).measured(request_of("resnet18", "adam", 8))
    assert reading.fits is False, reading
    assert one_line(reading.reason, phase), reading.reason
    assert reading.peak_allocated_bytes is None


def test_while_steps_are_timed(planted, request_of, card, rounds):
    """A step that fits once and not while it is timed does not fit, and costs none of the rounds."""
    measure = planted("ShortOfMemory", "timed")
    with card.left_as_it_was():
        reading, fields = measure.timed_step(request_of("resnet18", "adam", 8), rounds)
    assert reading.fits is False, reading
    assert one_line(reading.reason, "step"), reading.reason
    assert fields == {}
    assert rounds.seconds


def test_while_a_step_is_profiled(planted, request_of, card, rounds):
    """A step that fits and cannot be profiled keeps its bytes and times; what the profile lacks says why."""
    measure = planted("ShortOfMemory", "profiled")
    with card.left_as_it_was():
        reading, fields = measure.timed_step(request_of("resnet18", "adam", 8), rounds, busy=True)
    assert reading.fits is True, reading
    assert reading.peak_allocated_bytes > 0
    assert "gpu_busy_share" not in fields
    for figure in ("gpu_busy_s", "gpu_busy_share", "kernel_s", "kernels", "transfer_s"):
        assert one_line(reading.unread[figure], "profiled"), reading.unread


def test_while_a_step_is_captured(planted, request_of, card, rounds):
    """A step that fits and whose graph does not is 'out of memory' in its capture."""
    with card.left_as_it_was():
        found = planted("ShortAtCapture").engine_step(
            request_of("resnet18", "adam", 8, engine="fast"), rounds
        )
    assert found["fits"] is False, found
    assert one_line(found["reason"], "capture"), found
    assert rounds.seconds == []


@pytest.mark.parametrize("left", [(1434, "adam"), (1000, "sgd"), (700, "sgd")])
def test_card_that_another_process_has_filled(planted, request_of, card, rounds, left):
    """Where another process leaves 1.4 GiB or less, ResNet-152 runs out of memory and says so in one line."""
    free_mib, optimizer = left
    with card.left_as_it_was(), planted("SomeoneElse").worker("") as other:
        free = other.call("fill", card.device, free_mib * MIB)
        assert abs(free - free_mib * MIB) <= 4 * MIB, f"{free:,} bytes are free"
        request = request_of("resnet152", optimizer, 64)
        reading, fields = planted(None).timed_step(request, rounds, busy=True)
    assert reading.fits is False, reading
    assert one_line(reading.reason, reading.reason.removeprefix("out of memory in ").partition(": ")[0]), (
        reading
    )
    assert fields == {}


def test_trial_that_does_not_fit(planted, request_of, card):
    """The search's trial on a card that another process has filled does not fit, and names both."""
    with card.left_as_it_was(), planted("SomeoneElse").worker("") as other:
        other.call("fill", card.device, 1434 * MIB)
        trial = planted(None).trial(request_of("resnet152", "adam", 64))
    assert trial.fits is False, trial
    assert trial.batch_size == 64
    assert trial.reason.startswith("out of memory in "), trial
