"""Published encoders as they are served beside a bundle's models: one ONNX file each, and a sidecar that describes it.

<folder>/<name>.onnx
<folder>/<name>.json    sha256, source, licence, tensors, sample rate, style
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from timbrel.errors import BundleError
from timbrel.files import atomic_write, sha256_of
from timbrel.library.manifest import MODELS, ModelEntry, Tensor

FORMAT = "timbrel-encoder-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One encoder. ``hears``: ``sample_rate`` in Hz and ``samples`` of a clip at it; ``style``: blocks and kind."""

    name: str
    sha256: str
    model: ModelEntry
    hears: Mapping[str, int]
    style: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        content = {"format": FORMAT, **asdict(self)}
        with atomic_write(folder / f"{self.name}.json") as handle:
            handle.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_exported(folder: Path) -> list[Exported]:
    """Every encoder of ``folder``, each file checked by its hash.

    Raises BundleError when there is none, or one is torn, of another format, or named like a bundle's model.
    """
    found = [_read(path) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise BundleError(
            f"{folder} holds no exported encoder: `timbrel encoders export NAME --to {folder}` makes one"
        )
    return found


def _read(path: Path) -> Exported:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        model = content.pop("model")
        sides = {side: _tensors(model[side]) for side in ("inputs", "outputs")}
        exported = Exported(model=ModelEntry(**model | sides), **content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path} describes no exported encoder ({error}): export it again") from error
    if exported.name != path.stem or exported.name in MODELS:
        raise BundleError(f"{path} is of {exported.name!r}, which is no name for it: export it again")
    weights = path.with_suffix(".onnx")
    if not weights.is_file() or sha256_of(weights) != exported.sha256:
        raise BundleError(f"{weights} is not the file that {path.name} describes: export it again")
    return exported


def _tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: Tensor(dtype=each["dtype"], shape=tuple(each["shape"])) for name, each in content.items()}
