"""``python -m fixtures.predict MODEL ...``: what a training step would cost in memory, without a GPU."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from typing import Any, NoReturn

from stepcost.catalog.cards import CARDS, Card, find_card
from stepcost.reading import Reading
from stepcost.request import Request

MIB = 2**20


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return number


def _parser() -> _Parser:
    parser = _Parser(prog="python -m fixtures.predict", description=__doc__)
    parser.add_argument("model", help="a torchvision classifier, or package.module:function")
    parser.add_argument("--optimizer", default="sgd", help="a name in the optimizer catalog (%(default)s)")
    parser.add_argument("--batch-size", type=_positive, default=64, help="images per step (%(default)s)")
    parser.add_argument("--image-size", type=_positive, default=32, help="height and width (%(default)s)")
    parser.add_argument("--num-classes", type=_positive, default=10, help="classes (%(default)s)")
    parser.add_argument("--gpu", metavar="CARD", help=f"where it would run: one of {', '.join(CARDS)}")
    parser.add_argument("--torch", metavar="VERSION", help="with which torch (the one installed)")
    parser.add_argument(
        "--largest-batch", action="store_true", help="also the largest batch that fits the card"
    )
    parser.add_argument(
        "--activations", action="store_true", help="also which modules keep most for backward"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, nothing else")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Predict and print; return the exit status: 0, or 2 for a request that makes no sense."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        card = find_card(options.gpu) if options.gpu else None
        if options.largest_batch and card is None:
            raise ValueError("--largest-batch needs --gpu: the largest batch of which card?")
        request = Request(
            model=options.model,
            optimizer=options.optimizer,
            batch_size=options.batch_size,
            image_size=options.image_size,
            num_classes=options.num_classes,
        )
        from stepcost.activations import as_rows, print_activations  # noqa: PLC0415 (torch: --help does without)
        from stepcost.predict.expected import expected_error  # noqa: PLC0415
        from stepcost.predict.largest import largest_batch  # noqa: PLC0415
        from stepcost.predict.prediction import installed_torch, predict_activations  # noqa: PLC0415

        torch_version = options.torch or installed_torch()
        started = time.perf_counter()
        reading, kept = predict_activations(request, card, torch_version=torch_version)
        answer = asdict(request) | asdict(reading) | {"tensor_bytes": reading.tensor_bytes}
        answer |= {"gpu": card.gpu if card else None, "torch": torch_version}
        answer["expected_error"] = expected_error(reading, card, torch_version)
        del answer["device"]  # nothing ran anywhere
        if options.activations:
            answer["activations_by_module"] = as_rows(kept) if reading.fits else None
        if options.largest_batch and card is not None:
            answer["largest_batch"] = largest_batch(request, card, torch_version=torch_version)
        answer["seconds"] = time.perf_counter() - started
    except ValueError as error:
        parser.error(str(error))
    if options.json:
        sys.stdout.write(json.dumps(answer) + "\n")
    else:
        _print(answer, reading, card)
        if options.activations and reading.fits:
            print_activations(kept, "predicted")
    return 0


def _print(answer: dict[str, Any], reading: Reading, card: Card | None) -> None:
    """Show a reading as tables; MiB = 2**20 bytes."""
    from rich.console import Console  # noqa: PLC0415 (only for people)
    from rich.table import Table  # noqa: PLC0415

    console = Console()
    where = f"on {card.gpu}" if card else "on no card in particular"
    table = Table(
        title=f"{answer['model']}, {answer['optimizer']}, batch {answer['batch_size']}, "
        f"{answer['image_size']}x{answer['image_size']}, {where}",
        caption=f"predicted in {answer['seconds']:.1f} s; 1 MiB = 2**20 bytes",
    )
    table.add_column("memory")
    table.add_column("MiB", justify="right")
    table.add_column("note")

    def row(name: str, size: int | None, note: str = "") -> None:
        table.add_row(name, "unknown" if size is None else f"{size / MIB:,.1f}", note)

    if reading.ledger is not None:
        for name, size in asdict(reading.ledger).items():
            label = name.removesuffix("_bytes").replace("_", " ")
            row(label, size, reading.unread.get(name, ""))
        table.add_section()
    row(
        "peak allocated",
        reading.peak_allocated_bytes,
        f"in {reading.peak_moment}" if reading.peak_moment else "",
    )
    row("peak reserved", reading.peak_reserved_bytes)
    row("process", reading.process_bytes, reading.unread.get("process_bytes", ""))
    console.print(table)
    for name, (low, high) in (answer["expected_error"] or {}).items():
        figure = name.removesuffix("_bytes").replace("_", " ")
        console.print(f"Error to expect of {figure}: {100 * low:+.2f} % to {100 * high:+.2f} %")
    if answer["expected_error"] is None:
        console.print("Error to expect: unknown, no run was compared on this card with this torch")
    if card is not None:
        console.print("It fits." if reading.fits else f"It does not fit: {reading.reason}")
    if "largest_batch" in answer:
        largest = answer["largest_batch"]
        console.print(f"Largest batch that fits: {'none' if largest is None else format(largest, ',')}")


if __name__ == "__main__":
    sys.exit(main())
