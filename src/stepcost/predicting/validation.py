"""What predictions were compared with, and the error to expect of one (``docs/notes/prediction.md``)."""

from __future__ import annotations

from dataclasses import asdict

from stepcost.catalog.cards import CARDS, Card
from stepcost.predicting.torch_versions import CUBLAS_32_MIB_ON_BLACKWELL, CUBLAS_FREES, Version
from stepcost.predicting.workspaces import Estimated, Workspaces
from stepcost.request import FSDP_OPTIONS, Request, step_words

VALIDATED_TORCH: Version = (2, 11)
VALIDATED_CUDNN = "9.19"
"""Torch and cuDNN of all runs that predictions were compared with."""
VALIDATED_CARDS = ("h100-80gb", "h200-141gb")
"""Cards of those runs."""
RANGES_FROM = "h100-80gb"
"""The card whose runs are enough for a range of errors."""
CLASSIFIERS, LANGUAGE_MODELS = "image classifiers in fp32 or bf16", "language models of transformers"
"""What was trained in those runs, of classifiers in both layouts."""
OF_CLASSIFIERS = {"bf16", "channels-last"}
"""What else than plain fp32 classifiers trained in, in words of a step."""
SHARED_STEPS = "language models and image classifiers in fp32 or bf16 under DDP, ZeRO-1 and FSDP2"
"""What several GPUs trained in runs."""
SHARED_ON, SHARED_BY = ("h200-141gb",), (2, 4)
"""Cards of those runs, and how many shared a step."""
NO_RUN = "no run of such a step was compared with this card and torch"
Ranges = dict[str, tuple[float, float]]
RECORDED: Ranges = {
    "peak_allocated_bytes": (-0.0007, 0.0005),
    "peak_reserved_bytes": (0.0, 0.0),
    "process_bytes": (-0.0008, 0.0019),
}
"""Lowest and highest of predicted / measured - 1 over 43 runs with every convolution in the table."""
BY_CUDNN: Ranges = {"peak_allocated_bytes": (-0.0021, 0.0026), "peak_reserved_bytes": (-0.0135, 0.0232)}
"""Lowest and highest over 168 runs with no table, each asked of cuDNN (``--leave-out table``); 68 of them
were predicted before they were measured, 24 ran on an H200, 43 in bf16 or channels-last."""
OTHER_BATCHES: Ranges = {"peak_allocated_bytes": (-0.0101, 0.0073), "peak_reserved_bytes": (-0.1647, 0.041)}
"""Lowest and highest over 45 runs with each estimated from other batch sizes (``--leave-out batch``)."""
OTHER_CONVOLUTIONS: Ranges = {"peak_allocated_bytes": (-0.418, 0.293), "peak_reserved_bytes": (-0.522, 0.278)}
"""Lowest and highest with each estimated from other convolutions (``--leave-out convolutions``)."""
RANGES = {
    None: RECORDED,
    Estimated.BY_CUDNN: BY_CUDNN,
    Estimated.FROM_BATCHES: OTHER_BATCHES,
    Estimated.FROM_CONVOLUTIONS: OTHER_CONVOLUTIONS,
    Estimated.NOT_AT_ALL: OTHER_CONVOLUTIONS,
}


LANGUAGE: Ranges = {
    "peak_allocated_bytes": (-0.0006, 0.0007),
    "peak_reserved_bytes": (-0.001, 0.0),
    "process_bytes": (-0.0004, 0.0006),
}
"""The same over 64 runs of language models, in all precisions."""


def trained(request: Request) -> str | None:
    """Return what of the runs a step is like: one of the descriptions above, or ``None`` of them."""
    if request.gpus > 1:
        own = request.image_size is None and request.sequence_length is None
        asked_more = any(getattr(request, name) for name in FSDP_OPTIONS)
        is_like = request.precision in ("fp32", "bf16") and not own and not asked_more
        return SHARED_STEPS if is_like and request.gpus in SHARED_BY else None
    if request.sequence_length is not None:
        return LANGUAGE_MODELS
    is_like = request.image_size is not None and set(step_words(asdict(request))) <= OF_CLASSIFIERS
    return CLASSIFIERS if is_like else None


def expected_error(
    request: Request, workspaces: Workspaces, card: Card | None, version: Version
) -> Ranges | None:
    """Return lowest and highest error seen, as shares, by figure; ``None`` where no run can tell.

    ``workspaces`` are those of the prediction: what of them was estimated decides the range.
    """
    like = trained(request)
    if card is None or card.name != RANGES_FROM or version != VALIDATED_TORCH or like is None:
        return None
    if like == LANGUAGE_MODELS:
        return LANGUAGE if workspaces.estimated is None else None
    if like == SHARED_STEPS:
        return None
    if not step_words(asdict(request)):
        return RANGES[workspaces.estimated]
    return BY_CUDNN if workspaces.estimated in (None, Estimated.BY_CUDNN) else None


def most_too_low(
    request: Request, workspaces: Workspaces, card: Card | None, version: Version, *, unseen: str | None
) -> float:
    """Return the share by which reserved memory may be predicted too low, as far as runs can tell.

    Where no run was compared with that card and torch, or a step rests on operators that are ``unseen``, it
    is taken to be as for batch sizes that are not in the table, at least.
    """
    estimated, validated = workspaces.estimated, unseen is None and is_validated(request, card, version)
    if validated and estimated is None and trained(request) == LANGUAGE_MODELS:
        return -LANGUAGE["peak_reserved_bytes"][0]
    if not validated and estimated in (None, Estimated.BY_CUDNN):
        estimated = Estimated.FROM_BATCHES
    low, _ = RANGES[estimated]["peak_reserved_bytes"]
    return -low


def were_run(card: Card | None, version: Version) -> bool:
    """Whether any predictions for ``card`` with that torch were compared with runs."""
    return card is not None and card.name in VALIDATED_CARDS and version == VALIDATED_TORCH


def is_validated(request: Request, card: Card | None, version: Version) -> bool:
    """Whether predictions of such steps for ``card`` with that torch were compared with runs."""
    like = trained(request)
    return (
        card is not None and card.name in _cards_of(like) and version == VALIDATED_TORCH and like is not None
    )


def _cards_of(like: str | None) -> tuple[str, ...]:
    """Return the cards on which such steps were run."""
    return {LANGUAGE_MODELS: (RANGES_FROM,), SHARED_STEPS: SHARED_ON}.get(like or "", VALIDATED_CARDS)


def validated_with() -> dict[str, object]:
    """Return ``gpus``, ``torch`` and ``cudnn`` of the runs that predictions were compared with."""
    gpus = [CARDS[name].gpu for name in VALIDATED_CARDS]
    return {"gpus": gpus, "torch": _text(VALIDATED_TORCH), "cudnn": VALIDATED_CUDNN}


def changes_since(card: Card | None, version: Version) -> list[str]:
    """Return what the rules for ``card`` change between the torch of the runs and ``version``."""
    blackwell = card is not None and card.compute_capability.startswith(("10.", "12."))
    changes = [
        (
            CUBLAS_32_MIB_ON_BLACKWELL,
            blackwell,
            "cuBLAS takes 32 MiB on this card (since torch 2.12)",
        ),
        (CUBLAS_FREES, True, "cuBLAS gives its workspaces back after each operation (since torch 2.15)"),
    ]
    return [text for since, concerned, text in changes if concerned and VALIDATED_TORCH < since <= version]


def validation_line(request: Request, card: Card | None, version: Version) -> str:
    """Say in one line what predictions were compared with, and what of this one was not."""
    with_what = f"torch {_text(VALIDATED_TORCH)} and cuDNN {VALIDATED_CUDNN}"
    like = trained(request)
    if card is not None and is_validated(request, card, version):
        return f"Validated with runs of {like} on {card.gpu}, {with_what}."
    cards = _cards_of(like)
    gpus = " and ".join(CARDS[name].gpu for name in cards)
    others = [f"with torch {_text(version)}"] if version != VALIDATED_TORCH else []
    others += [f"on {card.gpu}"] if card is not None and card.name not in cards else []
    others += ["with such a step"] if like is None else []
    runs = f"runs of {like or f'{CLASSIFIERS} and of {LANGUAGE_MODELS}'}"
    line = "; not ".join([f"Validated with {runs} on {gpus}, {with_what}", *others])
    changes = changes_since(card, version)
    return f"{line}. Changed since, by rule: {'; '.join(changes)}." if changes else f"{line}."


def _text(version: Version) -> str:
    return ".".join(map(str, version))
