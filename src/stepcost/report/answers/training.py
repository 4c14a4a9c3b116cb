"""Answers 3b to 3d: accuracy and time of whole training runs by batch size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stepcost.report.rows import Row, configuration, groups, of_question, source_of
from stepcost.report.separation import separate
from stepcost.report.tables import Table
from stepcost.report.throttle import in_caption, throttled_note
from stepcost.report.units import count, listed, ms, percent, points, seconds, significant

if TYPE_CHECKING:
    from stepcost.report.answers import Said

CLOSE_SHARE = 0.05
"""With one run each, two times nearer than this are not told apart."""
SMALL_SHARE = 0.5
"""A last batch below this share of a full one is pointed out: docs/method.md says what it did."""


def most_accurate(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """3b: the winner where seeds and test set separate it, otherwise a tie."""
    runs = _training_runs(rows)
    finals = _by_batch(runs, lambda row: _last(row, "test_accuracy"))
    if not finals:
        return _nothing(rows)
    group = [row for row in runs if row["batch_size"] in finals]
    images = next((row["test_images"] for row in group if row.get("test_images")), None)
    verdict = separate(finals, images)
    best = finals[verdict.best]
    mean = sum(best) / len(best)
    after = f"after {_epochs(group)} epochs"
    top = f"batch {count(verdict.best)} ({percent(mean)} of the test images right {after})"
    if len(finals) == 1:
        text = f"Only one batch size was trained: {top}."
    elif verdict.wins:
        text = (
            f"{top[0].upper()}{top[1:]}: its worst of {len(best)} seeds beats the best seed of every other "
            f"batch size, which chance alone would do in {percent(verdict.chance)} of cases."
        )
    else:
        text = f"A tie. Highest is {top}, but {_why_tied(verdict, finals)}."
    text += _chance(group) + _small_last_batches(group)
    table = Table(
        caption=f"Test accuracy {after}: {configuration(group[0], 'batch_size')}; {source_of(group)}; "
        "percent of the test images",
        columns=("batch size", "seeds", "mean", "lowest", "highest"),
        rows=tuple(
            (
                count(batch),
                count(len(values)),
                percent(sum(values) / len(values)),
                percent(min(values)),
                percent(max(values)),
            )
            for batch, values in finals.items()
        ),
    )
    return text, source_of(group), table


def _why_tied(verdict: Any, finals: Mapping[int, list[float]]) -> str:
    reasons = []
    if verdict.seeds < 2:
        reasons.append("with one seed the spread over seeds is unknown, and one seed separates nothing")
    elif verdict.tied_with:
        reasons.append(
            f"the {verdict.seeds} seeds or the test set do not separate it from "
            f"{listed([f'batch {count(batch)}' for batch in verdict.tied_with])}"
        )
    else:
        reasons.append(
            f"with {verdict.seeds} seeds each for {len(finals)} batch sizes chance alone would set one "
            f"apart in {percent(verdict.chance)} of cases"
        )
    if verdict.resolution is not None:
        reasons.append(f"the test set resolves {points(verdict.resolution)} at best")
    return "; ".join(reasons)


def _chance(group: list[Row]) -> str:
    chance = next((row["chance_accuracy"] for row in group if row.get("chance_accuracy") is not None), None)
    return "" if chance is None else f" Always guessing the most frequent class scores {percent(chance)}."


def _small_last_batches(group: list[Row]) -> str:
    """Where an epoch ends with a much smaller batch, after which accuracy is taken."""
    small = {}
    for row in group:
        steps, images, batch = row.get("steps_per_epoch"), row.get("train_images"), row["batch_size"]
        if steps and images and steps > 1:
            last = min(batch, images - (steps - 1) * batch)
            if last < SMALL_SHARE * batch:
                small[batch] = last
    if not small:
        return ""
    which = listed([f"{count(last)} images at batch {count(batch)}" for batch, last in sorted(small.items())])
    return (
        f" The last step of an epoch is on {which}, at the rate of a full batch, and accuracy is taken right "
        "after it: it can be far below what it was before (--drop-last leaves such batches out)."
    )


def fastest(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """3c: the batch size with the least training time, explained by steps, ms a step and the busy GPU."""
    runs = _training_runs(rows)
    times = _by_batch(runs, lambda row: row.get("train_s") or _sum_of_epochs(row))
    if not times:
        return _nothing(rows)
    group = [row for row in runs if row["batch_size"] in times]
    means = {batch: sum(values) / len(values) for batch, values in times.items()}
    quickest, slowest = min(means, key=lambda b: means[b]), max(means, key=lambda b: means[b])
    epochs = _epochs(group)
    text = f"Batch {count(quickest)}: {epochs} epochs in {seconds(means[quickest])}"
    text += _explained(rows, group, quickest)
    if len(means) == 1:
        text = f"Only one batch size was trained. {text}."
    else:
        text += (
            f"; slowest is batch {count(slowest)} with {seconds(means[slowest])}"
            f"{_explained(rows, group, slowest)}. {_why_faster(group, quickest, slowest)}"
        ).rstrip()
        level = [batch for batch in means if batch != quickest and _not_slower(times[quickest], times[batch])]
        if level:
            text = f"Too close to call between batch {listed([count(b) for b in (quickest, *level)])}. {text}"
    plain_rows = _plain_loop(rows, group[0])
    plain = {row["batch_size"]: (row["stats"]["median"], row.get("gpu_busy_share")) for row in plain_rows}
    text += _plain_loop_explained(plain, quickest, slowest)
    columns: tuple[str, ...] = ("batch size", "training time", "steps per epoch", "time a step", "GPU busy")
    if plain:  # the busy share is read of the plain loop's steps, and stands beside them
        columns = (*columns[:-1], "eager step", "GPU busy in it")
    table = Table(
        caption=f"Training time of {epochs} epochs, evaluation off the clock: "
        f"{configuration(group[0], 'batch_size')}; {source_of(group)}; s = seconds, ms = milliseconds"
        + in_caption(throttled_note([*group, *plain_rows], lambda row: f"batch {count(row['batch_size'])}")),
        columns=columns,
        rows=tuple(
            (count(batch), seconds(means[batch]), *_steps(rows, group, batch, plain)) for batch in times
        ),
    )
    return text, source_of(group), table


def _plain_loop(rows: list[Row], like: Row) -> list[Row]:
    """Timed eager steps of the same training; none where the training itself was eager."""
    if like.get("engine") in (None, "eager"):
        return []
    same = ("model", "optimizer", "image_size", "precision")
    return [
        row
        for row in of_question(rows, "3a")
        if row.get("engine") == "eager"
        and row.get("timed") == "training step"
        and all(row.get(name) == like.get(name) for name in same)
        and (row.get("stats") or {}).get("median")
    ]


def _plain_loop_explained(plain: dict[int, tuple[float, float | None]], quickest: int, slowest: int) -> str:
    if quickest == slowest or not {quickest, slowest} <= plain.keys():
        return ""
    (quick_s, quick_busy), (slow_s, slow_busy) = plain[quickest], plain[slowest]
    text = (
        f" In the plain loop (eager) a step takes {ms(slow_s)} at batch {count(slowest)} "
        f"and {ms(quick_s)} at batch {count(quickest)}"
    )
    if quick_busy is None or slow_busy is None:
        return f"{text}."
    return f"{text}, and the GPU is busy for {percent(slow_busy)} and {percent(quick_busy)} of it."


def _steps(
    rows: list[Row], group: list[Row], batch: int, plain: dict[int, tuple[float, float | None]]
) -> tuple[str, ...]:
    """Steps per epoch and time a step of one batch size, then the busy share, or the eager step with its."""
    steps, step_s = _step_time(group, batch)
    texts = ["not read" if steps is None else count(steps), "not read" if step_s is None else ms(step_s)]
    if plain:
        eager_s, busy = plain.get(batch, (None, None))
        texts.append("not read" if eager_s is None else ms(eager_s))
    else:
        busy = _busy_share(rows, group[0], batch)
    return (*texts, "not read" if busy is None else percent(busy))


def _explained(rows: list[Row], group: list[Row], batch: int) -> str:
    steps, step_s = _step_time(group, batch)
    busy = _busy_share(rows, group[0], batch)
    parts = []
    if steps is not None:
        parts.append(f"{count(steps)} steps an epoch")
    if step_s is not None:
        parts.append(f"{ms(step_s)} a step")
    if busy is not None:
        parts.append(f"the GPU busy {percent(busy)} of the step")
    return f" ({', '.join(parts)})" if parts else ""


def _why_faster(group: list[Row], quick: int, slow: int) -> str:
    """Images a step against time a step: what a larger batch buys."""
    quick_s, slow_s = _step_time(group, quick)[1], _step_time(group, slow)[1]
    if not quick_s or not slow_s or quick <= slow:
        return ""
    return (
        f"A step of batch {count(quick)} does {significant(quick / slow, 2)} times the images of a step of "
        f"batch {count(slow)} in {significant(quick_s / slow_s, 2)} times the time."
    )


def _step_time(group: list[Row], batch: int) -> tuple[int | None, float | None]:
    """Steps per epoch, and mean seconds a step over all epochs and seeds of this batch size."""
    mine = [row for row in group if row["batch_size"] == batch]
    steps = next((row["steps_per_epoch"] for row in mine if row.get("steps_per_epoch")), None)
    taken = sum((row.get("steps_per_epoch") or 0) * len(row["epochs"]) for row in mine)
    spent = sum(row.get("train_s") or _sum_of_epochs(row) or 0 for row in mine)
    return steps, float(spent / taken) if taken and spent else None


def _busy_share(rows: list[Row], like: Row, batch: int) -> float | None:
    """The profiler's busy share at this batch size, of the same model on the same engine."""
    keys = ("model", "optimizer", "precision", "engine", "image_size")
    for row in rows:
        same = all(row.get(key) == like.get(key) for key in keys) and row.get("batch_size") == batch
        if same and row.get("gpu_busy_share") is not None:
            return float(row["gpu_busy_share"])
    return None


def _not_slower(quick: list[float], other: list[float]) -> bool:
    if len(quick) > 1 and len(other) > 1:
        return min(other) <= max(quick)
    return min(other) <= max(quick) * (1 + CLOSE_SHARE)


def accuracy_over_time(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """3d: when each batch size reached the accuracy that all of them reached."""
    runs = _training_runs(rows)
    highest = _by_batch(runs, lambda row: max(_values(row, "train_accuracy"), default=None))
    if not highest:
        return _nothing(rows)
    group = [row for row in runs if row["batch_size"] in highest]
    goal = min(min(values) for values in highest.values())
    reached = _by_batch(group, lambda row: _time_to(row, goal))
    parts = [
        f"batch {count(batch)} after {seconds(sum(taken) / len(taken))}" for batch, taken in reached.items()
    ]
    if not parts:
        return "Training accuracy was recorded, but not its time.", source_of(group), None
    text = (
        f"Training accuracy reached {percent(goal)} (the most that every run reached) at "
        f"{listed(parts)} of training, counted in whole epochs with evaluation off the clock."
    )
    return text, source_of(group), None


def training_runs(rows: list[Row]) -> list[Row]:
    """Rows of whole training runs that differ in batch size and seed only."""
    return _training_runs(rows)


def _training_runs(rows: list[Row]) -> list[Row]:
    found = groups([row for row in of_question(rows, "3b") if row.get("epochs")], "batch_size")
    return found[0] if found else []


def _nothing(rows: list[Row]) -> Said:
    failed = [row for row in of_question(rows, "3b") if row.get("fits") is False]
    if failed:
        batches = listed([count(row["batch_size"]) for row in failed if row.get("batch_size")])
        return f"No training run finished: batch {batches} ran out of memory.", source_of(failed), None
    return "Not asked in this run.", "skipped", None


def _by_batch(runs: list[Row], figure: Any) -> dict[int, list[float]]:
    """Batch size to one figure per seed, batch sizes ascending; rows without the figure left out."""
    found: dict[int, list[float]] = defaultdict(list)
    for row in runs:
        value = figure(row)
        if value is not None:
            found[row["batch_size"]].append(float(value))
    return dict(sorted(found.items()))


def _values(row: Row, field: str) -> list[float]:
    return [epoch[field] for epoch in row.get("epochs") or [] if epoch.get(field) is not None]


def _last(row: Row, field: str) -> float | None:
    value = row["epochs"][-1].get(field)
    return None if value is None else float(value)


def _sum_of_epochs(row: Row) -> float | None:
    values = _values(row, "train_seconds")
    return float(sum(values)) if len(values) == len(row["epochs"]) else None


def _time_to(row: Row, goal: float) -> float | None:
    """Seconds of training until the end of the first epoch at or above ``goal``."""
    spent: float = 0.0
    for epoch in row["epochs"]:
        if epoch.get("train_seconds") is None:
            return None
        spent += float(epoch["train_seconds"])
        if (epoch.get("train_accuracy") or 0) >= goal:
            return spent
    return None


def _epochs(group: list[Row]) -> str:
    numbers = sorted({len(row["epochs"]) for row in group})
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
