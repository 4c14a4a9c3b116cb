"""Steps whose operators are written down by ``experiments.operators``: small in depth, real in width."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend
from torch.nn.functional import cross_entropy

from stepcost.step import TrainingStep, map_tensors

Loss = Callable[[Any, Any], Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training step."""

    name: str
    model: Callable[[], nn.Module]
    batch: Callable[[], Any]
    loss: Loss
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW
    precision: str = "fp32"
    accumulate: int = 1
    attention: SDPBackend | None = None

    def build(self, device: torch.device | str) -> tuple[TrainingStep, Any]:
        """Build it on a device."""
        model = self.module().to(device).train()
        batch = self.batch_on(device)
        return self.step_of(model), batch

    def module(self) -> nn.Module:
        """Build the model, in its precision."""
        return self.model().to(torch.bfloat16) if self.precision.startswith("pure") else self.model()

    def batch_on(self, device: torch.device | str) -> Any:
        """Make the batch on the CPU, in its precision, and put it on a device."""
        batch = self.batch()
        if self.precision.startswith("pure"):
            batch = map_tensors(lambda one: one.bfloat16() if one.is_floating_point() else one, batch)
        return map_tensors(lambda one: one.to(device), batch)

    def step_of(self, model: nn.Module) -> TrainingStep:
        """Return the step of a model on its device."""
        return TrainingStep(
            model=model,
            optimizer=self.optimizer(model.parameters()),
            objective=lambda forward, given: (self.loss(forward, given), None),
            autocast={"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision),
            scaler=torch.amp.GradScaler("cuda") if self.precision == "fp16" else None,
            accumulate=self.accumulate,
            attention=self.attention,
        )


def tokens(words: int, size: int, length: int) -> torch.Tensor:
    """Make random tokens."""
    return torch.randint(words, (size, length))


def own_loss(model: Any, batch: torch.Tensor) -> Any:
    """Take the loss as a language model defines it for labels."""
    return model(input_ids=batch, labels=batch).loss


def hugging_face(kind: str, **changes: Any) -> nn.Module:
    """Build a language model of two layers."""
    import transformers  # noqa: PLC0415 (slow to import)

    config = {
        "gpt2": lambda: transformers.GPT2Config(n_layer=2, **changes),
        "bert": lambda: transformers.BertConfig(num_hidden_layers=2, **changes),
        "llama": lambda: transformers.LlamaConfig(
            hidden_size=768, intermediate_size=2048, num_hidden_layers=2, num_attention_heads=12, **changes
        ),
        "qwen2": lambda: transformers.Qwen2Config(
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=2,
            num_attention_heads=14,
            num_key_value_heads=2,
            vocab_size=151936,
            tie_word_embeddings=True,
            **changes,
        ),
        "t5": lambda: transformers.T5Config(
            num_layers=2, decoder_start_token_id=0, pad_token_id=0, **changes
        ),
        "gemma3": lambda: transformers.Gemma3TextConfig(
            hidden_size=640,
            intermediate_size=2048,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=256,
            sliding_window=512,
            **changes,
        ),
        "mistral": lambda: transformers.MistralConfig(
            hidden_size=1024,
            intermediate_size=2816,
            num_hidden_layers=2,
            num_attention_heads=16,
            num_key_value_heads=4,
            sliding_window=256,
            **changes,
        ),
    }[kind]()
    auto = {"bert": transformers.AutoModelForMaskedLM, "t5": transformers.AutoModelForSeq2SeqLM}.get(
        kind, transformers.AutoModelForCausalLM
    )
    model: nn.Module = auto.from_config(config)
    if changes.get("use_cache") is False:
        enable: Any = model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return model


def vision(name: str) -> nn.Module:
    """Build a classifier."""
    import torchvision  # noqa: PLC0415

    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=10)
    return model


def images(size: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Make random images and labels."""
    return torch.randn(size, 3, side, side), torch.randint(10, (size,))


def classified(model: Any, batch: Any) -> Any:
    """Cross entropy of a classifier."""
    return cross_entropy(model(batch[0]), batch[1])


class Layers(nn.Module):
    """One of each layer that other cases have not."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5000, 256, padding_idx=0)
        self.norm, self.rms = nn.GroupNorm(8, 256), nn.RMSNorm(256)
        self.instance = nn.InstanceNorm1d(256, affine=True)
        self.attention = nn.MultiheadAttention(256, 8, dropout=0.1, batch_first=True)
        self.glu, self.silu, self.mish = nn.Linear(256, 512), nn.SiLU(), nn.Mish()
        self.prelu, self.elu, self.tanh = nn.PReLU(), nn.ELU(), nn.Tanh()
        self.bilinear = nn.Bilinear(256, 256, 64)
        self.pool, self.head = nn.AdaptiveAvgPool1d(16), nn.Linear(64, 100)

    def forward(self, words: torch.Tensor) -> Any:
        """Take words (N, L)."""
        x = self.rms(self.words(words))
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = x + nn.functional.glu(self.glu(x))
        x = self.instance(self.norm(self.mish(self.silu(x)).transpose(1, 2))).transpose(1, 2)
        x = self.tanh(self.elu(self.prelu(x)))
        mixed = torch.einsum("bld,bmd->blm", x, x).softmax(-1)
        x = (mixed @ x).clamp(-3, 3) * torch.sigmoid(x).sqrt()
        x = torch.cat([x[:, 1:], x[:, :1]], 1).masked_fill(x.abs() > 2.9, 0.0)
        x = self.pool(self.bilinear(x, x).transpose(1, 2))
        return torch.logsumexp(self.head(x.transpose(1, 2)), 1)


def losses(model: Any, batch: torch.Tensor) -> Any:
    """Several losses at once."""
    out = model(batch)
    target = torch.sigmoid(out.detach().float()).to(out.dtype)
    f = nn.functional
    return (
        f.mse_loss(out, target)
        + f.smooth_l1_loss(out, target)
        + f.binary_cross_entropy_with_logits(out, target)
        + f.kl_div(f.log_softmax(out, -1), f.softmax(target, -1), reduction="batchmean")
        + out.std()
        + out.norm()
    )


def _cases() -> Iterator[Case]:
    models: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
        "gpt2": (partial(hugging_face, "gpt2"), partial(tokens, 50257, 4, 1024)),
        "bert": (partial(hugging_face, "bert"), partial(tokens, 30522, 8, 512)),
        "llama": (partial(hugging_face, "llama"), partial(tokens, 32000, 4, 512)),
        "qwen2": (partial(hugging_face, "qwen2"), partial(tokens, 151936, 2, 384)),
    }
    for (name, (model, batch)), precision in itertools.product(
        models.items(), ("fp32", "bf16", "pure-bf16", "fp16")
    ):
        yield Case(name=f"{name} {precision}", model=model, batch=batch, loss=own_loss, precision=precision)
    gpt2, words = models["gpt2"]
    for kind, precision in itertools.product(
        (
            SDPBackend.MATH,
            SDPBackend.EFFICIENT_ATTENTION,
            SDPBackend.FLASH_ATTENTION,
            SDPBackend.CUDNN_ATTENTION,
        ),
        ("fp32", "bf16"),
    ):
        yield Case(
            name=f"gpt2 {kind.name} {precision}",
            model=gpt2,
            batch=words,
            loss=own_loss,
            precision=precision,
            attention=kind,
        )
    for name in ("gpt2", "llama"):
        for precision in ("fp32", "bf16"):
            yield Case(
                name=f"{name} checkpointed {precision}",
                precision=precision,
                loss=own_loss,
                model=partial(hugging_face, name, use_cache=False),
                batch=models[name][1],
            )
    yield Case(name="gpt2 accumulate fp32", model=gpt2, batch=words, loss=own_loss, accumulate=3)
    yield Case(
        name="gpt2 accumulate bf16", model=gpt2, batch=words, loss=own_loss, accumulate=3, precision="bf16"
    )
    few = partial(tokens, 50257, 2, 100)
    optimizers: dict[str, Any] = {
        "fused": partial(torch.optim.AdamW, lr=1e-3, fused=True),
        "loop": partial(torch.optim.AdamW, lr=1e-3, foreach=False),
        "sgd momentum": partial(torch.optim.SGD, lr=1e-3, momentum=0.9),
        "adafactor": partial(torch.optim.Adafactor, lr=1e-3),
        "adamax": partial(torch.optim.Adamax, lr=1e-3),
        "nadam": partial(torch.optim.NAdam, lr=1e-3),
    }
    for name, make in optimizers.items():
        for precision in ("fp32", "pure-bf16"):
            yield Case(
                name=f"gpt2 {name} {precision}",
                model=gpt2,
                batch=few,
                loss=own_loss,
                optimizer=make,
                precision=precision,
            )
    yield Case(
        name="muon",
        model=lambda: nn.Sequential(
            nn.Linear(768, 3072, bias=False), nn.GELU(), nn.Linear(3072, 768, bias=False)
        ),
        batch=lambda: torch.randn(64, 768),
        loss=lambda model, batch: (model(batch) ** 2).mean(),
        optimizer=partial(torch.optim.Muon, lr=1e-3),
    )
    for name, precision in itertools.product(
        ("resnet50", "vit_b_16", "convnext_tiny"), ("bf16", "pure-bf16")
    ):
        yield Case(
            name=f"{name} {precision}",
            model=partial(vision, name),
            batch=partial(images, 16, 224),
            loss=classified,
            precision=precision,
        )
    for precision in ("fp32", "bf16", "pure-bf16", "fp16"):
        yield Case(
            name=f"layers {precision}",
            model=Layers,
            batch=partial(tokens, 5000, 16, 128),
            loss=losses,
            precision=precision,
        )
        yield Case(
            name=f"t5 {precision}",
            model=partial(hugging_face, "t5"),
            batch=partial(tokens, 32128, 4, 256),
            loss=own_loss,
            precision=precision,
        )
    for precision in ("fp32", "bf16"):
        yield Case(
            name=f"mistral {precision}",
            model=partial(hugging_face, "mistral"),
            batch=partial(tokens, 32000, 2, 512),
            loss=own_loss,
            precision=precision,
        )
        yield Case(
            name=f"gemma3 {precision}",
            model=partial(hugging_face, "gemma3"),
            batch=partial(tokens, 262144, 3, 600),
            loss=own_loss,
            precision=precision,
        )
    for size, length in ((1, 128), (3, 1000), (7, 333)):
        for precision in ("fp32", "bf16", "pure-bf16"):
            yield Case(
                name=f"llama {size}x{length} {precision}",
                model=partial(hugging_face, "llama"),
                batch=partial(tokens, 32000, size, length),
                loss=own_loss,
                precision=precision,
            )


CASES = tuple(_cases())
