"""The largest batch and the longest sequence that a card would train, by prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from stepcost.catalog.cards import Card
from stepcost.catalog.language_models import language_config, most_positions
from stepcost.predicting.compared import rests_on
from stepcost.predicting.nccl_context import card_among
from stepcost.predicting.recorded import find_table
from stepcost.predicting.simulate import simulate
from stepcost.predicting.torch_versions import version_of
from stepcost.predicting.trace import Trace
from stepcost.predicting.traces import Size, Traces, runs_of, traces_of
from stepcost.predicting.validation import NO_RUN, is_validated
from stepcost.predicting.workspaces import workspaces_on
from stepcost.request import Request, why_not_predicted_on
from stepcost.search import PredictedLargest, PredictedLongest, bracket, guess_from_tensors

RESOLUTION = 0.005
"""The search ends where the neighbour that does not fit is within this share."""
ABOVE = 0.01
"""So far above a number that fits, with a neighbour that does not, larger ones are tried."""
MOST = 1 << 20
"""Nothing larger than this is looked at."""
MOST_PREDICTIONS = 64
"""More than any search needs: the strides double."""


@dataclass(frozen=True, kw_only=True)
class Most:
    """The largest number that fits, as far as it is known; fields as those of ``PredictedLargest``."""

    number: int | None = None
    at_least: int | None = None
    at_most: int | None = None
    rests_on: str | None = None
    likely: tuple[int, ...] | None = None

    def named(self, word: str) -> dict[str, Any]:
        """Return the fields that are stored, under their names."""
        return {
            word: self.number,
            f"{word}_at_least": self.at_least,
            f"{word}_at_most": self.at_most,
            f"{word}_rests_on": self.rests_on,
            f"{word}_likely": self.likely,
        }


def largest_batch(
    request: Request,
    card: Card,
    *,
    torch_version: str = torch.__version__,
    traces: Traces | None = None,
    on_trial: Callable[[int], object] = lambda _: None,
) -> PredictedLargest:
    """Find the largest batch predicted to fit ``card``, to 0.5 %, or bounds where its context is unknown.

    ``request`` says what is trained; its batch size only says where tensor bytes are read for a guess. Where
    a convolution's workspace finds no room, one that needs less is taken, as on a GPU. ``traces`` are those
    of ``traces_of``, where several cards share them. ``on_trial`` is called with each batch that is looked
    at. Raises ``ValueError`` with one line for what cannot be built or traced.
    """
    asked: dict[str, Any] = {"torch_version": torch_version, "most": MOST, "traces": traces}
    found = _most("batch_size", request, card, on_trial=on_trial, **asked)
    return PredictedLargest(**found.named("largest_batch"))


def longest_sequence(
    request: Request,
    card: Card,
    *,
    torch_version: str = torch.__version__,
    on_trial: Callable[[int], object] = lambda _: None,
) -> PredictedLongest:
    """Find the longest sequence predicted to fit ``card`` at the request's batch size, as ``largest_batch``.

    It is no longer than the model has positions for. Raises ``ValueError`` with one line for a model that
    takes no sequences, too.
    """
    if request.sequence_length is None:
        raise ValueError(f"--longest-sequence: {request.model} takes no sequences of tokens")
    positions = most_positions(language_config(request.model))
    most = min(positions or MOST, MOST)
    found = _most("sequence_length", request, card, torch_version=torch_version, most=most, on_trial=on_trial)
    if positions is None or positions > MOST:
        return PredictedLongest(**found.named("longest_sequence"), longest_sequence_is_all=None)
    is_all = found.at_least == positions
    if found.at_most is None:  # it ended where the model does
        likely = None if found.likely is None else (found.likely[0], positions)
        found = replace(found, number=found.at_least, at_least=None, at_most=positions, likely=likely)
    return PredictedLongest(**found.named("longest_sequence"), longest_sequence_is_all=is_all)


def _most(
    field: Size,
    request: Request,
    card: Card,
    *,
    torch_version: str,
    most: int,
    on_trial: Callable[[int], object],
    traces: Traces | None = None,
) -> Most:
    """Find the largest value of a field of the request, up to ``most``, that fits."""
    if why_not := why_not_predicted_on(card, request):
        raise ValueError(why_not)
    version = version_of(torch_version)
    asked: int = getattr(request, field)
    traces = traces or traces_of(request, [card], version, field)[card]
    plain, card = card, card_among(card, request.gpus, version)

    def fits(number: int, room_bytes: int, trace: Callable[[int], Sequence[Trace]]) -> bool:
        on_trial(number)
        try:
            runs = runs_of(trace(number))
        except ValueError:
            if number == 1:  # batch norm cannot train on a single value
                return False
            raise
        return all(simulate(run, workspaces_on(plain, version), room_bytes).peak is not None for run in runs)

    def search(
        room_bytes: int, guess: int, trace: Callable[[int], Sequence[Trace]] = traces.about
    ) -> tuple[int, int | None]:
        return bracket(
            lambda number: fits(number, room_bytes, trace),
            guess,
            resolution=RESOLUTION,
            most_attempts=MOST_PREDICTIONS,
            most=most,
        )

    few = min(max(2, asked), most // 2)
    room, is_known = card.room_bytes, card.is_measured and find_table(card.compute_capability) is not None
    good, bad = search(room, _guess(few, traces, room))
    if good and bad is not None:
        good, bad = _climb(good, bad, lambda number: fits(number, room, traces.about), most)
    if is_known and not _holds(good, bad, lambda number: fits(number, room, traces.at)):
        good, bad = search(room, max(1, good), traces.at)
    at_most = None if bad is None else bad - 1
    if not good:
        return Most(at_most=0)
    if is_known:
        workspaces = workspaces_on(plain, version)
        simulate(traces.at(good)[0], workspaces, room)
        untested = None if is_validated(request, plain, version) else NO_RUN
        unseen = rests_on(traces.at(good)[0].uncompared)
        why = "; ".join(filter(None, (workspaces.why_estimated, untested, unseen))) or None
        if bad is None:
            return Most(at_least=good, rests_on=why)
        return Most(number=good, at_most=at_most, rests_on=why)
    low, high = (search(less, good) for less in card.likely_room_bytes)
    likely = (low[0],) if high[1] is None else (low[0], high[1] - 1)
    return Most(at_most=at_most, likely=likely)


def _climb(good: int, bad: int, fits: Callable[[int], bool], most: int) -> tuple[int, int | None]:
    """Return the largest number that fits up to ``ABOVE`` the one found, and the next that was seen to fail.

    What is reserved goes up and down by segments: one more example may leave a gap that the next one fills.
    """
    stride = max(1, int(good * RESOLUTION / 2))

    def above(number: int) -> int:
        return min(most, max(number + 3, math.ceil(number * (1 + ABOVE))))

    number, last, fails = bad, above(good), bad
    while number < last:
        number = min(number + stride, last)
        if fits(number):
            good, fails, last = number, 0, above(number)
        else:
            fails = fails or number
    return good, fails or None


def _holds(good: int, bad: int | None, fits: Callable[[int], bool]) -> bool:
    """Say whether what was found on lines is so where it is traced."""
    return (good == 0 or fits(good)) and (bad is None or not fits(bad))


def _guess(few: int, traces: Traces, room_bytes: int) -> int:
    """Return a number that the largest one stays below, and is close to.

    Tensors after forward grow by a line; the peak of a step, without workspaces, by one that bends upwards:
    with few examples it lies where the batch plays no part.
    """
    empty = workspaces_on(None, (0, 0))
    held, peaks = [], []
    for number in (few, 2 * few):
        traced = traces.at(number)[0]
        simulated = simulate(traced, empty, None)
        fixed = ("parameter_bytes", "buffer_bytes", "optimizer_state_bytes", "input_bytes")
        held.append((number, simulated.kept_bytes + sum(int(traced.counted[name]) for name in fixed)))
        peaks.append((number, max(simulated.phase_peak_bytes.values())))
    guess = guess_from_tensors(held, room_bytes)
    return min(guess, guess_from_tensors(peaks, room_bytes)) if peaks[0][1] < peaks[1][1] else guess
