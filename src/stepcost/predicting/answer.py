"""What ``predict`` answers: one object for programs, and the same in words and tables for people."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from stepcost.activations import ModuleActivations, as_rows, print_activations
from stepcost.catalog.cards import Card
from stepcost.catalog.engines import ENGINES
from stepcost.flags import one_of
from stepcost.predicting.largest import largest_batch, longest_sequence
from stepcost.predicting.prediction import predict_in_full
from stepcost.predicting.times import StepTime, predict_busy
from stepcost.predicting.times.from_rates import time_on
from stepcost.predicting.times.said import busy_fields, busy_line, time_fields, time_lines
from stepcost.predicting.torch_versions import version_of
from stepcost.predicting.validation import (
    NO_RUN,
    changes_since,
    expected_error,
    is_validated,
    validated_with,
    validation_line,
)
from stepcost.progress import progress
from stepcost.reading import Rank, Reading
from stepcost.request import Request, in_precision_of, step_words
from stepcost.search import PredictedLargest, PredictedLongest
from stepcost.units import BYTES_NOTE, mb_number, places

PEAKS = ("peak_allocated", "peak_reserved", "process")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A prediction, ready to be printed."""

    fields: dict[str, Any]
    """Of the one object that ``--json`` prints, under the stored names."""
    first_line: str
    """What predictions were compared with."""
    reading: Reading
    card: Card | None
    kept: list[ModuleActivations] | None
    """By module what forward keeps for backward, where that was asked for."""
    largest: PredictedLargest | None
    """Where it was asked for."""
    longest: PredictedLongest | None
    """Where it was asked for."""
    step_time: StepTime | None
    """Where it was asked for and is known."""

    @property
    def exit_code(self) -> int:
        """0 where it fits or no card was named, 1 where it does not fit or that cannot be said."""
        return 0 if self.card is None or self.reading.fits else 1


def answer(
    request: Request,
    card: Card | None,
    *,
    torch_version: str,
    activations: bool,
    largest: bool,
    longest: bool,
    engine: str | None = None,
) -> Answer:
    """Predict ``request`` on ``card``; if asked for, activations by module, largest batch, longest sequence.

    With a captured ``engine`` also how long the step would take so; memory is that of the eager step in the
    engine's precision. Whatever the model prints goes to standard error. Raises ``ValueError`` with one line
    for a wrong request.
    """
    if largest and card is None:
        raise ValueError("--largest-batch needs --gpu: the largest batch of which card?")
    if longest and card is None:
        raise ValueError("--longest-sequence needs --gpu: the longest sequence of which card?")
    if engine is not None and card is None:
        raise ValueError("--engine needs --gpu: the time on which card?")
    started = time.perf_counter()
    version = version_of(torch_version)
    timed, busy, why_not = None, None, None
    launched = request
    if engine is not None:
        launched = replace(request, engine=one_of(ENGINES)("--engine", engine))
        request = in_precision_of(engine, request)
    with prints_to_stderr():
        prediction = predict_in_full(request, card, torch_version=torch_version)
        if engine is not None and card is not None:
            why_not = "it does not fit"
            if prediction.reading.fits is not False:
                timed, busy, why_not = _times_of(launched, card)
        found, length = None, None
        if largest and card:
            with progress("largest batch") as begin:
                found = largest_batch(
                    request, card, torch_version=torch_version, on_trial=lambda size: begin(f"batch {size:,}")
                )
        if longest and card:
            with progress("longest sequence") as begin:
                length = longest_sequence(
                    request,
                    card,
                    torch_version=torch_version,
                    on_trial=lambda size: begin(f"{size:,} tokens"),
                )
    reading = prediction.reading
    errors = expected_error(request, prediction.workspaces, card, version)
    fields = asdict(request) | asdict(reading) | {"tensor_bytes": reading.tensor_bytes}
    del fields["device"]  # nothing ran anywhere
    fields |= {
        "gpu": card.gpu if card else None,
        "torch": torch_version,
        "validated": is_validated(request, card, version),
        "validated_with": validated_with(),
        "changed_since_validated": changes_since(card, version),
        "expected_error": errors if prediction.unseen is None else None,
    }
    kept = prediction.kept if activations and reading.fits is not False else None
    if activations:
        fields["activations_by_module"] = None if kept is None else as_rows(kept)
    for one in (found, length):
        fields |= {} if one is None else asdict(one)
    if card is not None and engine is not None:
        fields |= {"card": card.name, "step_engine": engine} | time_fields(timed) | busy_fields(busy)
        why_not = why_not if timed is None else timed.unasked
        fields["unread"] |= {} if why_not is None else {"step_s": why_not}
    fields["seconds"] = time.perf_counter() - started
    return Answer(
        fields=fields,
        first_line=validation_line(request, card, version),
        reading=reading,
        card=card,
        kept=kept,
        largest=found,
        longest=length,
        step_time=timed,
    )


def _times_of(launched: Request, card: Card) -> tuple[StepTime | None, StepTime | None, str | None]:
    """Return how long a step takes; else, of an engine that is not captured, its kernels; and why not."""
    try:
        return time_on(launched, card), None, None
    except ValueError as error:
        busy = None
        with contextlib.suppress(ValueError):  # which the first says
            busy = predict_busy(launched, card) if not ENGINES[launched.engine].captured else None
        return None, busy, str(error)


@contextlib.contextmanager
def prints_to_stderr() -> Iterator[None]:
    """Send what is printed inside to standard error, also where it is not Python that prints."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def print_answer(found: Answer) -> None:
    """Print what the prediction rests on, whether it fits, the largest batch, and where the bytes are."""
    from rich.console import Console  # noqa: PLC0415 (only for people)

    print(found.first_line)
    if found.card is not None:
        print(_fits_line(found.reading))
    if found.largest is not None:
        print(_most_line("Largest batch", asdict(found.largest), "largest_batch"))
    if found.longest is not None:
        ends = ", all that the model has positions for" if found.longest.longest_sequence_is_all else ""
        print(_most_line("Longest sequence", asdict(found.longest), "longest_sequence", ends))
    if found.reading.ranks:
        Console().print(_table_of_ranks(found))
    if found.step_time is not None:
        for line in time_lines(found.step_time, found.fields):
            print(line)
    elif "step_s" in found.fields:
        print(f"How long a step takes cannot be said: {found.fields['unread']['step_s']}.")
        if found.fields.get("gpu_busy_s") is not None:
            print(busy_line(found.fields))
    Console().print(_table(found))
    errors = found.fields["expected_error"]
    for name, (low, high) in (errors or {}).items():
        if found.fields[name] is not None:
            figure = name.removesuffix("_bytes").replace("_", " ")
            print(f"Error to expect of {figure}: {100 * low:+.2f} % to {100 * high:+.2f} %")
    if errors is None:
        print(f"Error to expect: unknown, {NO_RUN}, or too few")
    if found.kept is not None:
        print_activations(found.kept, "predicted")


def _fits_line(reading: Reading) -> str:
    if reading.fits:
        of_range = reading.context_likely_bytes is not None  # nobody measured the card
        return "It fits where the context is in its likely range." if of_range else "It fits."
    if reading.fits is False:
        return f"It does not fit: {reading.reason}."
    return f"It cannot be said whether it fits: {reading.unread['fits']}."


def _most_line(name: str, fields: dict[str, Any], field: str, ends: str = "") -> str:
    """Say the largest batch or the longest sequence, or what bounds it; ``ends`` says what ends it."""
    number, at_least, at_most, rests_on, likely = (
        fields[f"{field}{part}"] for part in ("", "_at_least", "_at_most", "_rests_on", "_likely")
    )
    if number is not None:
        if rests_on:
            return f"{name}, estimated: {number:,}{ends} ({rests_on})."
        return f"{name} that fits: {number:,}{ends}."
    if at_least is not None:
        return f"{name} that fits: at least {at_least:,}, where the search ends."
    if likely is None:
        return f"{name} that fits: none, not even one of 1."
    low, *high = likely
    most = "no bound was found" if at_most is None else f"at most {at_most:,}"
    said = f"{low:,} to {high[0]:,}" if high else f"{low:,} or more, where the search ends"
    return (
        f"{name}: {most}; likely {said}, if the context is as on other cards and cuDNN makes do with the "
        "room that is left."
    )


def _asked(fields: dict[str, Any]) -> list[str]:
    parts = [fields["model"], fields["optimizer"], f"batch {fields['batch_size']}"]
    if fields["image_size"]:
        parts.append(f"{fields['image_size']}x{fields['image_size']}")
    if fields["sequence_length"]:
        parts.append(f"{fields['sequence_length']:,} tokens")
    return parts + step_words(fields)


def _table_of_ranks(found: Answer) -> Any:
    """Return what each GPU holds as a table, alike ones in one line."""
    from rich.table import Table  # noqa: PLC0415 (only for people)

    alike: dict[Rank, list[int]] = {}
    for place, rank in enumerate(found.reading.ranks):
        alike.setdefault(replace(rank, ledger=None), []).append(place)
    table = Table(title=f"What each GPU holds, predicted, in {BYTES_NOTE}")
    for name in ("GPU", "state", "allocated", "reserved", "reserved at most", "process"):
        table.add_column(name, justify="left" if name == "GPU" else "right")
    for rank, ranks in alike.items():
        most = (rank.peak_reserved_likely_bytes or (rank.peak_reserved_bytes,))[-1]
        sizes = (
            rank.optimizer_state_bytes,
            rank.peak_allocated_bytes,
            rank.peak_reserved_bytes,
            most,
            rank.process_bytes,
        )
        table.add_row(places(ranks), *("unknown" if one is None else mb_number(one) for one in sizes))
    return table


def _table(found: Answer) -> Any:
    """Return the ledger and the peaks as a table, of several GPUs those of the fullest."""
    from rich.table import Table  # noqa: PLC0415 (only for people)

    fields, reading = found.fields, found.reading
    where = f"on {found.card.gpu}" if found.card else "on no card in particular"
    where += ", the fullest GPU" if reading.ranks else ""
    table = Table(
        title=", ".join([*_asked(fields), where]),
        caption=f"predicted in {fields['seconds']:.1f} s; in {BYTES_NOTE}",
    )
    table.add_column("memory at the peak")
    table.add_column("MB", justify="right")
    table.add_column("note")

    def row(name: str, *notes: str | None) -> None:
        size = fields[f"{name}_bytes"] if name in PEAKS else fields["ledger"][f"{name}_bytes"]
        known = "unknown" if size is None else mb_number(size)
        why = reading.unread.get(f"{name}_bytes")
        table.add_row(name.replace("_", " "), known, "; ".join(filter(None, (*notes, why))))

    if reading.ledger is not None:
        for name, size in fields["ledger"].items():
            if name != "parallel_bytes" or size:  # of one GPU there is none
                row(name.removesuffix("_bytes"))
        table.add_section()
    row("peak_allocated", f"in {reading.peak_moment}" if reading.peak_moment else None)
    row("peak_reserved")
    row("process")
    return table
