"""Ask cuDNN's backend API for the plans of convolutions; run as a program of its own, without torch.

``python -P cudnn_child.py FOLDER``: ``FOLDER`` holds cuDNN's libraries. The first line of standard input is
the card (JSON, as cuDNN describes devices), every further one a question; each gets one line of JSON back.
``python -P cudnn_child.py FOLDER device`` prints how cuDNN describes the first GPU here, and ends.
A program of its own, because the library ends its process where it misses a part, and because it must not
meet the cuDNN of the torch that is installed. No GPU and no driver is needed: the device-properties
descriptor is documented for compilation ahead of time (https://docs.nvidia.com/cudnn, since cuDNN 9.8).
"""

from __future__ import annotations

import ctypes
import functools
import json
import sys
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from enum import IntEnum
from pathlib import Path
from typing import Any, cast

LIBRARY = "libcudnn_graph.so.9"
MATRIX_PRODUCTS = ("libcublasLt.so.13", "libcublasLt.so.12")
"""Without one of these the library ends its process."""


class Kind(IntEnum):
    """Descriptors, as ``cudnnBackendDescriptorType_t`` numbers them."""

    CONVOLUTION = 1
    ENGINE = 2
    CONFIGURATION = 3
    HEURISTICS = 4
    PLAN = 5
    KNOB_CHOICE = 7
    FORWARD = 10
    BACKWARD_WEIGHT = 11
    BACKWARD_DATA = 12
    GRAPH = 15
    TENSOR = 17
    DEVICE = 38


class Type(IntEnum):
    """Types of attributes, as ``cudnnBackendAttributeType_t`` numbers them."""

    DATA_TYPE = 1
    INT64 = 3
    FLOAT = 4
    CONVOLUTION_MODE = 7
    HEURISTICS_MODE = 8
    KNOB_TYPE = 9
    NUMERICAL_NOTE = 11
    DESCRIPTOR = 15
    INT32 = 23
    CHAR = 24


C_TYPES: dict[Type, Any] = {
    Type.INT64: c_int64,
    Type.FLOAT: c_float,
    Type.DESCRIPTOR: c_void_p,
    Type.CHAR: c_char,
}
"""The rest are ints."""
DATA_TYPES = {"fp32": 0, "fp64": 1, "fp16": 2, "bf16": 9}
MODES = {"instant": 0, "b": 1, "fallback": 2}
ALIGNMENT_BYTES = 16
"""As torch says of what its allocator made."""
FIRST_OF = {Kind.FORWARD: 700, Kind.BACKWARD_DATA: 706, Kind.BACKWARD_WEIGHT: 712}
"""The attributes of an operation: alpha, beta, convolution, weight, images, result."""
DIRECTIONS = {
    "forward": Kind.FORWARD,
    "backward-data": Kind.BACKWARD_DATA,
    "backward-weight": Kind.BACKWARD_WEIGHT,
}
DECIDES = (
    *("mode", "direction", "dtype", "channels_last", "images", "weight", "result"),
    *("stride", "padding", "dilation"),
)
"""What of a question decides which configurations there are."""
WORKSPACE_KNOB, CLUSTER_KNOB = "CUDNN_KNOB_TYPE_WORKSPACE", "CUDNN_KNOB_TYPE_TILE_CGA_M"
WORKSPACE_KNOB_TYPE = 25
KNOBS_OF = 8


class CudnnError(Exception):
    """What a call answered."""


class Descriptor:
    """One descriptor of the backend API."""

    lib: ctypes.CDLL

    def __init__(self, kind: Kind) -> None:
        self.pointer = c_void_p()
        self._kept: list[Descriptor] = []
        _check(self.lib.cudnnBackendCreateDescriptor(kind, byref(self.pointer)))

    def __del__(self) -> None:
        if self.pointer:
            self.lib.cudnnBackendDestroyDescriptor(self.pointer)

    def set(self, attribute: int, kind: Type, *values: Any) -> Descriptor:
        """Set an attribute."""
        if kind is Type.DESCRIPTOR:
            self._kept += values
        plain = [value.pointer if isinstance(value, Descriptor) else value for value in values]
        array = (C_TYPES.get(kind, c_int) * len(plain))(*plain)
        _check(self.lib.cudnnBackendSetAttribute(self.pointer, attribute, kind, len(plain), array))
        return self

    def done(self) -> Descriptor:
        """Finalize it."""
        _check(self.lib.cudnnBackendFinalize(self.pointer))
        return self

    def count(self, attribute: int, kind: Type) -> int:
        """How many values an attribute has."""
        count = c_int64()
        _check(self.lib.cudnnBackendGetAttribute(self.pointer, attribute, kind, 0, byref(count), None))
        return count.value

    def get(self, attribute: int, kind: Type, room: int = 1) -> Sequence[Any]:
        """Read an attribute of at most ``room`` values."""
        array, count = (C_TYPES.get(kind, c_int) * room)(), c_int64()
        _check(self.lib.cudnnBackendGetAttribute(self.pointer, attribute, kind, room, byref(count), array))
        return cast("Sequence[Any]", array[: count.value])

    def descriptors(self, attribute: int, kind: Kind, room: int) -> list[Descriptor]:
        """Read an attribute that holds descriptors, which are made here and filled there."""
        made = [Descriptor(kind) for _ in range(room)]
        array, count = (c_void_p * room)(*(one.pointer for one in made)), c_int64()
        _check(
            self.lib.cudnnBackendGetAttribute(
                self.pointer, attribute, Type.DESCRIPTOR, room, byref(count), array
            )
        )
        return made[: count.value]


def _check(status: int) -> None:
    if status:
        said = ctypes.create_string_buffer(1024)
        Descriptor.lib.cudnnGetLastErrorString(said, len(said))
        name = Descriptor.lib.cudnnGetErrorString(status).decode()
        raise CudnnError(f"{name} {said.value.decode(errors='replace')}".strip())


def load(folder: Path) -> None:
    """Load the library of a folder; raises ``OSError`` where a part is missing."""
    # Next to cuDNN, or as pip lays the wheels of CUDA 13 and 12 out.
    beside = (folder, *(folder.parents[1] / name / "lib" for name in ("cu13", "cublas")))
    found = [path / name for name in MATRIX_PRODUCTS for path in beside if (path / name).exists()]
    ctypes.CDLL(str(found[0]) if found else MATRIX_PRODUCTS[0], mode=ctypes.RTLD_GLOBAL)
    lib = ctypes.CDLL(str(folder / LIBRARY), mode=ctypes.RTLD_GLOBAL)
    lib.cudnnGetErrorString.restype = c_char_p
    lib.cudnnGetLastErrorString.argtypes = [c_char_p, c_size_t]
    lib.cudnnBackendCreateDescriptor.argtypes = [c_int, POINTER(c_void_p)]
    for name in ("cudnnBackendDestroyDescriptor", "cudnnBackendFinalize"):
        getattr(lib, name).argtypes = [c_void_p]
    lib.cudnnBackendSetAttribute.argtypes = [c_void_p, c_int, c_int, c_int64, c_void_p]
    lib.cudnnBackendGetAttribute.argtypes = [c_void_p, c_int, c_int, c_int64, POINTER(c_int64), c_void_p]
    Descriptor.lib = lib


def device(properties: dict[str, Any]) -> Descriptor:
    """Describe a card."""
    text = json.dumps(properties).encode()
    return Descriptor(Kind.DEVICE).set(2702, Type.CHAR, *(bytes([byte]) for byte in text)).done()


def described_here() -> dict[str, Any]:
    """Return how cuDNN describes the first GPU of this machine."""
    one = Descriptor(Kind.DEVICE).set(2700, Type.INT32, 0).done()
    text = bytes(one.get(2702, Type.CHAR, one.count(2702, Type.CHAR)))
    return cast("dict[str, Any]", json.loads(text.rstrip(b"\0")))


def _tensor(name: str, shape: Sequence[int], dtype: str, channels_last: bool) -> Descriptor:
    _, channels, height, width = shape
    strides = [channels * height * width, height * width, width, 1]
    if channels_last:
        strides = [channels * height * width, 1, width * channels, channels]
    tensor = Descriptor(Kind.TENSOR).set(900, Type.INT64, ALIGNMENT_BYTES)
    tensor.set(901, Type.DATA_TYPE, DATA_TYPES[dtype]).set(902, Type.INT64, *shape)
    return tensor.set(903, Type.INT64, *strides).set(906, Type.INT64, ord(name)).done()


def _graph(asked: dict[str, Any]) -> Descriptor:
    """One convolution, as torch hands it over."""
    images, weight, result = (
        _tensor(name, asked[shape], asked["dtype"], asked["channels_last"])
        for name, shape in (("x", "images"), ("w", "weight"), ("y", "result"))
    )
    convolution = Descriptor(Kind.CONVOLUTION)
    # Sums are float32 for anything shorter.
    convolution.set(100, Type.DATA_TYPE, DATA_TYPES["fp64" if asked["dtype"] == "fp64" else "fp32"])
    convolution.set(101, Type.CONVOLUTION_MODE, 1).set(106, Type.INT64, 2)
    convolution.set(102, Type.INT64, *asked["dilation"]).set(103, Type.INT64, *asked["stride"])
    convolution.set(104, Type.INT64, *asked["padding"]).set(105, Type.INT64, *asked["padding"]).done()
    kind = DIRECTIONS[asked["direction"]]
    first = FIRST_OF[kind]
    operation = Descriptor(kind).set(first, Type.FLOAT, 1.0).set(first + 1, Type.FLOAT, 0.0)
    for place, one in enumerate((convolution, weight, images, result), first + 2):
        operation.set(place, Type.DESCRIPTOR, one)
    return Descriptor(Kind.GRAPH).set(801, Type.DESCRIPTOR, operation.done()).done()


def _planned(configuration: Descriptor, card: Descriptor) -> tuple[int, dict[str, int]]:
    """Workspace and knobs of a plan."""
    plan = Descriptor(Kind.PLAN).set(401, Type.DESCRIPTOR, configuration)
    plan.set(407, Type.DESCRIPTOR, card).done()
    text = bytes(plan.get(405, Type.CHAR, plan.count(405, Type.CHAR)))
    knobs = json.loads(text.rstrip(b"\0"))["engine"].get("knobChoices") or {}
    return plan.get(402, Type.INT64)[0], knobs


def _unsplit(configuration: Descriptor, engine: Descriptor, card: Descriptor) -> int | None:
    """Workspace of the same plan with the knob WORKSPACE at 1: what it takes beside its partial sums."""
    choices = configuration.descriptors(302, Kind.KNOB_CHOICE, 32)
    changed = [
        Descriptor(Kind.KNOB_CHOICE)
        .set(600, Type.KNOB_TYPE, kind)
        .set(601, Type.INT64, 1 if kind == WORKSPACE_KNOB_TYPE else one.get(601, Type.INT64)[0])
        .done()
        for one in choices
        for kind in one.get(600, Type.KNOB_TYPE)
    ]
    other = Descriptor(Kind.CONFIGURATION).set(300, Type.DESCRIPTOR, engine)
    try:
        return _planned(other.set(302, Type.DESCRIPTOR, *changed).done(), card)[0]
    except CudnnError:
        return None


def _configurations(asked: dict[str, Any], card: Descriptor) -> tuple[int, list[Descriptor]]:
    """Return of how many configurations the heuristics know, and those that they give out here."""
    return _of_heuristics(json.dumps({name: asked[name] for name in DECIDES}), card)


@functools.lru_cache(1)  # one convolution is asked about in several ways, one after another
def _of_heuristics(question: str, card: Descriptor) -> tuple[int, list[Descriptor]]:
    asked = json.loads(question)
    heuristics = Descriptor(Kind.HEURISTICS).set(201, Type.DESCRIPTOR, _graph(asked))
    heuristics.set(200, Type.HEURISTICS_MODE, MODES[asked["mode"]]).set(204, Type.DESCRIPTOR, card).done()
    count = heuristics.count(202, Type.DESCRIPTOR)
    return count, heuristics.descriptors(202, Kind.CONFIGURATION, count)


def listed(asked: dict[str, Any], card: Descriptor) -> list[Any]:
    """Return of how many configurations the heuristics know, then each that they give out here.

    One is a line: its engine, and of the first ``KNOBS_OF`` also ``,knob:choice`` for each knob.
    """
    count, given = _configurations(asked, card)
    lines: list[Any] = [count]
    for place, configuration in enumerate(given):
        line = str(configuration.descriptors(300, Kind.ENGINE, 1)[0].get(1301, Type.INT64)[0])
        if place < KNOBS_OF:
            for one in configuration.descriptors(302, Kind.KNOB_CHOICE, 32):
                line += f",{one.get(600, Type.KNOB_TYPE)[0]}:{one.get(601, Type.INT64)[0]}"
        lines.append(line)
    return lines


def plans(asked: dict[str, Any], card: Descriptor) -> list[dict[str, Any]]:
    """Return the first plans of a convolution in the order in which torch would try them."""
    found: list[dict[str, Any]] = []
    for configuration in _configurations(asked, card)[1]:
        if len(found) == asked["most"]:
            break
        engine = configuration.descriptors(300, Kind.ENGINE, 1)[0]
        if set(asked["without"]) & set(engine.get(1303, Type.NUMERICAL_NOTE, 64)):
            continue
        try:
            workspace, knobs = _planned(configuration, card)
        except CudnnError:  # torch goes on to the next one too
            continue
        found.append({"engine": engine.get(1301, Type.INT64)[0], "workspace": workspace, "knobs": knobs})
        if knobs.get(WORKSPACE_KNOB) == 0 and CLUSTER_KNOB in knobs:
            found[-1]["unsplit"] = _unsplit(configuration, engine, card)
    return found


def main(folder: str, what: str = "plans") -> None:
    """Answer questions until there are none."""
    load(Path(folder))
    if what == "device":
        print(json.dumps(described_here()))
        return
    card = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if card is None:
                card, answer = device(asked), None
            else:
                answer = listed(asked, card) if asked["what"] == "listed" else plans(asked, card)
            print(json.dumps({"answer": answer}), flush=True)
        except CudnnError as error:
            print(json.dumps({"error": str(error)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
