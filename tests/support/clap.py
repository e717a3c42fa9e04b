"""The `laion-clap` package as it is, with random weights, and a checkpoint in the form of those that it publishes.

Imported, the package asks a hub for three tokenizers; built, for RoBERTa. Here they are made on the spot: RoBERTa's
smallest version that fits, and a vocabulary of bytes and a few pairs. What only its training uses and has no use here
(torchvision, webdataset, …) is replaced by empty modules while the package is imported.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

UNUSED = (
    *(
        "torchvision",
        "torchvision.datasets",
        "torchvision.transforms",
        "torchvision.ops",
        "torchvision.ops.misc",
    ),
    *("webdataset", "braceexpand", "ftfy", "wget"),
)
PAIRS = ("\u0120 a", "\u0120 b", "\u0120b r", "r u", "s s", "a ss", "ru ss", "\u0120br ass")


class _Unused(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def write_vocabulary(folder: Path) -> tuple[Path, Path]:
    """``vocab.json`` and ``merges.txt`` like RoBERTa's: special tokens, bytes, then pairs."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = [*sorted(ByteLevel.alphabet()), *(pair.replace(" ", "") for pair in PAIRS)]
    names = ["<s>", "<pad>", "</s>", "<unk>", *letters, "<mask>"]
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({name: i for i, name in enumerate(names)}))
    merges.write_text("\n".join(["#version: 0.2", *PAIRS]) + "\n")
    return vocabulary, merges


def package_model(folder: Path, amodel: str, seed: int) -> Any:
    """A ``CLAP_Module`` in evaluation mode; ``folder`` has the vocabulary (``write_vocabulary``)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import (
            BartTokenizer,
            BertTokenizer,
            RobertaConfig,
            RobertaModel,
            RobertaTokenizer,
        )

        vocabulary = json.loads((folder / "vocab.json").read_text())
        merges = [tuple(line.split()) for line in (folder / "merges.txt").read_text().splitlines()[1:]]
        tokenizer = RobertaTokenizer(vocab=vocabulary, merges=merges)
        config = RobertaConfig(
            vocab_size=len(vocabulary),
            num_hidden_layers=2,
            intermediate_size=512,
            max_position_embeddings=514,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
        )
        stand_ins = {name: _Unused(name) for name in UNUSED if name not in sys.modules}
        path = list(sys.path)
        with (
            patch.object(BertTokenizer, "from_pretrained", lambda *_, **__: None),
            patch.object(BartTokenizer, "from_pretrained", lambda *_, **__: None),
            patch.object(RobertaTokenizer, "from_pretrained", lambda *_, **__: tokenizer),
            patch.object(RobertaModel, "from_pretrained", lambda *_, **__: RobertaModel(config)),
        ):
            sys.modules.update(stand_ins)
            try:
                import laion_clap

                torch.manual_seed(seed)
                made = laion_clap.CLAP_Module(enable_fusion=False, device="cpu", amodel=amodel)
            finally:
                sys.path[:] = path
                for name in stand_ins:
                    del sys.modules[name]
    with torch.no_grad():
        norm = made.model.audio_branch.bn0
        norm.running_mean.fill_(-40.0)  # of decibels
        norm.running_var.fill_(300.0)
        for name, weight in made.model.named_parameters():
            if name.endswith("relative_position_bias_table") or "projection" in name:
                weight.normal_(std=0.2)
    return made.eval()


def write_checkpoint(model: Any, path: Path) -> Path:
    """As the package's training writes it: weights of a parallel model, an optimiser, and numpy's scalars."""
    state = {f"module.{name}": weight for name, weight in model.model.state_dict().items()}
    state["module.text_branch.embeddings.position_ids"] = torch.arange(514)[None]
    optimizer = {
        "state": {0: {"step": 7, "exp_avg": torch.ones(3)}},
        "param_groups": [{"lr": np.float64(1e-4), "betas": (0.99, 0.9), "params": [0]}],
    }
    torch.save(
        {"epoch": 15, "name": "music", "state_dict": state, "optimizer": optimizer, "esc": np.float32(0.9)},
        path,
    )
    return path
