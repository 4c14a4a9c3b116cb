"""How far predicted step times are from steps that a GPU took, with more and more of them left out.

``python -m experiments.step_times --gpu h100-80gb``: predicts each recorded step of the table from the others
and prints a Markdown table: with its own operators in the table, without its batch size, its model, its
series (all ResNets), and the models that only ``time-steps-blind.txt`` and ``time-steps-more.txt`` name, from
a table without them. Beside it plain roofline (bytes or operations of each operator at the card's measured
rates) and, with ``--runtime-estimator`` (slow), torch's ``RuntimeEstimator`` on fake tensors. ``--each``
prints every step, ``--plot`` draws predicted over measured.
"""

from __future__ import annotations

import contextlib
import copy
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

from experiments.arguments import parser_of
from stepcost.catalog.cards import CARDS
from stepcost.predicting.times.doubts import (
    BATCH,
    LEFT_OUT,
    MODEL,
    NOTHING,
    SERIES,
    TEACH,
    Outcome,
    doubts_of,
    model_of,
    nothing,
    outcomes,
)
from stepcost.predicting.times.nearest import Times
from stepcost.predicting.times.table import Step, TimesTable, table_of
from stepcost.request import Request, step_named

LISTS = Path(__file__).parent
BLIND, NOT_BLIND = ("time-steps-blind.txt", "time-steps-more.txt"), "time-steps.txt"
WITH_ANOTHER, BLIND_MODELS = "batch size, of which another was recorded", "all models of the blind lists"
DATA_SHEET_FLOPS = {"torch.float32": 67.5, "torch.bfloat16": 1979.0}
"""TFLOP/s of an H100 as torch's own ``_inductor/analysis/device_info.py`` has them."""
DATA_SHEET_GB_PER_S = 3352


class Compared(NamedTuple):
    """A recorded step with a predicted time."""

    step: Step
    predicted_s: float
    held: bool | None = None
    """Whether its interval held the measured time; ``None`` where there is no interval."""

    @property
    def error(self) -> float:
        """Predicted less measured, as a share of measured."""
        return self.predicted_s / self.step.step_s - 1


def named_blind() -> set[str]:
    """Name the models that are to contribute nothing: those of the later lists that the first one lacks."""
    return set().union(*map(models_in, BLIND)) - models_in(NOT_BLIND)


def models_in(name: str) -> set[str]:
    """Name the models of a list of steps."""
    lines = (line.strip() for line in (LISTS / name).read_text().splitlines())
    return {model_of(vars(step_named(line))) for line in lines if line and not line.startswith("#")}


def has_another_batch(step: Step, steps: Iterable[Step]) -> bool:
    """Say whether the same step was recorded with another batch size."""
    asked = {**step.request, "batch_size": None}
    return any(
        {**one.request, "batch_size": None} == asked
        and one.request["batch_size"] != step.request["batch_size"]
        for one in steps
    )


def compared(found: Sequence[Outcome], doubts: dict[str, float]) -> list[Compared]:
    """Return outcomes with whether their intervals held."""
    return [Compared(one.step, one.predicted_s, one.is_held(doubts)) for one in found]


def tables(table: TimesTable) -> Iterator[tuple[str, list[Compared]]]:
    """Yield what is left out, in words, with the steps predicted so."""
    blind = named_blind()
    own = replace(table, steps=tuple(one for one in table.steps if model_of(one.request) not in blind))
    others = [one for one in table.steps if model_of(one.request) in blind]
    found = {name: outcomes(own, leaves) for name, leaves in LEFT_OUT.items()}
    doubts = doubts_of([one for name in TEACH for one in found[name]], found[NOTHING])
    yield NOTHING, compared(found[NOTHING], doubts)
    neighboured = [one for one in found[BATCH] if has_another_batch(one.step, own.steps)]
    yield WITH_ANOTHER, compared(neighboured, doubts)
    yield BATCH, compared(found[BATCH], doubts)
    yield MODEL, compared(found[MODEL], doubts)
    yield SERIES, compared(found[SERIES], doubts)
    yield BLIND_MODELS, compared(outcomes(own, nothing, others), doubts)


def roofline_s(step: Step, times: Times) -> float:
    """Seconds of a step by its operators' bytes or operations at the card's measured rates."""
    return sum(one.calls * times.bound_s(one.key, one.bytes, one.flops) for one in step.entries)


class _WithCuda:
    """Torch, but for that the estimator takes it to see a GPU."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self.cuda = SimpleNamespace(is_available=lambda: True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)


def estimator_s(asked: dict[str, Any]) -> float | None:
    """Seconds of one step by torch's RuntimeEstimator on fake tensors (private; tried with 2.11).

    ``None`` for a step that it cannot run. Its rates are those of an H100 in torch's own table. Modules are
    kept for it, since it looks in backward for one that a loss of transformers made and dropped in forward.
    """
    import torch  # noqa: PLC0415 (needed for this alone)
    from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode  # noqa: PLC0415
    from torch.distributed._tools.runtime_estimator import RuntimeEstimator  # noqa: PLC0415
    from torch.nn.modules.module import register_module_forward_pre_hook  # noqa: PLC0415

    from stepcost.catalog.optimizers import build_optimizer  # noqa: PLC0415
    from stepcost.prepare import batch_of, prepare, step_of  # noqa: PLC0415
    from stepcost.workload import workload_of  # noqa: PLC0415

    request = replace(Request(**asked), engine="eager", device="cpu")
    rates = "torch.utils._runtime_estimation."
    patches = (
        mock.patch(f"{rates}get_device_tflops", side_effect=lambda dtype: DATA_SHEET_FLOPS[str(dtype)]),
        mock.patch(f"{rates}get_gpu_dram_gbps", return_value=DATA_SHEET_GB_PER_S),
        mock.patch("torch.distributed._tools.runtime_estimator.torch", _WithCuda(torch)),
    )
    kept: list[torch.nn.Module] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        stack.callback(register_module_forward_pre_hook(lambda module, _: kept.append(module)).remove)
        try:
            workload = workload_of(request)
            built = workload.build()  # some read values, which fake tensors lack
            fake = FakeTensorMode()
            with FakeCopyMode(fake):
                built = copy.deepcopy(built)
            stack.enter_context(fake)
            model = prepare(built, request).train()
            step = step_of(request, model, workload, build_optimizer(request.optimizer, model))
            batch = batch_of(workload, request, "cpu")
            step(batch)
            for patch in patches:
                stack.enter_context(patch)
            estimator = RuntimeEstimator()
            with estimator("operator-level-cost-model"):
                step(batch)
        except Exception as error:
            sys.stderr.write(f"{request.model}: not estimated: {type(error).__name__}: {error}\n")
            return None
    return float(estimator.total_runtime) / 1e3


def summary(name: str, found: Sequence[Compared]) -> str:
    """Return a line: steps, median, mean and worst absolute error, bias, share too fast, share held."""
    if not found:
        return f"| {name} | 0 | | | | | | |"
    errors = [one.error for one in found]
    absolute = [abs(error) for error in errors]
    held = [one.held for one in found if one.held is not None]
    figures = (statistics.median(absolute), statistics.fmean(absolute), max(absolute))
    cells = [f"{100 * figure:.1f}" for figure in figures]
    cells.append(f"{100 * statistics.fmean(errors):+.1f}")
    cells.append(f"{100 * sum(error < 0 for error in errors) / len(errors):.0f}")
    cells.append(f"{100 * sum(held) / len(held):.0f}" if held else "")
    return f"| {name} | {len(found)} | {' | '.join(cells)} |"


def describe(one: Compared) -> str:
    """Return a line of one step."""
    asked = one.step.request
    size = asked["sequence_length"] or asked["image_size"]
    parts = (
        model_of(asked),
        asked["optimizer"],
        asked["batch_size"],
        size,
        asked["engine"],
        asked["precision"],
    )
    held = "" if one.held is None else "yes" if one.held else "no"
    return (
        f"| {' '.join(map(str, parts))} | {1e3 * one.step.step_s:.2f} | {1e3 * one.predicted_s:.2f} | "
        f"{100 * one.error:+.1f} | {held} |"
    )


def plot(path: Path, found: Sequence[tuple[str, Sequence[Compared]]]) -> None:
    """Draw predicted over measured, all points, with what is 10 % off."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 (needed for this alone)

    figure, axes = plt.subplots(figsize=(7, 6.5), layout="constrained")
    every = [1e3 * one.step.step_s for _, each in found for one in each]
    ends = [0.8 * min(every), 1.25 * max(every)]
    axes.plot(ends, ends, color="grey", linewidth=1)
    axes.fill_between(
        ends, [0.9 * end for end in ends], [1.1 * end for end in ends], color="grey", alpha=0.2, linewidth=0
    )
    for (name, each), marker in zip(found, "o^sDvP", strict=False):
        axes.scatter(
            [1e3 * one.step.step_s for one in each],
            [1e3 * one.predicted_s for one in each],
            s=22,
            marker=marker,
            alpha=0.7,
            label=f"left out: {name}",
        )
    axes.set(xscale="log", yscale="log", xlabel="measured step (ms)", ylabel="predicted step (ms)")
    axes.set_title("Captured steps on an H100; grey: within 10 %", loc="left")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=100)


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; return the exit status."""
    parser = parser_of("step_times", __doc__)
    parser.add_argument("--gpu", choices=CARDS, default="h100-80gb")
    parser.add_argument("--each", action="store_true", help="also every step")
    parser.add_argument("--runtime-estimator", action="store_true", help="also torch's; slow")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    options = parser.parse_args(arguments)
    table = table_of(CARDS[options.gpu])
    if table is None:
        parser.error(f"no times were recorded on {options.gpu}")
    found = list(tables(table))
    times = Times(table)
    plain = [Compared(one, roofline_s(one, times)) for one in table.steps]
    print("| left out | steps | median % | mean % | worst % | bias % | too fast % | held % |")
    print("|---|---|---|---|---|---|---|---|")
    for name, each in found:
        print(summary(name, each))
    print(summary("(plain roofline)", plain))
    if options.runtime_estimator:
        pairs = [(one, estimator_s(one.request)) for one in table.steps]
        print(summary("(RuntimeEstimator)", [Compared(one, s) for one, s in pairs if s is not None]))
    if options.each:
        for name, each in found:
            print(
                f"\n{name}:\n\n| step | measured ms | predicted ms | error % | held |\n|---|---|---|---|---|"
            )
            print("\n".join(describe(one) for one in sorted(each, key=lambda one: -abs(one.error))))
    if options.plot is not None:
        plot(options.plot, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
