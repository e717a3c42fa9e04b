"""The magnitude codec's decoder for others to read spectra with: plain tensors, no codec needed to hold them."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from timbrel.codec.storage import DESCRIPTION, load_codec
from timbrel.errors import DataError


def spectrum_weights(folder: Path) -> dict[str, Tensor] | None:
    """The decoder of the codec of ``folder``, by the names that ``pgesam.comb.SpectrumDecoder`` gives its tensors.

    None for EnCodec, whose frames stand for no spectrum. Raises DataError when the codec is missing or torn.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise DataError(f"{path} is missing: run the codec stage")
    if json.loads(path.read_text()).get("kind") == "encodec":
        return None
    state = load_codec(folder).state_dict()
    residual = "synthesis_residual."
    learned = {f"learned.{name.removeprefix(residual)}": state[name] for name in state if residual in name}
    statistics = {name: state[name] for name in ("mean", "latent_mean", "latent_scale")}
    return {"direct.weight": state["synthesis.weight"], **learned, **statistics}
