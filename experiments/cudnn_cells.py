"""How far cuDNN's workspaces, asked for without a GPU, are from what a GPU answered.

``python -m experiments.cudnn_cells ANSWERS READINGS ...``: ``ANSWERS`` are those of
``experiments.cudnn_answers``; of these, the convolutions that the steps of ``READINGS`` are made of, at their
batch sizes, from which nothing was learned (``experiments.cudnn_left_out``). Needs the cuDNN that was
recorded.
"""

from __future__ import annotations

import gzip
import json
import statistics
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from experiments.arguments import parser_of
from experiments.cudnn_left_out import RECORDED_ON, WITH_TORCH, measured_in
from stepcost.catalog.cards import CARDS
from stepcost.predicting.convolution import Convolution
from stepcost.predicting.cudnn_left_out import PRODUCT, kind_of
from stepcost.predicting.workspaces import workspaces_on

MIB = 2**20


def main() -> None:
    """Print a table: by kind of convolution, how many are within a block, and how far off."""
    parser = parser_of("cudnn_cells", __doc__)
    parser.add_argument("answers", type=Path)
    parser.add_argument("readings", type=Path, nargs="+")
    options = parser.parse_args()
    asked = replace(workspaces_on(CARDS[RECORDED_ON], WITH_TORCH), table=None)
    if asked.library is None:
        sys.exit(f"cuDNN {asked.cudnn} is not installed here")
    measured = measured_in(options.readings)
    off: dict[str, list[int]] = defaultdict(list)
    for line in gzip.decompress(options.answers.read_bytes()).splitlines()[1:]:
        answer = json.loads(line)
        one = Convolution.from_key(answer["key"])
        if (one.key, answer["batch"]) in measured and "workspace" in answer:
            got = asked.of(one, answer["batch"], answer["direction"])
            is_depthwise = one.kind[3] == "depthwise" and one.output_layout == "nchw"
            if got and not is_depthwise:  # those are torch's own
                kind = kind_of(one) if one.groups > 1 or kind_of(one) == PRODUCT else "other"
                name = f"{kind}, {one.dtype}, {one.output_layout}, {answer['direction']}"
                off[name].append(abs(got[0] - answer["workspace"]))
    off = {name: off[name] for name in sorted(off)} | {
        "all": [size for sizes in off.values() for size in sizes]
    }
    print("| kind | workspaces | within 512 bytes % | mean MiB off | worst |")
    print("|---" * 5 + "|")
    for kind, sizes in off.items():
        close = 100 * sum(size <= 512 for size in sizes) / len(sizes)
        mean = statistics.fmean(sizes) / MIB
        print(f"| {kind} | {len(sizes)} | {close:.0f} | {mean:.2f} | {max(sizes) / MIB:.0f} |")


if __name__ == "__main__":
    main()
