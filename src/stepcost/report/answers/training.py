"""Answers 3b and 3d: accuracy of whole training runs by batch size, and over time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from stepcost.report.rows import Row, configuration, groups, of_question, source_of
from stepcost.report.said import NOT_ASKED, Said
from stepcost.report.separation import Separation, separate
from stepcost.report.tables import Table
from stepcost.units import count, counted, listed, percent, points, seconds

SMALL_SHARE = 0.5
"""A last batch below this share of a full one is pointed out: docs/notes/method.md says what it did."""


def most_accurate(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """3b: the winner where seeds and test set separate it, otherwise a tie."""
    runs = training_runs(rows)
    finals = _by_batch(runs, lambda row: _last(row, "test_accuracy"))
    if not finals:
        return nothing_trained(rows)
    group = [row for row in runs if row["batch_size"] in finals]
    images = next((row["test_images"] for row in group if row.get("test_images")), None)
    verdict = separate(finals, images)
    best = finals[verdict.best]
    mean = sum(best) / len(best)
    after = f"after {epochs_said(group)}"
    top = f"batch {count(verdict.best)} ({percent(mean)} of the test images right {after})"
    if len(finals) == 1:
        text = f"Only one batch size was trained: {top}."
    elif verdict.wins:
        text = (
            f"{top[0].upper()}{top[1:]}: its worst of {len(best)} seeds beats the best seed of every other "
            f"batch size, which chance alone would do in {percent(verdict.chance)} of cases."
        )
    else:
        text = f"A tie: highest is {top}, but {_why_tied(verdict, finals)}."
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
    return trained(group, text, table)


def _why_tied(verdict: Separation, finals: Mapping[int, list[float]]) -> str:
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


def accuracy_over_time(rows: list[Row], _machine: Mapping[str, Any]) -> Said:
    """3d: when each batch size reached the accuracy that all of them reached."""
    runs = training_runs(rows)
    highest = _by_batch(runs, lambda row: max(_values(row, "train_accuracy"), default=None))
    if not highest:
        return nothing_trained(rows)
    group = [row for row in runs if row["batch_size"] in highest]
    goal = min(min(values) for values in highest.values())
    reached = _by_batch(group, lambda row: _time_to(row, goal))
    parts = [
        f"batch {count(batch)} after {seconds(sum(taken) / len(taken))}" for batch, taken in reached.items()
    ]
    if not parts:
        return trained(group, "Training accuracy was recorded, but not its time.")
    text = (
        f"Training accuracy reached {percent(goal)} (the most that every run reached) at "
        f"{listed(parts)} of training, counted in whole epochs with evaluation off the clock."
    )
    return trained(group, text)


def trained(group: list[Row], text: str, table: Table | None = None) -> Said:
    """Return what training runs say; of a stand-in's its first words and its source name both models."""
    asked, source = group[0].get("stand_in_for"), source_of(group)
    if not asked:
        return Said(text, source, table)
    model = group[0].get("model") or "a stand-in"
    text = f"On {model}, this CPU, not {asked}: {text[0].lower()}{text[1:]}"
    return Said(text, f"{source} on {model}, this CPU: not {asked}", table)


def training_runs(rows: list[Row]) -> list[Row]:
    """Choose the rows of whole training runs that differ in batch size and seed only, by batch size."""
    found = groups([row for row in of_question(rows, "3b") if row.get("epochs")], "batch_size")
    return found[0] if found else []


def nothing_trained(rows: list[Row]) -> Said:
    """Say that no training run was asked for, or that none finished."""
    failed = [row for row in of_question(rows, "3b") if row.get("fits") is False]
    if failed:
        batches = listed([count(row["batch_size"]) for row in failed if row.get("batch_size")])
        return Said(f"No training run finished: batch {batches} ran out of memory.", source_of(failed))
    return NOT_ASKED


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


def epochs_s(row: Row) -> list[float]:
    """Return the seconds of training of each epoch; none where they were not recorded of every one."""
    values = _values(row, "train_seconds")
    return values if len(values) == len(row["epochs"]) else []


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


def epochs_said(group: list[Row]) -> str:
    """Write ``1 epoch``, ``10 epochs``, or ``3 to 10 epochs`` where runs differ."""
    least, most = (choose(len(row["epochs"]) for row in group) for choose in (min, max))
    return counted(most, "epoch") if least == most else f"{least} to {counted(most, 'epoch')}"
