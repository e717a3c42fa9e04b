"""What the engine knows about models: names, arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np


class Models(Protocol):
    """Runs the models of one bundle; safe to call from several threads.

    ``run`` takes and gives arrays by the names in the bundle's manifest, batch first, and raises Unavailable
    (or DeadlineExceeded) when the model cannot answer.
    """

    def run(self, model: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...

    def close(self) -> None: ...
