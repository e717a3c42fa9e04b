"""The pitch-conditioned index against brute force, and its files against everything that can happen to files."""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timbrel.errors import BundleError, DataError, InputError
from timbrel.files import atomic_write
from timbrel.library.index import PitchIndex, semitone
from timbrel.library.index_files import SIDECAR, read_sidecar

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


queries: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    pitch=st.one_of(st.none(), st.floats(36, 56)),
    window=st.integers(0, 12),
    k=st.integers(1, 70),
    octaves=st.booleans(),
)


def admitted(pitches: np.ndarray, pitch: float | None, window: int, octaves: bool) -> np.ndarray:
    """Brute force: which entries the gate lets through, bool [n]."""
    if pitch is None:
        return np.ones(len(pitches), bool)
    filed = np.floor(pitches + 0.5)  # NaN stays NaN and compares false
    centres = math.floor(pitch + 0.5) + 12 * (np.arange(-9, 10) if octaves else np.zeros(1))
    return (np.abs(filed[:, None] - centres) <= window).any(axis=1)


@settings(deadline=None, max_examples=150)
@given(libraries(), queries, st.sampled_from(["all", "none", "some"]), st.integers(0, 2**32 - 1))
def test_every_answer_is_what_brute_force_finds_behind_the_gate(
    library: tuple[np.ndarray, np.ndarray, np.ndarray], query: dict[str, Any], allowed: str, seed: int
) -> None:
    vectors, pitches, ids = library
    index = PitchIndex.build(vectors, pitches, encoder=ENCODER, ids=ids)
    rng = np.random.default_rng(seed)
    vector = unit(rng, 1, vectors.shape[1])[0]
    share = {"all": None, "none": 0.0, "some": 0.4}[allowed]
    allow = None if share is None else rng.random(ids.max() + 1) < share

    found = index.query(vector, **query, allow=allow)

    gate = query["pitch"], query["window"], query["octaves"]
    inside = admitted(pitches, *gate)
    assert np.array_equal(index.ids_within(gate[0], gate[1], octaves=gate[2]), np.sort(ids[inside]))
    if allow is not None:
        inside &= allow[ids]
    distances = np.maximum(1 - vectors @ vector, 0)
    assert set(found.ids) <= set(ids[inside])
    assert len(set(found.ids)) == len(found.ids) == min(query["k"], inside.sum())
    np.testing.assert_allclose(found.distances, np.sort(distances[inside])[: query["k"]], atol=1e-6)
    by_id = dict(zip(ids.tolist(), distances.tolist(), strict=True))
    np.testing.assert_allclose(found.distances, [by_id[i] for i in found.ids.tolist()], atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(libraries(), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_batch_answers_each_query_as_alone(
    library: tuple[np.ndarray, np.ndarray, np.ndarray], octaves: bool, seed: int
) -> None:
    vectors, pitches, ids = library
    index = PitchIndex.build(vectors, pitches, encoder=ENCODER, ids=ids)
    rng = np.random.default_rng(seed)
    asked = unit(rng, 7, vectors.shape[1])
    at = np.where(rng.random(7) < 0.3, np.nan, rng.uniform(38, 54, 7))
    batch = index.query_batch(asked, pitches=at, window=2, k=4, octaves=octaves)
    for vector, pitch, found in zip(asked, at, batch, strict=True):
        alone = index.query(
            vector, pitch=None if math.isnan(pitch) else pitch, window=2, k=4, octaves=octaves
        )
        assert np.array_equal(found.ids, alone.ids)
        assert np.array_equal(found.distances, alone.distances)


@settings(deadline=None, max_examples=40)
@given(libraries(), queries, st.integers(0, 2**32 - 1))
def test_ids_outlive_adding_removing_and_rebuilding(
    library: tuple[np.ndarray, np.ndarray, np.ndarray], query: dict[str, Any], seed: int
) -> None:
    vectors, pitches, ids = library
    rng = np.random.default_rng(seed)
    late = rng.random(len(ids)) < 0.5
    late[0] = False
    whole = PitchIndex.build(vectors, pitches, encoder=ENCODER, ids=ids)
    grown = PitchIndex.build(vectors[~late], pitches[~late], encoder=ENCODER, ids=ids[~late])
    if late.any():
        grown = grown.add(vectors[late], pitches[late], ids[late])
    vector = unit(rng, 1, vectors.shape[1])[0]
    for index in (grown, whole.rebuild()):
        assert np.array_equal(whole.query(vector, **query).ids, index.query(vector, **query).ids)
    if late.any():
        rest = PitchIndex.build(vectors[~late], pitches[~late], encoder=ENCODER, ids=ids[~late])
        assert np.array_equal(
            grown.remove(ids[late]).query(vector, **query).ids, rest.query(vector, **query).ids
        )


def test_only_new_ids_are_added_and_only_known_ones_removed() -> None:
    index = PitchIndex.build(np.eye(3, dtype=np.float32), np.full(3, 60.0), encoder=ENCODER)
    with pytest.raises(DataError, match="holds 1 of these ids already, 2 among them"):
        index.add(np.eye(3, dtype=np.float32)[:2], np.full(2, 61.0), np.array([2, 7]))
    with pytest.raises(DataError, match="2 dimensions, the index has 3"):
        index.add(np.eye(2, dtype=np.float32), np.full(2, 61.0), np.array([8, 7]))
    with pytest.raises(DataError, match="lacks 1 of these ids, 5 among them"):
        index.remove(np.array([1, 5]))
    with pytest.raises(DataError, match="nothing would stay"):
        index.remove(np.array([0, 1, 2]))


@pytest.mark.parametrize(
    ("pitch", "window", "held"),
    [
        (60, 0, {48, 60, 72}),
        (61, 0, set()),
        (61, 1, {48, 60, 62, 72}),
        (55, 4, {54, 59}),
        (0, 6, None),
    ],
)
def test_octaves_open_the_same_window_around_every_octave(
    pitch: float, window: int, held: set[int] | None
) -> None:
    everything = [48, 54, 59, 60, 62, 72]
    index = PitchIndex.build(np.eye(7, dtype=np.float32), np.array([*everything, np.nan]), encoder=ENCODER)
    opened = index.ids_within(pitch, window, octaves=True)
    assert {everything[i] for i in opened} == (set(everything) if held is None else held)


def test_the_unpitched_answer_only_without_a_gate() -> None:
    index = PitchIndex.build(np.eye(2, dtype=np.float32), np.array([60, np.nan]), encoder=ENCODER)
    vector = np.eye(2, dtype=np.float32)[1]
    assert index.query(vector, pitch=60, window=127, octaves=True, k=2).ids.tolist() == [0]
    assert index.query(vector, pitch=None, window=0, k=2).ids.tolist() == [1, 0]


@pytest.mark.parametrize(
    "allow", [np.ones(3, np.int64), np.ones(2, bool), np.ones((3, 1), bool), np.ones(0, bool)]
)
def test_an_allow_that_does_not_reach_every_id_is_refused(allow: np.ndarray) -> None:
    index = PitchIndex.build(np.eye(3, dtype=np.float32), np.full(3, 60.0), encoder=ENCODER)
    with pytest.raises(InputError, match=r"allow must be bool, one for each id from 0 to 2"):
        index.query(np.eye(3, dtype=np.float32)[0], pitch=60, window=1, k=1, allow=allow)


@settings(deadline=None, max_examples=30)
@given(libraries(), queries, st.integers(0, 2**32 - 1))
def test_a_loaded_index_answers_as_the_saved_one(
    tmp_path_factory: pytest.TempPathFactory,
    library: tuple[np.ndarray, np.ndarray, np.ndarray],
    query: dict[str, Any],
    seed: int,
) -> None:
    vectors, pitches, ids = library
    index = PitchIndex.build(vectors, pitches, encoder=ENCODER, ids=ids)
    folder = tmp_path_factory.mktemp("index")
    index.save(folder)
    loaded = PitchIndex.load(folder, encoder=ENCODER)
    vector = unit(np.random.default_rng(seed), 1, vectors.shape[1])[0]
    before, after = index.query(vector, **query), loaded.query(vector, **query)
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
        ({"format": 3}, "format 3"),
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


def write_format_1(folder: Path, index: faiss.Index, ids: np.ndarray, count: int) -> None:
    """One partition, semitone 60, as the first format kept it: ids, then a serialized Faiss index."""
    blob = faiss.serialize_index(index).tobytes()
    content = ids.astype("<i8").tobytes() + blob
    digest = hashlib.sha256(content).hexdigest()
    folder.mkdir()
    (folder / f"vectors-{digest[:12]}.bin").write_bytes(content)
    partition = {"semitone": 60, "count": count, "offset": len(content) - len(blob), "bytes": len(blob)}
    sidecar = {
        "format": 1,
        "file": f"vectors-{digest[:12]}.bin",
        "sha256": digest,
        "bytes": len(content),
        "metric": "cosine",
        "dimension": index.d,
        "count": len(ids),
        "encoder": ENCODER,
        "partitions": [partition],
    }
    (folder / SIDECAR).write_text(json.dumps(sidecar))


def test_an_index_of_the_first_format_is_read(tmp_path: Path) -> None:
    vectors = unit(np.random.default_rng(1), 5, 6)
    flat = faiss.IndexFlatIP(6)
    flat.add(vectors)
    write_format_1(tmp_path / "old", flat, np.array([4, 2, 9, 0, 1]), 5)
    index = PitchIndex.load(tmp_path / "old", encoder=ENCODER)
    assert index.query(vectors[2], pitch=60, window=0, k=1).ids.tolist() == [9]
    assert index.semitones == (60,)
    index.save(tmp_path / "new")
    assert read_sidecar(tmp_path / "new")["format"] == 2


@pytest.mark.parametrize(
    ("index", "count", "message"),
    [(faiss.IndexFlatL2(6), 0, "IndexFlatL2"), (faiss.IndexFlatIP(6), 1, "holds 0 vectors of 6")],
)
def test_a_foreign_faiss_index_is_refused(
    tmp_path: Path, index: faiss.Index, count: int, message: str
) -> None:
    """A data file whose hash is right, but that holds another Faiss index."""
    write_format_1(tmp_path / "old", index, np.arange(count), count)
    with pytest.raises(BundleError, match=message):
        PitchIndex.load(tmp_path / "old")


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

    monkeypatch.setattr("timbrel.library.index_files.atomic_write", fails_at_the_sidecar)
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
