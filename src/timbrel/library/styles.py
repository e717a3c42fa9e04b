"""The stage-2 vectors of a library, as its searches compare them.

    d(x, y) = 1 − cos(W x, W y)

W makes little of what notes of one instrument differ in (``encoders.within_class``); a library without it compares the
vectors as they are. W is applied to none of the library's vectors: with G = W W the cosine of a query and a render is
(G q) · r / (|W q| |W r|), which costs a search one product with G, and the library one number for each render.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from timbrel.errors import BundleError
from timbrel.files import atomic_write

FILE_NAME = "whitening.npy"
_CHUNK = 8_192
_LEAST = np.float32(1e-12)


class Styles:
    """Stage-2 vectors [renders, d2] of any float type, l2-normalised; ``whitening`` W, symmetric [d2, d2], or None.

    Raises BundleError when they do not fit each other.
    """

    def __init__(self, vectors: np.ndarray, whitening: np.ndarray | None = None) -> None:
        self.vectors = vectors
        self.whitening = whitening
        if whitening is not None:
            if whitening.shape != (self.dimension, self.dimension):
                raise BundleError(
                    f"the whitening is {list(whitening.shape)} where styles have {self.dimension} numbers; rebuild the "
                    "index with the encoder of this library"
                )
            wide = whitening.astype(np.float32)
            self._product = wide @ wide
            self._lengths = np.concatenate(
                [
                    np.linalg.norm(vectors[start : start + _CHUNK].astype(np.float32) @ wide, axis=1)
                    for start in range(0, len(vectors), _CHUNK)
                ]
                or [np.empty(0, dtype=np.float32)]
            )

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dimension(self) -> int:
        """d2."""
        return int(self.vectors.shape[1])

    def distances(self, query: np.ndarray, rows: np.ndarray | Sequence[int]) -> np.ndarray:
        """1 − cosine of the query [d2] and the given rows, as above; float32 [rows]."""
        if self.whitening is None:
            return exact_distances(query, self.vectors, rows)
        turned = self._product @ query.astype(np.float32)
        length = np.sqrt(max(float(turned @ query), 0.0))
        products = self.vectors[rows].astype(np.float32) @ turned
        cosines = products / np.maximum(self._lengths[rows] * np.float32(length), _LEAST)
        return np.maximum(1 - cosines, np.float32(0))


def exact_distances(query: np.ndarray, stage2: np.ndarray, rows: np.ndarray | Sequence[int]) -> np.ndarray:
    """1 − cosine of the query and the given rows, float32 [rows]. Half precision is widened before the
    product.
    """
    similarity = stage2[rows].astype(np.float32) @ query.astype(np.float32)
    return np.maximum(1 - similarity, np.float32(0))


def whitened(vectors: np.ndarray, whitening: np.ndarray | None) -> np.ndarray:
    """Vectors [n, d2] of length 1, float32, whose cosines are those that a search with W compares."""
    wide = np.asarray(vectors, dtype=np.float32)
    wide = wide if whitening is None else wide @ whitening.astype(np.float32)
    unit: np.ndarray = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), _LEAST)
    return unit


def save_whitening(folder: Path, whitening: np.ndarray) -> None:
    """Write W, in half precision, into ``folder``: that of the encoder, then that of a library's index."""
    with atomic_write(folder / FILE_NAME) as handle:
        np.save(handle, whitening.astype(np.float16), allow_pickle=False)


def load_whitening(folder: Path) -> np.ndarray | None:
    """What ``save_whitening`` wrote, float16 [d2, d2]; None where nothing is.

    Raises BundleError when the file is not that.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        found: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read ({error}); rebuild the index") from error
    if (
        found.shape != found.shape[:1] * 2
        or found.dtype != np.float16
        or not np.isfinite(found).all()
        or (found != found.T).any()
    ):
        raise BundleError(f"{path} is not a symmetric matrix of float16; rebuild the index")
    return found
