"""What a saved run holds beside its rows: of the session, and of its machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepcost.machine import Clocks, Machine
from stepcost.schema import REQUIRED, fields_of, stored, union


@dataclass(frozen=True, kw_only=True)
class Processor:
    """The host's processor, as pytest-benchmark describes it."""

    brand_raw: str | None = stored("its name")
    count: int | None = stored("cores")


@dataclass(frozen=True, kw_only=True)
class Host:
    """Alongside our fields, what is used of pytest-benchmark's own."""

    python_version: str | None = stored("version of Python")
    cpu: Processor | None = stored("the processor")


MACHINE = union(Machine, Host)
"""What is used of ``machine_info``."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """A model or a data set."""

    name: str | None = stored("its name")


@dataclass(frozen=True, kw_only=True)
class Skip:
    """A test that was skipped."""

    test: str | None = stored("its node id")
    reason: str | None = stored("why")


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A test that failed: a relation that did not hold, or a child that died."""

    test: str | None = stored("its node id")
    message: str | None = stored("one line")


@dataclass(frozen=True, kw_only=True)
class CutOff:
    """How a run ended before its end."""

    why: str | None = stored(
        "`interrupted` (Ctrl-C, a time limit), or what pytest says: `stopping after 1 failures`"
    )
    not_run: int | None = stored("how many of the tests selected did not run to their end")
    selected: int | None = stored("how many were selected")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Where the time of a run went."""

    part: str = stored("what was done", default=REQUIRED)
    seconds: float = stored("in all", default=REQUIRED)
    times: int | None = stored("how often")


@dataclass(frozen=True, kw_only=True)
class SessionRecord:
    """What all rows of a session have in common."""

    schema_version: int | None = stored("version of this page")
    command: tuple[str, ...] | None = stored("the arguments given to pytest")
    settings: dict[str, Any] | None = stored("every flag of the suite with the value used")
    device: str | None = stored("`cuda:N` or `cpu`")
    why_no_gpu: str | None = stored("the reason for the latter")
    clocks: Clocks | None = stored("when the session started; null without a GPU")
    model: Named | None = stored("as described in the header")
    dataset: Named | None = stored("as described in the header")
    skipped: tuple[Skip, ...] | None = stored("which tests, and why")
    failed: tuple[Failed, ...] | None = stored("which tests, with one line each")
    cut_off: CutOff | None = stored(
        "of a run that ended before every selected test had run; null of a whole one, absent from older files"
    )
    notes: tuple[str, ...] | None = stored(
        "what a reader must know: another process on the GPU, NVML missing, a stand-in model, a resumed run"
    )
    costs: tuple[Cost, ...] | None = stored("costliest first; of a resumed run, the later part's")


SESSION = fields_of(SessionRecord)
"""What is stored under ``stepcost``, next to ``benchmarks``."""
