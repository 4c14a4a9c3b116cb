"""What is recorded of a GPU's allocator: who asked, where several GPUs share a step."""

import pytest
import torch

from stepcost.allocator.history import allocations_of, peak_of
from stepcost.ledger import GRADIENT, PARALLEL, PARAMETER
from stepcost.measuring.recording import Recorder, known_kinds
from stepcost.step import TrainingStep, classify

MIB = 2**20
HOOK = {"filename": "/lib/torch/distributed/fsdp/_fully_shard/_fsdp_param.py", "line": 1, "name": "unshard"}
MODEL = {"filename": "/lib/transformers/models/gpt2/modeling_gpt2.py", "line": 1, "name": "forward"}


@pytest.fixture
def trace(monkeypatch):
    """What the allocator of the first GPU did so far; ``asked`` is how recording was switched on."""
    events, asked = [], []
    memory = torch.cuda.memory
    snapshot = {"segments": [], "device_traces": [events]}
    monkeypatch.setattr(memory, "_snapshot", lambda: snapshot)
    monkeypatch.setattr(memory, "_record_memory_history", lambda **options: asked.append(options))
    return events, asked


def event(action, address, size, *frames):
    """An event as torch records it."""
    return {"action": action, "addr": address, "size": size, "frames": [*frames]}


def test_what_fsdp_asks_for_is_parallel_unless_it_is_a_gradient(trace):
    """Gathered parameters are known by who asked; a buffer of which gradients are parts is the gradients'."""
    events, asked = trace
    recorder = Recorder(torch.device("cuda:0"), stacks=True)
    events += [
        event("segment_alloc", MIB, 20 * MIB),
        event("alloc", MIB, 4 * MIB, HOOK, MODEL),
        event("alloc", 5 * MIB, 2 * MIB, MODEL),
    ]
    recorder.mark("forward")
    events += [event("alloc", 7 * MIB, MIB, HOOK)]
    history = recorder.stop()
    history.kinds_after[7 * MIB] = GRADIENT
    history.about["peak_allocated_bytes"] = 7 * MIB
    ledger = peak_of(history, None).ledger
    assert (ledger.parallel_bytes, ledger.activation_bytes, ledger.gradient_bytes) == (4 * MIB, 2 * MIB, MIB)
    assert ledger.workspace_bytes == 0
    assert [(one.get("context"), one.get("stacks")) for one in asked[:1]] == [("alloc", "python")]


def test_without_stacks_nobody_is_asked(trace):
    """A step of one GPU is recorded without stacks, as before."""
    events, asked = trace
    recorder = Recorder(torch.device("cuda:0"))
    events += [event("segment_alloc", MIB, 2 * MIB), {"action": "alloc", "addr": MIB, "size": 512}]
    assert [one.kind for one in allocations_of(recorder.stop())[0]] == [None]
    assert (asked[0]["context"], "stacks" in asked[0]) == (None, False)


def test_what_no_tensor_holds_is_known_by_the_step():
    """The address of a bucket is among the known kinds, next to the tensors."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters())
    step = TrainingStep(model=model, optimizer=optimizer, objective=classify, known={4096: PARALLEL})
    kinds = known_kinds(step, ())
    assert kinds[4096] == PARALLEL
    assert kinds[model.weight.data_ptr()] == PARAMETER
