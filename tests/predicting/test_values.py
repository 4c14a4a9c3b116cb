"""Values of small tensors beside the meta ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from stepcost.predicting.as_on_cuda import as_on_cuda
from stepcost.predicting.rules import RULES
from stepcost.predicting.tape import ALLOC, MARK, Tape
from stepcost.predicting.trace import trace_steps
from stepcost.reading import FORWARD, OPTIMIZER_STEP
from stepcost.step import TrainingStep


def tracing() -> Any:
    """Enter a tape, as a trace does."""
    tape = Tape(RULES)
    return as_on_cuda(tape), tape


def test_a_mask_answers_as_it_would() -> None:
    """Packed sequences are found in positions; a full mask is full, one with a hole is not."""
    on_cuda, tape = tracing()
    with on_cuda, tape:
        positions = torch.arange(6, device="meta").expand(2, -1)
        starts = (positions.diff(dim=-1, prepend=positions[:, :1] - 1) != 1).cumsum(-1)
        assert (starts[:, -1] == 0).all()
        mask = torch.ones(2, 6, dtype=torch.bool, device="meta")
        assert mask.all()
        mask[:, 4:] = False
        assert not mask.all()
        assert int(mask.sum()) == 8


def test_a_batch_of_the_cpu_keeps_its_values() -> None:
    """Tokens that were put on the device are those that were made; views of them too."""
    words = torch.tensor([[3, 1, 4], [1, 5, 9]])
    on_cuda, tape = tracing()
    with on_cuda, tape:
        there = words.to("meta")
        there += 1
        assert there.t()[2].tolist() == [5, 10]
        assert words[0, 0] == 3


def test_a_value_of_a_real_step_alone_is_one_line() -> None:
    """What depends on weights is not known, and no number is made up for it."""
    on_cuda, tape = tracing()
    with on_cuda, tape:
        loss = torch.empty(4, device="meta").mean()
        with pytest.raises(ValueError, match=r"asks for the value of a tensor \(\) of bool") as raised:
            bool(loss > 0)
        with pytest.raises(ValueError, match=r"asks for the value of a tensor \(4,\) of float32"):
            torch.empty(4, device="meta").tolist()
    assert "\n" not in str(raised.value)


def test_what_is_overwritten_with_the_unknown_is_forgotten() -> None:
    """A count that a comparison of activations is added to is not known any more."""
    on_cuda, tape = tracing()
    with on_cuda, tape:
        count = torch.zeros((), dtype=torch.int64, device="meta")
        assert count.item() == 0
        count += (torch.empty(4, device="meta") > 0).sum()
        with pytest.raises(ValueError, match="asks for the value"):
            count.item()


class Scaled(nn.Module):
    """One layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 16, bias=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Take rows (N, 16)."""
        made: torch.Tensor = self.head(rows)
        return made


@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_scaler_steps(fused: bool) -> None:
    """Enabled without a GPU, no overflow is found, so AdamW has its two moments (16, 16) after a step."""

    def step_of(model: nn.Module) -> TrainingStep:
        step = TrainingStep(
            model=model,
            optimizer=torch.optim.AdamW(model.parameters(), fused=fused),
            objective=lambda forward, rows: (forward(rows).float().square().mean(), None),
            autocast=torch.float16,
            scaler=torch.amp.GradScaler("cuda"),
        )
        assert step.scaler is not None
        assert step.scaler.is_enabled()
        return step

    traced = trace_steps(Scaled().to("meta"), lambda: torch.empty(4, 16, device="meta"), step_of, steps=2)
    state = [number for number, kind in traced.kinds.items() if kind == "optimizer_state"]
    sizes = {what: size for action, what, size in traced.events if action == ALLOC}
    assert sorted(sizes[one] for one in state)[-2:] == [1024, 1024]


def test_micro_batches_have_a_forward_each() -> None:
    """Three forwards and three backwards, one optimizer step; each mark says which phase begins."""

    def step_of(model: nn.Module) -> TrainingStep:
        return TrainingStep(
            model=model,
            optimizer=torch.optim.SGD(model.parameters()),
            objective=lambda forward, rows: (forward(rows).sum(), None),
            accumulate=3,
        )

    traced = trace_steps(Scaled().to("meta"), lambda: torch.empty(4, 16, device="meta"), step_of, steps=1)
    phases = [what for what in traced.events if what[0] == MARK and what[2] is not None]
    assert [name for _, name, _ in phases] == ["forward", "backward"] * 3 + ["optimizer step"]
    assert [follows for _, _, follows in phases].count(FORWARD) == 2
    assert [follows for _, _, follows in phases].count(OPTIMIZER_STEP) == 2


def test_what_a_mask_chooses_has_its_shape() -> None:
    """Three of four labels are above 3: their rows, their places, and rows repeated as often as they say."""
    labels = torch.tensor([1, 5, 9, 4])
    on_cuda, tape = tracing()
    with on_cuda, tape:
        there, rows = labels.to("meta"), torch.empty(4, 8, device="meta")
        keep = there > 3
        assert rows[keep].shape == (3, 8)
        assert keep.nonzero().shape == (3, 1)
        assert rows.masked_select(keep[:, None]).shape == (24,)
        assert rows.repeat_interleave(torch.tensor([1, 2, 0, 1], device="meta"), 0).shape == (4, 8)
        assert there.unique().tolist() == [1, 4, 5, 9]
        with pytest.raises(ValueError, match=r"what nonzero returns depends on values of a tensor \(4, 8\)"):
            (rows > 0).nonzero()


def test_memory_that_nobody_wrote_to_has_no_values() -> None:
    """A buffer that came without values is not read as what happens to lie there; once filled it is known."""
    on_cuda, tape = tracing()
    with on_cuda, tape:
        count = torch.empty((), dtype=torch.int64, device="meta")
        with pytest.raises(ValueError, match="asks for the value"):
            count.item()
        count.fill_(7)
        assert count.item() == 7


def test_a_mask_of_floats_answers_too() -> None:
    """Made of ones, so it is full; an update of a list of tensors makes it unknown."""
    on_cuda, tape = tracing()
    with on_cuda, tape:
        mask = torch.ones(2, 6, device="meta")
        assert mask.bool().sum() == mask.numel()
        torch._foreach_mul_([mask], 2.0)
        with pytest.raises(ValueError, match="asks for the value"):
            mask.bool().all().item()
