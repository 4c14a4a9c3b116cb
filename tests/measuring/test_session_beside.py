"""What a session adds to the row of a captured step: its operators, and what was predicted of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stepcost import jobs
from stepcost.costs import Costs
from stepcost.failures import MeasureError
from stepcost.measuring import engine_step
from stepcost.measuring.engine_step import EngineStep
from stepcost.measuring.measurements import Measurements
from stepcost.request import Request
from stepcost.row import ROW
from stepcost.schema import clean
from stepcost.session import Session

REQUEST = Request(model="m", optimizer="sgd", batch_size=4, engine="graph")
FOUND = {
    "by_operator_s": {"mm": 0.004, "add": 0.001},
    "predicted_step": {
        "step_s": 0.005,
        "step_low_s": 0.004,
        "step_high_s": 0.006,
        "step_basis": "recorded on this card",
        "recorded_torch": "2.11.0",
        "by_operator_s": {"mm": 0.0035, "add": 0.001},
    },
}


class Child:
    """A child that predicts, or dies of it."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.closed = answer, False
        self.asked: list[Any] = []

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def call(self, *asked: Any) -> Any:
        self.asked.append(asked)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def step_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``step_of(child, unread, **measured)``: the row of a captured step on a card, by such a child."""

    def step(child: Child, unread: dict[str, str], **measured: Any) -> dict[str, Any]:
        session = object.__new__(Session)
        session.costs = Costs()
        session.machine = SimpleNamespace(gpu="A card")  # type: ignore[assignment]
        limits: dict[str, Any] = {"copy_bytes_per_s": 1e9, "step_flops": None, "unread": {}}
        took = {"fits": True, "least_bytes": 10**6, "unread": unread} | measured
        monkeypatch.setattr(Measurements, "engine_step", lambda *_, **__: dict(took))
        session.limits = SimpleNamespace(of=lambda *_: dict(limits))  # type: ignore[assignment]
        monkeypatch.setattr(session, "worker", lambda job: {jobs.PREDICTION: child}[job])
        return session.engine_step(REQUEST, lambda *_: None)

    return step


def test_a_captured_step_has_its_operators_and_prediction(step_of: Any) -> None:
    """What the child says is in the row as the schema has it, the kernels are not; the child is closed."""
    child, kernels = Child(FOUND), {"calls": [], "step_s": 0.006}
    step = step_of(child, {}, in_place=kernels)
    assert child.asked == [("beside", REQUEST, "A card", kernels)]
    assert child.closed
    assert "in_place" not in step
    assert {name: step[name] for name in FOUND} == FOUND
    assert clean(FOUND, ROW) == (FOUND, [])


def test_what_is_not_predicted_says_why(step_of: Any) -> None:
    """Both are unread for the reason of the prediction; kernels that were not read keep their own."""
    step = step_of(Child(MeasureError("no card")), {}, in_place={})
    assert step["unread"] == {"predicted_step": "no card", "by_operator_s": "no card"}
    assert step["fits"]
    step = step_of(Child(MeasureError("no card")), {"by_operator_s": "no room"}, in_place=None)
    assert step["unread"] == {"predicted_step": "no card", "by_operator_s": "no room"}


def test_a_step_that_replays_no_operators_is_not_predicted(step_of: Any) -> None:
    """Of an eager or compiled step no kernels come, and no child is asked."""
    child = Child(FOUND)
    assert "predicted_step" not in step_of(child, {})
    assert child.asked == []


def test_a_profile_that_sees_too_little_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replays that differ cost the operators of a step and not its row."""

    def differ(*_: object) -> None:
        raise ValueError("5 replays had 7 kernels, which are not the same in each")

    monkeypatch.setattr(engine_step, "kernels_in_place", differ)
    found, why_not = EngineStep.kernels(SimpleNamespace(step=None, _work=None))  # type: ignore[arg-type]
    assert (found, why_not) == (None, "5 replays had 7 kernels, which are not the same in each")
