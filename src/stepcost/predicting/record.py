"""Record the workspaces of convolutions on a GPU.

Every distinct convolution of some models is run alone, in each direction; what it took beyond its output
goes to a table, keyed by compute capability, cuDNN version and convolution. Nothing of the run that is
predicted later is measured.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from stepcost.predicting.convolution import BACKWARD_DATA, BACKWARD_WEIGHT, DIRECTIONS, FORWARD, Convolution
from stepcost.predicting.devices import described_here
from stepcost.predicting.record_nccl import communicator_here
from stepcost.predicting.recorded import TABLES, Table
from stepcost.predicting.tape import WORKSPACE
from stepcost.predicting.trace import trace_run
from stepcost.request import Request
from stepcost.step import bytes_of

FALLBACKS_FROM_BYTES = 64 << 20
"""Workspaces from this size on are also recorded as they are when there is no room for them."""
MAX_FALLBACKS = 4


def record(
    convolutions: Iterable[Convolution],
    batch_sizes: Iterable[int],
    *,
    limit_s: float,
    fallbacks: bool = False,
    table: Table | None = None,
) -> Table:
    """Run each convolution at each batch size alone on the GPU; return (or extend) the table.

    Stops quietly at ``limit_s`` seconds: what is missing is missing from the table. A
    configuration that does not fit the GPU is left out.
    """
    capability = torch.cuda.get_device_capability()
    about = {
        "gpu": torch.cuda.get_device_name(),
        "compute_capability": f"{capability[0]}.{capability[1]}",
        "cudnn": torch.backends.cudnn.version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
    rows = {} if table is None else table.convolutions
    convolutions = list(dict.fromkeys(convolutions))
    started = time.perf_counter()
    # The smallest batch of every convolution first: a run cut short then knows something of each.
    for batch_size in batch_sizes:
        for one in convolutions:
            if time.perf_counter() - started > limit_s:
                return Table(about=about, convolutions=rows)
            row = rows.setdefault(one.key, {})
            if str(batch_size) not in row:
                try:
                    row[str(batch_size)] = _workspaces(one, batch_size, fallbacks)
                except (torch.OutOfMemoryError, RuntimeError) as error:
                    sys.stderr.write(f"{one.key} at {batch_size}: {str(error).splitlines()[0]}\n")
                    torch.cuda.empty_cache()
    return Table(about=about, convolutions=rows)


def _workspaces(one: Convolution, batch_size: int, fallbacks: bool) -> list[list[int]]:
    """Workspaces of one convolution in each direction, in bytes as requested of the allocator."""
    images, weight, gradient = one.tensors(batch_size, "cuda")
    shape = (one.stride, one.padding, one.dilation, False, (0, 0), one.groups)
    backward = torch.ops.aten.convolution_backward

    def run(direction: str) -> tuple[Any, ...]:
        if direction == FORWARD:
            return (torch.ops.aten.convolution(images, weight, None, *shape),)
        mask = [direction == BACKWARD_DATA, direction == BACKWARD_WEIGHT, False]
        made: tuple[Any, ...] = backward(gradient, images, weight, None, *shape, mask)
        return made

    found = []
    for direction in DIRECTIONS:
        sizes = [_taken(run, direction)]
        while fallbacks and sizes[-1] >= FALLBACKS_FROM_BYTES and len(sizes) <= MAX_FALLBACKS:
            size = _taken_with_less(run, direction, sizes[-1])
            if size is None or size >= sizes[-1]:
                break
            sizes.append(size)
        found.append(sizes)
    return found


def _taken(run: Any, direction: str) -> int:
    """Bytes requested at the peak of ``run(direction)``, beyond what was there and what it returned."""
    before: int = torch.cuda.memory_stats()["requested_bytes.all.current"]
    torch.cuda.reset_peak_memory_stats()
    made = run(direction)
    peak: int = torch.cuda.memory_stats()["requested_bytes.all.peak"]
    return peak - before - bytes_of(made)


def _taken_with_less(run: Any, direction: str, workspace_bytes: int) -> int | None:
    """Return what is taken where ``workspace_bytes`` cannot be allocated; ``None`` if nothing runs."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    made = run(direction)
    held = torch.cuda.memory_reserved()
    outputs = bytes_of(made)
    del made
    torch.cuda.empty_cache()
    # Room for the outputs and for a little less than the workspace that was taken.
    room = torch.cuda.memory_reserved() + outputs + workspace_bytes - (4 << 20)
    try:
        torch.cuda.memory.set_per_process_memory_fraction(min(room, held, total) / total)
        return _taken(run, direction)
    except (torch.OutOfMemoryError, RuntimeError):
        return None
    finally:
        torch.cuda.memory.set_per_process_memory_fraction(1.0)


def convolutions_of(model: str, image_size: int, num_classes: int = 10) -> list[Convolution]:
    """List the distinct convolutions of a model in the order in which they are first run."""
    request = Request(
        model=model, optimizer="sgd", batch_size=2, image_size=image_size, num_classes=num_classes
    )
    events = trace_run(request, steps=1).events
    return list(dict.fromkeys(what for action, what, _ in events if action == WORKSPACE))


def convolutions_named(rows: Iterable[str], keys: Path | None = None) -> list[Convolution]:
    """List the distinct convolutions of ``MODEL:IMAGE_SIZE`` rows and of a file of keys, one a line.

    A model that cannot be traced is left out with a line on standard error. Raises ``ValueError`` with one
    line for a row that is not of that form, or a file that cannot be read.
    """
    found: list[Convolution] = []
    if keys is not None:
        try:
            found += [Convolution.from_key(line) for line in keys.read_text().splitlines()]
        except (OSError, ValueError) as error:
            raise ValueError(f"{keys} is no file of convolutions, as --list prints them: {error}") from error
    for row in rows:
        model, _, image_size = row.rpartition(":")
        if not model or not image_size.isdigit():
            raise ValueError(f"{row!r} is not MODEL:IMAGE_SIZE, such as resnet152:32")
        try:
            found += convolutions_of(model, int(image_size))
        except ValueError as error:
            sys.stderr.write(f"{row}: {error}\n")
    return list(dict.fromkeys(found))


def record_table(
    convolutions: Iterable[Convolution],
    batch_sizes: Iterable[int],
    *,
    limit_s: float,
    fallbacks: bool,
    folder: Path = TABLES,
) -> str:
    """Record on this machine's GPU and write the extended table to ``folder``; return a line about it.

    Raises ``ValueError`` with one line where there is no GPU.
    """
    if not torch.cuda.is_available():
        raise ValueError("recording workspaces needs a GPU, and torch sees none here")
    major, minor = torch.cuda.get_device_capability()
    name = f"sm{major}{minor}-cudnn{torch.backends.cudnn.version()}.json.gz"
    known = TABLES / name
    started = time.perf_counter()
    table = record(
        convolutions,
        batch_sizes,
        limit_s=limit_s,
        fallbacks=fallbacks,
        table=Table.load(known) if known.exists() else None,
    )
    # A context is that of convolutions, also where the table has all of those asked for and none was made.
    image = torch.ones(1, 1, 8, 8, device="cuda")
    torch.nn.functional.conv2d(image, image[..., :3, :3])
    device = described_here() | communicator_here()
    table.about.update(device)
    table.save(folder / name)
    cells = sum(len(row) for row in table.convolutions.values())
    line = f"{name}: {cells} rows in {time.perf_counter() - started:.1f} s"
    return "; ".join([line, *(f"{field} {value}" for field, value in device.items() if field != "device")])
