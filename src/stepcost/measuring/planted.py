"""Faults planted in a training step, to see whether the figures of a step show them."""

from __future__ import annotations

from statistics import median

import torch

from stepcost.measuring.engine_step import EngineStep

STEPS = 20
BATCH_BYTES = 64 << 20
"""A batch that comes from the host each step: 64 MiB of pageable memory."""


class PlantedStep(EngineStep):
    """The study's step and the same one with its kernels launched in turn, each without and with a fault."""

    def busy_shares(self) -> dict[str, float]:
        """Share of a step during which the GPU computes.

        Of the ``study`` step, ``study with copy`` (its batch comes from the host), ``eager`` and
        ``eager with synchronisation`` (the host waits after the forward pass of every module, as no
        captured step can).
        """
        self.prepare()
        shares = {"study": self._busy_share()}
        on_host = torch.zeros(BATCH_BYTES, dtype=torch.uint8)
        study = self._launch

        def copy_and_step() -> None:
            on_host.to(self.request.device)
            study()

        self._launch = copy_and_step
        shares["study with copy"] = self._busy_share()
        self._launch = self._work
        shares["eager"] = self._busy_share()
        for module in self.training_step.model.modules():
            module.register_forward_hook(lambda *_: torch.cuda.synchronize())
        shares["eager with synchronisation"] = self._busy_share()
        return shares

    def _busy_share(self) -> float:
        return self.profiled()["gpu_busy_s"] / median(self.timed_steps(STEPS))
