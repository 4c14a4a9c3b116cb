"""A training step of the user's own, held by a child process."""

from __future__ import annotations

import sys

import cloudpickle

from stepcost.measuring.child import enter_phase
from stepcost.measuring.configuration import Configuration
from stepcost.request import Request


class OwnConfiguration(Configuration):
    """A configuration whose workload came with the request."""

    def __init__(self, request: Request, pickled: bytes | None, path: list[str]) -> None:
        """Take the ``pickled`` workload, or what the request names; its modules are found on ``path``."""
        enter_phase("unpickle the step")
        sys.path[:] = [*path, *(one for one in sys.path if one not in path)]
        super().__init__(request, None if pickled is None else cloudpickle.loads(pickled))
