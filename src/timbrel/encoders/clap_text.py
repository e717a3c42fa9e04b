"""LAION's CLAP, text tower: words to the same 512 numbers as sounds, so that words can search.

    text ─► byte pairs (RoBERTa's vocabulary) ─► RoBERTa ─► its first token ─► 512 numbers

The package asks a hub for RoBERTa's weights, configuration and vocabulary. The weights are in CLAP's checkpoint, too,
and their sizes say what the configuration would; the vocabulary is two small files, which ``timbrel weights fetch``
knows as ``roberta-vocabulary`` and ``roberta-merges``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from timbrel.encoders.clap import checkpoint, part, projection, refusing
from timbrel.errors import DataError

LONGEST = 77
"""Tokens of a text, its two ends included; what is longer is cut."""

# What weights do not tell: numbers of an attention head, and what is added to a variance.
_HEAD = 64
_EPSILON = 1e-5
Describe = Callable[[Sequence[str]], np.ndarray]


class TextTower(nn.Module):
    """Tokens [b, n] and which of them count, to embeddings [b, 512] of length 1.

    ``state``: RoBERTa's weights, by its own names; they are not loaded, only measured.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        roberta = _transformers()
        vocabulary, width = state["embeddings.word_embeddings.weight"].shape
        config = roberta.RobertaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=len({name.split(".")[2] for name in state if name.startswith("encoder.")}),
            num_attention_heads=width // _HEAD,
            intermediate_size=len(state["encoder.layer.0.intermediate.dense.bias"]),
            max_position_embeddings=len(state["embeddings.position_embeddings.weight"]),
            type_vocab_size=len(state["embeddings.token_type_embeddings.weight"]),
            layer_norm_eps=_EPSILON,
        )
        self.branch = roberta.RobertaModel(config)
        self.projection = projection(width)

    def forward(self, ids: Tensor, counts: Tensor) -> Tensor:
        pooled = self.branch(input_ids=ids, attention_mask=counts)["pooler_output"]
        return functional.normalize(self.projection(pooled), dim=-1)


def read_published(path: Path, vocabulary: Path, merges: Path) -> Describe:
    """Texts to embeddings float32 [n, 512] of length 1: their product with those of sounds is the cosine.

    ``path``: a checkpoint; ``vocabulary`` and ``merges``: RoBERTa's ``vocab.json`` and ``merges.txt``. All three are
    ``published.find``'s: of ``clap-music`` (or ``clap-630k``), ``roberta-vocabulary`` and ``roberta-merges``. Raises
    DataError when one is not such a file, and when `transformers` is not installed.
    """
    with refusing(path):
        state = checkpoint(path)
        text = part(state, "text_branch.")
        text.pop("embeddings.position_ids", None)  # 0, 1, 2, …: older versions of RoBERTa kept them
        tower = TextTower(text)
        tower.branch.load_state_dict(text)
        tower.projection.load_state_dict(part(state, "text_projection."))
    tower.eval()
    tokenizer = _tokenizer(vocabulary, merges)
    if len(tokenizer) > len(text["embeddings.word_embeddings.weight"]):
        raise DataError(f"{vocabulary} has more tokens than {path} has weights for: take RoBERTa's own")

    @torch.inference_mode()
    def describe(texts: Sequence[str]) -> np.ndarray:
        tokens = tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        found: Tensor = tower(tokens["input_ids"], tokens["attention_mask"])
        return np.asarray(found.numpy())

    return describe


def _tokenizer(vocabulary: Path, merges: Path) -> Any:
    roberta = _transformers()
    try:
        numbers = json.loads(vocabulary.read_text(encoding="utf-8"))
        # The first line names the format.
        lines = merges.read_text(encoding="utf-8").splitlines()[1:]
        pairs = [tuple(line.split()) for line in lines if line]
        return roberta.RobertaTokenizer(vocab=numbers, merges=pairs)
    except Exception as error:  # the tokenizer raises nothing narrower
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{vocabulary} and {merges} are not RoBERTa's vocabulary ({reason})") from error


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise DataError(
            "CLAP's text tower needs transformers: scripts/setup serve pipeline encoders"
        ) from error
    return transformers
