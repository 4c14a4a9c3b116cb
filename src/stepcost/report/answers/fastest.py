"""Answer 3c: which batch size trains fastest, by its median epoch, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean, median_low
from typing import Any

from stepcost.report.answers.batches import with_predicted
from stepcost.report.answers.training import epochs_s, epochs_said, nothing_trained, trained, training_runs
from stepcost.report.rows import Row, configuration, having, of_question, source_of
from stepcost.report.said import Said
from stepcost.report.tables import Table
from stepcost.report.throttle import in_caption, throttled_note
from stepcost.units import count, duration, listed, ms, percent, seconds, significant

CLOSE_SHARE = 0.05
"""With one run each, two times nearer than this are not told apart; epochs farther apart differ."""
SAME_STEP = ("model", "optimizer", "image_size", "precision")
"""What a row timed elsewhere must share with a training run to explain it."""


@dataclass(frozen=True)
class Pace:
    """How fast one batch size trained: the median epoch of each seed, in seconds, and what explains it."""

    batch: int
    rows: list[Row]
    medians_s: list[float]
    steps: int | None
    busy: float | None
    """Share of an eager step's time, or of the training's own where that is eager, that the GPU is busy."""
    eager_s: float | None
    """An eager step, where the training itself was not eager."""

    @property
    def epoch_s(self) -> float:
        """The median epoch, the mean over seeds. One slow epoch (a busy machine, a cold cache) leaves it."""
        return mean(self.medians_s)

    @property
    def step_s(self) -> float | None:
        """Seconds a step of the median epoch."""
        return self.epoch_s / self.steps if self.steps else None

    @property
    def measured_s(self) -> float:
        """Seconds of the whole training as they were measured, the mean over seeds."""
        return mean(_measured_s(row) for row in self.rows)


def fastest(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """3c: the batch size with the shortest epoch, and the one that is predicted to be, each explained."""
    return with_predicted(_trained_fastest(rows), rows)


def _trained_fastest(rows: list[Row]) -> Said:
    """Name the batch size with the shortest epoch, explained by steps, ms a step and the busy GPU."""
    paces = paces_of(rows)
    if not paces:
        return nothing_trained(rows)
    group = [row for pace in paces for row in pace.rows]
    eager_rows = _eager_steps(rows, group[0])
    quick, slow = (choose(paces, key=lambda pace: pace.epoch_s) for choose in (min, max))
    text = f"Batch {count(quick.batch)}: {_pace_said(quick)}"
    if len(paces) == 1:
        text = f"Only one batch size was trained. {text}."
    else:
        text += f"; slowest is batch {count(slow.batch)} with {_pace_said(slow)}."
        level = [pace.batch for pace in paces if pace is not quick and _is_level(quick, pace)]
        if level:
            named = listed([count(batch) for batch in (quick.batch, *level)])
            text = f"Too close to call between batch {named}. {text}"
        text += _why_faster(quick, slow) + _eager_explained(quick, slow)
    text += _unlike_epochs(paces)
    return trained(group, text, _table(paces, group, eager_rows))


def paces_of(rows: list[Row]) -> list[Pace]:
    """Return how fast each batch size trained, batch sizes ascending."""
    group = [row for row in training_runs(rows) if _median_epoch_s(row) is not None]
    eager_rows = _eager_steps(rows, group[0]) if group else []
    return [
        _pace(batch, rows, group, eager_rows) for batch in dict.fromkeys(row["batch_size"] for row in group)
    ]


def _pace(batch: int, rows: list[Row], group: list[Row], eager_rows: list[Row]) -> Pace:
    mine = [row for row in group if row["batch_size"] == batch]
    eager = next((row for row in eager_rows if row["batch_size"] == batch), {})
    return Pace(
        batch=batch,
        rows=mine,
        medians_s=[_median_epoch_s(row) or 0.0 for row in mine],
        steps=next((row["steps_per_epoch"] for row in mine if row.get("steps_per_epoch")), None),
        busy=eager.get("gpu_busy_share") if eager_rows else _busy_share(rows, group[0], batch),
        eager_s=eager["stats"]["median"] if eager else None,
    )


def _median_epoch_s(row: Row) -> float | None:
    """Return the median epoch, of two in the middle the shorter; where epochs were not timed, their mean."""
    taken = epochs_s(row)
    if taken:
        return median_low(taken)
    return row["train_s"] / len(row["epochs"]) if row.get("train_s") else None


def _measured_s(row: Row) -> float:
    return float(row.get("train_s") or sum(epochs_s(row)))


def _pace_said(pace: Pace) -> str:
    """Say the median epoch, how many there were, and what explains it."""
    epochs = epochs_said(pace.rows)
    parts = [] if epochs == "1 epoch" else [f"the median of {epochs.removesuffix(' epochs')}"]
    if pace.steps is not None:
        parts.append(f"{count(pace.steps)} steps an epoch")
    if pace.step_s is not None:
        parts.append(f"{ms(pace.step_s)} a step")
    if pace.busy is not None and pace.eager_s is None:
        parts.append(f"the GPU busy {percent(pace.busy)} of the step")
    return f"{duration(pace.epoch_s)} an epoch" + (f" ({', '.join(parts)})" if parts else "")


def _is_level(quick: Pace, other: Pace) -> bool:
    several = len(quick.medians_s) > 1 and len(other.medians_s) > 1
    return min(other.medians_s) <= max(quick.medians_s) * (1 if several else 1 + CLOSE_SHARE)


def _why_faster(quick: Pace, slow: Pace) -> str:
    """Images a step compared with time a step: what a larger batch buys."""
    if not quick.step_s or not slow.step_s or quick.batch <= slow.batch:
        return ""
    images, time = significant(quick.batch / slow.batch, 2), significant(quick.step_s / slow.step_s, 2)
    return (
        f" A step of batch {count(quick.batch)} does {images} times the images of a step of "
        f"batch {count(slow.batch)} in {time} times the time."
    )


def _eager_explained(quick: Pace, slow: Pace) -> str:
    if quick.eager_s is None or slow.eager_s is None:
        return ""
    text = (
        f" An eager step takes {ms(slow.eager_s)} at batch {count(slow.batch)} "
        f"and {ms(quick.eager_s)} at batch {count(quick.batch)}"
    )
    if quick.busy is None or slow.busy is None:
        return f"{text}."
    return f"{text}, and the GPU is busy for {percent(slow.busy)} and {percent(quick.busy)} of it."


def _unlike_epochs(paces: list[Pace]) -> str:
    """Where epochs differ so much that the measured time says something else than the median epoch."""
    said = []
    for pace in paces:
        row = max(pace.rows, key=lambda one: max(epochs_s(one), default=0))
        taken, median_s = epochs_s(row), _median_epoch_s(row) or 0.0
        total_s = median_s * len(row["epochs"])
        if taken and abs(sum(taken) - total_s) > CLOSE_SHARE * total_s:
            longest = max(range(len(taken)), key=lambda place: taken[place])
            said.append(
                f"at batch {count(pace.batch)} epoch {longest + 1} took {duration(taken[longest])}, "
                f"the median {duration(median_s)}, and the whole {duration(sum(taken))}"
            )
    return f" Epochs differ: {'; '.join(said)}." if said else ""


def _table(paces: list[Pace], group: list[Row], eager_rows: list[Row]) -> Table:
    # The busy share is read in eager steps, and stands next to them.
    last = ("eager step", "GPU busy in it") if eager_rows else ("GPU busy",)
    rows = []
    for pace in paces:
        eager = ["not read" if pace.eager_s is None else ms(pace.eager_s)] if eager_rows else []
        rows.append(
            (
                count(pace.batch),
                seconds(pace.measured_s),
                duration(pace.epoch_s),
                "not read" if pace.steps is None else count(pace.steps),
                "not read" if pace.step_s is None else ms(pace.step_s),
                *eager,
                "not read" if pace.busy is None else percent(pace.busy),
            )
        )
    return Table(
        caption=f"Training time of {epochs_said(group)} as measured, evaluation off the clock, and the "
        f"median epoch with its steps: {configuration(group[0], 'batch_size')}; {source_of(group)}; "
        "s = seconds, ms = milliseconds"
        + in_caption(throttled_note([*group, *eager_rows], lambda row: f"batch {count(row['batch_size'])}")),
        columns=("batch size", "training time", "median epoch", "steps per epoch", "time a step", *last),
        rows=tuple(rows),
    )


def _eager_steps(rows: list[Row], like: Row) -> list[Row]:
    """Return timed eager steps of the same training; none where the training itself was eager."""
    if like.get("engine") in (None, "eager"):
        return []
    return [
        row
        for row in having(of_question(rows, "3a"), "batch_size")
        if row.get("engine") == "eager"
        and row.get("timed") == "training step"
        and all(row.get(name) == like.get(name) for name in SAME_STEP)
        and (row.get("stats") or {}).get("median")
    ]


def _busy_share(rows: list[Row], like: Row, batch: int) -> float | None:
    """Return the profiler's busy share at this batch size, of the same model on the same engine."""
    for row in rows:
        same = all(row.get(name) == like.get(name) for name in (*SAME_STEP, "engine"))
        if same and row.get("batch_size") == batch and row.get("gpu_busy_share") is not None:
            return float(row["gpu_busy_share"])
    return None
