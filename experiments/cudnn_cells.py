"""``python -m experiments.cudnn_cells``: cuDNN, asked without a GPU, against the recorded table.

Each convolution is asked about as if it had not been recorded: what is learned comes from the other folds.
Needs the cuDNN that was recorded (``docs/prediction.md``).
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from dataclasses import replace

from experiments.arguments import parser_of
from stepcost.catalog.cards import CARDS
from stepcost.predicting.convolution import BACKWARD_WEIGHT, DIRECTIONS, Convolution
from stepcost.predicting.cudnn_plans import workspaces_of
from stepcost.predicting.unasked import Unasked
from stepcost.predicting.workspaces import workspaces_on

RECORDED_ON, WITH_TORCH = "h100-80gb", (2, 11)
MIB = 2**20


def main() -> None:
    """Print a table: by kind of convolution, how many are exact, within a block, and how far off."""
    parser = parser_of("cudnn_cells", __doc__)
    parser.add_argument("--folds", type=int, default=5, help="parts of the table (%(default)s)")
    folds = parser.parse_args().folds
    asked = workspaces_on(CARDS[RECORDED_ON], WITH_TORCH)
    if asked.table is None or asked.library is None:
        sys.exit(f"cuDNN {asked.cudnn} is not installed here")
    rows = asked.table.convolutions
    off: dict[str, list[int]] = defaultdict(list)
    for fold in range(folds):
        own = dict(list(rows.items())[fold::folds])
        others = {key: row for key, row in rows.items() if key not in own}
        unasked = Unasked(replace(asked.table, convolutions=others))
        for one in map(Convolution.from_key, own):
            kind = "1x1" if one.kernel == (1, 1) else str(one.kind[3]) if one.groups > 1 else "larger kernels"
            for batch, cell in own[one.key].items():
                for direction, recorded in zip(DIRECTIONS, cell, strict=True):
                    got = workspaces_of(
                        asked.library,
                        one,
                        int(batch),
                        direction,
                        multiprocessors=asked.threads[0],
                        unasked=unasked,
                    )
                    # A weight in another layout was copied inside what was recorded.
                    copied = one.weight_bytes if one.weight_layout != one.output_layout else 0
                    if got is not None:
                        size = recorded[0] - (0 if direction == BACKWARD_WEIGHT else copied)
                        off[f"{kind}, {direction}"].append(abs(got[0] - size))
    off["all"] = [size for sizes in off.values() for size in sizes]
    print("| kind | workspaces | exact % | within 512 bytes % | mean MiB off | worst |")
    print("|---" * 6 + "|")
    for kind, sizes in off.items():
        exact, close = (100 * sum(size <= most for size in sizes) / len(sizes) for most in (0, 512))
        mean = statistics.fmean(sizes) / MIB
        print(f"| {kind} | {len(sizes)} | {exact:.0f} | {close:.0f} | {mean:.2f} | {max(sizes) / MIB:.0f} |")


if __name__ == "__main__":
    main()
