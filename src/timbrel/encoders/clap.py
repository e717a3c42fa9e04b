"""LAION's CLAP (Wu et al. 2023): its audio tower, run by the `laion-clap` package's own module, from its checkpoints.

    ten seconds [b, 480000] ─► log-mel ─► patches ─► four stages of a Swin transformer (HTSAT) ─► mean ─► 512 numbers

Which HTSAT it is (base in ``music_audioset_epoch_15_esc_90.14.pt``, tiny in ``630k-audioset-best.pt``), the file tells.
The text tower is in ``clap_text``. Neither the weights nor the package is part of this repository.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from timbrel.encoders.blocks import style_of
from timbrel.encoders.clap_input import SAMPLE_RATE, SAMPLES
from timbrel.encoders.graph import Free, Graph
from timbrel.encoders.interface import Style
from timbrel.errors import DataError

SIZE = 512

# By the channels of a patch.
_HTSAT = {96: "tiny", 128: "base"}
_ALIAS = "timbrel_laion_clap"
_FRONT_END = SimpleNamespace(
    sample_rate=SAMPLE_RATE, window_size=1_024, hop_size=480, mel_bins=64, fmin=50, fmax=14_000, class_num=527
)
# How numpy's scalars, which the training left beside the weights, are pickled: data, nothing that runs.
_SCALARS: list[Any] = [
    (np.float64().__reduce__()[0], "numpy.core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64")),
]


class AudioTower(nn.Module):
    """Ten seconds [b, 480000] at 48 kHz (``clap_input``) to embeddings [b, 512] of length 1."""

    def __init__(self, htsat: str) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # how it calls torch.meshgrid
            self.branch = _package().create_htsat_model(SimpleNamespace(**vars(_FRONT_END), model_name=htsat))
        self.projection = projection(self.branch.num_features)

    def blocks(self, audio: Tensor) -> dict[str, Tensor]:
        """Feature maps [b, channels, rows, columns], by name, in order: ``patches``, ``stage1`` … ``stage4``.

        A stage's maps are those before it is merged into the next, coarser one. The picture that they divide is the
        mel spectrogram in four strips of a quarter of the time each, one above the other.
        """
        branch = self.branch
        mel = branch.logmel_extractor(branch.spectrogram_extractor(audio))
        mel = branch.bn0(mel.transpose(1, 3)).transpose(1, 3)
        tokens = branch.patch_embed(branch.reshape_wav2img(mel))
        maps = {"patches": _as_map(tokens, branch.layers[0])}
        for number, stage in enumerate(branch.layers, start=1):
            for block in stage.blocks:
                tokens, _ = block(tokens)
            maps[f"stage{number}"] = _as_map(tokens, stage)
            if stage.downsample is not None:
                tokens = stage.downsample(tokens)
        return maps

    def embedding(self, last: Tensor) -> Tensor:
        """The maps of ``stage4`` to the embedding."""
        mean = self.branch.norm(last.flatten(2).transpose(1, 2)).mean(dim=1)
        return functional.normalize(self.projection(mean), dim=-1)

    def forward(self, audio: Tensor) -> Tensor:
        return self.embedding(self.blocks(audio)["stage4"])


class WithStyle(nn.Module):
    """Ten seconds [b, 480000] to embedding [b, 512] and style [b, d]; one pass for both."""

    def __init__(self, tower: AudioTower, style: Style) -> None:
        super().__init__()
        self.tower = tower
        self._style = style

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.tower.blocks(audio)
        return self.tower.embedding(maps["stage4"]), style_of(maps, self._style.blocks, self._style.kind)


def graph(tower: AudioTower, style: Style) -> Graph:
    """``audio`` to ``embedding`` and ``style``; the batch is free."""
    return Graph(
        WithStyle(tower, style).eval(), inputs={"audio": (Free("b"), SAMPLES)}, outputs=("embedding", "style")
    )


def read_published(path: Path) -> AudioTower:
    """The audio tower of a checkpoint, in evaluation mode.

    ``published.find("clap-music")`` is such a file, checked. Raises DataError when it is of another network, and when
    the package is not installed.
    """
    with refusing(path):
        state = checkpoint(path)
        tower = AudioTower(_HTSAT[len(state["audio_branch.patch_embed.proj.bias"])])
        tower.branch.load_state_dict(part(state, "audio_branch."))
        tower.projection.load_state_dict(part(state, "audio_projection."))
    return tower.eval()


def projection(inputs: int) -> nn.Sequential:
    """From a tower's own numbers to those that both towers share."""
    return nn.Sequential(nn.Linear(inputs, SIZE), nn.ReLU(), nn.Linear(SIZE, SIZE))


def checkpoint(path: Path) -> Mapping[str, Tensor]:
    """The weights in a checkpoint, by name. What else the training left there is not read from disk, let alone run."""
    with torch.serialization.safe_globals(_SCALARS):
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    weights = content.get("state_dict", content)
    return {name.removeprefix("module."): weight for name, weight in weights.items()}


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): weight for name, weight in state.items() if name.startswith(prefix)}


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Whatever goes wrong with a file that is not CLAP's becomes one DataError."""
    try:
        yield
    except (
        UnpicklingError,
        RuntimeError,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        OSError,
        EOFError,
    ) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise DataError(f"{path} holds no CLAP network that is known here ({reason})") from e


def _as_map(tokens: Tensor, stage: nn.Module) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, stage.input_resolution)


def _package() -> Any:
    """`laion_clap.clap_module.htsat`, and nothing else of the package.

    Imported as a whole, the package asks a hub for the tokenizers of three language models, wants torchvision, and
    makes its own folders importable. Its module is therefore imported under a name of ours, beside a stand-in for the
    one neighbour that it takes two helpers of its training from.
    """
    name = f"{_ALIAS}.htsat"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.find_spec("laion_clap")
    if found is None or not found.submodule_search_locations:
        raise DataError("CLAP needs the laion-clap package: scripts/setup serve pipeline encoders")
    package, helpers = ModuleType(_ALIAS), ModuleType(f"{_ALIAS}.utils")
    package.__path__ = [str(Path(found.submodule_search_locations[0]) / "clap_module")]
    for helper in ("do_mixup", "interpolate"):
        setattr(helpers, helper, None)
    sys.modules |= {_ALIAS: package, helpers.__name__: helpers}
    module: Any = importlib.import_module(name)
    # Its own counts windows by a division of floats, which no export can follow.
    module.window_reverse = _window_reverse
    return module


def _window_reverse(windows: Tensor, size: int, height: int, width: int) -> Tensor:
    """Windows [b * n, size, size, channels] to [b, height, width, channels]."""
    rows, columns = height // size, width // size
    grid = windows.reshape(-1, rows, columns, size, size, windows.shape[-1])
    return grid.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])
