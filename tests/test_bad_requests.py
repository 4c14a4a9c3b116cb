"""Wrong requests about any workload: one line that says what would be right, in both doors."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepcost.catalog.cards import CARDS
from stepcost.request import Request, why_not_predicted_on
from stepcost.session import Session
from stepcost.settings import FLAGS, settings_of
from tests.command import predict

WITHOUT = "an extra: pip install 'stepcost[transformers]'"
TRAIN = """
import torch
from torch import nn
def net(): return nn.Linear(4, 2)
def batch(n): return torch.randn(n, 4)
def loss(model, batch): return model(batch).square().mean()
def wide(n): return torch.randn(n, 5)
def fails(n): raise KeyError("x")
def good(): return net(), batch, loss
def two(): return net(), batch
def number(): return 3, batch, loss
def misfit(): return net(), wide, loss
def vector(): return net(), batch, lambda model, batch: model(batch)
def constant(): return net(), batch, lambda model, batch: torch.zeros(())
def frozen(): return net().requires_grad_(False), batch, loss
def raises(): raise RuntimeError("no data here")
def needs(path): return net(), batch, loss
def nobatch(): return net(), fails, loss
tuple_of_them = (net(), batch, loss)
"""
OWN = {
    "two": "returned tuple; it takes a function that returns a model, make_batch(n) and loss(model, batch)",
    "number": "returned int, function, function; it takes a function that returns a model",
    "misfit": "[64, 5] X [4, 2]",
    "vector": "returned a tensor of shape (64, 2), but it takes a scalar tensor",
    "constant": "no trainable parameter takes part in what loss(model, batch) returned",
    "frozen": "has no trainable parameters: there is nothing to train",
    "raises": "raised RuntimeError('no data here'); it takes a function that returns a model",
    "needs": "missing 1 required positional argument: 'path'\"); it takes a function that returns",
    "nobatch": "raised KeyError('x')",
    "tuple_of_them": "is a tuple, and it takes a function",
    "absent": "it takes package.module:name or ./file.py:name",
}
CONFIGS: dict[str, tuple[Any, str]] = {
    "no-json": ("hello", "is no Hugging Face config.json: Expecting value"),
    "a-list": ([1], "is no Hugging Face config.json: it holds no object"),
    "no-type": ({"hidden_size": 3}, "the file has no model_type, which a Hugging Face config.json has"),
    "a-slip": ({"model_type": "lama"}, "transformers has no model_type 'lama'; did you mean llama"),
    "vision": ({"model_type": "vit"}, "is vit; it takes a causal or masked language model"),
    "classifier": (
        {"model_type": "gpt2", "architectures": ["GPT2ForSequenceClassification"]},
        "is GPT2ForSequenceClassification; it takes a causal or masked language model",
    ),
    "a-word": ({"model_type": "gpt2", "n_embd": "many"}, "takes no such gpt2 configuration"),
    "heads": ({"model_type": "gpt2", "n_embd": 100, "n_head": 12}, "cannot be built: `embed_dim` must be"),
    "own-attention": ({"model_type": "bloom", "hidden_size": 32, "n_layer": 1, "n_head": 2}, ""),
}
FLAGS_WRONG = {
    ("gpt2", "--sequence-length", "2048"): "--sequence-length 2,048: gpt2 has positions for 1,024 tokens",
    ("gpt2", "--image-size", "64"): "--image-size 64: gpt2 takes no images",
    ("small-cnn", "--sequence-length", "64"): "--sequence-length 64: small-cnn takes images, not sequences",
    ("small-cnn", "--epoch", "9"): "--epoch needs --engine: of a captured step the time is predicted",
    ("gpt2", "--channels-last"): "--channels-last: it orders images, and gpt2 takes none",
    ("small-cnn", "--attention", "flash"): "its kernels take bf16 or fp16; --precision bf16 casts to it",
    ("small-cnn", "--checkpoint=Nope"): "small-cnn has no such module, only AdaptiveAvgPool2d, BatchNorm2d",
    ("small-cnn", "--checkpoint"): "small-cnn has no block that is repeated; --checkpoint CLASS names",
    ("--checkpoint", "small-cnn"): "--checkpoint took 'small-cnn' for a class: for the blocks write",
    ("small-cnn", "--checkpoint", "./a.py"): "no name of a class; for the blocks write --checkpoint=blocks",
    ("small-cnn", "--precision", "fp8"): "unknown name 'fp8'; it takes fp32, bf16, pure-bf16, fp16",
    ("small-cnn", "--precision", "bf16", "--gpu", "t4"): "compute capability 7.5 has no arithmetic for bfl",
    ("small-cnn", "--lora", "0"): "--lora: '0' is not a whole number of 1 or more",
    (
        "small-cnn",
        "--parallel",
        "ddp",
        "--gpus",
        "17",
    ): "--gpus: '17' is too large; it takes numbers up to 16",
    ("small-cnn", "--gpus", "2"): "--gpus 2: without --parallel a step has one",
    ("small-cnn", "--parallel", "ddp"): "--parallel ddp: --gpus says how many GPUs share the step",
    (
        "small-cnn",
        "--parallel",
        "ddp",
        "--gpus",
        "",
    ): "--parallel ddp: --gpus says how many GPUs share the step",
    ("small-cnn", "--parallel", "", "--gpus", "2"): "--gpus 2: without --parallel a step has one",
    (
        "small-cnn",
        "--parallel",
        "ddp",
        "--gpus",
        "1",
    ): "--gpus 1: 1 is of --parallel none, ddp takes 2 or more",
    ("small-cnn", "--parallel", "dp", "--gpus", "2"): "--parallel: unknown name 'dp'; did you mean ddp?",
    ("gtp2",): "unknown model 'gtp2': did you mean gpt2?",
}


def line_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a wrong request gets."""
    assert predict(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("name", OWN)
def test_workloads_that_do_not_fit_together(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a function of one's own returns wrongly is named, with what it should return."""
    (tmp_path / "badly_trained.py").write_text(TRAIN)
    monkeypatch.chdir(tmp_path)
    assert OWN[name] in line_of([f"./badly_trained.py:{name}"], capsys)


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_of_no_language_model(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no configuration of a causal or masked language model says what it is instead."""
    pytest.importorskip("transformers", reason=WITHOUT)
    written, said = CONFIGS[name]
    path = tmp_path / "config.json"
    path.write_text(written if isinstance(written, str) else json.dumps(written))
    asked = [str(path), "--batch-size", "1", "--sequence-length", "8"]
    if not said:  # a good one, whose attention is not torch's
        asked, said = [*asked, "--attention", "math"], "has attention of its own (eager)"
    assert said in line_of(asked, capsys)
    assert "no config.json can be read there" in line_of([str(tmp_path / "absent.json")], capsys)


@pytest.mark.parametrize("arguments", FLAGS_WRONG, ids=" ".join)
def test_flags_that_the_model_cannot_take(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Sequences beyond the positions, layouts without images, classes that are not there."""
    if "gpt2" in arguments:
        pytest.importorskip("transformers", reason=WITHOUT)
    assert FLAGS_WRONG[arguments] in line_of(list(arguments), capsys)


@pytest.mark.parametrize(
    ("library", "arguments"),
    [
        ("transformers", ["gpt2"]),
        ("timm", ["timm:resnet18"]),
        ("peft", ["small-cnn", "--lora", "4"]),
        ("bitsandbytes", ["small-cnn", "--optimizer", "adamw-8bit"]),
    ],
)
def test_an_extra_that_is_not_installed(
    library: str,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The line names the library and how it is installed."""
    for name in [one for one in sys.modules if one.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    assert f"pip install 'stepcost[{library}]'" in line_of(arguments, capsys)


def test_bf16_is_predicted_where_there_is_arithmetic_for_it() -> None:
    """Turing and Volta have none, which torch emulates; Ampere and newer have; fp16 all of them."""
    asked = {
        name: Request(model="a", optimizer="sgd", batch_size=1, precision=name) for name in ("bf16", "fp16")
    }
    refused = {card.name for card in CARDS.values() if why_not_predicted_on(card, asked["bf16"])}
    assert refused == {"t4", "v100-16gb", "v100-32gb"}
    assert not any(why_not_predicted_on(card, asked["fp16"]) for card in CARDS.values())


@pytest.fixture
def session_of() -> Iterator[Callable[..., Session]]:
    """Begin a session of the suite with some flags; pytest ends with a usage error where that fails."""
    begun: list[Session] = []

    def begin(**flags: Any) -> Session:
        given = {name: flag.default if flag.metavar else False for name, flag in FLAGS.items()}
        begun.append(Session(settings_of((given | {"device": "cpu"} | flags).__getitem__)))
        return begun[-1]

    yield begin
    for one in begun:
        one.close()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"model": "gpt2", "sequence_lengths": "16,2048"}, "gpt2 has positions for 1,024 tokens"),
        ({"model": "small-cnn", "optimizers": "sgd,muon"}, "this model has none: adamw trains all else"),
        ({"model": "small-cnn", "precision": "bf16", "card": "t4"}, "is not predicted for Tesla T4"),
        ({"model": "small-cnn", "checkpoint": "Nope"}, "small-cnn has no such module"),
        ({"model": "FOLDER/badly_trained.py:misfit"}, "cannot take a batch of 2"),
        ({"model": "FOLDER/badly_trained.py:frozen"}, "there is nothing to train"),
    ],
)
def test_the_suite_says_it_before_it_measures(
    flags: dict[str, str], line: str, session_of: Callable[..., Session], tmp_path: Path
) -> None:
    """A session does not begin with what a later length, optimizer or card cannot do."""
    if flags["model"] == "gpt2":
        pytest.importorskip("transformers", reason=WITHOUT)
    (tmp_path / "badly_trained.py").write_text(TRAIN)
    asked = {name: value.replace("FOLDER", str(tmp_path)) for name, value in flags.items()}
    with pytest.raises(ValueError, match=line) as caught:
        session_of(**asked)
    assert "\n" not in str(caught.value)
