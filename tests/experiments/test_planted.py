"""What is planted on a GPU is what it says, and how often it is found is counted right."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import collect, plant, saved_figures
from experiments.planted import Fat, Slow
from stepcost import jobs
from stepcost.measure.configuration import Configuration
from stepcost.measure.process import Worker
from stepcost.report.load import load
from stepcost.request import Request
from tests.report.compare.saved import changed, plain_run, save, slower

SMALL = Request(model="small-cnn", optimizer="sgd", batch_size=2, device="cpu")


def test_slow_is_five_percent_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted step takes 1.05 times what the step in it took."""
    taken_s: list[float] = []

    def step(self: Any) -> None:
        start = time.perf_counter()
        time.sleep(0.05)
        taken_s.append(time.perf_counter() - start)

    monkeypatch.setattr(Configuration, "step", step)
    slow = object.__new__(Slow)
    ratios = []
    for _ in range(5):
        start = time.perf_counter()
        slow.step()
        ratios.append((time.perf_counter() - start) / taken_s[-1])
    assert min(ratios) >= 1.05
    assert sorted(ratios)[2] < 1.06


def test_fat_keeps_a_thousandth_of_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tensor of 0.1 % of the peak is there from the second step on, and no more come."""
    monkeypatch.setattr(Configuration, "step", lambda self: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 5_000_000)
    fat = object.__new__(Fat)
    fat.on_gpu, fat.request = True, SMALL
    fat.step()
    assert not hasattr(fat, "kept")
    fat.step()
    kept = fat.kept
    assert kept.numel() * kept.element_size() == 5000
    fat.step()
    assert fat.kept is kept


@pytest.mark.parametrize("job", [*plant.PLANTS.values(), f"{plant.PLANTS['slow']}Engine"])
def test_every_plant_can_be_held_by_a_child(job: str) -> None:
    """A child starts with it and takes a step."""
    with Worker(job, SMALL) as worker:
        assert worker.call("timed_steps", 1)[0] > 0


def test_planting_changes_the_job_and_leaves_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite's children hold the planted step, and what is saved says so."""
    monkeypatch.setattr(jobs, "CONFIGURATION", jobs.CONFIGURATION)
    monkeypatch.setattr(jobs, "ENGINE_STEP", jobs.ENGINE_STEP)
    seen: dict[str, Any] = {}

    def run(arguments: list[str], plugins: list[Any]) -> int:
        seen.update(arguments=arguments, job=jobs.CONFIGURATION, saved={"stepcost": {"notes": ["one"]}})
        plugins[0].pytest_benchmark_update_json(output_json=seen["saved"])
        return 0

    monkeypatch.setattr(pytest, "main", run)
    assert plant.main(["nothing"]) == 2
    assert not seen
    assert plant.main(["fat", "--", "benchmarks/", "-q"]) == 0
    assert seen["arguments"] == ["benchmarks/", "-q"]
    assert seen["job"] == "experiments.planted:Fat"
    assert seen["saved"]["stepcost"]["notes"] == ["one", "planted: experiments.planted:Fat"]
    assert jobs.ENGINE_STEP == "stepcost.measure.engine_step:EngineStep"
    assert plant.main(["slow"]) == 0
    assert jobs.ENGINE_STEP == "experiments.planted:SlowEngine"


def test_shares_are_counted_over_saved_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of runs with known plants each kind is caught where it can be, and a build beside itself never."""
    for place in range(5):
        save(slower(plain_run(), 1 + place / 10_000), tmp_path, f"000{place}_self{place}")
    for place in range(2):
        slow = slower(plain_run(), 1.05 + place / 10_000)
        save(slow, tmp_path, f"001{place}_slow{place}")
        save(changed(plain_run(), 0, peak_allocated_bytes=3_011_000), tmp_path, f"002{place}_fat{place}")
    assert saved_figures.main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| 1 self | 1 self | 20 | 0.0 % | 0.0 % | 0.0 % | 0.0 % |" in lines
    assert "| 4 self | 1 self | 5 | 0.0 % | 0.0 % | 0.0 % | 0.0 % |" in lines
    assert "| 1 self | 1 slow | 10 | 0.0 % | 0.0 % | 0.0 % | 0.0 % |" in lines
    assert "| 5 self | 1 slow | 2 | 100.0 % | 0.0 % | 100.0 % | 0.0 % |" in lines
    assert "| 5 self | 2 slow | 1 | 100.0 % | 0.0 % | 100.0 % | 0.0 % |" in lines
    assert "| 1 self | 1 fat | 10 | 100.0 % | 100.0 % | 0.0 % | 0.0 % |" in lines


@pytest.mark.parametrize("arguments", [[], ["nowhere"], ["a", "b"]])
def test_no_folder_of_runs_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without runs to compare it says so in one line."""
    assert saved_figures.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_runs_are_collected_in_turn(tmp_path: Path) -> None:
    """Runs of the build and planted ones follow each other until the time is up, saved by kind."""
    flags = ["-k", "step_with and adam", "--device", "cpu", "--model", "small-cnn"]
    # The first run is not counted as what a run takes: it starts the fork server.
    done = subprocess.run(
        [sys.executable, "-m", "experiments.collect", str(tmp_path), "12", *flags],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    said = [line.partition(":")[0] for line in done.stdout.splitlines()]
    expected = ["self1", "slow1", "self2", "fat1", "self3", "slow2", "self4", "busy1", "self5"]
    assert len(said) >= 2
    assert said[:9] == expected[: len(said)]
    assert len(list(tmp_path.rglob("*.json"))) == len(said)
    noted = {
        path.stem: any("planted" in note for note in load(path).notes) for path in tmp_path.rglob("*.json")
    }
    assert noted == {name: "self" not in name for name in noted}


def test_collecting_needs_a_folder_and_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """Without them one line says what is missing, with exit code 2."""
    assert collect.main(["figures", "soon"]) == 2
    assert "name a folder, the seconds" in capsys.readouterr().err


def test_a_plant_is_taken_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a planted run goes on its jobs are in place, and after it the plain ones are back."""
    plain, during = (jobs.CONFIGURATION, jobs.ENGINE_STEP), []

    def run(*_: Any, **__: Any) -> int:
        during.append((jobs.CONFIGURATION, jobs.ENGINE_STEP))
        print("1 passed")
        return 0

    monkeypatch.setattr(pytest, "main", run)
    assert collect.one_run("slow", []) == (0, "1 passed")
    assert during == [("experiments.planted:Slow", "experiments.planted:SlowEngine")]
    now = (jobs.CONFIGURATION, jobs.ENGINE_STEP)
    assert now == plain
