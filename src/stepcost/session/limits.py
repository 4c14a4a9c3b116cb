"""What bounds a step on the machine of a session: rates of its card, operations of its model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepcost import jobs
from stepcost.failures import MeasureError
from stepcost.request import Request

if TYPE_CHECKING:
    from stepcost.session import Session


class Limits:
    """Measures and counts them once a session, in children."""

    def __init__(self, session: Session, model: Request) -> None:
        """``model`` is asked for in whatever step."""
        self._session, self._model = session, model
        self._rates: dict[str, float] | None = None
        self._flops_each: tuple[int | None, str | None] | None = None

    def of(self, precision: str, batch_size: int) -> dict[str, Any]:
        """Return what bounds a step here: the card's rates, measured once a session, and its operations.

        ``copy_bytes_per_s``, ``matrix_flops_per_s`` in that precision, and ``step_flops``: ``None`` where the
        model cannot be counted, as ``unread`` then says. Raises ``MeasureError``.
        """
        if self._rates is None:
            costs = self._session.costs
            with costs.of("measure the card's rates"), self._session.worker(jobs.LIMITS) as worker:
                self._rates = worker.call("rates", self._session.machine.device)
        if self._flops_each is None:
            self._flops_each = self._count_flops()
        each, why_not = self._flops_each
        return {
            "step_flops": None if each is None else each * batch_size,
            "copy_bytes_per_s": self._rates["copy_bytes_per_s"],
            "matrix_flops_per_s": self._rates[f"matrix_flops_per_s_{precision}"],
            "unread": {"step_flops": why_not} if why_not else {},
        }

    def _count_flops(self) -> tuple[int | None, str | None]:
        """Count the operations of a step for each of its batch, or say why they cannot be counted."""
        try:
            with self._session.worker(jobs.LIMITS) as worker:
                return worker.call("step_flops", self._model), None
        except MeasureError as error:  # counted on the meta device, and a model may need real tensors
            return None, str(error)
