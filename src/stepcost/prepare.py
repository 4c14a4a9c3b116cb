"""A built model and its step, as a request asks for them: adapters, checkpointing, dtype, layout, scaler."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend
from torch.utils.checkpoint import checkpoint

from stepcost.catalog.engines import ENGINES
from stepcost.catalog.optimizers import build_optimizer, find_optimizer
from stepcost.catalog.precisions import PRECISIONS
from stepcost.request import BLOCKS, Request
from stepcost.step import Forward, TrainingStep, map_tensors
from stepcost.workload import Workload

ATTENTION = {
    "auto": None,
    "math": SDPBackend.MATH,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
}


def prepare(model: nn.Module, request: Request) -> nn.Module:
    """Change a model that was just built into the one that the request trains, and return it.

    Raises ``ValueError`` in one line where the model has no such blocks or layers.
    """
    if request.lora is not None:
        model = _with_adapters(model, request.model, request.lora)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"model {request.model!r} has no trainable parameters: there is nothing to train")
    if request.checkpoint is not None:
        _checkpoint(model, request)
    weights = PRECISIONS[request.precision].weights
    if weights != "float32":
        model = model.to(getattr(torch, weights))
    if request.attention != "auto":
        chosen = getattr(getattr(model, "config", None), "_attn_implementation", "sdpa")
        if chosen != "sdpa":
            raise ValueError(
                f"--attention {request.attention}: {request.model} has attention of its own ({chosen}), "
                "not torch's scaled_dot_product_attention"
            )
    return model


def memory_format(request: Request) -> torch.memory_format:
    """Return the memory format in which the request's step takes images (N, C, H, W)."""
    last = request.channels_last or ENGINES[request.engine].channels_last
    takes_none = request.image_size is None and request.sequence_length is not None
    return torch.channels_last if last and not takes_none else torch.contiguous_format


def batch_of(workload: Workload, request: Request, device: str | torch.device) -> Any:
    """Make the request's batch on a device, in the dtype of the weights."""
    return as_weights(workload.batch(request.batch_size, device, memory_format(request)), request)


def as_weights(batch: Any, request: Request) -> Any:
    """Return a batch with its floating-point tensors in the dtype of the request's weights."""
    name = PRECISIONS[request.precision].weights
    if name == "float32":  # as it is: losses are read in float64
        return batch
    dtype = getattr(torch, name)
    return map_tensors(lambda one: one.to(dtype) if one.is_floating_point() else one, batch)


def step_of(
    request: Request,
    model: nn.Module,
    workload: Workload,
    optimizer: torch.optim.Optimizer,
    forward: Forward | None = None,
) -> TrainingStep:
    """Return the training step of a prepared model that is on its device, with its optimizer."""
    precision = PRECISIONS[request.precision]
    return TrainingStep(
        model=model,
        optimizer=optimizer,
        objective=workload.objective,
        forward=forward,
        autocast=None if precision.autocast is None else getattr(torch, precision.autocast),
        # Under capture the cache of cast weights would keep what belongs to the graph.
        keeps_casts=not ENGINES[request.engine].captured,
        scaler=torch.amp.GradScaler("cuda") if precision.scaled else None,
        accumulate=request.accumulate,
        attention=ATTENTION[request.attention],
    )


def optimizer_of(
    request: Request, model: nn.Module, learning_rate: float | None = None, *, scheduled: bool = False
) -> torch.optim.Optimizer:
    """Build the request's optimizer as its engine runs it: capturable, fused.

    ``scheduled`` says that the rate will change between steps.
    """
    engine = ENGINES[request.engine]
    row = find_optimizer(request.optimizer)
    options: dict[str, Any] = dict(row.capture_options or ()) if engine.captured else {}
    moving_rate = engine.captured and scheduled  # which a captured step reads from the GPU
    if engine.fused_optimizer or (moving_rate and row.moving_rate_needs_fused):
        options["fused"] = True
    rate: Any = row.learning_rate if learning_rate is None else learning_rate
    if scheduled:
        rate = in_fp32(rate)
    if moving_rate:
        rate = torch.tensor(rate, dtype=torch.float32, device=request.device)
    return build_optimizer(request.optimizer, model, learning_rate=rate, **options)


def in_fp32(rate: float) -> float:
    """Round the rate as torch's fused kernels read it from the GPU, so that all engines have one."""
    return float(torch.tensor(rate, dtype=torch.float32))


def _with_adapters(model: nn.Module, name: str, rank: int) -> nn.Module:
    """Freeze a model and give its layers adapters (LoRA, Hu et al. 2022), by ``peft``."""
    logging.getLogger("bitsandbytes").setLevel(
        logging.ERROR
    )  # which peft imports; it warns of a CPU's kernels
    try:
        from peft import LoraConfig, get_peft_model  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise ValueError(f"--lora needs the library peft ({error}): pip install 'stepcost[peft]'") from None
    try:
        with warnings.catch_warnings(), next(model.parameters()).device:  # on meta, adapters take no memory
            warnings.filterwarnings("ignore", message="fan_in_fan_out")  # which it then sets as it should be
            try:  # the layers that peft knows for the architecture, else all that are linear
                adapted: nn.Module = get_peft_model(model, LoraConfig(r=rank))
            except (ValueError, AttributeError):
                adapted = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear"))
    except Exception as error:
        raise ValueError(f"--lora: {name} cannot be given adapters: {error}") from error
    return adapted


def _checkpoint(model: nn.Module, request: Request) -> None:
    """Compute blocks again in backward, without reentry, as the library offers it or class by class."""
    wanted = request.checkpoint
    # The library's older name, which its newer versions warn of.
    older: Any = getattr(model, "gradient_checkpointing_enable", None)
    offered: Any = getattr(model, "activation_checkpointing_enable", older)
    if wanted == BLOCKS and offered is not None:
        offered({"use_reentrant": False})
        return
    name = _repeated_class(model) if wanted == BLOCKS else wanted
    if name is None:
        raise ValueError(
            f"--checkpoint: {request.model} has no block that is repeated; --checkpoint CLASS names a module"
        )
    found = [module for module in model.modules() if type(module).__name__ == name]
    if not found:
        classes = sorted({type(module).__name__ for module in model.modules()})
        raise ValueError(
            f"--checkpoint {name}: {request.model} has no such module, only {', '.join(classes)}"
        )
    for module in found:
        module.forward = partial(checkpoint, module.forward, use_reentrant=False)


CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
TORCH_BLOCKS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Return the blocks by which a model is shared, outermost first: none where nothing is repeated.

    ``transformers`` names their classes; of other models they are those that are checkpointed.
    """
    named = {*(getattr(model, "_no_split_modules", None) or ())} or {_repeated_class(model)}
    return [module for module in model.modules() if type(module).__name__ in named]


def _repeated_class(model: nn.Module) -> str | None:
    """Name the class of the model's blocks; ``None`` where nothing is repeated.

    Of the classes that occur more than once, are no layers of torch's and do not merely contain others, it is
    the one whose instances hold most parameters; where several hold nearly as many, one within the other,
    the one that occurs most often.
    """
    times: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for path, module in model.named_modules():
        layer = type(module).__module__.startswith("torch.nn") and not isinstance(module, TORCH_BLOCKS)
        if path and not layer and not isinstance(module, CONTAINERS):
            times[type(module).__name__] += 1
            held[type(module).__name__] += sum(one.numel() for one in module.parameters())
    again = [name for name in held if times[name] > 1 and held[name]]
    if not again:
        return None
    most = max(held[name] for name in again)
    return max((name for name in again if held[name] > most / 2), key=lambda name: times[name])
