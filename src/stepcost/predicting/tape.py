"""A tape of allocations: storages on the meta device, written down as they come and go."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch._guards import active_fake_mode
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from stepcost.activations import LOSS, Owner
from stepcost.ledger import PARALLEL
from stepcost.predicting.compared import compared, is_plain, name_of
from stepcost.predicting.composite import is_composite, run_composite, with_tensors
from stepcost.predicting.dispatched import AUTOCAST, ON_CUDA, without
from stepcost.predicting.values import MASKS, SHAPED_BY_VALUES, Values, is_asked
from stepcost.reading import BACKWARD, FORWARD, OPTIMIZER_STEP, PHASES
from stepcost.step import held_here

ALLOC, FREE, WORKSPACE, GEMM, REDUCTION, MARK = "alloc", "free", "workspace", "gemm", "reduction", "mark"
COLLECTIVE = "collective"
Event = tuple[str, Any, Any]
"""``(alloc, id, bytes)``, ``(free, id, bytes)``, ``(workspace, Convolution, (batch size, direction))``,
``(gemm, phase, with bias)`` where cuBLAS is called, ``(reduction, Reduction, None)``,
``(mark, name, the phase that begins or None)``, ``(collective, None, None)``."""
EXCHANGED: Event = (COLLECTIVE, None, None)
"""Several GPUs exchange something, in memory that is there."""
Rule = Callable[..., Any]
"""Called as ``rule(tape, function, *arguments)`` in place of an operator; returns what the operator would."""


plain_resize = torch.UntypedStorage.resize_


class Tape(TorchDispatchMode):
    """Write down when storages on the meta device are made and when they die."""

    def __init__(self, rules: Mapping[Any, Rule]) -> None:
        """Take ``rules`` for the operators of which CUDA makes other memory than the meta device."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._rules = rules
        self.events: list[Event] = []
        self.kinds: dict[int, str] = {}
        self.owner = LOSS
        self.owners: dict[int, Owner] = {}
        """Allocation id to the module in whose forward it was made."""
        self.stream = 0
        self.streams: dict[int, int] = {}
        """Allocation id to the stream it was made on, where that is not the main one."""
        self.phase = FORWARD
        self.micro_batches, self._done = 1, 0
        self.loads_cudnn = False
        """Whether cuDNN is called for anything but convolutions, which ask for workspaces."""
        self.adds_in_place = self.in_setitem = False
        self.values = Values()
        self.uncompared: set[str] = set()
        """Operators that allocated and were never compared with a GPU, by name and dtype."""
        self.called: Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None] | None = None
        """Told of each operator of the step with its arguments and what it returned, but not of what
        operators call that are made of others."""
        self._ids = self._inside = 0
        # Storage to allocation, and how many storages share an allocation (sums made in place).
        self._of_storage: dict[int, tuple[int, weakref.ref[Any]]] = {}
        self._sharing: dict[int, int] = {}

    def mark(self, name: str) -> None:
        """Name this moment."""
        self.events.append((MARK, name, None))

    def after(self, phase: str) -> None:
        """Note the end of a phase of the training step."""
        self._done += phase == BACKWARD
        if phase == BACKWARD and self._done % self.micro_batches:
            self.phase = FORWARD
        else:
            self.phase = PHASES[min(PHASES.index(phase) + 1, len(PHASES) - 1)]
        self.events.append((MARK, phase, self.phase))

    def know(self, kind: str, tensors: Iterable[Any]) -> None:
        """Say what ``tensors`` are."""
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                allocation = self.allocation_of(held_here(tensor).untyped_storage())
                if allocation is not None:
                    self.kinds[allocation] = kind

    def allocation_of(self, storage: torch.UntypedStorage) -> int | None:
        """Return the id of the allocation that a storage on the meta device has; ``None`` for any other."""
        known = self._of_storage.get(storage._cdata)
        return None if known is None else known[0]

    def moved(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor like ``tensor`` that has memory on the tape; itself, where it has."""
        known = self.allocation_of(tensor.untyped_storage()) is not None
        return tensor if known else torch.empty_like(tensor)

    def enter(self, owner: Owner) -> None:
        """Say in which module's forward what comes is made."""
        self.owner = owner

    @contextlib.contextmanager
    def adding_in_place(self) -> Iterator[None]:
        """Let sums be written over their first operand, as torch does where it sees no meta tensors."""
        was, self.adds_in_place = self.adds_in_place, True
        try:
            yield
        finally:
            self.adds_in_place = was

    def sums_in_place(self) -> bool:
        """Say whether a sum that is made now is written over its first operand, if nobody else holds that.

        Autograd's own sums are made without recording; what a checkpoint computes again is recorded.
        """
        of_autograd = self.phase == BACKWARD and not torch.is_grad_enabled()
        return (of_autograd or self.adds_in_place) and not self._inside

    @contextlib.contextmanager
    def holding(self, *sizes: int) -> Iterator[None]:
        """Hold temporaries of so many bytes each; they are given back in reverse order."""
        held = [self.hold(size) for size in sizes]
        yield
        for one in reversed(held):
            self.drop(one)

    def hold(self, size_bytes: int) -> Event:
        """Take a temporary; ``drop`` what is returned."""
        self._ids += 1
        self._note_alloc(size_bytes)
        return (FREE, self._ids, size_bytes)

    def _note_alloc(self, size_bytes: int) -> None:
        self.events.append((ALLOC, self._ids, size_bytes))
        if self.stream:
            self.streams[self._ids] = self.stream
            self.kinds[self._ids] = PARALLEL

    def drop(self, held: Event) -> None:
        """Give a temporary back."""
        self.events.append(held)

    @contextlib.contextmanager
    def copied(self, *tensors: tuple[torch.Tensor, str]) -> Iterator[None]:
        """Hold a copy of each tensor that is not contiguous in the layout that is asked of it."""
        sizes = [
            tensor.numel() * tensor.element_size()
            for tensor, layout in tensors
            if not tensor.is_contiguous(memory_format=memory_format_of(layout))
        ]
        with self.holding(*sizes):
            yield

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if any(issubclass(one, DTensor) for one in types):
            return NotImplemented  # it comes again with the part that this rank holds
        if active_fake_mode() is not None:
            return func(*args, **kwargs)  # torch only asks for shapes
        with without(AUTOCAST, ON_CUDA):
            before = len(self.events)
            made = self._run(func, args, kwargs)
            if len(self.events) > before and not is_plain(func):
                self._note_operator(func, args)
            self.values.follow(func, args, kwargs, made, by_optimizer=self.phase == OPTIMIZER_STEP)
            if self.called is not None and not self._inside:
                self.called(func, args, kwargs, made)
        return made

    def _note_operator(self, func: Any, args: tuple[Any, ...]) -> None:
        """Keep the name of an operator whose CUDA kernel allocates and was not compared with a GPU."""
        name = None if is_composite(func) or not _is_on_meta(args) else name_of(func, args)
        if name is not None and name not in compared():
            self.uncompared.add(name)

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._inside:
            args = with_tensors(func, args)
        if func is torch.ops.aten.index.Tensor and _is_on_meta(args):
            args = (args[0], self._places(args[1]))
        rule = self._rules.get(func)
        if rule is not None and _is_on_meta(args):
            return rule(self, func, *args, **kwargs)
        if args and isinstance(args[0], (list, tuple)) and _updates_lists(func, args[0]):
            self.values.forget(args)
            return None
        if is_asked(func, args, kwargs):
            # What an optimizer asks of weights it computes with, and takes no other memory for.
            return self.values.answer(func, args, kwargs, else_one=self.phase == OPTIMIZER_STEP)
        if func in SHAPED_BY_VALUES and _is_on_meta(args):
            return self.note(self.values.shaped(func, args, kwargs))
        if is_composite(func) and _is_on_meta(args):
            self._inside += 1
            try:
                with self:
                    return self.note(run_composite(func, args, kwargs))
            finally:
                self._inside -= 1
        return self.note(func(*args, **kwargs))

    def _places(self, indices: Any) -> list[Any]:
        """Return indices with each mask as the places where it is set, as torch looks them up."""
        found: list[Any] = []
        for one in indices:
            if isinstance(one, torch.Tensor) and one.is_meta and one.dtype in MASKS:
                places = self.note(self.values.shaped(torch.ops.aten.nonzero.default, (one,), {}))
                found += places.unbind(1)
            else:
                found.append(one)
        return found

    def note(self, made: Any) -> Any:
        """Write down the storages in ``made`` (a tensor, or a sequence of anything) that are new."""
        if isinstance(made, torch.Tensor):
            if made.is_meta:
                self._note_storage(made.untyped_storage(), None)
        elif isinstance(made, (tuple, list)):
            for one in made:
                self.note(one)
        return made

    def note_in_place(self, made: torch.Tensor, written_to: torch.Tensor) -> torch.Tensor:
        """Write down that ``made`` has the memory of ``written_to``."""
        self._note_storage(made.untyped_storage(), self.allocation_of(written_to.untyped_storage()))
        return made

    def resize(self, storage: torch.UntypedStorage, size_bytes: int) -> torch.UntypedStorage:
        """Change the size of a storage on the meta device: its memory is given back, and taken anew."""
        known = self._of_storage.pop(storage._cdata, None)
        if known is not None:
            self._release(known[0], storage.nbytes())
        plain_resize(storage, size_bytes)
        self._note_storage(storage, None)
        return storage

    def _release(self, allocation: int, size: int) -> None:
        self._sharing[allocation] -= 1
        if not self._sharing[allocation]:
            del self._sharing[allocation]
            self.events.append((FREE, allocation, size))

    def _note_storage(self, storage: torch.UntypedStorage, shared: int | None) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._of_storage or size == 0:
            return
        if shared is None:
            self._ids += 1
            allocation = self._ids
            self._note_alloc(size)
            self.owners[allocation] = self.owner
        else:
            allocation = shared
        self._sharing[allocation] = self._sharing.get(allocation, 0) + 1

        def died(_: object) -> None:
            del self._of_storage[key]
            self._release(allocation, size)

        self._of_storage[key] = (allocation, weakref.ref(storage, died))


def _is_on_meta(args: tuple[Any, ...]) -> bool:
    """Is one of these a meta tensor, or none of them a tensor?"""
    found = [one for arg in args for one in (arg if isinstance(arg, (list, tuple)) else (arg,))]
    tensors = [one for one in found if isinstance(one, torch.Tensor)]
    return not tensors or any(one.is_meta for one in tensors)


def _updates_lists(func: Any, tensors: Any) -> bool:
    """Is this an in-place update of lists of tensors? It takes no memory, and is slow on the meta device."""
    name: str = func._schema.name
    listed = name.endswith("_") and name.startswith(("aten::_foreach_", "aten::_fused_"))
    return listed and all(isinstance(tensor, torch.Tensor) and tensor.is_meta for tensor in tensors)


def memory_format_of(layout: str) -> torch.memory_format:
    """Torch's name of ``nchw`` and ``nhwc``."""
    return torch.channels_last if layout == "nhwc" else torch.contiguous_format
