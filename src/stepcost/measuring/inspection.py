"""What a session is about, found out once in a child: device, versions, model and data set."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from stepcost.catalog.datasets import Dataset, load_dataset
from stepcost.catalog.models import kind_of, parameters_by_closed_form
from stepcost.catalog.optimizers import build_optimizer
from stepcost.failures import classify
from stepcost.machine import Machine, ModelInfo
from stepcost.measuring import nvml
from stepcost.measuring.child import free_gpu_bytes
from stepcost.prepare import batch_of, prepare
from stepcost.request import Request
from stepcost.step import bytes_of, logits_of
from stepcost.tensors import count_parameters
from stepcost.workload import ImageClassifier, Workload, workload_of

EXAMPLES_TRIED = 2
"""In training mode: batch norm cannot train over a single one."""


class Inspection:
    """Looks at the machine and at what was asked for; each method may be called once or not at all."""

    def __init__(self) -> None:
        self._built: nn.Module | None = None
        self._workload: Workload | None = None

    def machine(self, device: str) -> Machine:
        """Identify the device: ``auto`` takes a GPU where there is one.

        Raises ``ValueError`` in one line for a device that does not exist here.
        """
        versions: dict[str, Any] = {
            # As plain text: torch's own class of it would have the parent import torch to read it.
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
            "cuda": torch.version.cuda,
            "cudnn": _cudnn_version(),
        }
        if device == "cpu":
            return Machine(device="cpu", why_no_gpu="--device cpu was given", **versions)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            why = _why_no_gpu(str(said[0].message).splitlines()[0] if said else None)
            if device == "auto":
                return Machine(device="cpu", why_no_gpu=why, **versions)
            raise ValueError(f"--device {device}: {why}; --device cpu predicts memory without a GPU")
        index = 0 if device in ("auto", "cuda") else int(device.removeprefix("cuda:"))
        if index >= count:
            has = ", ".join(f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(count))
            raise ValueError(f"--device {device}: no such GPU; this machine has {has}")
        return _gpu_machine(index, versions)

    def model(self, request: Request) -> ModelInfo:
        """Build the model once and count it. Raises ``ValueError`` in one line where it cannot be built."""
        workload = self._workload = workload_of(request, prebuilt=True)
        model = self._built = workload.build()
        if request.lora is not None or request.checkpoint is not None or request.attention != "auto":
            prepare(workload.build_on_meta(), request)  # which says what the model does not have
        classes = request.num_classes
        return ModelInfo(
            name=request.model,
            kind=kind_of(request.model),
            dtypes=tuple(sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()})),
            **count_parameters(model),
            parameters_closed_form=(
                parameters_by_closed_form(request.model, num_classes=classes) if classes else None
            ),
            buffers=sum(b.numel() for b in model.buffers()),
            buffer_bytes=bytes_of(model.buffers()),
            parameter_shapes=tuple(tuple(p.shape) for p in model.parameters()),
        )

    def try_workload(self, request: Request) -> None:
        """Raise ``ValueError`` in one line where the workload does not go with the request."""
        workload_of(request, prebuilt=True)

    def try_model(self, request: Request) -> None:
        """Try a step's forward of the model just built, on a batch of two.

        For models of the user's own: with resnet152 even the meta device takes 0.35 s, which each session
        would pay. It runs where the session measures, since such a model may have kernels for a GPU only.
        Running out of memory is left to the rows: there it is an answer. Raises ``ValueError`` in one line
        where the model cannot be trained.
        """
        model, workload = self._built, self._workload
        if model is None or workload is None:
            raise ValueError("try_model follows model")
        if not any(p.requires_grad for p in model.parameters()):
            raise ValueError(
                f"model {request.model!r} has no trainable parameters: there is nothing to train"
            )
        try:
            prepared = prepare(model, request).to(request.device)
            batch = batch_of(workload, replace(request, batch_size=EXAMPLES_TRIED), request.device)
        except ValueError:
            raise
        except (Exception, SystemExit) as error:
            _leave_to_rows(error, f"model {request.model!r} cannot be tried")
            return
        if isinstance(workload, ImageClassifier):
            _try_classifier(prepared, batch[0], request)
            return
        try:
            loss, _ = workload.objective(prepared, batch)
        except (Exception, SystemExit) as error:
            _leave_to_rows(error, f"model {request.model!r} cannot take a batch of {EXAMPLES_TRIED}")
            return
        if not loss.requires_grad:
            raise ValueError(f"model {request.model!r}: no trainable parameter takes part in its loss")

    def try_optimizer(self, optimizer: str) -> None:
        """Build an optimizer over the model just built; raises ``ValueError`` in one line where it fails."""
        if self._built is None:
            raise ValueError("try_optimizer follows model")
        build_optimizer(optimizer, self._built)

    def learning_rate_of(self, optimizer: str) -> float:
        """Return the rate at which an optimizer trains by default. Raises ``ValueError`` without one."""
        try:
            made = build_optimizer(optimizer, nn.Linear(1, 1))
            return float(made.param_groups[0]["lr"])
        except (TypeError, KeyError) as error:
            raise ValueError(f"optimizer {optimizer!r} has no default for its lr: {error}") from error

    def free_bytes(self, device: str) -> int:
        """Free memory of the GPU as this fresh process sees it (``cudaMemGetInfo``)."""
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)

    def dataset(self, name: str, data_dir: str, download: bool) -> Dataset:
        """Load a data set that takes torch to load. Raises ``ValueError`` in one line where it cannot."""
        return load_dataset(name, Path(data_dir), download=download)


def _try_classifier(model: nn.Module, images: torch.Tensor, request: Request) -> None:
    """Raise ``ValueError`` in one line where a model does not give logits for images."""
    size, classes = request.image_size, request.num_classes
    asked = f"{EXAMPLES_TRIED} images of {size}x{size}"
    try:
        output = model(images)
    except (Exception, SystemExit) as error:
        _leave_to_rows(error, f"model {request.model!r} cannot take {asked}")
        return
    wanted = f"it takes logits of shape ({EXAMPLES_TRIED}, {classes})"
    logits = logits_of(output) if hasattr(output, "logits") else output
    if not isinstance(logits, torch.Tensor):
        raise ValueError(f"model {request.model!r} gives a {type(logits).__name__} for {asked}; {wanted}")
    if logits.shape != (EXAMPLES_TRIED, classes) or not logits.is_floating_point():
        kind = f"{str(logits.dtype).removeprefix('torch.')} of shape {tuple(logits.shape)}"
        raise ValueError(f"model {request.model!r} gives {kind} for {asked}; {wanted}, one for each class")
    if not logits.requires_grad:
        raise ValueError(f"model {request.model!r} gives logits that no trainable parameter takes part in")


def _leave_to_rows(error: BaseException, what: str) -> None:
    """Raise ``ValueError`` with the reason, unless memory ran out."""
    failure = classify(error, "forward", free_gpu_bytes())
    if failure.kind != "out of memory":
        raise ValueError(f"{what}: {failure.message}") from error


def _gpu_machine(index: int, versions: dict[str, Any]) -> Machine:
    properties = torch.cuda.get_device_properties(index)
    gpu, why_not = nvml.open_gpu(str(properties.uuid))
    memory = gpu.memory() if gpu else None
    return Machine(
        device=f"cuda:{index}",
        gpus=torch.cuda.device_count(),
        why_no_gpu=None,
        gpu=properties.name,
        compute_capability=f"{properties.major}.{properties.minor}",
        gpu_total_bytes=properties.total_memory,
        gpu_nvml_total_bytes=memory["total_bytes"] if memory else None,
        gpu_nvml_reserved_bytes=memory["reserved_bytes"] if memory else None,
        driver=gpu.driver() if gpu else None,
        clocks=gpu.clocks() if gpu else None,
        neighbours=tuple(gpu.neighbours()) if gpu else (),
        notes=(f"{why_not}: totals, process and context bytes cannot be read",) if why_not else (),
        **versions,
    )


def _why_no_gpu(warning: str | None) -> str:
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    return f"torch finds no GPU ({warning})" if warning else "torch finds no GPU"


def _cudnn_version() -> str | None:
    """CuDNN's version as text; torch gives it as one number, 91900 for 9.19.0 (8902 for 8.9.2)."""
    number = torch.backends.cudnn.version() if torch.version.cuda else None
    if number is None:
        return None
    major = 10_000 if number >= 90_000 else 1_000
    return f"{number // major}.{number % major // 100}.{number % 100}"
