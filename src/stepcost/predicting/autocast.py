"""Autocast is refused: it chooses by the device, and what is traced is on none: it would pass for fp32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Raise ``ValueError`` in one line where a step enters autocast that is not switched off.

    Activation checkpointing enters one that is switched off, each time it computes again.
    """
    plain = torch.autocast.__init__
    enter: Any = torch.autocast.__enter__
    off: list[torch.autocast] = []

    def made(
        self: torch.autocast,
        device_type: str,
        dtype: Any = None,
        enabled: bool = True,
        cache_enabled: Any = None,
    ) -> None:
        plain(self, device_type, dtype, enabled, cache_enabled)
        if not enabled:
            off.append(self)

    def entered(self: torch.autocast) -> Any:
        if not any(self is one for one in off):
            raise ValueError("autocast cannot be predicted yet, only fp32")
        return enter(self)

    with (
        mock.patch.object(torch.autocast, "__init__", made),
        mock.patch.object(torch.autocast, "__enter__", entered),
    ):
        yield
