"""Randomly initialised EnCodec models in the two published formats, and what their own code computes from them.

The `encodec` package is run as it is. It imports torchaudio for resampling and writing files, neither of which the
model itself uses; torchaudio has no build for this torch, so an empty module stands in for it while the package is
imported, and any use of it would be an AttributeError.

`transformers` is too large to install for one test: tests/golden/encodec_hf.npz holds what it computed. With it
installed, ``python tests/support/encodec.py`` writes that file again.
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
from safetensors.torch import save_file
from torch import nn

GOLDEN = Path(__file__).parents[1] / "golden" / "encodec_hf.npz"
# The smallest model that has every part. Its 1.2 kbit/s at 4 bits for each of 75 frames are 4 codebooks.
TINY = {"num_filters": 2, "codebook_size": 16, "target_bandwidths": [0.6, 1.2]}
LENGTHS = (1, 320, 1_000, 3_201)


def package_model(seed: int) -> nn.Module:
    """The package's 24 kHz model, full size, with random weights that keep signals at the order of 1."""
    with patch.dict(sys.modules, {"torchaudio": ModuleType("torchaudio")}), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's older weight_norm
        from encodec import EncodecModel

        torch.manual_seed(seed)
        model: Any = EncodecModel.encodec_model_24khz(pretrained=False)
    model.set_target_bandwidth(24.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight_g"):
                parameter.mul_(
                    1.9
                )  # torch's default shrinks a signal at every layer, till nothing but biases is left
        rest = model.encoder(0.2 * torch.randn(1, 1, 9_600))
        for layer in model.quantizer.vq.layers:
            # The codebooks of a trained model: each of the spread of what the ones before have left.
            layer._codebook.embed.copy_(torch.randn(1_024, 128) * rest.std(dim=(0, 2)))
            layer._codebook.inited.fill_(1.0)
            entry = layer.decode(layer.encode(rest))
            layer._codebook.embed.mul_((rest * entry).mean() / entry.square().mean())
            rest = rest - layer.decode(layer.encode(rest))
    return model.eval()


@torch.inference_mode()
def package_result(model: Any, audio: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[b, n] -> the encoder's output and the embedding [b, frames, 128], and the decoded audio [b, frames * 320]."""
    raw = model.encoder(audio[:, None])
    ((codes, _),) = model.encode(audio[:, None])
    embedding = model.quantizer.decode(codes.transpose(0, 1))
    decoded = model.decode([(codes, None)])
    return raw.transpose(1, 2).numpy(), embedding.transpose(1, 2).numpy(), decoded[:, 0].numpy()


def audio(samples: int, batch: int = 1) -> np.ndarray:
    """Noise with a few clicks: float32 [batch, samples]."""
    generator = np.random.default_rng(samples)
    values = 0.2 * generator.standard_normal((batch, samples)) + (generator.random((batch, samples)) > 0.995)
    return values.astype(np.float32)


def tiny_weights(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Random tensors of these names and shapes: the same on every machine."""
    generator = np.random.default_rng(24)
    tensors = {}
    for name, shape in sorted(shapes.items()):
        values = generator.uniform(-1.0, 1.0, shape)
        if name.endswith(("original0", "weight_g")):
            values = 1.2 + 0.3 * values
        elif "lstm" in name or name.endswith("bias"):
            values *= 0.3
        tensors[name] = torch.from_numpy(values.astype(np.float32))
    return tensors


def write_tiny_folder(folder: Path, *, old_names: bool = False, codebooks: int = 4) -> None:
    """A Hugging Face folder as `transformers` writes it, or with the names of weights from older releases of torch.

    Of another number of ``codebooks`` its weights are not those behind the golden file.
    """
    golden = np.load(GOLDEN)
    shapes: dict[str, list[int]] = json.loads(str(golden["shapes"]))
    first = "quantizer.layers.0."
    for name in [name for name in shapes if name.startswith(first)]:
        shapes |= {name.replace(".0.", f".{book}.", 1): shapes[name] for book in range(codebooks)}
    tensors = tiny_weights(shapes)
    if old_names:
        new, old = (
            ("parametrizations.weight.original0", "weight_g"),
            ("parametrizations.weight.original1", "weight_v"),
        )
        tensors = {name.replace(*new).replace(*old): tensor for name, tensor in tensors.items()}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads(str(golden["config"]))
    config["target_bandwidths"][-1] = 0.3 * codebooks
    (folder / "config.json").write_text(json.dumps(config))


@torch.inference_mode()
def _write_golden() -> None:
    import tempfile

    from transformers import EncodecConfig, EncodecModel, __version__

    model = EncodecModel(EncodecConfig(**TINY)).eval()
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict(tiny_weights(shapes))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = (Path(folder) / "config.json").read_text()
    results: dict[str, Any] = {"version": __version__, "config": config, "shapes": json.dumps(shapes)}
    for samples in LENGTHS:
        given = torch.from_numpy(audio(samples))[:, None]
        codes = model.encode(given, bandwidth=1.2).audio_codes
        results[f"raw_{samples}"] = model.encoder(given)[0].T.numpy()
        results[f"embedding_{samples}"] = model.quantizer.decode(codes[0].transpose(0, 1))[0].T.numpy()
        results[f"audio_{samples}"] = model.decode(codes, [None]).audio_values[0, 0].numpy()
    GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN, **results)


if __name__ == "__main__":
    _write_golden()
