"""Inverted lists of 8-bit codes, by pitch: what ``scan`` reads candidates from ("ivf_sq").

The cells are those of one k-means over all partitions, since the encoder hears the same timbre at every pitch; list
(partition, cell) holds what lies in both. So a gate is a choice of lists, and the cells nearest to a query are found
once for all of its partitions. A list's entries lie in blocks of ``LANES``, each block component by component:

    codes[block, component, lane]    int8, steps of the component; a list's last block is filled up with zeros

They are codes of the principal components that keep most of the length, and only choose the candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from timbrel.library import inverted
from timbrel.library.partitions import Store

KIND = "ivf_sq"
# Entries of a block: so many float32 fill a register.
LANES = 16
# Sums that are added up side by side; the number of components is a multiple of it.
TERMS = 4
_STEPS = 127  # of a component either side of zero
_CELL_SIZE = 40  # vectors; smaller cells cost more in finding than they save in reading


class Lists(NamedTuple):
    """A choice of lists, as ``scan.nearest`` takes them.

    ``rotation`` float32 [r, d]; ``centroids`` float32, ``cells`` of them in blocks as codes are; ``steps`` float32
    [r]; ``codes`` int8; ``rows`` int32, list by list; list l has the codes from block entry ``code_starts``[l], the
    rows from ``row_starts``[l] to [l + 1], both int64; of partition p the ``efforts``[p] nearest cells are read, whose
    lists begin at ``first_lists``[p]. ``room``: entries that may be read at once; 0, and nothing is.
    """

    rotation: np.ndarray
    centroids: np.ndarray
    cells: int
    steps: np.ndarray
    codes: np.ndarray
    rows: np.ndarray
    code_starts: np.ndarray
    row_starts: np.ndarray
    first_lists: np.ndarray
    efforts: np.ndarray
    room: int


# What ``scan.nearest`` is given where there is nothing to scan, and where no other searcher proposes anything.
NO_SLICES = np.empty((0, 2), np.int64)
NONE_GIVEN = np.empty((0, 0), np.int64)
NO_ROWS = np.empty(0, np.int64)
_FLOATS = np.empty(0, np.float32)
NO_LISTS = Lists(
    np.empty((0, 0), np.float32), _FLOATS, 0, _FLOATS, np.empty(0, np.int8), np.empty(0, np.int32),
    NO_ROWS, NO_ROWS, NO_ROWS, NO_ROWS, 0,
)  # fmt: skip


@dataclass(slots=True)
class Cells:
    """Lists over some partitions of a store, whose numbers are ``members``: a list for each cell of the first, then of
    the second, and so on. ``centroids`` float32 [cells, r]; ``sizes`` of the lists, int32; the rest as in ``Lists``.
    """

    store: Store
    members: list[int]
    rotation: np.ndarray
    centroids: np.ndarray
    steps: np.ndarray
    codes: np.ndarray
    rows: np.ndarray
    sizes: np.ndarray
    # What every choice of lists shares.
    _blocks: np.ndarray = field(init=False)
    _code_starts: np.ndarray = field(init=False)
    _row_starts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self._blocks = blocks(self.centroids)
        self._code_starts, self._row_starts = _starts(_padded(self.sizes)), _starts(self.sizes)

    @property
    def efforts(self) -> tuple[int, ...]:
        """Numbers of cells to read, least first."""
        return inverted.ladder(len(self.centroids))

    def prepare(self, efforts: Mapping[int, int]) -> Lists:
        """What ``search`` takes: of each of these partitions so many cells."""
        cells = len(self.centroids)
        firsts = [self.members.index(number) * cells for number in efforts]
        # The most that so many lists of a partition hold.
        room = sum(
            int(np.sort(self.sizes[first : first + cells])[::-1][:effort].sum())
            for first, effort in zip(firsts, efforts.values(), strict=True)
        )
        return Lists(
            self.rotation,
            self._blocks,
            cells,
            self.steps,
            self.codes,
            self.rows,
            self._code_starts,
            self._row_starts,
            np.array(firsts, dtype=np.int64),
            np.array(list(efforts.values()), dtype=np.int64),
            max(room, 1),
        )

    def search(self, vectors: np.ndarray, lists: Lists, k: int) -> np.ndarray:
        """The rows of the ``k`` nearest to each of ``vectors`` [q, d], int64 [q, k], -1 for none."""
        from timbrel.library import scan

        rows = np.full((len(vectors), k), -1, dtype=np.int64)
        distances = np.empty(rows.shape, dtype=np.float32)
        scan.nearest(self.store.vectors, NO_ROWS, vectors, NO_SLICES, NONE_GIVEN, *lists, rows, distances)
        return rows

    def layout(self) -> dict[str, Any]:
        """What of this goes into an index's sidecar."""
        return {"members": self.members, "cells": list(self.centroids.shape)}

    def arrays(self) -> dict[str, np.ndarray]:
        """What of this goes into an index's data file."""
        return {
            f"{KIND}.rotation": self.rotation.astype("<f4", copy=False),
            f"{KIND}.centroids": self.centroids.astype("<f4", copy=False),
            f"{KIND}.steps": self.steps.astype("<f4", copy=False),
            f"{KIND}.sizes": self.sizes.astype("<i4", copy=False),
            f"{KIND}.rows": self.rows.astype("<i4", copy=False),
            f"{KIND}.codes": self.codes,
        }

    def forget(self, partition: int) -> None:
        """Drop a partition's lists: it is searched in another way."""
        place, cells = self.members.index(partition), len(self.centroids)
        keep = np.repeat(np.arange(len(self.members)) != place, cells)
        self.rows = self.rows[np.repeat(keep, self.sizes)]
        self.codes = self.codes[np.repeat(keep, _padded(self.sizes) * len(self.rotation))]
        self.sizes = self.sizes[keep]
        del self.members[place]
        self.__post_init__()


def fit(store: Store, members: Sequence[int], *, seed: int = 0) -> Cells:
    """Train on the partitions ``members`` (their numbers) of the store, and file their vectors."""
    sample, mean_size = inverted.sample(store, members, seed)
    rotation = inverted.principal(sample)
    rotation = np.pad(rotation, ((0, -len(rotation) % TERMS), (0, 0)))
    seen = sample @ rotation.T
    centroids = inverted.means(seen, mean_size / _CELL_SIZE, seed)
    steps = np.abs(seen).max(axis=0) / np.float32(_STEPS)
    steps[steps == 0] = 1
    codes, rows, sizes = [], [], []
    for number in members:
        part = store.partitions[number]
        seen = store.vectors[part.start : part.stop] @ rotation.T
        cell = (seen @ centroids.T).argmax(axis=1)
        order = np.argsort(cell, kind="stable")
        filed = np.bincount(cell, minlength=len(centroids)).astype(np.int32)
        coded = np.rint(seen[order] / steps).clip(-_STEPS, _STEPS).astype(np.int8)
        stops = np.cumsum(filed)
        codes += [
            blocks(coded[start:stop])
            for start, stop in zip(stops - filed, stops, strict=True)
            if stop > start
        ]
        rows.append((order + part.start).astype(np.int32))
        sizes.append(filed)
    return Cells(
        store,
        list(members),
        rotation,
        centroids,
        steps,
        np.concatenate(codes),
        np.concatenate(rows),
        np.concatenate(sizes),
    )


def restore(layout: Mapping[str, Any], arrays: Mapping[str, np.ndarray], store: Store) -> Cells:
    """What ``layout`` and ``arrays`` kept. Raises ValueError where the parts do not belong together."""
    cells, components = layout["cells"]
    members = [int(number) for number in layout["members"]]
    kept = {
        name: arrays[f"{KIND}.{name}"].view(kind).astype(kind[1:])
        for name, kind in {
            "rotation": "<f4", "centroids": "<f4", "steps": "<f4", "sizes": "<i4", "rows": "<i4", "codes": "|i1",
        }.items()
    }  # fmt: skip
    sizes, rows = kept["sizes"], kept["rows"]
    if components % TERMS or len(kept["steps"]) != components or len(sizes) != cells * len(members):
        raise ValueError(f"{len(sizes)} lists of {components} components for {len(members)} partitions")
    if sizes.min(initial=0) < 0 or len(kept["codes"]) != int(_padded(sizes).sum()) * components:
        raise ValueError(f"the lists of {KIND} hold {len(kept['codes'])} codes")
    held = np.split(rows, np.cumsum(sizes.reshape(-1, cells).sum(axis=1))[:-1])
    for number, each in zip(members, held, strict=True):
        part = store.partitions[number]
        if not np.array_equal(np.sort(each), np.arange(part.start, part.stop)):
            raise ValueError(f"the lists of {KIND} do not hold partition {number}")
    return Cells(
        store,
        members,
        kept["rotation"].reshape(components, store.dimension),
        kept["centroids"].reshape(cells, components),
        kept["steps"],
        kept["codes"],
        rows,
        sizes,
    )


def blocks(entries: np.ndarray) -> np.ndarray:
    """Entries [n, r] in blocks, flat: of each ``LANES`` of them component by component."""
    filled = np.pad(entries, ((0, -len(entries) % LANES), (0, 0)))
    return np.ascontiguousarray(filled.reshape(-1, LANES, entries.shape[1]).swapaxes(1, 2)).ravel()


def _padded(sizes: np.ndarray) -> np.ndarray:
    return -(-sizes.astype(np.int64) // LANES) * LANES


def _starts(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
