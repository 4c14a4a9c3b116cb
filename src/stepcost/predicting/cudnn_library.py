"""The cuDNN that a torch brings, where it is installed: found, started in a child, and asked."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from stepcost.predicting import cudnn_child
from stepcost.predicting.convolution import Convolution

FOLDERS = "STEPCOST_CUDNN"
"""Environment variable: folders that ``pip install --target`` put a cuDNN into, besides the one installed.

``off``: none is asked, so that predictions are the same on every machine.
"""
TENSOR_CORE, DOWN_CONVERT_INPUTS, NONDETERMINISTIC = 0, 1, 4
"""Numerical notes, as ``cudnnBackendNumericalNote_t`` numbers them."""
WHEELS = ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One way in which cuDNN can run a convolution."""

    engine: int
    workspace: int
    """In bytes, on a machine without a GPU."""
    knobs: dict[str, int]
    unsplit: int | None = None
    """The same without partial sums; only of plans that ask the device how many of these to keep."""


class Library:
    """One cuDNN, asked about one card in a child process that ends with this one."""

    def __init__(self, folder: Path, card: dict[str, Any]) -> None:
        self.folder = folder
        self._card = card
        self._child: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self.broken: str | None = None
        """Why it cannot be asked; ``None`` as long as it can."""

    def plans(self, one: Convolution, batch_size: int, direction: str, most: int) -> list[Plan]:
        """Return the first ``most`` plans in the order in which torch tries them; none where it is broken."""
        question = {**question_of(one, batch_size, direction), "most": most, "without": filtered(one.dtype)}
        # Torch asks for the fallback list where no plan of the heuristics runs.
        for mode in ("b" if heuristics_b() else "instant", "fallback"):
            found = self._ask({**question, "what": "plans", "mode": mode})
            if found:
                return [Plan(**plan) for plan in found]
        return []

    def listed(self, one: Convolution, batch_size: int, direction: str) -> list[Any]:
        """Return of how many plans cuDNN knows, then those that it gives out here (``cudnn_child.listed``).

        None of them where it is broken, or asked in a mode of which nothing was recorded.
        """
        if heuristics_b():
            return []
        question = question_of(one, batch_size, direction)
        return self._ask({**question, "what": "listed", "mode": "instant"}) or []

    def _ask(self, question: dict[str, Any]) -> Any:
        """Return the answer; ``None`` for a question that the library refuses."""
        with self._lock:  # one question at a time
            if self.broken:
                return None
            try:
                if self._child is None:
                    self._child = self._start()
                return self._exchange(self._child, question).get("answer")
            except (OSError, ValueError) as error:
                self.broken = str(error).strip() or "it ended"
                return None

    def _start(self) -> subprocess.Popen[str]:
        program = [sys.executable, "-P", cudnn_child.__file__, str(self.folder)]
        child = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        atexit.register(child.kill)
        said = self._exchange(child, self._card)
        if "error" in said:
            raise ValueError(f"it does not take the description of the card: {said['error']}")
        return child

    @staticmethod
    def _exchange(child: subprocess.Popen[str], question: dict[str, Any]) -> dict[str, Any]:
        assert child.stdin is not None
        child.stdin.write(json.dumps(question) + "\n")
        child.stdin.flush()
        answer: dict[str, Any] = json.loads(_line(child))
        return answer


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise ValueError("it ended its process")
    return line


def question_of(one: Convolution, batch_size: int, direction: str) -> dict[str, Any]:
    """Return what ``cudnn_child.py`` is asked about a convolution, but for how many plans of which list."""
    return {
        "direction": direction,
        "dtype": one.dtype,
        "channels_last": one.output_layout == "nhwc",
        "images": [batch_size, one.inputs, *one.size],
        "weight": [one.outputs, one.inputs // one.groups, *one.kernel],
        "result": [batch_size, one.outputs, *one.output_size],
        "stride": one.stride,
        "padding": one.padding,
        "dilation": one.dilation,
    }


def heuristics_b() -> bool:
    """Whether torch would ask for heuristics of mode B.

    ``is_cudnnv8_heuristic_mode_b`` in ``aten/src/ATen/native/ConvUtils.h``.
    """
    return os.environ.get("TORCH_CUDNN_USE_HEURISTIC_MODE_B") == "1"


def filtered(dtype: str) -> list[int]:
    """Numerical notes of the plans that torch passes over.

    ``filterEngineConfigs`` in ``aten/src/ATen/native/cudnn/Conv_v8.cpp``, with torch's settings here.
    """
    notes = [DOWN_CONVERT_INPUTS]
    if torch.backends.cudnn.deterministic:
        notes.append(NONDETERMINISTIC)
    if dtype == "fp32" and not torch.backends.cudnn.allow_tf32:
        notes.append(TENSOR_CORE)
    return notes


def _installed() -> Iterator[tuple[str, Path]]:
    """Yield version and folder of each cuDNN that pip installed."""
    if os.environ.get(FOLDERS) == "off":
        return
    named = [Path(text) for text in os.environ.get(FOLDERS, "").split(os.pathsep) if text]
    spec = importlib.util.find_spec("nvidia")
    own = [Path(path).parent for path in (spec.submodule_search_locations or ())] if spec else []
    for site in (*named, *own):
        for one in metadata.distributions(path=[str(site)]):
            if one.name in WHEELS and (site / "nvidia/cudnn/lib" / cudnn_child.LIBRARY).exists():
                yield one.version, site / "nvidia/cudnn/lib"


def find_folder(version: str) -> Path | None:
    """Return the folder of the libraries of an installed cuDNN ``version`` such as 9.19; ``None`` without."""
    return next((folder for found, folder in _installed() if found.startswith(f"{version}.")), None)


@functools.cache
def _library(folder: Path, card: str, process: int) -> Library:
    return Library(folder, json.loads(card))


def find_library(version: str | None, card: dict[str, Any]) -> Library | None:
    """Return the cuDNN of ``version``, to be asked about ``card``; ``None`` where it is not installed."""
    folder = None if version is None else find_folder(version)
    return None if folder is None else _library(folder, json.dumps(card, sort_keys=True), os.getpid())


def device_here(version: str) -> dict[str, Any]:
    """Return how the cuDNN of ``version`` describes the first GPU of this machine.

    Raises ``ValueError`` with one line where it is not installed or does not answer.
    """
    folder = find_folder(version)
    if folder is None:
        raise ValueError(f"cuDNN {version} is not installed as a wheel ({' or '.join(WHEELS)})")
    program = [sys.executable, "-P", cudnn_child.__file__, str(folder), "device"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it ended its process"]
        raise ValueError(f"cuDNN {version} does not describe this GPU: {said[-1]}")
    described: dict[str, Any] = json.loads(done.stdout)
    return described
