"""Muon as torch's documentation has it used: hidden matrices by Muon, everything else by AdamW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class MuonWithAdamW(torch.optim.Optimizer):
    """``torch.optim.Muon`` over a model's hidden matrices, ``torch.optim.AdamW`` over its other parameters.

    Muon takes matrices only; its documentation leaves embeddings, biases and what else is no hidden matrix to
    AdamW. One rate serves both, as Muon's scaling ``match_rms_adamw`` is made for (Liu et al. 2025).
    Raises ``ValueError`` in one line where torch has no Muon (before 2.9) or the model has no such matrix.
    """

    def __init__(self, model: nn.Module, lr: float = 1e-3) -> None:
        make: Any = getattr(torch.optim, "Muon", None)
        if make is None:
            raise ValueError(f"optimizer 'muon' needs torch 2.9 or newer, this is {torch.__version__}")
        matrices, others = hidden_matrices_and_others(model)
        if not matrices:
            raise ValueError(
                "optimizer 'muon' trains hidden matrices (2-D weights that are neither an embedding nor the "
                "last layer), and this model has none: adamw trains all else"
            )
        super().__init__([{"params": matrices}, {"params": others}], {"lr": lr})
        self._muon = make(matrices, lr=lr, adjust_lr_fn="match_rms_adamw")
        self._adamw = torch.optim.AdamW(others, lr=lr) if others else None
        self._both = [one for one in (self._muon, self._adamw) if one is not None]
        self.param_groups = [group for one in self._both for group in one.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for one, group in zip(self._both, self.param_groups, strict=True):
            # Rates and state are the ones here, also after they were loaded.
            one.param_groups, one.state = [group], self.state
            one.step()
        return loss


def hidden_matrices_and_others(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return a model's trainable parameters: 2-D ones of hidden layers, and the others.

    No hidden layer are embeddings and the last layer: the one that a language model names as such, else the
    last ``nn.Linear``. A weight that is tied to one of them is not hidden either.
    """
    named: Any = getattr(model, "get_output_embeddings", None)
    last = named() if named is not None else None
    if last is None:
        last = next((one for one in reversed(list(model.modules())) if isinstance(one, nn.Linear)), None)
    ends = [one for one in model.modules() if isinstance(one, nn.Embedding) or one is last]
    outer = {id(parameter) for one in ends for parameter in one.parameters()}
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            hidden = parameter.ndim == 2 and id(parameter) not in outer
            (matrices if hidden else others).append(parameter)
    return matrices, others
