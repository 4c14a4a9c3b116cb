"""The language models that can be asked about by name: one row each. Add a row to add a model.

A row is what a Hugging Face ``config.json`` holds; any such file on disk is taken as well. Weights are random
and nothing is fetched.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2"},
    "gpt2-medium": {"model_type": "gpt2", "n_embd": 1024, "n_layer": 24, "n_head": 16},
    "bert-base": {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
    "llama-160m": {
        "model_type": "llama",
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
    },
    "llama-1b": {
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
    },
    "qwen2-0.5b": {
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
    },
}
"""Name to the configuration; what a row does not name is the library's default for the type."""
EXTRA = "pip install 'stepcost[transformers]'"


def is_language_model(name: str) -> bool:
    """Whether a name is in the catalog, or is that of a configuration file."""
    return name in LANGUAGE_MODELS or name.endswith(".json")


def language_config(name: str) -> Any:
    """Return the ``transformers`` configuration of a name in the catalog or of a ``config.json``.

    Raises ``ValueError`` in one line where there is none, or where it is not that of a causal or masked
    language model.
    """
    try:
        from transformers import (  # noqa: PLC0415 (an extra, and slow to import)
            CONFIG_MAPPING,
            AutoConfig,
            logging,
        )
    except ImportError as error:
        raise ValueError(f"model {name!r} needs the library transformers ({error}): {EXTRA}") from None
    logging.set_verbosity_error()  # it warns of what its own configurations leave out
    fields = dict(LANGUAGE_MODELS.get(name) or _from_file(name))
    kind = fields.pop("model_type", None)
    if not isinstance(kind, str):
        raise ValueError(f"model {name!r}: the file has no model_type, which a Hugging Face config.json has")
    for chosen in ("torch_dtype", "dtype", "quantization_config"):  # --precision says in what it is trained
        fields.pop(chosen, None)
    if kind not in CONFIG_MAPPING:
        close = difflib.get_close_matches(kind, CONFIG_MAPPING, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "see its AutoConfig"
        raise ValueError(f"model {name!r}: transformers has no model_type {kind!r}; {hint}")
    try:
        config = AutoConfig.for_model(kind, **fields)
    except Exception as error:
        raise ValueError(
            f"model {name!r}: transformers takes no such {kind} configuration: {_in_a_line(error)}"
        ) from error
    _builder(name, config)
    return config


def _from_file(name: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(name).read_text())
    except OSError as error:
        raise ValueError(f"model {name!r}: no config.json can be read there: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"model {name!r} is no Hugging Face config.json: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"model {name!r} is no Hugging Face config.json: it holds no object")
    return found


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _builder(name: str, config: Any) -> Any:
    """Return what builds the model of a configuration, by what the file says it was."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM  # noqa: PLC0415 (see above)
    from transformers.models.auto.modeling_auto import (  # noqa: PLC0415
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = config.model_type
    causal, masked = (
        names.get(kind) for names in (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES)
    )
    named = getattr(config, "architectures", None) or [causal or masked]
    if named[0] is not None and named[0] == causal:
        return AutoModelForCausalLM
    if named[0] is not None and named[0] == masked:
        return AutoModelForMaskedLM
    is_a = ", ".join(filter(None, named)) or kind
    raise ValueError(f"model {name!r} is {is_a}; it takes a causal or masked language model")


FROM_PADDING = (
    *("camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "mpnet", "roberta"),
    *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
)
"""Types whose first position is the one after ``pad_token_id``: ``create_position_ids_from_input_ids``."""


def most_positions(config: Any) -> int | None:
    """Return the longest sequence that a configuration has positions for; ``None`` where it names none."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        found = getattr(config, name, None)
        if isinstance(found, int):
            return found - (config.pad_token_id or 0) - 1 if config.model_type in FROM_PADDING else found
    return None


def is_masked(name: str, config: Any) -> bool:
    """Whether the model fills in masked tokens, rather than continue a text."""
    return str(_builder(name, config).__name__) == "AutoModelForMaskedLM"


def build_language_model(name: str) -> nn.Module:
    """Build a language model with random weights, in float32, its attention by torch's.

    Raises ``ValueError`` in one line where it cannot be built.
    """
    import torch  # noqa: PLC0415 (the catalog must list names without importing torch)

    config = language_config(name)
    try:
        model: nn.Module = _builder(name, config).from_config(config, dtype=torch.float32)
    except Exception as error:
        raise ValueError(f"model {name!r} cannot be built: {_in_a_line(error)}") from error
    return model
