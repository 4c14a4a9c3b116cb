"""``python -m stepcost.predict.command MODEL ...``: what a training step would cost, without a GPU."""

from __future__ import annotations

import argparse
import json
import sys
from typing import NoReturn

from stepcost.catalog.cards import CARDS, find_card
from stepcost.request import Request


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
    parser = _Parser(prog="python -m stepcost.predict.command", description=__doc__)
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
    """Predict and print.

    Returns the exit status: 0 where it fits (or no card is named), 1 where it does not or that cannot be
    said; 2 is for a wrong request.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    from stepcost.predict.answer import answer, print_answer  # noqa: PLC0415 (torch: --help does without)
    from stepcost.predict.torch_versions import installed_torch  # noqa: PLC0415

    try:
        found = answer(
            Request(
                model=options.model,
                optimizer=options.optimizer,
                batch_size=options.batch_size,
                image_size=options.image_size,
                num_classes=options.num_classes,
            ),
            find_card(options.gpu) if options.gpu else None,
            torch_version=options.torch or installed_torch(),
            activations=options.activations,
            largest=options.largest_batch,
        )
    except ValueError as error:
        parser.error(str(error))
    if options.json:
        sys.stdout.write(json.dumps(found.fields) + "\n")
    else:
        print_answer(found)
    return found.exit_code


if __name__ == "__main__":
    sys.exit(main())
