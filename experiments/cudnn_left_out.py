"""What cuDNN leaves out of its lists without a device, learned from what a GPU answered.

``python -m experiments.cudnn_left_out ANSWERS --without READINGS ...``: ``ANSWERS`` are those of
``experiments.cudnn_answers``. Asks the same cuDNN here for its lists (minutes), learns from two thirds of the
convolutions and prints how often the rest is told wrong; then learns from all and writes the package's table
(``stepcost/predicting/cudnn_left_out.py``). Neither sees what the steps of ``READINGS`` are made of.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import sys
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.accuracy import readings_of
from experiments.arguments import parser_of
from stepcost.catalog.cards import CARDS
from stepcost.predicting.convolution import DIRECTIONS, Convolution
from stepcost.predicting.cudnn_left_out import (
    NONE_LEFT_OUT,
    PRODUCT,
    LeftOut,
    Tree,
    features,
    kind_of,
    learned,
    left_out_path,
    signatures,
    sizes_name,
    sizes_of,
)
from stepcost.predicting.cudnn_library import Library
from stepcost.predicting.recorded import find_table
from stepcost.predicting.tape import WORKSPACE
from stepcost.predicting.trace import trace_run
from stepcost.predicting.unasked import BYTES_OF, ENGINES, FAMILIES, Unasked
from stepcost.predicting.workspaces import workspaces_on

RECORDED_ON, WITH_TORCH = "h100-80gb", (2, 11)
PARTS = 3
BOOSTED = {"max_iter": 120, "learning_rate": 0.15, "max_leaf_nodes": 31}
SIZED = {"max_iter": 60, "learning_rate": 0.2, "max_leaf_nodes": 31}
ROUNDING_BYTES = 512
"""A batched product takes 0 to 400 bytes more than the rule says."""


@dataclass(frozen=True)
class Row:
    """One answer: what was asked, the list that cuDNN gives out here, and the family that came first."""

    one: Convolution
    batch: int
    direction: str
    listed: list[Any]
    family: str

    @property
    def part(self) -> int:
        """Which third of the convolutions it belongs to, whatever its precision and layout."""
        key = self.one.key.replace("bf16", "fp32").replace("fp16", "fp32").replace("nhwc", "nchw")
        return zlib.crc32(key.encode()) % PARTS


def measured_in(files: list[Path]) -> set[tuple[str, int]]:
    """Return the convolutions and batch sizes of measured steps."""
    return {
        (what.key, more[0])
        for file in files
        for request, reading in readings_of(file)
        if reading["fits"]
        for action, what, more in trace_run(request, steps=1).events
        if action == WORKSPACE
    }


def _library() -> Library:
    workspaces = workspaces_on(CARDS[RECORDED_ON], WITH_TORCH)
    if workspaces.library is None:
        sys.exit(f"cuDNN {workspaces.cudnn} is not installed here")
    return workspaces.library


def _asked(answer: dict[str, Any]) -> Row | None:
    """Ask for the list of an answer; ``None`` without either, or where its engine is of no family."""
    library = _library()  # the same in each process
    one, batch, direction = Convolution.from_key(answer["key"]), answer["batch"], answer["direction"]
    listed, first = library.listed(one, batch, direction), library.plans(one, batch, direction, 1)
    engine = int(answer.get("engine", -1))
    is_first = bool(first) and first[0].engine == engine
    family = NONE_LEFT_OUT if is_first else ENGINES.get(engine)
    return Row(one, batch, direction, listed, family) if listed and family else None


def _of_products(rows: list[Row]) -> list[Tree]:
    """Fit trees that tell by lists which products are left out."""
    cells = [features(row.one, row.batch, row.direction, row.listed) for row in rows]
    return _boosted(cells, [row.family == PRODUCT for row in rows], **BOOSTED)


def _recorded(measured: set[tuple[str, int]]) -> list[Row]:
    """Return the cells of the recorded table with the family that its workspace is of; without lists."""
    table = find_table(CARDS[RECORDED_ON].compute_capability)
    rows = []
    for key, cells in ({} if table is None else table.convolutions).items():
        one = Convolution.from_key(key)
        held = [(name, family) for name, family in FAMILIES.items() if family.holds(one)]
        for batch in (int(batch) for batch in cells if held and (key, int(batch)) not in measured):
            for direction, (size, *_) in zip(DIRECTIONS, cells[str(batch)], strict=True):
                asked = one, batch, direction
                families = [name for name, family in held if direction in family.directions]
                like = [name for name in families if 0 <= size - BYTES_OF[name](*asked) <= ROUNDING_BYTES]
                rows.append(Row(*asked, listed=[], family=next(iter(like), NONE_LEFT_OUT)))
    return rows


def _by_sizes(rows: list[Row]) -> dict[str, list[Tree]]:
    """Fit trees that tell by sizes which convolutions are left out, of each family, direction and width."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        for name, family in FAMILIES.items():
            if row.direction in family.directions and family.holds(row.one):
                found.setdefault(f"{name};{sizes_name(name, row.one, row.direction)}", []).append(row)
    made = {}
    for key, held in sorted(found.items()):
        name, kept_as = key.split(";")
        is_left_out = [row.family == name for row in held]
        if any(is_left_out):
            made[kept_as] = _boosted([sizes_of(row.one, row.batch) for row in held], is_left_out, **SIZED)
    return made


def _boosted(cells: list[list[float]], is_left_out: list[bool], **how: Any) -> list[Tree]:
    """Fit boosted trees, as ``LeftOut`` keeps them."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 (takes most of a second)

    fitted = HistGradientBoostingClassifier(**how, random_state=0).fit(cells, is_left_out)
    trees: list[Tree] = [[[float(fitted._baseline_prediction.ravel()[0])]]]
    for (tree,) in fitted._predictors:
        trees.append([_node(node) for node in tree.nodes])
    return trees


def _node(node: Any) -> list[float]:
    if node["is_leaf"]:
        return [round(float(node["value"]), 4)]
    threshold = float(f"{node['num_threshold']:.7g}")
    return [int(node["feature_idx"]), threshold, int(node["left"]), int(node["right"])]


def _fitted(rows: list[Row], more: list[Row]) -> LeftOut:
    """Learn from answers and, of sizes, from more rows that have no lists."""
    names = [(signatures(row.one, row.direction, row.listed), row.family) for row in rows]
    products = [row for row in rows if kind_of(row.one) == PRODUCT]
    sizes = _by_sizes([*rows, *more])
    return LeftOut(cudnn="9.19", families=learned(names), trees=_of_products(products), sizes=sizes)


def main() -> None:
    """Learn, say how often that is wrong, and write the table."""
    parser = parser_of("cudnn_left_out", __doc__)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--without", type=Path, nargs="*", default=[], metavar="READINGS")
    options = parser.parse_args()
    about, *answers = map(json.loads, gzip.decompress(options.answers.read_bytes()).splitlines())
    measured = measured_in(options.without)
    others = [answer for answer in answers if (answer["key"], answer["batch"]) not in measured]
    with multiprocessing.get_context("spawn").Pool() as pool:
        rows = [row for row in pool.imap(_asked, others, chunksize=256) if row is not None]
    print(f"{len(answers)} answers, {len(rows)} of them learned from\n")
    more = _recorded(measured)
    tried = _fitted([row for row in rows if row.part], [row for row in more if row.part])
    counts: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        if not row.part:
            got = tried.first(row.one, row.batch, row.direction, row.listed)
            said = "not known" if got is None else "right" if got == row.family else "wrong"
            count = counts.setdefault((kind_of(row.one), row.one.dtype), Counter())
            count[said] += 1
            guessed = Unasked(tried).by_sizes(row.one, row.batch, row.direction) or NONE_LEFT_OUT
            count["wrong by sizes"] += guessed != row.family
    print("| kind | precision | lists | not known % | wrong % of the others | by sizes: wrong % of all |")
    print("|---|---|---|---|---|---|")
    for (kind, dtype), count in sorted(counts.items()):
        known = count["right"] + count["wrong"]
        wrong, lists = 100 * count["wrong"] / max(known, 1), known + count["not known"]
        by_sizes = f"{100 * count['wrong by sizes'] / lists:.1f}" if "depthwise" not in kind else "by rule"
        print(f"| {kind} | {dtype} | {lists} | {100 * (1 - known / lists):.1f} | {wrong:.1f} | {by_sizes} |")
    made = _fitted(rows, more)
    path = left_out_path(CARDS[RECORDED_ON].compute_capability, made.cudnn)
    kept = {"about": {**about, "cudnn": made.cudnn}} | {
        name: getattr(made, name) for name in ("families", "trees", "sizes")
    }
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"\n{len(made.families)} lists, {path.stat().st_size} bytes: {path}")


if __name__ == "__main__":
    main()
