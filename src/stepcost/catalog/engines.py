"""How a training step is run: one row each. Add a row to add an engine, or a combination of your own."""

from __future__ import annotations

from dataclasses import dataclass

from stepcost.catalog.optimizers import find_optimizer


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One way to run a step. What a row does not name is torch's default."""

    name: str
    description: str
    captured: bool = False
    """The step is one CUDA graph, replayed; the data are resident on the GPU."""
    channels_last: bool = False
    """Weights and images in memory as N, H, W, C."""
    fused_optimizer: bool = False
    """The optimizer's update in one kernel for many tensors (``fused=True``)."""
    autotuned: bool = False
    """cuDNN tries its algorithms at the first step (``torch.backends.cudnn.benchmark``)."""
    precision: str = "fp32"
    """``fp32``, or ``bf16``: ``torch.autocast`` to bfloat16; weights and state stay in fp32."""
    compiled: bool = False
    """Forward and backward by ``torch.compile``, one compilation for each batch size."""

    @property
    def replays_operators(self) -> bool:
        """Whether the step is captured with torch's own kernels, so that its operators' times are known."""
        return self.captured and not (self.compiled or self.autotuned)

    @property
    def why_not_timed(self) -> str | None:
        """Say why the time of its steps cannot be predicted; ``None`` where it can."""
        if not self.captured:
            return (
                f"the time of engine {self.name} is the processor's, and varies by 17 % between processes "
                "of one host: of captured engines (graph, fast) it is predicted"
            )
        if not self.replays_operators:
            return f"of engine {self.name} no kernels were recorded: its time is not predicted"
        return None

    def why_not(self, optimizer: str) -> str | None:
        """Say why this engine cannot run the optimizer of that name; ``None`` where it can."""
        row = find_optimizer(optimizer)
        if self.captured and row.capture_options is None:
            return f"{optimizer} cannot be captured in a CUDA graph; eager can run it"
        if self.fused_optimizer and not row.has_fused:
            return f"{optimizer} has no fused implementation; graph-channels-last can run it"
        return None


ENGINES: dict[str, Engine] = {
    row.name: row
    for row in (
        Engine(
            name="eager",
            description="the loop of a textbook, DataLoader and all: each kernel launched in turn",
        ),
        Engine(
            name="graph",
            description="the same step as one CUDA graph, data resident on the GPU",
            captured=True,
        ),
        Engine(
            name="graph-channels-last",
            description="graph, with weights and images in channels-last memory format",
            captured=True,
            channels_last=True,
        ),
        Engine(
            name="graph-fused",
            description="graph, with the optimizer's fused kernels",
            captured=True,
            fused_optimizer=True,
        ),
        Engine(
            name="fast",
            description="graph, channels-last and fused: fastest in fp32 without compiling or tuning",
            captured=True,
            channels_last=True,
            fused_optimizer=True,
        ),
        Engine(
            name="fast-autotuned",
            description="fast, with cuDNN's autotuning",
            captured=True,
            channels_last=True,
            fused_optimizer=True,
            autotuned=True,
        ),
        Engine(
            name="fast-bf16",
            description="fast, under autocast to bfloat16",
            captured=True,
            channels_last=True,
            fused_optimizer=True,
            precision="bf16",
        ),
        Engine(
            name="fast-compiled",
            description="fast, forward and backward compiled",
            captured=True,
            channels_last=True,
            fused_optimizer=True,
            compiled=True,
        ),
        Engine(
            name="fast-compiled-bf16",
            description="fast, compiled, under autocast to bfloat16",
            captured=True,
            channels_last=True,
            fused_optimizer=True,
            compiled=True,
            precision="bf16",
        ),
    )
}

UNCOMPILED_BY_SPEED = ("fast", "graph-channels-last", "eager")
"""What a study uses unless told: the first of these that can run its optimizer.

Compiling takes longer than it saves in ten epochs of a small data set.
"""
