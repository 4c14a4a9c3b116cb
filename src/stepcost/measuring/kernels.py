"""Which operator launched which kernel of a replayed graph: as it was in the same step, launched in turn."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode

from stepcost.operators import Operator, describe

MARK = "stepcost operator "
"""Begins the name of the range in which an operator runs."""
AHEAD = 24
"""So many kernels are looked ahead for the next two that are the same in both sequences."""


class Kernel(NamedTuple):
    """A kernel, copy or memset of a step."""

    name: str
    seconds: float


class Call(NamedTuple):
    """An operator with the kernels that it launched, in their order."""

    operator: Operator | None
    """``None`` where no operator is known to have launched them."""
    kernels: list[Kernel]


class Watched(TorchDispatchMode):
    """Describe each operator that is run, and put it into a range that the profiler sees."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: list[Operator | None] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with record_function(f"{MARK}{len(self.operators)}"):
            made = func(*args, **(kwargs or {}))
        self.operators.append(describe(func, args, kwargs or {}, made))
        return made


def launched(step: Callable[[], object]) -> tuple[list[Operator | None], list[tuple[str, int | None]]]:
    """Run ``step``, which must wait for the device, under torch's profiler with its kernels launched in turn.

    Returns its operators, and the name of each kernel with the index of its operator, in their order.
    """
    both = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=both) as profiler, Watched() as watched:
        step()
    events = list(_events(profiler))
    return watched.operators, operators_of_kernels(events)


class Event(NamedTuple):
    """What the profiler noted; times in nanoseconds."""

    name: str
    on_gpu: bool
    start: int
    end: int
    own: int
    """On the processor its number; of a kernel, and of the call that launched it, that of the launch."""
    linked: int
    """Of a kernel the number of the operator on the processor; 0 where it has none."""


def _events(profiler: profile) -> Iterator[Event]:
    recorded: Any = profiler.profiler
    for one in recorded.kineto_results.events():
        on_gpu = one.device_type().name == "CUDA"
        if on_gpu and one.is_user_annotation():  # a range of the processor, as it spans kernels
            continue
        yield Event(
            one.name(),
            on_gpu,
            one.start_ns(),
            one.end_ns(),
            one.correlation_id(),
            one.linked_correlation_id(),
        )


def operators_of_kernels(events: Sequence[Event]) -> list[tuple[str, int | None]]:
    """Return each kernel's name and the index of the operator in whose range it was launched, in order."""
    host = [one for one in events if not one.on_gpu]
    ranges = sorted(
        (one.start, one.end, int(one.name[len(MARK) :])) for one in host if one.name.startswith(MARK)
    )
    begins = [begin for begin, _, _ in ranges]
    started = {one.own: one.start for one in host if one.name.startswith("aten::")}
    launches = {one.own: one.start for one in host if one.name.startswith(("cuda", "cu"))}

    def operator(kernel: Event) -> int | None:
        # The launch itself where the profiler saw it, else the operator on the processor.
        at = launches.get(kernel.own, started.get(kernel.linked))
        if at is None:
            return None
        place = bisect.bisect_right(begins, at) - 1
        return ranges[place][2] if place >= 0 and at <= ranges[place][1] else None

    kernels = sorted((one for one in events if one.on_gpu), key=lambda one: one.start)
    found = [(one.name, operator(one)) for one in kernels if not one.name.startswith((MARK, "Optimizer."))]
    known = sum(index is not None for _, index in found)
    if 2 * known < len(found):
        raise ValueError(
            f"of {len(found)} kernels {known} were launched by a known operator: the profiler saw "
            f"{sum(one.own in launches for one in kernels)} of their launches, and for "
            f"{sum(one.linked in started for one in kernels)} an operator on the processor, among "
            f"{len(ranges)} operators"
        )
    return found


def replayed(step: Callable[[], object], replays: int) -> tuple[list[Kernel], float]:
    """Run ``step``, which must wait for the device, ``replays`` times under torch's profiler.

    Returns its kernels in their order, each with the median of its seconds, and the median of the seconds
    from the begin of the first to the end of the last. Raises ``ValueError`` where replays differ.
    """
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(replays):
            step()
    spans = sorted((one.start, one.end, one.name) for one in _events(profiler) if one.on_gpu)
    return by_position(spans, replays)


def by_position(spans: Sequence[tuple[int, int, str]], replays: int) -> tuple[list[Kernel], float]:
    """Do what ``replayed`` does with start, end (nanoseconds) and name of all kernels, by their start.

    A kernel's place is that of the first replay: on several streams, as cuDNN runs groups of a convolution,
    kernels change places. The first, second ... of a name is the same kernel in each replay.
    """
    each, left = divmod(len(spans), replays)
    runs = [_numbered(spans[number * each : (number + 1) * each]) for number in range(replays)]
    if not each or left or any(run.keys() != runs[0].keys() for run in runs):
        raise ValueError(f"{replays} replays had {len(spans)} kernels, which are not the same in each")
    kernels = [
        Kernel(name, median(run[name, number][1] - run[name, number][0] for run in runs) / 1e9)
        for name, number in runs[0]
    ]
    whole = [max(end for _, end in run.values()) - min(start for start, _ in run.values()) for run in runs]
    return kernels, median(whole) / 1e9


def _numbered(spans: Sequence[tuple[int, int, str]]) -> dict[tuple[str, int], tuple[int, int]]:
    """Return start and end of each kernel by its name and which of that name it is, in their order."""
    seen: Counter[str] = Counter()
    found = {}
    for start, end, name in spans:
        found[name, seen[name]] = start, end
        seen[name] += 1
    return found


def calls(
    operators: Sequence[Operator | None],
    in_turn: Sequence[tuple[str, int | None]],
    in_place: Sequence[Kernel],
) -> tuple[list[Call], int]:
    """Give the kernels of a replayed step to the operators of the same step launched in turn.

    Returns the calls in their order, and how many kernels have no partner: such a kernel goes to the
    operator of the one before it.
    """
    partners = matched([name for name, _ in in_turn], [one.name for one in in_place])
    made: list[Call] = []
    last: int | None = -1
    for kernel, partner in zip(in_place, partners, strict=True):
        index = last if partner is None else in_turn[partner][1]
        if index != last or not made:
            known = index is not None and 0 <= index < len(operators)
            made.append(Call(operators[index] if known and index is not None else None, []))
        made[-1].kernels.append(kernel)
        last = index
    return made, sum(one is None for one in partners)


def matched(launched: Sequence[str], replayed: Sequence[str]) -> list[int | None]:
    """Return for each name of the second sequence the place of its partner in the first, in order."""
    found: list[int | None] = []
    place = 0
    while len(found) < len(replayed):
        here = len(found)
        step = _next_alike(launched, place, replayed, here)
        if step is None:
            found.append(None)
            place += 1
            continue
        found += [None] * step[1]
        place += step[0]
        found.append(place)
        place += 1
    return found


def _next_alike(left: Sequence[str], i: int, right: Sequence[str], j: int) -> tuple[int, int] | None:
    """How many to leave out of each sequence, as few as possible, until two in a row are the same in both."""
    if left[i : i + 1] == right[j : j + 1]:
        return 0, 0
    for out in range(1, AHEAD):
        for skip in range(out + 1):
            a, b = i + skip, j + out - skip
            if (
                b < len(right)
                and left[a : a + 1] == right[b : b + 1]
                and left[a + 1 : a + 2] == right[b + 1 : b + 2]
            ):
                return skip, out - skip
    return None
