"""Which patches sound like a former one, of hundreds of thousands: ``notes.selection.Duplicates``, a bound first.

The distance of two pictures is the sum of their cells' differences over the number of cells that count. The difference
of two sums is no more than the sum of the differences, so pictures whose sums over blocks of cells are too far apart
need not be compared: nothing nearer than the threshold is missed.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Self

import numpy as np

from timbrel.notes.selection import distance_db

_KEYS, _FRAMES, _BANDS = 3, 24, 40
# Blocks of 6 frames by 8 bands at each key.
_ROOMS = (_KEYS, 4, 6, 5, 8)
_SUMS = _KEYS * 4 * 5
# Sums are of float32: a bound may be off by this share.
_SLACK = 1e-4


class Copies:
    """Remembers the pictures of kept patches, on disk, and tells when a further one sounds like one of them."""

    def __init__(self, threshold_db: float, *, most: int, folder: Path) -> None:
        """``most`` patches at most; their pictures (12 kB each) lie in a temporary file in ``folder``."""
        self._threshold = threshold_db
        self._names: list[str] = []
        self._total = np.empty(most, dtype=np.float32)
        self._sums = np.empty((most, _SUMS), dtype=np.float32)
        self._sounding = np.empty(most, dtype=np.int32)
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115 - until __exit__
        shape = (max(most, 1), _KEYS, _FRAMES, _BANDS)
        self._pictures = np.memmap(self._file, dtype=np.float32, mode="w+", shape=shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._pictures
        self._file.close()

    def check(self, name: str, image: np.ndarray) -> str | None:
        """The kept patch that ``image`` float32 [3, 24, 40] is of (nearer than the threshold), or None; then it is
        kept."""
        sums = image.reshape(_ROOMS).sum(axis=(2, 4)).reshape(_SUMS)
        total, sounding, count = sums.sum(), int(np.count_nonzero(image > 0)), len(self._names)
        cells = np.minimum(self._sounding[:count] + sounding, image.size)
        furthest = self._threshold * np.maximum(cells, 1) * (1 + _SLACK) + _SLACK * total
        near = np.flatnonzero(np.abs(self._total[:count] - total) <= furthest)
        near = near[np.abs(self._sums[near] - sums).sum(axis=1) <= furthest[near]]
        if len(near):
            distances = distance_db(image, self._pictures[near])
            nearest = int(np.argmin(distances))
            if distances[nearest] < self._threshold:
                return self._names[int(near[nearest])]
        self._names.append(name)
        self._total[count], self._sums[count], self._sounding[count] = total, sums, sounding
        self._pictures[count] = image
        return None
