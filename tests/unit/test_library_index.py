"""The pitch-conditioned index against brute force, and its files against everything that can happen to files."""

from __future__ import annotations

import json
import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timbrel.errors import BundleError, DataError, InputError
from timbrel.files import atomic_write
from timbrel.library.index import SIDECAR, PitchIndex, read_sidecar, semitone

ENCODER = "e" * 64


def unit(rng: np.random.Generator, count: int, dimension: int) -> np.ndarray:
    vectors = rng.standard_normal((count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@st.composite
def libraries(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors, pitches (some NaN) and ids in no order."""
    count = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pitches = rng.uniform(40, 52, count)
    pitches[rng.random(count) < 0.2] = np.nan
    ids = rng.choice(10_000, count, replace=False).astype(np.int64)
    return unit(rng, count, draw(st.integers(1, 9))), pitches, ids


queries: st.SearchStrategy[dict[str, object]] = st.builds(
    dict,
    pitch=st.one_of(st.none(), st.floats(36, 56)),
    window=st.integers(0, 12),
    k=st.integers(1, 70),
)


def admitted(pitches: np.ndarray, pitch: float | None, window: int) -> np.ndarray:
    """Brute force: which entries the gate lets through, bool [n]."""
    if pitch is None:
        return np.ones(len(pitches), bool)
    filed = np.floor(pitches + 0.5)  # NaN stays NaN and compares false
    return np.abs(filed - math.floor(pitch + 0.5)) <= window


@settings(deadline=None, max_examples=150)
@given(libraries(), queries, st.integers(0, 2**32 - 1))
def test_every_answer_is_what_brute_force_finds_behind_the_gate(
    library: tuple[np.ndarray, np.ndarray, np.ndarray], query: dict[str, object], seed: int
) -> None:
    vectors, pitches, ids = library
    index = PitchIndex.build(vectors, pitches, encoder=ENCODER, ids=ids)
    pitch, window, k = query["pitch"], query["window"], query["k"]
    assert isinstance(window, int)
    assert isinstance(k, int)
    assert pitch is None or isinstance(pitch, float)
    vector = unit(np.random.default_rng(seed), 1, vectors.shape[1])[0]

    found = index.query(vector, pitch=pitch, window=window, k=k)

    inside = admitted(pitches, pitch, window)
    distances = np.maximum(1 - vectors @ vector, 0)
    assert set(found.ids) <= set(ids[inside])
    assert len(set(found.ids)) == len(found.ids) == min(k, inside.sum())
    np.testing.assert_allclose(found.distances, np.sort(distances[inside])[:k], atol=1e-6)
    by_id = dict(zip(ids.tolist(), distances.tolist(), strict=True))
    np.testing.assert_allclose(found.distances, [by_id[i] for i in found.ids.tolist()], atol=1e-6)
    assert np.array_equal(index.ids_within(pitch, window), np.sort(ids[inside]))


@settings(deadline=None, max_examples=30)
@given(libraries(), queries, st.integers(0, 2**32 - 1))
def test_a_loaded_index_answers_as_the_saved_one(
    tmp_path_factory: pytest.TempPathFactory,
    library: tuple[np.ndarray, np.ndarray, np.ndarray],
    query: dict[str, object],
    seed: int,
) -> None:
    vectors, pitches, ids = library
    index = PitchIndex.build(vectors, pitches, encoder=ENCODER, ids=ids)
    folder = tmp_path_factory.mktemp("index")
    index.save(folder)
    loaded = PitchIndex.load(folder, encoder=ENCODER)
    vector = unit(np.random.default_rng(seed), 1, vectors.shape[1])[0]
    before, after = index.query(vector, **query), loaded.query(vector, **query)  # type: ignore[arg-type]
    assert np.array_equal(before.ids, after.ids)
    assert np.array_equal(before.distances, after.distances)
    assert (len(loaded), loaded.semitones, loaded.dimension) == (len(index), index.semitones, index.dimension)


def test_equal_distances_come_in_the_order_of_their_ids() -> None:
    vectors = np.tile(np.array([[1, 0]], np.float32), (4, 1))
    ids = np.array([7, 3, 9, 1], np.int64)
    index = PitchIndex.build(vectors, np.array([60, 61, 60, 61.0]), encoder=ENCODER, ids=ids)
    found = index.query(vectors[0], pitch=60.4, window=1, k=4)
    assert found.ids.tolist() == [1, 3, 7, 9]
    assert found.distances.tolist() == [0, 0, 0, 0]


def test_a_render_is_filed_under_the_nearest_semitone_and_halves_go_up() -> None:
    assert [semitone(pitch) for pitch in (59.49, 59.5, 60.0, 60.49, 60.5, 61.5)] == [59, 60, 60, 60, 61, 62]
    vectors = unit(np.random.default_rng(0), 3, 4)
    index = PitchIndex.build(vectors, np.array([59.49, 60.49, np.nan]), encoder=ENCODER)
    assert index.semitones == (59, 60)
    assert index.ids_within(60, 0).tolist() == [1]
    assert index.ids_within(None, 0).tolist() == [0, 1, 2]


def test_a_gate_without_renders_finds_nothing() -> None:
    index = PitchIndex.build(unit(np.random.default_rng(0), 2, 3), np.array([60.0, 61.0]), encoder=ENCODER)
    found = index.query(np.array([1, 0, 0], np.float32), pitch=80, window=2, k=5)
    assert len(found.ids) == len(found.distances) == 0


@pytest.mark.parametrize(
    ("vector", "options", "message"),
    [
        (np.array([1, 0], np.float32), {}, r"shape \[2\]"),
        (np.array([[1, 0, 0]], np.float32), {}, r"shape \[1, 3\]"),
        (np.array([1, 0, 0], np.float64), {}, "float32"),
        (np.array([np.nan, 0, 0], np.float32), {}, "not finite"),
        (np.array([2, 0, 0], np.float32), {}, "l2-normalised"),
        (np.zeros(3, np.float32), {}, "l2-normalised"),
        (np.array([1, 0, 0], np.float32), {"k": 0}, "k is 0"),
        (np.array([1, 0, 0], np.float32), {"window": -1}, "cannot be negative"),
        (np.array([1, 0, 0], np.float32), {"pitch": math.nan}, "finite MIDI"),
        (np.array([1, 0, 0], np.float32), {"pitch": math.inf}, "finite MIDI"),
    ],
)
def test_a_query_that_faiss_would_mishandle_is_refused_first(
    vector: np.ndarray, options: dict[str, float], message: str
) -> None:
    index = PitchIndex.build(unit(np.random.default_rng(0), 5, 3), np.full(5, 60.0), encoder=ENCODER)
    with pytest.raises(InputError, match=message):
        index.query(vector, **{"pitch": 60.0, "window": 1, "k": 3, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("vectors", "pitches", "ids", "message"),
    [
        (np.eye(2), [60, 60], None, "float32"),
        (np.eye(2, dtype=np.float32)[0], [60], None, r"float32 \[n, d\]"),
        (np.zeros((0, 2), np.float32), [], None, r"\[0, 2\]"),
        (np.eye(2, dtype=np.float32) * 3, [60, 60], None, "l2-normalised"),
        (np.full((2, 2), np.nan, np.float32), [60, 60], None, "finite"),
        (np.eye(2, dtype=np.float32), [60], None, "2 finite numbers"),
        (np.eye(2, dtype=np.float32), [60, math.inf], None, "2 finite numbers"),
        (np.eye(2, dtype=np.float32), [60, 60], [1, 1], "unique"),
        (np.eye(2, dtype=np.float32), [60, 60], [-1, 1], "not negative"),
        (np.eye(2, dtype=np.float32), [60, 60], [1], "int64"),
    ],
)
def test_vectors_unfit_for_an_index_are_refused(
    vectors: np.ndarray, pitches: list[float], ids: list[int] | None, message: str
) -> None:
    given_ids = None if ids is None else np.array(ids, np.int64)
    with pytest.raises(DataError, match=message):
        PitchIndex.build(vectors, np.array(pitches), encoder=ENCODER, ids=given_ids)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    PitchIndex.build(unit(rng, 40, 6), rng.uniform(48, 72, 40), encoder=ENCODER).save(tmp_path / "index")
    return tmp_path / "index"


def data_file(folder: Path) -> Path:
    return folder / read_sidecar(folder)["file"]


@pytest.mark.parametrize("position", [0, 7, 500, -1])
def test_a_changed_byte_is_noticed(saved: Path, position: int) -> None:
    content = bytearray(data_file(saved).read_bytes())
    content[position] ^= 1
    data_file(saved).write_bytes(content)
    with pytest.raises(BundleError, match="does not match the hash"):
        PitchIndex.load(saved)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_torn_file_is_refused(saved: Path, share: float) -> None:
    content = data_file(saved).read_bytes()
    data_file(saved).write_bytes(content[: int(share * len(content))])
    with pytest.raises(BundleError, match="bytes where its sidecar says"):
        PitchIndex.load(saved)


def test_missing_files_are_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"index\.json is missing"):
        PitchIndex.load(tmp_path)
    data_file(saved).unlink()
    with pytest.raises(BundleError, match=r"vectors-.* is missing"):
        PitchIndex.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"metric": "l2"}, "metric l2"),
        ({"count": 39}, "cannot be read"),
        ({"dimension": 5}, "cannot be read"),
        ({"partitions": []}, "cannot be read"),
        ({"partitions": [{}]}, "cannot be read"),
        ({"file": 3}, "field 'file'"),
        ({"file": "../vectors.bin"}, "is missing"),
        ({"bytes": True}, "field 'bytes'"),
    ],
)
def test_a_sidecar_that_does_not_fit_is_refused(saved: Path, change: dict[str, object], message: str) -> None:
    content = json.loads((saved / SIDECAR).read_text()) | change
    (saved / SIDECAR).write_text(json.dumps(content))
    with pytest.raises(BundleError, match=message):
        PitchIndex.load(saved)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"null"])
def test_a_foreign_sidecar_is_refused(saved: Path, content: bytes) -> None:
    (saved / SIDECAR).write_bytes(content)
    with pytest.raises(BundleError, match=r"not an index sidecar"):
        PitchIndex.load(saved)


def test_a_foreign_faiss_index_is_refused(saved: Path) -> None:
    """A data file whose hash is right, but that holds another kind of Faiss index."""
    import hashlib

    content = read_sidecar(saved)
    blob = faiss.serialize_index(faiss.IndexFlatL2(6)).tobytes()
    ids = np.arange(content["count"], dtype="<i8").tobytes()
    data_file(saved).write_bytes(ids + blob)
    content |= {
        "sha256": hashlib.sha256(ids + blob).hexdigest(),
        "bytes": len(ids + blob),
        "partitions": [{"semitone": 60, "count": content["count"], "offset": len(ids), "bytes": len(blob)}],
    }
    (saved / SIDECAR).write_text(json.dumps(content))
    with pytest.raises(BundleError, match="IndexFlatL2"):
        PitchIndex.load(saved)


def test_an_index_of_another_encoder_is_refused(saved: Path) -> None:
    assert len(PitchIndex.load(saved, encoder=ENCODER)) == 40
    with pytest.raises(BundleError, match="made by encoder eeeeeeeeeeee…, not by ffffffffffff…"):
        PitchIndex.load(saved, encoder="f" * 64)


def test_saving_over_an_index_leaves_one_whole_index(saved: Path) -> None:
    former = data_file(saved)
    PitchIndex.build(unit(np.random.default_rng(6), 3, 6), np.full(3, 60.0), encoder=ENCODER).save(saved)
    assert len(PitchIndex.load(saved)) == 3
    assert not former.exists()
    assert sorted(path.name for path in saved.iterdir()) == sorted([SIDECAR, data_file(saved).name])


def test_an_interrupted_save_leaves_the_former_index(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_at_the_sidecar(path: Path) -> AbstractContextManager[BinaryIO]:
        if path.name == SIDECAR:
            raise OSError("disk full")
        return atomic_write(path)

    monkeypatch.setattr("timbrel.library.index.atomic_write", fails_at_the_sidecar)
    another = PitchIndex.build(unit(np.random.default_rng(7), 3, 6), np.full(3, 60.0), encoder=ENCODER)
    with pytest.raises(OSError, match="disk full"):
        another.save(saved)
    assert len(PitchIndex.load(saved)) == 40


def test_equal_libraries_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rng = np.random.default_rng(8)
        index = PitchIndex.build(unit(rng, 30, 4), rng.uniform(50, 60, 30), encoder=ENCODER)
        index.save(tmp_path / name)
    files = [sorted(path for path in (tmp_path / name).iterdir()) for name in ("a", "b")]
    assert [path.name for path in files[0]] == [path.name for path in files[1]]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
