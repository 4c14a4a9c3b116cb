"""``stepcost record`` and ``record times``: what predictions need, read on this machine's GPU."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from stepcost.cli.parser import add_flag, command, value
from stepcost.request import STEP, step_named

RECORD_TIMES = "record times"


def add_record(commands: Any) -> None:
    """Add ``stepcost record``."""
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


def add_record_times(commands: Any) -> None:
    """Add ``stepcost record times``."""
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
