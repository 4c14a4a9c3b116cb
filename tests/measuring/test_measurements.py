"""What comes of a child that runs out of memory, dies or answers, at each point of a measurement."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from stepcost.catalog.models import STAND_IN
from stepcost.failures import ChildDied, ChildHung, ChildKilled, OutOfMemory
from stepcost.measuring.instrument import Instrument
from stepcost.measuring.measurements import PROFILE, Measurements
from stepcost.measuring.training_runs import TrainingRuns
from stepcost.reading import Reading
from stepcost.request import Request
from stepcost.settings import FLAGS, Settings

REQUEST = Request(model=STAND_IN, optimizer="sgd", batch_size=4, device="cpu")
NO_ROOM = OutOfMemory("out of memory in step: no room")
PROFILED = {"gpu_busy_s": 0.05, "kernel_s": 0.06, "kernels": 9.0, "transfer_s": 0.0}
ANSWERS = {
    "reading": Reading(source="measured", fits=True, peak_allocated_bytes=1, unread={"ledger": "why"}),
    "prepare": {"least_bytes": 100, "unread": {"process_bytes": "why"}},
    "timed_steps": [0.1, 0.1, 0.1],
    "profiled": PROFILED,
    "clocks": {"sm_mhz": 1980},
    "kernels": ({"calls": []}, None),
    "energy": ({"energy_j": 2.5}, {"temperature_steady": "why"}),
    "attempt": (7, 0.5),
}


class Child:
    """A child that answers, but for the ``failing`` method, which raises ``error`` from some call on."""

    def __init__(self, failing=None, error=NO_ROOM, answers=ANSWERS, good_calls=0):
        self.failing, self.error, self.answers, self.good_calls = failing, error, answers, good_calls
        self.called, self.closed = [], False

    def call(self, method, *_, **__):
        assert not self.closed
        self.called.append(method)
        if method == self.failing and self.called.count(method) > self.good_calls:
            raise self.error
        return self.answers.get(method)

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Measured(Measurements):
    """Measurements whose children are given, one after the other."""

    def __init__(self, *children):
        super().__init__(60)
        self.children = iter(children)

    def worker(self, job, *arguments):
        return next(self.children)


def rounds_of(taken):
    """What times rounds: it notes each in ``taken``, and says that the median is half a second."""

    def time_rounds(work, rounds):
        for _ in range(rounds):
            work()
            taken.append(1)
        return 0.5

    return time_rounds


def test_step_that_fits_is_read_timed_and_profiled():
    """A step that fits gives its reading, clocks, and the share of the step that the GPU was busy."""
    child, taken = Child(), []
    reading, fields = Measured(child).timed_step(REQUEST, rounds_of(taken), busy=True)
    assert reading == ANSWERS["reading"]
    assert fields == PROFILED | {"gpu_busy_share": 0.1, "clocks": {"sm_mhz": 1980}}
    assert len(taken) == 20
    assert child.closed


@pytest.mark.parametrize("phase", ["reading", "timed_steps", "step"])
def test_step_that_runs_out_of_memory_is_an_answer(phase):
    """Whether it runs out while it is read or while it is timed, the reading does not fit and says why."""
    child = Child(phase)
    reading, fields = Measured(child).timed_step(REQUEST, rounds_of([]), busy=True)
    assert (reading.fits, reading.reason, fields) == (False, str(NO_ROOM), {})
    assert reading.peak_allocated_bytes is None
    assert child.closed


def test_running_out_of_memory_does_not_end_the_rounds():
    """What times the rounds sees no error, and the dead child is not asked again."""
    child, taken = Child("step", good_calls=3), []
    reading, _ = Measured(child).timed_step(REQUEST, rounds_of(taken))
    assert not reading.fits
    assert len(taken) == 20
    assert child.called.count("step") == 4


def test_profile_that_runs_out_of_memory_is_unread():
    """The step fits and was timed; of the profile it says why there is none."""
    reading, fields = Measured(Child("profiled")).timed_step(REQUEST, rounds_of([]), busy=True)
    assert reading.fits
    assert reading.unread == {"ledger": "why", **dict.fromkeys(PROFILE, str(NO_ROOM))}
    assert fields == {"clocks": {"sm_mhz": 1980}}


@pytest.mark.parametrize("phase", ["reading", "timed_steps", "step", "clocks", "profiled"])
@pytest.mark.parametrize("error", [ChildDied("killed by SIGSEGV"), ChildHung("no answer")])
def test_child_that_does_not_answer_is_a_fault(phase, error):
    """A child that dies or hangs, in whatever phase, is no answer; it is closed all the same."""
    child = Child(phase, error)
    with pytest.raises(type(error)):
        Measured(child).timed_step(REQUEST, rounds_of([]), busy=True)
    assert child.closed


def test_engine_step_tells_all_that_is_unread():
    """What could not be read before the steps were timed, of their energy and of their profile is told."""
    step = Measured(Child("profiled")).engine_step(REQUEST, rounds_of([]))
    assert (step["fits"], step["least_bytes"], step["energy_j"]) == (True, 100, 2.5)
    before = {"process_bytes": "why", "temperature_steady": "why"}
    assert step["unread"] == before | dict.fromkeys(PROFILE, str(NO_ROOM))


def test_engine_step_without_bounds_is_not_profiled():
    """Where what bounds a step is not asked for, it is timed, its energy is read, and that is all."""
    child = Child()
    step = Measured(child).engine_step(REQUEST, rounds_of([]), bounds=False)
    assert (step["fits"], step["energy_j"]) == (True, 2.5)
    assert "profiled" not in child.called
    assert not set(PROFILE) & set(step)


@pytest.mark.parametrize(
    ("launched", "asked"), [("graph", True), ("fast-bf16", True), ("eager", False), ("fast-compiled", False)]
)
def test_kernels_of_captured_steps_are_timed_last(launched, asked):
    """Where a captured step replays torch's own kernels they are timed, after all that is not profiled."""
    child = Child()
    step = Measured(child).engine_step(replace(REQUEST, engine=launched), rounds_of([]))
    assert (child.called[-1] == "kernels") is asked
    assert step.get("in_place") == ({"calls": [], "step_s": 0.5} if asked else None)
    assert "by_operator_s" not in step["unread"]


def test_kernels_without_room_are_unread():
    """A step that fits captured and not beside its capture keeps its row, which says why."""
    step = Measured(Child("kernels")).engine_step(replace(REQUEST, engine="graph"), rounds_of([]))
    assert (step["fits"], step["in_place"], step["kernels"]) == (True, None, 9.0)
    assert step["unread"]["by_operator_s"] == str(NO_ROOM)


@pytest.mark.parametrize("phase", ["prepare", "timed_steps", "step", "energy"])
def test_engine_step_that_runs_out_of_memory_is_an_answer(phase):
    """An engine's step does not fit where it runs out while it is prepared or while it is timed."""
    step = Measured(Child(phase)).engine_step(REQUEST, rounds_of([]))
    assert (step["fits"], step["reason"]) == (False, str(NO_ROOM))
    assert "prepare_s" not in step


@pytest.mark.parametrize("error", [NO_ROOM, ChildKilled("was killed by SIGKILL")])
def test_batch_that_runs_out_of_memory_does_not_fit(error):
    """In a search, out of memory on the GPU or on the host decides that a batch does not fit."""
    trial = Measured(Child("attempt", error)).trial(REQUEST)
    assert (trial.fits, trial.reason) == (False, str(error))
    assert trial.peak_allocated_bytes is None


def test_batch_whose_child_crashes_decides_nothing():
    """A segmentation fault does not say that the batch does not fit: it is a fault that names the batch."""
    error = ChildDied("Configuration.attempt: the child was killed by SIGSEGV")
    with pytest.raises(ChildDied, match=r"^batch size 4: Configuration\.attempt: .* by SIGSEGV$"):
        Measured(Child("attempt", error)).trial(REQUEST)


def test_batch_that_trains_is_told_with_peak_and_time():
    """A trial that fits has the peak and the seconds of its second step."""
    trial = Measured(Child()).trial(REQUEST)
    assert (trial.fits, trial.peak_allocated_bytes, trial.step_s) == (True, 7, 0.5)


def test_spread_is_between_the_medians_of_processes():
    """The spread of three processes is the largest median less the smallest, over the median of them."""
    children = [
        Child(answers={"timed_steps": steps}) for steps in ([1.0, 1.0, 9.0], [2.0, 2.0, 2.0], [0.0, 3.0, 3.0])
    ]
    found = Instrument(Measured(*children)).process_medians(REQUEST, processes=3, steps=3)
    assert found == {"fits": True, "process_medians_s": [1.0, 2.0, 3.0], "spread_share": 1.0}
    assert all(child.closed for child in children)


def test_process_that_runs_out_of_memory_is_an_answer():
    """Where one of the processes does not fit there is a reason in place of the medians."""
    found = Instrument(Measured(Child(), Child("prepare"))).process_medians(REQUEST, processes=2, steps=3)
    assert found == {"fits": False, "reason": str(NO_ROOM)}


def test_border_of_a_real_child():
    """A step takes longer from out here than inside the child, by what the border adds."""
    found = Instrument(Measurements(120)).border(REQUEST, rounds_of([]), steps=3)
    assert found["piped_step_s"] >= found["bare_step_s"] > 0
    assert found["border_share"] == found["border_s"] / found["bare_step_s"] > 0
    assert found["round_trip_s"] == 0.5


def test_start_is_split_into_its_parts():
    """The parts of a start are no longer than the start, and end with the first step."""
    start = time.perf_counter()
    parts = Instrument(Measurements(120)).warm_start(REQUEST)
    assert 0 < sum(parts.values()) < time.perf_counter() - start
    assert list(parts)[-1] == "first step"


class Losses(TrainingRuns):
    """Losses as given, by engine."""

    def __init__(self, **losses):
        super().__init__(None, None, None, {})
        self.known = losses

    def losses(self, request):
        return self.known[request.engine]


def test_losses_are_compared_step_by_step():
    """The largest difference of any step is what counts, as a share of the eager loss, in fp64."""
    eager, other = {"fits": True, "losses": [2.0, 4.0, 8.0]}, {"fits": True, "losses": [2.0, 3.0, 7.9]}
    graph = Request(model=STAND_IN, optimizer="sgd", batch_size=4, engine="graph")
    found = Losses(eager=eager, graph=other).compared_losses(graph)
    assert (found["loss_difference"], found["steps"], found["precision"]) == (0.25, 3, "fp64")
    assert found["losses_eager"] == [2.0, 4.0, 8.0]
    with pytest.raises(ValueError, match="shorter"):
        Losses(eager=eager, graph={"fits": True, "losses": [2.0]}).compared_losses(graph)
    unfit = {"fits": False, "reason": "no room"}
    assert Losses(eager=unfit, graph=other).compared_losses(graph) == unfit


def test_a_training_run_is_the_sum_of_its_epochs():
    """Its seconds are those of all epochs, next to the clock around them; without memory there are none."""
    epochs = [{"epoch": place, "train_seconds": took} for place, took in enumerate((4.0, 2.0, 1.0), start=1)]
    asked = SimpleNamespace(schedule="constant", epochs=3, drop_last=True, scale_learning_rate=True)
    child = Child(answers={"run": {"epochs": epochs, "wall_s": 7.5}})
    found = TrainingRuns(Measured(child), asked, None, {}).study(REQUEST)
    assert found == {"fits": True, "epochs": epochs, "train_s": 7.0, "wall_s": 7.5}
    assert child.closed
    unfit = TrainingRuns(Measured(Child("run")), asked, None, {}).study(REQUEST)
    assert unfit == {"fits": False, "reason": "out of memory in step: no room"}


def takes_longer(limit_s, *children, **changed):
    """Whether 10 epochs of 1,000 images in batches of 4 and 500 are more than that many seconds."""
    settings = Settings(**dict.fromkeys(FLAGS) | {"epochs": 10, "drop_last": False} | changed)
    data = SimpleNamespace(train_images=range(1000))
    runs = TrainingRuns(Measured(*children), settings, data, {})
    return runs.takes_longer([REQUEST, replace(REQUEST, batch_size=500)], limit_s)


def test_a_model_is_trained_on_the_cpu_where_its_steps_say_so():
    """2,500 steps of 4 ms and 20 of 0.1 s are 12 s: within 12.1 s, not within 11.9."""
    small, large = Child(answers={"step_s": 0.004}), Child(answers={"step_s": 0.1})
    assert not takes_longer(12.1, small, large)
    assert takes_longer(11.9, Child(answers={"step_s": 0.004}), Child(answers={"step_s": 0.1}))


@pytest.mark.parametrize("error", [ChildHung("silent"), ChildKilled("killed"), NO_ROOM])
def test_a_model_whose_step_does_not_end_is_not_trained_on_the_cpu(error):
    """A step that hangs, is killed or finds no memory decides at once; a fault is a fault."""
    assert takes_longer(1e9, Child("step_s", error))
    with pytest.raises(ChildDied):
        takes_longer(1e9, Child("step_s", ChildDied("died")))


def test_medians_of_the_session_count_as_processes():
    """A process that timed the same step before is not started again for the host's noise."""
    measured = Measured(Child(), Child())
    measured.step_medians_s[REQUEST] = [0.2]
    found = Instrument(measured).process_medians(REQUEST, processes=3, steps=3)
    assert found["process_medians_s"] == [0.2, 0.1, 0.1]
