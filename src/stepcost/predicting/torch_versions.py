"""The torch that a prediction is for: which versions exist, and from which on a rule changes."""

from __future__ import annotations

import re

import torch

Version = tuple[int, int]
"""Major and minor."""
RELEASED: tuple[Version, ...] = tuple((2, minor) for minor in range(6, 16))
"""Versions that a prediction can be made for; the one that is installed is another, whatever it is."""
CUBLAS_32_MIB_ON_BLACKWELL: Version = (2, 12)
"""From this torch on cuBLAS takes 32 MiB on compute capability 10 and 12 too (pytorch #175344).

By the date of the change, after 2.11 was branched; no such card was measured.
"""
CUBLASLT_SHARES: Version = (2, 12)
"""From this torch on, and while cuBLAS keeps its workspace, cuBLASLt works in that (pytorch #175879).

By the date of the change, after 2.11 was branched; 2.11 takes 1 MiB more, as measured.
"""
CUBLAS_FREES: Version = (2, 15)
"""From this torch on cuBLAS gives its workspace back after each operation (pytorch #194311)."""
CUDNN_ATTENTION_FIRST: Version = (2, 11)
"""From this torch on cuDNN's attention comes first on compute capability 9 and 10.

As an H100 chose with 2.11; its wheels of CUDA 13 have cuDNN 9.15.1 or later, which is asked for.
"""
CUDNN_DROPOUT_IN_16THS: Version = (2, 12)
"""From this torch on cuDNN's attention takes multiples of 1/16 as dropout, and no other (pytorch #174245)."""
ATTENTION_OF_2_15: Version = (2, 15)
"""From this torch on efficient attention takes heads that are shared (pytorch #191085), all fused kernels
one head for all, and cuDNN's 256 features on Hopper: by the headers and messages of its wheel.

With 2.11 an H100 took products where heads are shared.
"""

CUDNN_OF: dict[Version, str] = {
    (2, 8): "9.10",
    (2, 9): "9.10",
    (2, 10): "9.10",
    (2, 11): "9.19",
    (2, 12): "9.20",
    (2, 14): "9.24",
    (2, 15): "9.26",
}
"""Torch to the cuDNN that its wheel on PyPI asks for (``Requires-Dist``).

Earlier ones have a cuDNN that cannot be asked without a GPU (before 9.8).
"""


def installed_torch() -> str:
    """Return the version of the torch that is installed here, such as ``2.11.0+cu130``."""
    return str(torch.__version__)


def version_of(text: str) -> Version:
    """Return major and minor of a torch such as ``2.11`` or ``2.11.0+cu130``.

    Raises ``ValueError`` with one line for what is not a version, and for a torch that is neither in
    ``RELEASED`` nor installed.
    """
    found = re.fullmatch(r"(\d+)\.(\d+)(\.\w+)*(\+\S*)?", text)
    if found is None:
        raise ValueError(f"{text!r} is not a torch version such as 2.11")
    version = int(found[1]), int(found[2])
    if version not in RELEASED and text != installed_torch():
        first, last = (f"{major}.{minor}" for major, minor in (RELEASED[0], RELEASED[-1]))
        raise ValueError(f"there is no prediction for torch {text}: it takes {first} to {last}")
    return version
