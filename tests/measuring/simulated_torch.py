"""A GPU without a GPU: what torch and NVML tell of one, told of a simulated card.

What is put on the card lives on the meta device, and the tape of the prediction tells the card what comes and
goes, as it happens. The code that measures runs as it is, and reads a card of which every byte is known.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pynvml
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from stepcost.measuring.configuration import Configuration
from stepcost.predicting.as_on_cuda import as_on_cuda
from stepcost.predicting.workspaces import workspaces_on
from stepcost.request import Request
from tests.measuring.simulated_card import H100, INDEX, MIB, SimulatedCard

DEVICE = f"cuda:{INDEX}"
NEIGHBOUR_BYTES = 3 * MIB
"""What another process holds of the card."""


@contextlib.contextmanager
def simulated_card(
    *, torch_version: tuple[int, int] = (2, 11), capacity_bytes: int = H100.room_bytes, bare: bool = False
) -> Iterator[SimulatedCard]:
    """Give this process a card; a ``bare`` one has libraries that need no workspace."""
    card = SimulatedCard(workspaces_on(None if bare else H100, torch_version), capacity_bytes)
    with contextlib.ExitStack() as stack:
        for where, names in (_of_torch(card) | _of_nvml(card)).items():
            for name, instead in names.items():
                stack.enter_context(mock.patch.object(where, name, instead))
        for mode in (as_on_cuda(card.tape), card.tape, _OnCard(card)):
            stack.enter_context(mode)
        yield card


class _OnCard(TorchFunctionMode):
    """What is made on the card, or moved there, is on the meta device; the card hears of backward."""

    def __init__(self, card: SimulatedCard) -> None:
        super().__init__()
        self._card = card

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def there(value: Any) -> Any:
            is_card = isinstance(value, str | torch.device) and str(value) == DEVICE
            return torch.device("meta") if is_card else value

        with self._card.in_backward() if func is torch.Tensor.backward else contextlib.nullcontext():
            return func(*map(there, args), **{name: there(value) for name, value in (kwargs or {}).items()})


def _of_torch(card: SimulatedCard) -> dict[Any, dict[str, Any]]:
    """Return what torch asks of the card and does to it, by where it stands."""
    allocator, plain_address = card.allocator, torch.UntypedStorage.data_ptr

    def address(storage: torch.UntypedStorage) -> int:
        on_card = card.address_of(storage)
        return plain_address(storage) if on_card is None else on_card

    def counter(read: Callable[[], Any]) -> Callable[..., Any]:
        """Read the card that was chosen, or that holds a tensor whose device is named; others are idle."""

        def of(device: Any = None) -> Any:
            assert device is None or torch.device(device).type == "meta"
            return read() if card.device == INDEX else 0

        return of

    def properties(device: str) -> SimpleNamespace:
        return SimpleNamespace(uuid=f"uuid of {device}")

    def free_and_total(device: Any = None) -> tuple[int, int]:
        return (allocator.capacity_bytes or 0) - allocator.reserved_bytes, H100.total_bytes

    def set_device(device: str) -> None:
        card.device = int(device.removeprefix("cuda:"))

    return {
        torch.cuda: {
            "is_initialized": lambda: bool(card.device),
            "set_device": set_device,
            "current_device": lambda: card.device,
            "get_device_properties": properties,
            "synchronize": counter(lambda: None),
            "empty_cache": counter(allocator.empty_cache),
            "reset_peak_memory_stats": counter(allocator.reset_peaks),
            "memory_allocated": counter(lambda: allocator.allocated_bytes),
            "max_memory_allocated": counter(lambda: allocator.peak_allocated_bytes),
            "memory_reserved": counter(lambda: allocator.reserved_bytes),
            "max_memory_reserved": counter(lambda: allocator.peak_reserved_bytes),
            "memory_stats": counter(lambda: {"num_alloc_retries": allocator.retries}),
            "memory_stats_as_nested_dict": counter(
                lambda: {"allocation": {"all": {"allocated": card.allocations}}}
            ),
            "mem_get_info": free_and_total,
        },
        torch.cuda.memory: {"_snapshot": card.snapshot, "_record_memory_history": card.set_recording},
        torch.UntypedStorage: {"data_ptr": address},
        importlib.import_module("torch.optim.optimizer"): {
            "_get_foreach_kernels_supported_devices": lambda: ["meta"]
        },
    }


def _of_nvml(card: SimulatedCard) -> dict[Any, dict[str, Any]]:
    """Return what NVML tells of the card."""

    def memory(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(total=H100.total_bytes, reserved=0, used=card.process_bytes + NEIGHBOUR_BYTES)

    def processes(_: Any) -> list[SimpleNamespace]:
        other = SimpleNamespace(pid=0, usedGpuMemory=NEIGHBOUR_BYTES)
        own = SimpleNamespace(pid=os.getpid(), usedGpuMemory=card.process_bytes)
        return [other, own] if card.lists_processes else []

    return {
        pynvml: {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetHandleByUUID": {f"GPU-uuid of {DEVICE}": INDEX}.__getitem__,
            "nvmlDeviceGetMemoryInfo": memory,
            "nvmlDeviceGetComputeRunningProcesses": processes,
        }
    }


class OnSimulatedCard(Configuration):
    """The job of a child that has a simulated card."""

    def __init__(self, request: Request) -> None:
        self.kept = contextlib.ExitStack()
        self.kept.enter_context(simulated_card())
        super().__init__(request)


class Uneven(nn.Module):
    """A model whose steps differ, so that it shows which of them a figure is of.

    Forward takes and gives back pieces of so many MiB, all at once; then it leaks so many bytes, which stay
    as long as the model.
    """

    TAKEN_MIB = ((40, 40), (20,), (50,), (60, 60), (30,))
    LEAKED = (0, 512, 1024, 2048, 4096)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.empty(12 * MIB // 4), requires_grad=False)
        self.unused = nn.Parameter(torch.empty(5))
        self.norm = nn.BatchNorm2d(3)
        self.last = nn.Linear(3 * 32 * 32, num_classes)
        self.steps = 0
        self.leaks: list[torch.Tensor] = []
        self.eval()  # as some builders leave a model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        taken = [images.new_empty(size * MIB // 4) for size in self.TAKEN_MIB[self.steps]]
        del taken
        self.leaks.append(images.new_empty(self.LEAKED[self.steps] // 4))
        self.steps += 1
        logits: torch.Tensor = self.last(self.norm(images).flatten(1))
        return logits


class Huge(nn.Module):
    """A model that no card holds: 100 GiB of weights, all of them one value until they are moved."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1).expand(100 * 2**30 // 4))
