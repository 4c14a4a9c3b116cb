"""The longest sequence by prediction, and the largest batch of what takes no images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from stepcost.catalog.cards import CARDS
from stepcost.catalog.language_models import build_language_model, language_config, most_positions
from stepcost.predicting import predict
from stepcost.predicting.largest import largest_batch, longest_sequence
from stepcost.request import Request
from stepcost.workload import OwnStep
from tests.command import predict as command

H100 = CARDS["h100-80gb"]
TINY = replace(H100, total_bytes=3 << 30)
"""An H100 with little memory, so that few tokens fit."""
WITHOUT = "an extra: pip install 'stepcost[transformers]'"


def words(folder: Path, positions: int) -> Request:
    """A small language model with positions for so many tokens, eight sequences of it a step."""
    pytest.importorskip("transformers", reason=WITHOUT)
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 1000, "n_positions": positions}
    path = folder / "config.json"
    path.write_text(json.dumps({"model_type": "gpt2", **sizes}))
    return Request(
        model=str(path),
        optimizer="adamw",
        batch_size=8,
        sequence_length=32,
        image_size=None,
        num_classes=None,
    )


def test_the_longest_sequence_is_the_last_that_fits(tmp_path: Path) -> None:
    """On a measured card it fits, one that is 1 % longer does not, and it is not all of the positions."""
    asked = words(tmp_path, positions=1 << 18)
    found = longest_sequence(asked, TINY, torch_version="2.11")
    assert found.longest_sequence is not None
    assert found.longest_sequence_is_all is False
    assert found.longest_sequence_at_most is not None
    assert 0 <= found.longest_sequence_at_most - found.longest_sequence <= found.longest_sequence // 100
    there = predict(replace(asked, sequence_length=found.longest_sequence), TINY, torch_version="2.11")
    assert there.fits is True
    more = found.longest_sequence_at_most + 1
    assert predict(replace(asked, sequence_length=more), TINY, torch_version="2.11").fits is False


@pytest.mark.parametrize(
    "kind", ["gpt2", "bert", "opt", "roberta", "xlm-roberta", "camembert", "mpnet", "esm", "ibert"]
)
def test_a_model_takes_as_many_tokens_as_it_is_said_to(kind: str, tmp_path: Path) -> None:
    """A sequence of all positions runs on the CPU, one token more does not: some begin after padding."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    more = {"word_embed_proj_dim": 8, "ffn_dim": 8, "pad_token_id": 1, "mask_token_id": 2}
    pytest.importorskip("transformers", reason=WITHOUT)
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps({"model_type": kind, "vocab_size": 30, "max_position_embeddings": 20, **sizes, **more})
    )
    most = most_positions(language_config(str(path)))
    assert most is not None
    model = build_language_model(str(path))
    assert model(input_ids=torch.full((1, most), 7)).logits.shape[1] == most
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, most + 1), 7))


def test_it_ends_where_the_positions_do(tmp_path: Path) -> None:
    """Where every position fits the answer is their number, and it says that there are no more."""
    asked = words(tmp_path, positions=128)
    found = longest_sequence(asked, H100, torch_version="2.11")
    assert (found.longest_sequence, found.longest_sequence_at_most) == (128, 128)
    assert found.longest_sequence_is_all is True
    assert found.longest_sequence_at_least is None
    unmeasured = longest_sequence(asked, CARDS["t4"], torch_version="2.11")
    assert (unmeasured.longest_sequence, unmeasured.longest_sequence_likely) == (None, (128, 128))


def test_the_command_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--longest-sequence`` is a line for people and fields of the object for programs."""
    asked = [words(tmp_path, positions=128).model, "--batch-size", "2", "--sequence-length", "16"]
    asked += ["--gpu", "h100-80gb", "--torch", "2.11", "--longest-sequence"]
    assert command(asked) == 0
    said = "Longest sequence that fits: 128, all that the model has positions for."
    assert said in capsys.readouterr().out
    assert command([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["longest_sequence"] == 128


def test_who_takes_no_sequences_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A model of images, and a request without a card, get one line."""
    assert command(["small-cnn", "--gpu", "h100-80gb", "--longest-sequence"]) == 2
    assert "small-cnn takes no sequences of tokens" in capsys.readouterr().err
    assert command(["small-cnn", "--longest-sequence"]) == 2
    assert "the longest sequence of which card?" in capsys.readouterr().err


def test_a_large_batch_of_ones_own_is_not_made_on_the_host() -> None:
    """Only shapes are wanted: a batch of 40 GB is asked for, and no such batch has values."""
    made: list[torch.Tensor] = []

    def batch(n: int) -> torch.Tensor:
        made.append(torch.zeros(n, 10_000))
        return made[-1]

    own = OwnStep(model=nn.Linear(1, 1), make_batch=batch, loss=lambda model, batch: batch.sum())
    assert own.batch(1_000_000, "meta").shape == (1_000_000, 10_000)
    assert [one.device.type for one in made] == ["cpu", "meta"]


def test_the_largest_batch_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workload from a file has a largest batch: what is 1 % larger does not fit.

    No run of such a step was compared, so that nothing is said to fit so close to the end of the card.
    """
    (tmp_path / "wide_step.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def workload():\n"
        "    model = nn.Sequential(nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 1))\n"
        "    return model, lambda n: torch.randn(n, 1000), lambda model, rows: model(rows).square().mean()\n"
    )
    monkeypatch.chdir(tmp_path)
    asked = Request(
        model="./wide_step.py:workload", optimizer="sgd", batch_size=8, image_size=None, num_classes=None
    )
    found = largest_batch(asked, TINY, torch_version="2.11")
    assert found.largest_batch is not None
    assert found.largest_batch_at_most is not None
    assert found.largest_batch_rests_on is not None
    there = predict(replace(asked, batch_size=found.largest_batch), TINY, torch_version="2.11")
    assert (there.fits, "no run of such a step was compared" in there.unread["fits"]) == (None, True)
    more = found.largest_batch_at_most + 1
    assert predict(replace(asked, batch_size=more), TINY, torch_version="2.11").fits is False
    assert more <= found.largest_batch * 1.01
