"""``stepcost``: one command, with a subcommand for each question that needs no pytest."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stepcost.catalog.cards import CARDS, find_card
from stepcost.catalog.engines import ENGINES
from stepcost.catalog.models import kind_of
from stepcost.command_line import Parser, add_flag, add_step, command, steps_asked, value
from stepcost.flags import MOST_GPUS, names_of, one_of, priced, whole, wholes
from stepcost.price import run_prices
from stepcost.progress import progress
from stepcost.request import ALONE, FSDP2, FSDP_OPTIONS, PARALLEL, STEP, in_precision_of, step_named
from stepcost.settings import check_fsdp

RECORD_TIMES = "record times"
USUAL_EPOCH = "50000"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand that the arguments name; return its exit code."""
    parser = Parser(prog="stepcost", description="What does a training step cost?")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        _add_predict,
        _add_cards,
        _add_report,
        _add_compare,
        _add_list,
        _add_record,
        _add_record_times,
    ):
        add(commands)
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:2] == RECORD_TIMES.split():
        given[:2] = [RECORD_TIMES]
    options = parser.parse_args(given)
    try:
        run: Callable[[argparse.Namespace], int] = options.run_command
        return run(options)
    except ValueError as error:
        options.parser.error(str(error))
    except BrokenPipeError:  # the reader of a pipe (head, less) has gone
        pass
    return 0


def _add_predict(commands: Any) -> None:
    parser = command(
        commands,
        "predict",
        _predict,
        "Predict what a training step costs in memory, without a GPU. Exit code: 0 it fits (or no card is "
        "named), 1 it does not or that cannot be said, 2 a wrong request.",
    )
    add_step(parser)
    _add_shared(parser)
    add_flag(
        parser, "card", default=None, help=f"where it would run: comma-separated, from {', '.join(CARDS)}"
    )
    _add_time(parser, engine=None)
    parser.add_argument("--torch", metavar="VERSION", help="with which torch (default: the one installed)")
    parser.add_argument(
        "--largest-batch", action="store_true", help="also the largest batch that fits the card"
    )
    parser.add_argument(
        "--longest-sequence",
        action="store_true",
        help="also the longest sequence that fits the card at the batch size, for language models",
    )
    parser.add_argument(
        "--activations", action="store_true", help="also which modules keep most for backward"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, nothing else")


def _add_shared(parser: Parser) -> None:
    names = ", ".join(PARALLEL)
    add_flag(
        parser,
        "parallel",
        default=ALONE,
        help=f"how several GPUs share the step: comma-separated, from {names}, or all",
    )
    add_flag(
        parser, "gpus", default=None, help="how many GPUs share it: comma-separated; the batch is of each"
    )
    for field in FSDP_OPTIONS:
        add_flag(parser, field, default=None)


def _predict(options: argparse.Namespace) -> int:
    cards = value(options, "card", names_of(CARDS)) or (None,)
    prices = value(options, "price", priced(filter(None, cards))) or {}
    epoch = whole(1)("--epoch", options.epoch)
    if options.price is not None and options.engine is None:
        raise ValueError("--price needs --engine: of a captured step the time is predicted")
    if options.epoch != USUAL_EPOCH and options.engine is None:
        raise ValueError("--epoch needs --engine: of a captured step the time is predicted")
    import torch  # noqa: PLC0415 (see above)

    from stepcost.predicting.answer import (  # noqa: PLC0415 (torch: --help does without)
        answer,
        print_answer,
        prints_to_stderr,
    )

    torch.set_num_threads(1)  # what little a prediction computes takes longer when it is shared
    with prints_to_stderr():
        kind = kind_of(options.model)
    asked = steps_asked(options, kind, shared=_shared(options))
    from stepcost.predicting.torch_versions import installed_torch  # noqa: PLC0415
    from stepcost.report.answers.cards import epoch_lines, with_epochs  # noqa: PLC0415 (see above)

    found = [
        answer(
            request,
            find_card(card) if card else None,
            torch_version=options.torch or installed_torch(),
            activations=options.activations,
            largest=options.largest_batch,
            longest=options.longest_sequence,
            engine=options.engine,
        )
        for request, card in itertools.product(asked, cards)
    ]
    if options.json:
        fields = [one.fields for one in found]
        if options.engine is not None:
            fields = with_epochs(fields, prices, epoch)
        print(json.dumps(fields[0] if len(fields) == 1 else {"predictions": fields}))
    else:
        for one in found:
            print_answer(one)
            for line in epoch_lines(one.fields, prices, epoch):
                print(line)
    return max(one.exit_code for one in found)


def _shared(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return each way to share a step with each number of GPUs, by the request's fields.

    Raises ``ValueError`` in one line.
    """
    ways = value(options, "parallel") or (ALONE,)
    gpus = value(options, "gpus", wholes(1, MOST_GPUS)) if options.gpus else ()
    several = [way for way in ways if way != ALONE]
    numbers = [number for number in gpus if number > 1]
    if numbers and not several:
        raise ValueError(f"--gpus {options.gpus}: without --parallel a step has one")
    if several and not gpus:
        raise ValueError(f"--parallel {several[0]}: --gpus says how many GPUs share the step")
    if several and (not numbers or (1 in gpus and ALONE not in ways)):
        raise ValueError(f"--gpus {options.gpus}: 1 is of --parallel {ALONE}, {several[0]} takes 2 or more")
    fsdp = {field: value(options, field) for field in FSDP_OPTIONS}
    check_fsdp(ways, fsdp)
    return [
        {"parallel": way, "gpus": number} | (fsdp if way == FSDP2 else {})
        for way in ways
        for number in ((1,) if way == ALONE else numbers)
    ]


def _add_time(parser: Parser, *, engine: str | None) -> None:
    timed = ", ".join(name for name, row in ENGINES.items() if row.why_not_timed is None)
    said = "(default: memory alone)" if engine is None else "(default: %(default)s)"
    parser.add_argument(
        "--engine",
        default=engine,
        metavar="NAME",
        help=f"how the step is launched for its time: {timed} {said}",
    )
    parser.add_argument(
        "--price", metavar="CARD=MONEY,...", help="what an hour of a card costs: h100-80gb=2.50,a10=$0.60"
    )
    parser.add_argument(
        "--epoch",
        default=USUAL_EPOCH,
        metavar="N",
        help="images, sequences or examples in an epoch (default: %(default)s, as CIFAR-10 has)",
    )


def _add_cards(commands: Any) -> None:
    parser = command(
        commands,
        "cards",
        _cards,
        "Which card? Predict one training step on every card of the catalog, without a GPU: whether it fits, "
        "the largest batch, milliseconds, and the time and price of an epoch; or, shared by several GPUs, "
        "what each holds and the price of an hour. Exit code: 0 it fits one at "
        "least, 1 it is said to fit none, 2 a wrong request.",
    )
    add_step(parser)
    _add_shared(parser)
    add_flag(parser, "card", default=",".join(CARDS), help="which cards: comma-separated")
    _add_time(parser, engine="graph")
    parser.add_argument("--torch", metavar="VERSION", help="with which torch (default: the one installed)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, nothing else")


def _cards(options: argparse.Namespace) -> int:
    names = value(options, "card", names_of(CARDS))
    prices = value(options, "price", priced(names)) or {}
    epoch = whole(1)("--epoch", options.epoch)
    engine = one_of(name for name, row in ENGINES.items() if row.captured)("--engine", options.engine)
    shared = _shared(options)
    several = any(way["gpus"] > 1 for way in shared)
    for name in ("engine", "epoch"):
        if several and getattr(options, name) != options.parser.get_default(name):
            raise ValueError(f"--{name}: times are predicted of one GPU, not of several that share a step")
    from stepcost.predicting.answer import prints_to_stderr  # noqa: PLC0415 (torch: --help does without)
    from stepcost.predicting.torch_versions import installed_torch, version_of  # noqa: PLC0415 (see above)
    from stepcost.predicting.validation import validation_line  # noqa: PLC0415 (see above)
    from stepcost.predicting.which_card import on_cards, shared_on_cards  # noqa: PLC0415 (see above)
    from stepcost.report.answers import arrangements, cards  # noqa: PLC0415 (see above)
    from stepcost.report.terminal import print_table  # noqa: PLC0415 (see above)
    from stepcost.row import described  # noqa: PLC0415 (see above)

    torch_version = options.torch or installed_torch()
    predicted: dict[str, Any] = {"torch_version": torch_version}
    with prints_to_stderr():
        asked = steps_asked(options, kind_of(options.model), shared)
        if (steps := len(asked) // len(shared)) > 1:
            raise ValueError(f"{steps} steps are asked about; cards takes one, predict takes several")
        with progress("cards", len(names) * len(asked)) as begin:
            predicted |= {"cards": [CARDS[name] for name in names], "on_card": lambda card: begin(card.name)}
            if several:
                rows = shared_on_cards(asked, **predicted)
            else:
                rows = on_cards(asked[0], engine=engine, **predicted)
    if options.json:
        found = (
            {"arrangements": arrangements.with_hours(rows, prices)}
            if several
            else {"cards": cards.with_epochs(rows, prices, epoch)}
        )
        print(json.dumps({"torch": torch_version, **found}))
    else:
        version = version_of(torch_version)
        if several:
            validated = ((described(one), validation_line(one, None, version)) for one in asked)
            lines = [*arrangements.by_way(validated), *arrangements.sentences(rows, prices)]
            table = arrangements.table_of(rows, prices)
        else:
            step = in_precision_of(engine, asked[0])
            lines = [validation_line(step, None, version), *cards.sentences(rows, prices, epoch)]
            table = cards.table_of(rows, prices, epoch)
        print("\n".join(lines), end="\n\n")
        print_table(table, sys.stdout)
    return 0 if any(row["fits"] for row in rows) else 1


def _add_storage(parser: Parser) -> None:
    from stepcost.report.find import STORAGE  # noqa: PLC0415 (keeps the import of predictions light)

    parser.add_argument(
        "--storage",
        metavar="DIR",
        default=STORAGE,
        help="where the runs were saved, as for --benchmark-storage (default: %(default)s)",
    )


def _add_report(commands: Any) -> None:
    from stepcost.report.command import OUT  # noqa: PLC0415 (keeps the import of predictions light)

    parser = command(
        commands, "report", _report, "Write the page of saved runs: report.html, report.md and plots."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a name (run1), a number (0001) or a path")
    parser.add_argument(
        "--out", type=Path, default=OUT, metavar="DIR", help="folder to write to (default: %(default)s)"
    )
    add_flag(parser, "price", default=None)
    _add_storage(parser)


def _report(options: argparse.Namespace) -> int:
    from stepcost.report.command import report  # noqa: PLC0415 (see above)

    given = value(options, "price")
    prices = None if given is None else run_prices(given)
    return report(options.runs, options.out, options.storage, prices)


def _add_compare(commands: Any) -> None:
    from stepcost.report.compare.command import DESCRIPTION, EPILOG, add_arguments  # noqa: PLC0415 (see above)

    parser = command(commands, "compare", _compare, DESCRIPTION)
    parser.epilog = EPILOG
    add_arguments(parser)
    _add_storage(parser)


def _compare(options: argparse.Namespace) -> int:
    from stepcost.report.compare.command import compare  # noqa: PLC0415 (see above)

    return compare(options)


def _add_list(commands: Any) -> None:
    parser = command(commands, "list", _list, "List the saved runs.")
    _add_storage(parser)


def _list(options: argparse.Namespace) -> int:
    from stepcost.report.command import list_runs  # noqa: PLC0415 (see above)

    return list_runs(options.storage)


def _add_record(commands: Any) -> None:
    parser = command(
        commands,
        "record",
        _record,
        "Record on this machine's GPU the workspaces of a model's convolutions, which predictions need.",
    )
    parser.add_argument("rows", nargs="*", metavar="MODEL:IMAGE_SIZE")
    parser.add_argument("--keys", type=Path, help="a file of convolutions, as --list prints them")
    add_flag(parser, "batch_sizes", default="4,16,64,256,1024")
    parser.add_argument("--limit-s", type=float, default=120.0, help="stop recording after so many seconds")
    parser.add_argument("--fallbacks", action="store_true", help="also what large workspaces fall back to")
    parser.add_argument("--list", action="store_true", help="only print the convolutions; needs no GPU")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the table goes (default: the package)")


def _record(options: argparse.Namespace) -> int:
    from stepcost.predicting.record import convolutions_named, record_table  # noqa: PLC0415 (imports torch)

    found = convolutions_named(options.rows, options.keys)
    if options.list:
        sys.stdout.writelines(f"{one.key}\n" for one in found)
        return 0
    from stepcost.predicting.recorded import TABLES  # noqa: PLC0415 (see above)

    asked = {"limit_s": options.limit_s, "fallbacks": options.fallbacks, "folder": options.out or TABLES}
    print(record_table(found, value(options, "batch_sizes"), **asked))
    return 0


def _add_record_times(commands: Any) -> None:
    parser = command(
        commands,
        RECORD_TIMES,
        _record_times,
        "Record on this machine's GPU what the operators of captured steps take, which predicted times need.",
    )
    parser.add_argument("steps", nargs="*", metavar=STEP)
    parser.add_argument(
        "--steps", type=Path, dest="file", metavar="FILE", help="a file of such steps, one a line"
    )
    parser.add_argument("--limit-s", type=float, default=500.0, help="begin no step after so many seconds")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.jsonl.gz", help="where rows are appended"
    )


def _record_times(options: argparse.Namespace) -> int:
    lines = list(options.steps)
    if options.file is not None:
        try:
            lines += options.file.read_text().split("\n")
        except OSError as error:
            raise ValueError(
                f"{options.file}: no file of steps can be read there: {error.strerror}"
            ) from error
    requests = [step_named(line) for line in lines if line.strip() and not line.startswith("#")]
    from stepcost.failures import MeasureError  # noqa: PLC0415 (keeps the import of predictions light)
    from stepcost.measuring.times import record_times  # noqa: PLC0415 (see above)

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        recorded = record_times(requests, options.out, limit_s=options.limit_s, say=say)
    except MeasureError as error:
        raise ValueError(f"recording times needs a GPU: {error}") from error
    print(f"{options.out}: {recorded} of {len(requests)} steps")
    return 0 if recorded else 1


if __name__ == "__main__":
    sys.exit(main())
