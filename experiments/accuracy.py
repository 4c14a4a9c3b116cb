"""How far predictions are from readings.

``python -m experiments.accuracy FILE --gpu h100-80gb``: the file is a run saved on a GPU by
``pytest benchmarks/ --benchmark-save``, or lines of ``{"request": {...}, "reading": {...}}``
(``.jsonl``, ``.jsonl.gz``), each a measured ``Reading`` with its ``Request``. Prints a Markdown
table, of several GPUs with a line a rank; ``--predictions`` compares predictions that were written before
(``readings --predict``), ``--mem-tracker`` adds what torch's MemTracker says of the same step on fake tensors
(slow), and ``--leave-out`` shows what a missing entry of the table costs.
"""

from __future__ import annotations

import gzip
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from experiments.arguments import parser_of
from experiments.tracker import tracked_peak_bytes
from stepcost.catalog.cards import CARDS, Card
from stepcost.predicting.prediction import predict
from stepcost.predicting.simulate import simulate
from stepcost.predicting.tape import WORKSPACE
from stepcost.predicting.torch_versions import installed_torch, version_of
from stepcost.predicting.trace import trace_run
from stepcost.predicting.workspaces import workspaces_on
from stepcost.request import Request, step_words

FIGURES = ("peak_allocated_bytes", "peak_reserved_bytes", "process_bytes")
TRACKER = "mem_tracker"


def compare(
    path: Path,
    card: Card,
    torch_version: str,
    with_tracker: bool,
    written: Mapping[Request, dict[str, Any]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield, for each run that fits, the request and each figure's error, as a share of what was measured.

    Of several GPUs it is one for each rank, with ``rank``; ``likely`` says of each peak whether the measured
    one is in the range that was predicted. ``written`` are the readings that were predicted before.
    """
    for request, measured in readings_of(path):
        if not measured.get("fits"):
            continue
        try:
            ours = _predicted(request, card, torch_version, written)
        except ValueError as error:
            name = ", ".join((request.model, *step_words(asdict(request))))
            sys.stderr.write(f"{name} is not compared: {error}\n")
            continue
        started = time.perf_counter()
        tracked = tracked_peak_bytes(request) if with_tracker else None
        tracker_s = time.perf_counter() - started
        pairs = zip(ours.get("ranks") or [ours], measured.get("ranks") or [measured], strict=True)
        for rank, (held, theirs) in enumerate(pairs):
            errors: dict[str, Any] = {"request": request, "seconds": ours["seconds"]}
            errors["rank"] = rank if request.gpus > 1 else None
            for figure in FIGURES:
                unknown = held[figure] is None or theirs[figure] is None
                errors[figure] = None if unknown else held[figure] / theirs[figure] - 1
            errors["likely"] = {figure: _is_likely(held, theirs, figure) for figure in FIGURES[:2]}
            if with_tracker:
                errors[TRACKER] = None if tracked is None else tracked / theirs["peak_allocated_bytes"] - 1
                errors["tracker seconds"] = tracker_s
            errors["estimated"] = "workspace_bytes" in ours["unread"]
            yield errors


def _predicted(
    request: Request, card: Card, torch_version: str, written: Mapping[Request, dict[str, Any]] | None
) -> dict[str, Any]:
    """Return the fields of the predicted reading. Raises ``ValueError`` where there is none."""
    if written is None:
        return asdict(predict(request, card, torch_version=torch_version))
    if request not in written:
        raise ValueError("it was not predicted before")
    return written[request]


def _is_likely(ours: dict[str, Any], theirs: dict[str, Any], figure: str) -> bool:
    """Whether what was measured is what was predicted, or in its range."""
    if ours[figure] is None:
        return False
    low, high = ours.get(figure.replace("_bytes", "_likely_bytes")) or (ours[figure], ours[figure])
    return bool(low <= theirs[figure] <= high)


def compare_without(path: Path, card: Card, torch_version: str, left_out: str) -> Iterator[dict[str, Any]]:
    """Yield the same with what is recorded of each run's own convolutions left out of the table.

    ``left_out`` is ``batch`` (at the run's batch size), ``convolutions`` (at any), both then estimated from
    the rest, or ``table``: all of it, so that cuDNN is asked where it is installed.
    """
    for request, measured in readings_of(path):
        if not measured["fits"]:
            continue
        started = time.perf_counter()
        traced = trace_run(request)
        own = {what.key for action, what, _ in traced.events if action == WORKSPACE}
        workspaces = workspaces_on(card, version_of(torch_version))
        table = workspaces.table
        if table is not None:
            kept = {
                key: {batch: sizes for batch, sizes in row.items() if batch != str(request.batch_size)}
                if key in own
                else row
                for key, row in table.convolutions.items()
                if key not in own or left_out == "batch"
            }
            table = replace(table, convolutions=kept)
        if left_out == "table":
            workspaces = replace(workspaces, table=None)
        else:
            workspaces = replace(workspaces, table=table, library=None)
        simulation = simulate(traced, workspaces, card.room_bytes)
        ours = {
            "peak_allocated_bytes": simulation.peak.allocated_bytes if simulation.peak else None,
            "peak_reserved_bytes": simulation.allocator.peak_reserved_bytes if simulation.peak else None,
        }
        errors = {
            figure: None if size is None else size / measured[figure] - 1 for figure, size in ours.items()
        }
        yield {"request": request, "seconds": time.perf_counter() - started, "estimated": True, **errors}


def requests_of(path: Path) -> Iterator[Request]:
    """Yield the request of each line of a file, whatever else the line holds."""
    names = {one.name for one in fields(Request)}
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    for line in data.splitlines():
        row = json.loads(line)["request"]
        yield Request(**{name: row[name] for name in names & row.keys()})


def readings_of(path: Path) -> Iterator[tuple[Request, dict[str, Any]]]:
    """Yield each measured request of a file once, with its reading's fields."""
    names = [one.name for one in fields(Request)]
    if ".jsonl" in path.suffixes:
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for line in text.splitlines():
            row = json.loads(line)
            yield Request(**{n: row["request"][n] for n in names if n in row["request"]}), row["reading"]
        return
    seen = set()
    for bench in json.loads(path.read_text())["benchmarks"]:
        row = bench["extra_info"]
        if row.get("source") != "measured" or row["question"] not in ("2a", "3a", "6") or "fits" not in row:
            continue
        request = Request(**{name: row[name] for name in names if name in row})
        if request not in seen:
            seen.add(request)
            yield request, row


def predictions_of(path: Path, card: str) -> dict[Request, dict[str, Any]]:
    """Return by request what ``readings --predict`` wrote of a card, where it could be predicted."""
    lines = map(json.loads, path.read_text().splitlines())
    written = [one for one in lines if one["card"] == card and "fits" in one["reading"]]
    return {Request(**one["request"]): one["reading"] for one in written}


def summary(name: str, errors: list[float]) -> str:
    """Return a line: how many, median and worst absolute error, bias, and the share predicted too low."""
    if not errors:
        return f"| {name} | 0 | | | | | |"
    absolute = [abs(error) for error in errors]
    exact = sum(error == 0 for error in errors)
    low = 100 * sum(error < 0 for error in errors) / len(errors)
    middle, worst = 100 * statistics.median(absolute), 100 * max(absolute)
    mean = 100 * statistics.fmean(errors)
    return f"| {name} | {len(errors)} | {exact} | {middle:.3f} | {worst:.2f} | {mean:+.3f} | {low:.0f} |"


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; return the exit status."""
    parser = parser_of("accuracy", __doc__)
    parser.add_argument("readings", type=Path, help="a saved run, or a file with one measured reading a line")
    parser.add_argument("--gpu", required=True, metavar="CARD", help="the card they were read on")
    parser.add_argument("--torch", default=installed_torch(), help="with which torch (%(default)s)")
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="what was predicted before")
    parser.add_argument("--mem-tracker", action="store_true", help="compare with torch's MemTracker too")
    parser.add_argument("--leave-out", choices=("batch", "convolutions", "table"), help="of the workspaces")
    options = parser.parse_args(arguments)
    if options.gpu not in CARDS:
        parser.error(f"unknown card {options.gpu!r}; it takes {', '.join(CARDS)}")
    columns = [*FIGURES, *([TRACKER] if options.mem_tracker else [])]
    if options.leave_out:
        columns = [*FIGURES[:2]]
    out = sys.stdout
    names = " | ".join(column.removesuffix("_bytes").replace("_", " ") for column in columns)
    out.write(f"| step | optimizer | batch | image or tokens | {names} | s |\n")
    out.write("|---" * (5 + len(columns)) + "|\n")
    rows = []
    written = predictions_of(options.predictions, options.gpu) if options.predictions else None
    where = options.readings, CARDS[options.gpu], options.torch
    compared = (
        compare_without(*where, options.leave_out)
        if options.leave_out
        else compare(*where, options.mem_tracker, written)
    )
    for row in compared:
        rows.append(row)
        one = row["request"]
        rank = None if row.get("rank") is None else f"rank {row['rank']}"
        step = ", ".join(filter(None, (Path(one.model).stem, *step_words(asdict(one)), rank)))
        errors = " | ".join("" if row[c] is None else f"{100 * row[c]:+.3f}" for c in columns)
        mark = " *" if row["estimated"] else ""
        size = one.image_size or one.sequence_length
        asked = f"{step}{mark} | {one.optimizer} | {one.batch_size} | {size}"
        out.write(f"| {asked} | {errors} | {row['seconds']:.1f} |\n")
        out.flush()
    out.write("\n| figure | runs | exact | median % | worst % | mean % | too low % |\n")
    out.write("|---" * 7 + "|\n")
    for column in columns:
        out.write(summary(column, [row[column] for row in rows if row[column] is not None]) + "\n")
    likely = [row["likely"] for row in rows if row.get("rank") is not None]
    for column in FIGURES[:2] if likely else ():
        out.write(
            f"\n{column}: {sum(one[column] for one in likely)} of {len(likely)} as predicted or in range.\n"
        )
    if rows and options.mem_tracker and not options.leave_out:
        seconds = statistics.median(row["tracker seconds"] for row in rows)
        out.write(f"\nMemTracker took {seconds:.1f} s a run (median).\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
