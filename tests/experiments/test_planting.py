"""What is planted in a step is what it says; runs with and without it follow each other in time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from experiments import planted_runs, planted_steps
from experiments.planted_runs import PLANTS, in_turn, run_suite
from experiments.planted_steps import Fat, Slow, SlowEngine
from stepcost import jobs
from stepcost.measuring.child import STARTED
from stepcost.measuring.configuration import Configuration
from stepcost.measuring.process import Worker
from stepcost.request import Request

SMALL = Request(model="small-cnn", optimizer="sgd", batch_size=2, device="cpu")
PLAIN = (jobs.CONFIGURATION, jobs.ENGINE_STEP)


class Clock:
    """A clock that only the test moves; each look at it takes a millisecond."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Training steps, which can be built in this process, take one second by this clock."""
    clock = Clock()

    def step(self: Configuration) -> None:
        clock.now += 1.0

    monkeypatch.setattr(Configuration, "step", step)
    monkeypatch.setitem(STARTED, "requested_at", 0.0)
    monkeypatch.setitem(STARTED, "forked_at", 0.0)
    return clock


@pytest.mark.parametrize("plant", [Slow, SlowEngine])
def test_slow_is_five_percent_slower(
    plant: type[Configuration], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted step takes 1.05 times what the step in it took."""
    slow = plant(SMALL)
    monkeypatch.setattr(planted_steps, "time", SimpleNamespace(perf_counter=clock))
    slow.step()
    assert clock.now == pytest.approx(1.05, abs=0.005)


def test_fat_keeps_a_thousandth_of_the_peak(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tensor of 0.1 % of the peak is there from the second step on, and no more come."""
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 5_000_000)
    fat = Fat(SMALL)
    fat.on_gpu = True
    fat.step()
    assert not hasattr(fat, "kept")
    fat.step()
    kept = fat.kept
    assert kept.numel() * kept.element_size() == 5000
    fat.step()
    assert fat.kept is kept


@pytest.mark.parametrize("job", [job for planted in PLANTS.values() for job in planted.values()])
def test_every_plant_can_be_held_by_a_child(job: str) -> None:
    """A child starts with it and takes a step."""
    with Worker(job, SMALL) as worker:
        assert worker.call("timed_steps", 1)[0] > 0


@pytest.mark.parametrize(
    ("kind", "during", "notes"),
    [
        ("self", PLAIN, []),
        ("fat", ("experiments.planted_steps:Fat", PLAIN[1]), ["planted: experiments.planted_steps:Fat"]),
        (
            "slow",
            ("experiments.planted_steps:Slow", "experiments.planted_steps:SlowEngine"),
            ["planted: experiments.planted_steps:Slow", "planted: experiments.planted_steps:SlowEngine"],
        ),
    ],
)
def test_a_plant_is_in_place_for_one_run(
    kind: str, during: tuple[str, str], notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the suite runs, its children hold the planted jobs and what is saved says so; not after."""
    seen: dict[str, Any] = {}

    def run(flags: list[str], plugins: list[Any]) -> int:
        saved: dict[str, Any] = {"stepcost": {"notes": ["one"]}}
        for plugin in plugins:
            plugin.pytest_benchmark_update_json(output_json=saved)
        seen.update(flags=flags, jobs=(jobs.CONFIGURATION, jobs.ENGINE_STEP), **saved["stepcost"])
        print("some test ids\n1 passed\n")
        return 0

    monkeypatch.setattr(pytest, "main", run)
    assert run_suite(kind, ["benchmarks/", "-q"]) == (0, "1 passed")
    assert seen == {"flags": ["benchmarks/", "-q"], "jobs": during, "notes": ["one", *notes]}
    assert (jobs.CONFIGURATION, jobs.ENGINE_STEP) == PLAIN


def test_runs_follow_each_other_until_the_time_is_up() -> None:
    """No run starts that would end too late if it took as long as the longest; the first is no measure."""
    clock, names = Clock(), []
    for _, name in in_turn(100, clock):
        clock.now += 40 if name == "self1" else 8
        names.append(name)
    assert names == ["self1", "slow1", "self2", "fat1", "self3", "slow2", "self4", "busy1"]
    assert clock.now == pytest.approx(96, abs=1)


def test_runs_are_saved_under_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each run gets its name, its folder and the caller's flags, and a line that says how it ended."""
    seen = []

    def run(kind: str, flags: list[str]) -> tuple[int, str]:
        seen.append((kind, flags))
        return 1, "1 failed"

    monkeypatch.setattr(planted_runs, "in_turn", lambda seconds: [("fat", f"fat{seconds}")])
    monkeypatch.setattr(planted_runs, "run_suite", run)
    assert planted_runs.main([str(tmp_path), "12", "-k", "step_with"]) == 0
    saved = ["--benchmark-save=fat12", "-k", "step_with"]
    assert seen == [("fat", ["benchmarks/", "-q", f"--benchmark-storage=file://{tmp_path}", *saved])]
    assert capsys.readouterr().out.startswith("fat12: exit code 1, 0.0 s; 1 failed")
