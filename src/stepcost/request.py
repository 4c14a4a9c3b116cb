"""What can be asked of the engine: one frozen request in, one fresh process out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from stepcost.catalog.cards import Card
from stepcost.catalog.engines import ENGINES
from stepcost.catalog.kinds import IMAGES, TOKENS
from stepcost.catalog.models import kind_of
from stepcost.catalog.optimizers import find_optimizer
from stepcost.catalog.precisions import PRECISIONS, emulated_on
from stepcost.schema import REQUIRED, Count, stored

ATTENTIONS = ("auto", "math", "efficient", "flash")
"""Kernels of ``scaled_dot_product_attention``."""
ALONE, FSDP2 = "none", "fsdp2"
"""``parallel`` of a step on one GPU, and of one whose GPUs hold parts of the model."""
PARALLEL = (ALONE, "ddp", "zero1", FSDP2)
"""How several GPUs share a step: not at all; or by torch's ``DistributedDataParallel``, the same with
``ZeroRedundancyOptimizer``, or ``fully_shard``."""
FSDP_OPTIONS = ("fsdp_precision", "fsdp_keep_gathered")
"""What else can be said of a step whose GPUs hold parts of the model, by the request's names."""
FSDP_PRECISIONS = ("bf16",)
BLOCKS = "blocks"
"""``--checkpoint`` without a class: the model's blocks."""
DEFAULT_SEQUENCE_LENGTH = 512
MOST_SEED = 2**63 - 1
"""The largest seed that torch takes and that numbers in a saved file can be."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One training configuration, as names and numbers only.

    It is hashable (one request is measured once a session) and picklable (it
    crosses the process border). Nothing in it refers to a live object.
    """

    model: str = stored(
        "name in the catalog, torchvision name, or `package.module:function`",
        identifies=True,
        default=REQUIRED,
    )
    optimizer: str = stored(
        "name in the catalog (`sgd`, `adam`, ...) or `package.module:Class`",
        identifies=True,
        default=REQUIRED,
    )
    batch_size: Count = stored(
        "images, sequences or whatever the batch is counted in; with accumulation, of one micro-batch",
        identifies=True,
        default=REQUIRED,
    )
    image_size: Count | None = stored(
        "height and width of the images: a batch is `(batch_size, 3, image_size, image_size)`; null where "
        "the model takes none",
        identifies=True,
        default=32,
    )
    num_classes: Count | None = stored(
        "width of a classifier's last layer; null for another model", identifies=True, default=10
    )
    sequence_length: Count | None = stored(
        "tokens in a sequence: a batch is `(batch_size, sequence_length)`; null where the model takes none",
        identifies=True,
    )
    precision: str = stored(
        "`fp32`; `bf16` or `fp16`: forward and loss under autocast, the latter with a gradient scaler; "
        "`pure-bf16`: weights, gradients and state too; `fp64` in rows of losses",
        identifies=True,
        default="fp32",
    )
    checkpoint: str | None = stored(
        "what is computed again in backward instead of being kept: `blocks`, or a module class",
        identifies=True,
    )
    accumulate: Count = stored(
        "micro-batches whose gradients are summed before the optimizer steps",
        identifies=True,
        absent=1,
        default=1,
    )
    channels_last: bool = stored(
        "weights and images in channels-last memory format, where the engine does not decide it",
        identifies=True,
        absent=False,
        default=False,
    )
    attention: str = stored(
        "kernels of `scaled_dot_product_attention`: `auto` (torch chooses), `math`, `efficient` or `flash`",
        identifies=True,
        absent="auto",
        default="auto",
    )
    lora: Count | None = stored(
        "rank of the adapters that are trained in place of the weights (LoRA); null without", identifies=True
    )
    parallel: str = stored(
        "how several GPUs share a step: `ddp` (a replica each), `zero1` (the same, with the optimizer's "
        "state in parts), `fsdp2` (parameters, gradients and state in parts, by block) or `none`",
        identifies=True,
        absent=ALONE,
        default=ALONE,
    )
    gpus: Count = stored(
        "GPUs that share the step, with a process and a batch each", identifies=True, absent=1, default=1
    )
    fsdp_precision: str | None = stored(
        "`bf16` where FSDP2 gathers parameters in bfloat16, to compute in it, and sums gradients in float32; "
        "null where it does all in the dtype of the weights",
        identifies=True,
    )
    fsdp_keep_gathered: bool = stored(
        "whether FSDP2 keeps what it gathered in forward until backward, and does not gather it again",
        identifies=True,
        absent=False,
        default=False,
    )
    engine: str = stored("how a step is launched: a name in the catalog", identifies=True, default="eager")
    device: str = "cuda:0"
    """The torch device string: ``cuda:N`` or ``cpu``."""
    seed: int = stored(
        "seed of the weights, of random images and of the order of training images",
        identifies=True,
        default=0,
    )

    def __post_init__(self) -> None:
        """Take an engine's precision. Raises ``ValueError`` in one line for what cannot be combined."""
        engine = ENGINES[self.engine]
        if engine.precision != "fp32" and self.precision == "fp32":
            object.__setattr__(self, "precision", engine.precision)
        why_not = self._why_not()
        if why_not:
            raise ValueError(why_not)

    def _why_not(self) -> str | None:
        engine = ENGINES[self.engine]
        if engine.precision not in ("fp32", self.precision):
            return f"--engine {self.engine} computes in {engine.precision}, not in {self.precision}"
        if engine.captured and self.precision == "fp16":
            return (
                f"--precision fp16 with --engine {self.engine}: whether a scaled step is taken is decided on "
                "the host, which a captured step cannot; --engine eager can"
            )
        if self.attention == "flash" and self.precision == "fp32":
            return "--attention flash: its kernels take bf16 or fp16; --precision bf16 casts to it"
        if self.channels_last and self.image_size is None and self.sequence_length is not None:
            return f"--channels-last: it orders images, and {self.model} takes none"
        return self._why_not_parallel()

    def _why_not_parallel(self) -> str | None:
        if self.parallel != FSDP2:
            for name in FSDP_OPTIONS:
                if getattr(self, name):
                    return f"--{name.replace('_', '-')}: it is of --parallel {FSDP2}"
        if self.parallel == ALONE:
            return None if self.gpus == 1 else f"--gpus {self.gpus}: without --parallel a step has one"
        if self.gpus == 1:
            return f"--parallel {self.parallel}: it takes two GPUs or more to share a step"
        if self.engine != "eager":
            return (
                f"--parallel {self.parallel} with --engine {self.engine}: its collectives are launched "
                "step by step; --engine eager launches them"
            )
        return self._why_not_in_parts()

    def _why_not_in_parts(self) -> str | None:
        row = find_optimizer(self.optimizer)
        if self.parallel == "zero1" and row.by_module:
            return f"--parallel zero1: it parts parameters, and {self.optimizer} takes the whole model"
        if self.parallel == FSDP2 and (row.by_module or row.state_rule is not None):
            return f"--parallel fsdp2: it parts tensors, and {self.optimizer} takes them whole"
        if self.parallel == FSDP2 and self.channels_last:
            return "--parallel fsdp2 with --channels-last: it takes weights that are contiguous"
        if self.fsdp_precision is not None and self.precision != "fp32":
            asked = f"--fsdp-precision {self.fsdp_precision} with --precision {self.precision}"
            return f"{asked}: each says in what a step computes; the weights stay in fp32 under the first"
        return None


def in_precision_of(engine: str, request: Request) -> Request:
    """Return the request in the precision that it has under ``engine``, which may name one.

    Raises ``ValueError`` in one line for what cannot be combined.
    """
    return replace(request, precision=replace(request, engine=engine).precision)


def why_not_predicted_on(card: Card, request: Request) -> str | None:
    """Say in one line why a request is not predicted for a card; ``None`` where it is."""
    precision = request.fsdp_precision or request.precision
    emulated = emulated_on(precision, card.compute_capability)
    if emulated is None:
        return None
    return f"--precision {precision} is not predicted for {card.gpu}: {emulated}; fp16 it can do"


def without_images(request: Request, kind: str) -> Request:
    """Return the request with what its kind of workload does not have taken out, and the rest filled in."""
    if kind == IMAGES:
        return replace(request, sequence_length=None)
    length = request.sequence_length or DEFAULT_SEQUENCE_LENGTH
    return replace(
        request, image_size=None, num_classes=None, sequence_length=length if kind == TOKENS else None
    )


STEP = "MODEL:OPTIMIZER:BATCH:SIZE:ENGINE[:PRECISION]"


def step_named(text: str) -> Request:
    """Read ``resnet50:sgd:64:224:fast:bf16`` as a request; SIZE is that of an image, or tokens of a sequence.

    Images are of 1,000 classes. Raises ``ValueError`` in one line.
    """
    model, *parts = text.strip().split(":")
    wrong = f"{text.strip()!r} is not {STEP}, such as resnet50:sgd:64:224:fast"
    if len(parts) not in (4, 5) or not (parts[1].isdecimal() and parts[2].isdecimal()):
        raise ValueError(wrong)
    optimizer, batch_size, size, engine, *precision = parts
    find_optimizer(optimizer)
    if engine not in ENGINES or set(precision) - set(PRECISIONS):
        raise ValueError(f"{wrong}: engines are {', '.join(ENGINES)}, precisions {', '.join(PRECISIONS)}")
    why_not = ENGINES[engine].why_not(optimizer)
    if why_not:
        raise ValueError(why_not)
    request = Request(
        model=model,
        optimizer=optimizer,
        batch_size=int(batch_size),
        image_size=int(size),
        num_classes=1000,
        sequence_length=int(size),
        engine=engine,
        precision=precision[0] if precision else "fp32",
    )
    return without_images(request, kind_of(model))


def name_of_step(fields: Mapping[str, Any]) -> str:
    """Name a step as ``step_named`` reads it, from the fields of a request."""
    size = fields["sequence_length"] or fields["image_size"]
    parts = (fields["model"], fields["optimizer"], fields["batch_size"], size)
    return ":".join(map(str, (*parts, fields["engine"], fields["precision"])))


def example_of(fields: Mapping[str, Any]) -> str:
    """Say what a batch is counted in, from the fields of a request or a stored row."""
    if fields.get("sequence_length"):
        return "sequence"
    # Rows from before there were other workloads need not name their images.
    return "image" if fields.get("image_size", "not named") else "example"


def step_words(fields: Mapping[str, Any]) -> list[str]:
    """Say in words how a step differs from the plain one, from the fields of a request or a stored row."""
    words = []
    if (fields.get("precision") or "fp32") != "fp32":
        words.append(str(fields["precision"]))
    if fields.get("checkpoint"):
        blocks = fields["checkpoint"] == BLOCKS
        words.append("checkpointed" if blocks else f"{fields['checkpoint']} checkpointed")
    if (fields.get("accumulate") or 1) > 1:
        words.append(f"{fields['accumulate']} micro-batches")
    if fields.get("channels_last"):
        words.append("channels-last")
    if (fields.get("attention") or "auto") != "auto":
        words.append(f"{fields['attention']} attention")
    if fields.get("lora"):
        words.append(f"LoRA of rank {fields['lora']}")
    if (fields.get("parallel") or ALONE) != ALONE:
        words.append(f"{way_to_share(fields)} on {fields.get('gpus') or '?'} GPUs")
    return words


def way_to_share(fields: Mapping[str, Any]) -> str:
    """Say in words how GPUs share a step, from the fields of a request or a stored row."""
    words = [fields.get("parallel") or ALONE]
    if fields.get("fsdp_precision"):
        words.append(f"in {fields['fsdp_precision']}")
    if fields.get("fsdp_keep_gathered"):
        words.append("kept gathered")
    return " ".join(words)
