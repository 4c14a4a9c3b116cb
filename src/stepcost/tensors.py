"""What a model and its training step keep: tensors counted one by one, measured or traced alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from stepcost.activations import alike_path
from stepcost.step import TrainingStep, bytes_of, state_of, tensors_in


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Count a model's parameters, all, trainable and frozen, and their bytes, as ``Reading`` names them."""
    every = list(model.parameters())
    trainable = [parameter for parameter in every if parameter.requires_grad]
    count, trained = (sum(parameter.numel() for parameter in some) for some in (every, trainable))
    return {
        "parameters": count,
        "trainable_parameters": trained,
        "frozen_parameters": count - trained,
        "parameter_bytes": bytes_of(every),
        "trainable_parameter_bytes": bytes_of(trainable),
    }


def count_step(step: TrainingStep, batch: Any) -> dict[str, Any]:
    """Count what a step that was taken on ``batch`` keeps, in bytes, as ``Reading`` names it.

    State is told from single numbers, such as a count of steps; a tensor that parameters share counts once.
    """
    trainable = [parameter for parameter in step.model.parameters() if parameter.requires_grad]
    return (
        count_parameters(step.model)
        | count_state(state_of(step.optimizer))
        | {
            "without_gradient_bytes": bytes_of(p for p in trainable if p.grad is None),
            "gradient_bytes": bytes_of(p.grad for p in trainable),
            "buffer_bytes": bytes_of(step.model.buffers()),
            "input_bytes": bytes_of(tensors_in(batch)),
            "checkpointed_modules": checkpointed_modules(step.model),
        }
    )


def count_state(states: Mapping[torch.Tensor, Mapping[str, Any]]) -> dict[str, int]:
    """Count an optimizer's state in bytes, by parameter, as ``Reading`` names it."""
    kept: dict[int, torch.Tensor] = {}
    numbers: dict[int, torch.Tensor] = {}
    for parameter, state in states.items():
        for value in state.values():
            if isinstance(value, torch.Tensor):
                is_number = value.numel() == 1 and value.shape != parameter.shape
                (numbers if is_number else kept)[id(value)] = value
    return {
        "optimizer_state_bytes": bytes_of(kept.values()),
        "optimizer_scalar_bytes": bytes_of(numbers.values()),
    }


def checkpointed_modules(model: nn.Module) -> dict[str, int]:
    """Count the modules that ``prepare`` has computed again in backward, alike ones by one path."""
    found = Counter(alike_path(path) for path, module in model.named_modules() if _is_checkpointed(module))
    return dict(found)


def _is_checkpointed(module: nn.Module) -> bool:
    if getattr(module.forward, "func", None) is checkpoint:  # class by class
        return True
    # As ``transformers`` has it: its models have the same mark as the layers in them.
    is_model = hasattr(module, "gradient_checkpointing_enable")
    return getattr(module, "gradient_checkpointing", False) is True and not is_model
