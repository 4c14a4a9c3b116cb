"""Losses of the first steps in fp64, by which ways to take a step are compared. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stepcost import jobs
from stepcost.request import ALONE, Request

if TYPE_CHECKING:
    from stepcost.session import Session

EVALUATION = "evaluation"
"""Mode of a model in which dropout leaves nothing out, and batch norm takes no statistics of the batch."""
LOSSES_STEPS, LOSSES_BATCH, LOSSES_SEQUENCE = 2, 2, 32
"""Steps, examples and tokens of which losses are compared in fp64: the second shows what the first did."""
CPU_LOSSES_PARAMETERS = 200_000_000
"""Models with more parameters than this take no steps in fp64 on the CPU."""


class Losses:
    """Reads each of a session's losses once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[tuple[Request, tuple[str, ...]], list[float]] = {}
        """By request and, where it is not training, the mode of the model."""

    def why_not(self, gpus: int = 1) -> str | None:
        """Why losses in fp64 are not read here in so many processes; ``None`` where they are."""
        parameters = self._session.model.parameters * gpus
        if self._session.on_gpu or parameters <= CPU_LOSSES_PARAMETERS:
            return None
        return f"a step of {parameters:,} parameters in fp64 takes too long without a GPU"

    def of(self, request: Request) -> list[float]:
        """Return the losses of the first steps of ``request`` in fp64, read once a session.

        They are of a batch and a sequence that take no time, whatever sizes were asked for. Raises
        ``MeasureError``.
        """
        return self._read(self._small(request))

    def of_ranks(self, request: Request) -> tuple[list[float], list[float]]:
        """Return the losses of a request on several GPUs, and of one process on the batches of all of them.

        They are as those of ``of``, of a model in evaluation mode: dropout would leave out others on each
        GPU, and batch norm takes statistics of each GPU's batch. Raises ``MeasureError``.
        """
        shared = replace(self._small(request), fsdp_precision=None)
        size = shared.batch_size * request.gpus
        alone = replace(shared, batch_size=size, parallel=ALONE, gpus=1, fsdp_keep_gathered=False)
        whole = self._read(alone, EVALUATION)
        return self._read(shared, EVALUATION), whole

    def _small(self, request: Request) -> Request:
        """Return the request at the sizes at which losses are compared."""
        length = request.sequence_length and min(request.sequence_length, LOSSES_SEQUENCE)
        return replace(request, batch_size=min(request.batch_size, LOSSES_BATCH), sequence_length=length)

    def _read(self, request: Request, *mode: str) -> list[float]:
        """Return the losses of the first steps, read once a session. Raises ``MeasureError``."""
        key = request, mode
        if key not in self._known:
            with (
                self._session.costs.of("read losses in fp64"),
                self._session.holding(jobs.LOSSES, request, *mode) as worker,
            ):
                self._known[key] = worker.call("losses", LOSSES_STEPS)
        return self._known[key]
