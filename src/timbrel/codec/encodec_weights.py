"""EnCodec weights as they are published: the ``encodec`` package's ``.th`` file, and the Hugging Face folder.

    encodec_24khz-d7cc33bc.th      a state dict; the eight digits begin the file's SHA-256
    facebook/encodec_24khz         config.json and model.safetensors

Both name the same layers differently, and keep each convolution as a direction and a length (weight normalisation,
Salimans and Kingma 2016), under the names that one torch or another gave these: here they become plain weights.
The folder that Timbrel itself keeps (``save_encodec``) holds those.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor

from timbrel.codec.encodec import DIMENSIONS, HOP, SAMPLE_RATE, Encodec, EncodecConfig
from timbrel.errors import DataError
from timbrel.files import atomic_write, sha256_of

PUBLISHED_FILE = "encodec_24khz-d7cc33bc.th"
PUBLISHED_FOLDER = "facebook/encodec_24khz"
LICENCE = "CC-BY-NC-4.0"
# For whoever runs them to read, before they do.
NOTICE = "EnCodec's published weights are under CC BY-NC 4.0: not for commercial use"
ADVICE = (
    f"take {PUBLISHED_FILE} (what the `encodec` package downloads for its 24 kHz model), or the folder "
    f"{PUBLISHED_FOLDER} from the Hugging Face hub (config.json, model.safetensors); name it in codec.weights, or lay "
    f"it into the folder that TIMBREL_WEIGHTS names; `timbrel weights fetch encodec-24khz` does that. {NOTICE}"
)
WEIGHTS = "codec.safetensors"
DESCRIPTION = "codec.json"

# What the architecture here takes for granted, in the words of a Hugging Face config.json.
_FIXED: Mapping[str, Any] = {
    "model_type": "encodec",
    "sampling_rate": SAMPLE_RATE,
    "audio_channels": 1,
    "hidden_size": DIMENSIONS,
    "codebook_dim": DIMENSIONS,
    "normalize": False,
    "chunk_length_s": None,
    "norm_type": "weight_norm",
    "use_causal_conv": True,
    "pad_mode": "reflect",
    "kernel_size": 7,
    "last_kernel_size": 7,
    "residual_kernel_size": 3,
    "num_residual_layers": 1,
    "num_lstm_layers": 2,
    "compress": 2,
    "trim_right_ratio": 1.0,
    "use_conv_shortcut": True,
}
_HALF = re.compile(r"^(encoder|decoder)\.(?:model|layers)\.")
_CONVOLUTION = re.compile(r"\.(?:conv\.conv|convtr\.convtr|conv)\.(?=weight|bias|parametrizations)")
_CODEBOOK = re.compile(r"^quantizer\.(?:vq\.)?layers\.(\d+)\.(?:_codebook|codebook)\.(\w+)$")
# Statistics of the training, of no use after it.
_TRAINING_ONLY = {"inited", "cluster_size", "embed_avg"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodecWeights:
    """A network in evaluation mode, and where it came from: for people, for the manifest, for comparing."""

    network: Encodec
    source: str
    licence: str
    sha256: str


def find_weights(given: str, folder: Path) -> Path:
    """``given`` (codec.weights; empty when not set), else what lies in ``folder``.

    Raises DataError that says how to get the weights.
    """
    if given:
        return Path(given).expanduser()
    names = (PUBLISHED_FILE, PUBLISHED_FOLDER, PUBLISHED_FOLDER.rpartition("/")[2])
    for path in (folder / name for name in names):
        if path.exists():
            return path
    raise DataError(f"no EnCodec weights: {ADVICE}")


def read_weights(
    path: Path, *, quantisers: int = 32, embedding_range: tuple[float, float] | None = None
) -> EncodecWeights:
    """Read a ``.th`` file or a Hugging Face folder; the rest is ``EncodecConfig``'s.

    Raises DataError, one line, when nothing is there, when the file is not the one that its name promises, or when it
    is not EnCodec at 24 kHz.
    """
    if path.is_dir():
        config, file = _config_of(path), path / "model.safetensors"
        if not file.is_file():
            raise DataError(f"{file} is missing: {ADVICE}")
        content = _safetensors(file)
        digest = sha256_of(file)
    elif path.is_file():
        config, file = EncodecConfig(), path
        digest = sha256_of(file)
        _check_name(file, digest)
        content = _state_dict(file)
    else:
        raise DataError(f"{path} is missing: {ADVICE}")
    if not 0 <= quantisers <= config.codebooks:
        raise DataError(f"{path} has {config.codebooks} codebooks, {quantisers} are asked for: ask for fewer")
    network = Encodec(replace(config, quantisers=quantisers, embedding_range=embedding_range))
    _fill(network, _plain(content, file), file)
    source = f"EnCodec 24 kHz, weights supplied by the user: {path.name}, sha256 {digest}"
    return EncodecWeights(network=network.eval(), source=source, licence=LICENCE, sha256=digest)


def save_encodec(weights: EncodecWeights, folder: Path, record: Mapping[str, Any]) -> None:
    """Keep a codec of kind ``encodec`` in ``folder``, the description last, as ``storage.save_codec`` does."""
    network = weights.network
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_write(folder / WEIGHTS) as handle:
        handle.write(save(tensors))
    description = {
        "kind": "encodec",
        "config": asdict(network.config),
        "sample_rate": SAMPLE_RATE,
        "frame_rate": SAMPLE_RATE / HOP,
        "hop": HOP,
        "dimensions": DIMENSIONS,
        "source": weights.source,
        "source_sha256": weights.sha256,
        "licence": weights.licence,
        "sha256": sha256_of(folder / WEIGHTS),
        "record": dict(record),
    }
    with atomic_write(folder / DESCRIPTION) as handle:
        handle.write((json.dumps(description, indent=2) + "\n").encode())


def load_encodec(folder: Path) -> EncodecWeights:
    """What ``save_encodec`` kept. Raises DataError when it is missing, torn, or of another kind."""
    path, file = folder / DESCRIPTION, folder / WEIGHTS
    if not path.is_file() or not file.is_file():
        raise DataError(f"{path if file.is_file() else file} is missing: run the codec stage")
    description = json.loads(path.read_text())
    if description.get("kind") != "encodec":
        raise DataError(f"{path} is of kind {description.get('kind')!r}, not 'encodec': run the codec stage")
    if sha256_of(file) != description["sha256"]:
        raise DataError(f"{file} is not the file that {DESCRIPTION} names: run the codec stage again")
    values = description["config"]
    limits = values["embedding_range"]
    config = EncodecConfig(
        **values | {"ratios": tuple(values["ratios"]), "embedding_range": tuple(limits) if limits else None}
    )
    network = Encodec(config)
    _fill(network, load(file.read_bytes()), file)
    return EncodecWeights(
        network=network.eval(),
        source=description["source"],
        licence=description["licence"],
        sha256=description["source_sha256"],
    )


def _config_of(folder: Path) -> EncodecConfig:
    """The sizes in a Hugging Face config.json, once everything else in it is what the architecture here has."""
    path = folder / "config.json"
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        other = next(
            (key for key, value in _FIXED.items() if given.get(key, value) not in (value, None)), None
        )
        if other:
            raise DataError(f"{path} is not EnCodec at 24 kHz ({other} is {given[other]!r}): {ADVICE}")
        size = int(given["codebook_size"])
        # Every codebook costs log2(size) bits in each of the 75 frames of a second.
        codebooks = int(1_000 * given["target_bandwidths"][-1] // (75 * (size - 1).bit_length()))
        config = EncodecConfig(
            filters=int(given["num_filters"]),
            ratios=tuple(map(int, given["upsampling_ratios"])),
            codebooks=codebooks,
            codebook_size=size,
        )
    except FileNotFoundError:
        raise DataError(f"{path} is missing: {ADVICE}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{path} does not describe an EnCodec model ({error!r}): {ADVICE}") from error
    hop = 1
    for ratio in config.ratios:
        hop *= ratio
    if hop != HOP:
        raise DataError(f"{path} has {hop} samples a frame, not {HOP}: {ADVICE}")
    return config


def _check_name(file: Path, digest: str) -> None:
    """A name that ends in -xxxxxxxx promises the beginning of the file's SHA-256."""
    promised = re.search(r"-([0-9a-f]{8})$", file.stem)
    if promised and not digest.startswith(promised[1]):
        raise DataError(
            f"{file} is damaged: its sha256 begins with {digest[:8]}, not {promised[1]}; fetch it again"
        )


def _state_dict(file: Path) -> dict[str, Tensor]:
    try:
        # Nothing in the file is run: only tensors come out of it.
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise DataError(f"{file} is not a file of torch weights: {ADVICE}") from error
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise DataError(f"{file} does not hold a model's weights by name: {ADVICE}")
    return dict(content)


def _safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, ValueError) as error:
        raise DataError(f"{file} is not a safetensors file: {ADVICE}") from error


def _plain(content: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Published names and weight normalisation -> the names and weights of ``Encodec``."""
    plain: dict[str, Tensor] = {}
    books: dict[int, Tensor] = {}
    for name, tensor in content.items():
        if book := _CODEBOOK.match(name):
            if book[2] == "embed":
                books[int(book[1])] = tensor
            elif book[2] not in _TRAINING_ONLY:
                plain[name] = tensor
            continue
        name = _CONVOLUTION.sub(".", _HALF.sub(r"\1.", name))
        name = name.replace("parametrizations.weight.original0", "weight_g")
        plain[name.replace("parametrizations.weight.original1", "weight_v")] = tensor
    for name in [name.removesuffix("_g") for name in plain if name.endswith(".weight_g")]:
        length, direction = plain.pop(f"{name}_g"), plain.pop(f"{name}_v", None)
        if direction is None:
            raise DataError(f"{file} lacks {name}_v: {ADVICE}")
        # torch's own operation, so that not even the rounding differs: length * direction / ‖direction‖.
        plain[name] = torch._weight_norm(direction, length, 0)
    if books:
        if sorted(books) != list(range(len(books))) or len({book.shape for book in books.values()}) > 1:
            raise DataError(f"{file} lacks some of its codebooks: {ADVICE}")
        plain["codebooks"] = torch.stack([books[i] for i in range(len(books))])
    return plain


def _fill(network: Encodec, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Give ``network`` exactly these tensors. Raises DataError that names the first that is amiss."""
    wanted = network.state_dict()
    if absent := sorted(set(wanted) - set(tensors)):
        raise DataError(f"{file} lacks {absent[0]} and {len(absent) - 1} more of {len(wanted)}: {ADVICE}")
    if foreign := sorted(set(tensors) - set(wanted)):
        raise DataError(f"{file} holds {foreign[0]}, which EnCodec at 24 kHz has not: {ADVICE}")
    for name, tensor in wanted.items():
        if tensor.shape != tensors[name].shape:
            found, right = (" × ".join(map(str, t.shape)) for t in (tensors[name], tensor))
            raise DataError(f"{file} has {name} as {found}, EnCodec at 24 kHz as {right}: {ADVICE}")
    network.load_state_dict(dict(tensors))
