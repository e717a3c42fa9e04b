"""What an encoder is: clips in, an embedding out and, where its network has blocks, their style; both from one pass.

Every encoder hears the same clips (``frontend.clip``): 3 s from the onset at one level, float32 [b, 72000] at 24 kHz.
What its own network wants of them, another sample rate or a picture, is its own affair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import soxr

from timbrel.encoders.frontend import CLIP_SAMPLES, SAMPLE_RATE

# One call of one model: (name, inputs) -> outputs, batch first. ``Models.run`` of the engine is one.
RunModel = Callable[[str, Mapping[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Hearing:
    """What becomes of a clip before an encoder's own front end: its sample rate in Hz."""

    sample_rate: int = SAMPLE_RATE

    @property
    def samples(self) -> int:
        """Length of a clip at that rate."""
        return CLIP_SAMPLES * self.sample_rate // SAMPLE_RATE

    def of(self, clips: np.ndarray) -> np.ndarray:
        """Clips [b, 72000] at this rate: float32 [b, ``samples``]."""
        clips = np.ascontiguousarray(clips, dtype=np.float32)
        if self.sample_rate == SAMPLE_RATE:
            return clips
        resampled = np.zeros((len(clips), self.samples), dtype=np.float32)
        for row, each in zip(resampled, clips, strict=True):
            found = soxr.resample(each, SAMPLE_RATE, self.sample_rate)[: self.samples]
            row[: len(found)] = found
        return resampled


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of b clips, float32: ``embedding`` [b, d] and ``style`` [b, d2], None where there are no blocks."""

    embedding: np.ndarray
    style: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Style:
    """Which style of a network: of ``blocks`` (None: all of them), by ``moments`` or by ``gram`` matrices."""

    blocks: tuple[str, ...] | None = None
    kind: Literal["moments", "gram"] = "moments"


class Encoder(Protocol):
    """Safe to call from several threads."""

    @property
    def name(self) -> str: ...

    @property
    def hears(self) -> Hearing: ...

    def embed(self, clips: np.ndarray) -> Embedded:
        """Clips [b, 72000] (``frontend.clip``) to vectors; distances are cosine or l2, as who compares likes."""
        ...
