"""``stepcost predict``: what steps cost, on cards or on none in particular."""

from __future__ import annotations

import argparse
import itertools
import json
from typing import Any

from stepcost.catalog.cards import CARDS, find_card
from stepcost.catalog.models import kind_of
from stepcost.cli.parser import add_flag, command, value
from stepcost.cli.step import USUAL_EPOCH, add_shared, add_step, add_time, steps_asked, ways_to_share
from stepcost.flags import names_of, priced, whole


def add_predict(commands: Any) -> None:
    """Add ``stepcost predict``."""
    parser = command(
        commands,
        "predict",
        _predict,
        "Predict what a training step costs in memory, without a GPU. Exit code: 0 it fits (or no card is "
        "named), 1 it does not or that cannot be said, 2 a wrong request.",
    )
    add_step(parser)
    add_shared(parser)
    add_flag(
        parser, "card", default=None, help=f"where it would run: comma-separated, from {', '.join(CARDS)}"
    )
    add_time(parser, engine=None)
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


def _predict(options: argparse.Namespace) -> int:
    cards = value(options, "card", names_of(CARDS)) or (None,)
    prices = value(options, "price", priced(filter(None, cards))) or {}
    epoch = whole(1)("--epoch", options.epoch)
    if options.price is not None and options.engine is None:
        raise ValueError("--price needs --engine: of a captured step the time is predicted")
    if options.epoch != USUAL_EPOCH and options.engine is None:
        raise ValueError("--epoch needs --engine: of a captured step the time is predicted")
    import torch  # noqa: PLC0415 (--help does without)

    from stepcost.predicting.answer import (  # noqa: PLC0415 (see above)
        answer,
        print_answer,
        prints_to_stderr,
    )

    torch.set_num_threads(1)  # what little a prediction computes takes longer when it is shared
    with prints_to_stderr():
        kind = kind_of(options.model)
    asked = steps_asked(options, kind, shared=ways_to_share(options))
    from stepcost.predicting.torch_versions import installed_torch  # noqa: PLC0415 (see above)
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
