"""What bounds a training step on any engine: the card's measured rates, and the step's operations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from stepcost.operators import FLOPS
from stepcost.request import Request
from stepcost.workload import workload_of

RATE_RUNS = 10
COPIED_BYTES = 1 << 30
MATRIX_SIZE = 8192


class Limits:
    """What bounds any step: the card's measured rates, and the operations of the model's step."""

    def rates(self, device: str) -> dict[str, float]:
        """Bytes per second of a large copy (read and written), and operations per second of matrix products.

        ``fp32`` is with TF32, in which torch runs fp32 convolutions by default.
        """
        torch.cuda.set_device(device)
        source = torch.empty(COPIED_BYTES, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        copy_s = _seconds(lambda: target.copy_(source))
        rates = {"copy_bytes_per_s": 2 * COPIED_BYTES / copy_s}
        torch.backends.cuda.matmul.allow_tf32 = True
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            left, right = (
                torch.randn(MATRIX_SIZE, MATRIX_SIZE, device=device, dtype=dtype) for _ in range(2)
            )
            product_s = _seconds(partial(torch.matmul, left, right))
            rates[f"matrix_flops_per_s_{name}"] = 2 * MATRIX_SIZE**3 / product_s
        return rates

    def step_flops(self, request: Request) -> int:
        """Operations of forward and backward per example of the batch (multiply and add count as two).

        ``torch.utils.flop_counter`` on the meta device: convolutions and matrix products, which are
        linear in the batch. Batch norm and what else goes element by element is not counted. A model
        that needs real tensors raises what torch raises for it.
        """
        examples = 2  # batch norm cannot train on one
        workload = workload_of(request)
        batch = workload.batch(examples, "meta")
        built = workload.build().to("meta").train()
        with FlopCounterMode(display=False, custom_mapping=FLOPS) as counter:
            workload.objective(built, batch)[0].backward()
        return int(counter.get_total_flops()) // examples


def _seconds(work: Callable[[], object]) -> float:
    """Seconds of one run of ``work`` on the GPU: the fastest of ``RATE_RUNS``, by CUDA events."""
    times: list[float] = []
    work()
    for _ in range(RATE_RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return min(times)
