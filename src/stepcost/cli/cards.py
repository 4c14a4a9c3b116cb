"""``stepcost cards``: one step on every card."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from stepcost.catalog.cards import CARDS
from stepcost.catalog.engines import ENGINES
from stepcost.catalog.models import kind_of
from stepcost.cli.parser import add_flag, command, value
from stepcost.cli.step import add_shared, add_step, add_time, steps_asked, ways_to_share
from stepcost.flags import names_of, one_of, priced, whole
from stepcost.progress import progress
from stepcost.request import in_precision_of


def add_cards(commands: Any) -> None:
    """Add ``stepcost cards``."""
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
    add_shared(parser)
    add_flag(parser, "card", default=",".join(CARDS), help="which cards: comma-separated")
    add_time(parser, engine="graph")
    parser.add_argument("--torch", metavar="VERSION", help="with which torch (default: the one installed)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, nothing else")


def _cards(options: argparse.Namespace) -> int:
    names = value(options, "card", names_of(CARDS))
    prices = value(options, "price", priced(names)) or {}
    epoch = whole(1)("--epoch", options.epoch)
    engine = one_of(name for name, row in ENGINES.items() if row.captured)("--engine", options.engine)
    shared = ways_to_share(options)
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
