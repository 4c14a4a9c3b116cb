"""On a GPU: what cuDNN answers about many convolutions, plans included that it leaves out without a device.

``python -m experiments.cudnn_answers CELLS OUT``: ``CELLS`` (gzipped text) has a line
``KEY;BATCH,BATCH,...;DIRECTION,...`` for each convolution, ``OUT`` (gzipped) gets a JSON line for each key,
batch and direction: the first plan that torch would take, or why there is none. Nothing is run.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from experiments.arguments import parser_of
from stepcost.predicting import cudnn_child
from stepcost.predicting.convolution import Convolution
from stepcost.predicting.cudnn_library import filtered, find_folder, question_of

AT_ONCE = 4
"""Lines of the file that a process answers before it hands the answers over."""
_card: cudnn_child.Descriptor | None = None


def _start(folder: Path) -> None:
    """Make this process ready: a context, the library, and the card as cuDNN sees it."""
    global _card  # noqa: PLW0603 (a descriptor cannot be handed to a process)
    torch.zeros(1, device="cuda")
    cudnn_child.load(folder)
    _card = cudnn_child.Descriptor(cudnn_child.Kind.DEVICE).set(2700, cudnn_child.Type.INT32, 0).done()


def _answers(lines: list[str]) -> list[str]:
    assert _card is not None
    found = []
    for line in lines:
        key, batches, directions = line.split(";")
        one = Convolution.from_key(key)
        for batch in map(int, batches.split(",")):
            for direction in directions.split(","):
                row: dict[str, Any] = {"key": key, "batch": batch, "direction": direction}
                question = {**question_of(one, batch, direction), "most": 1, "without": filtered(one.dtype)}
                try:
                    plans = cudnn_child.plans({**question, "mode": "instant"}, _card)
                    plans = plans or cudnn_child.plans({**question, "mode": "fallback"}, _card)
                    row |= plans[0] if plans else {"error": "no plan"}
                except cudnn_child.CudnnError as error:
                    row["error"] = str(error)[:80]
                found.append(json.dumps(row, separators=(",", ":")))
    return found


def main() -> int:
    """Ask; return the exit status."""
    parser = parser_of("cudnn_answers", __doc__)
    parser.add_argument("cells", type=Path, help="gzipped lines KEY;BATCHES;DIRECTIONS")
    parser.add_argument("out", type=Path, help="gzipped lines of JSON")
    parser.add_argument("--limit-s", type=float, default=90.0, help="stop after so long (%(default)s)")
    options = parser.parse_args()
    version = torch.backends.cudnn.version() or 0
    folder = find_folder(f"{version // 10000}.{version // 100 % 100}")
    if folder is None or not torch.cuda.is_available():
        parser.error("it needs a GPU, and cuDNN as a wheel")
    lines = gzip.decompress(options.cells.read_bytes()).decode().splitlines()
    parts = [lines[start : start + AT_ONCE] for start in range(0, len(lines), AT_ONCE)]
    started = time.perf_counter()
    about = {"gpu": torch.cuda.get_device_name(), "cudnn": version, "torch": torch.__version__}
    count = errors = 0
    context = multiprocessing.get_context("spawn")
    with (
        gzip.open(options.out, "wt", compresslevel=6) as file,
        context.Pool(os.cpu_count(), _start, (folder,)) as pool,
    ):
        file.write(json.dumps(about) + "\n")
        for found in pool.imap_unordered(_answers, parts):
            file.write("\n".join(found) + "\n")
            count += len(found)
            errors += sum('"error"' in line for line in found)
            if time.perf_counter() - started > options.limit_s:
                pool.terminate()
                break
    seconds = time.perf_counter() - started
    print(f"{about}: {count} answers, {errors} of them none, in {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
