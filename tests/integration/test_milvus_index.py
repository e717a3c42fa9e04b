"""The index on Milvus (milvus-lite, embedded), with the released bundle's vectors, against the bundle's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.tiny_bundle import tiny_bundle_folder
from support.tiny_models import tone

from timbrel.audio import Audio
from timbrel.engine.asking import Like, Vectors
from timbrel.engine.engine import Engine
from timbrel.engine.index import BundleIndex, Gate
from timbrel.engine.onnx_models import OnnxModels
from timbrel.errors import BundleError, ConfigurationError, Unavailable
from timbrel.library.bundle import Bundle
from timbrel.library.filters import Filters, Shelves
from timbrel.library.gate import opened, semitone
from timbrel.library.index import Found
from timbrel.milvus.collections import ALIAS, Milvus, name_of
from timbrel.milvus.expressions import expression, literal
from timbrel.milvus.index import MilvusIndex
from timbrel.serving.shelf import Served
from timbrel.settings import load

pytest.importorskip(
    "pymilvus", reason="pymilvus is not installed: scripts/setup serve pipeline scale encoders dev"
)
pytest.importorskip(
    "milvus_lite", reason="milvus-lite is not installed: scripts/setup serve pipeline scale encoders dev"
)

RELEASED = Path(__file__).parents[2] / "bundle"
# Sums of 128 products, in another order.
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def bundle() -> Iterator[Bundle]:
    opened_bundle = Bundle.open(RELEASED)
    yield opened_bundle
    opened_bundle.close()


@pytest.fixture(scope="module")
def index(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusIndex]:
    uri = str(tmp_path_factory.mktemp("milvus") / "index.db")
    milvus = Milvus(uri)
    assert milvus.push(bundle) == name_of(bundle.id)
    milvus.close()
    made = MilvusIndex.open(uri, bundle)
    yield made
    made.close()


def gate_of(
    bundle: Bundle,
    midi: float | None,
    window: int = 1,
    *,
    octaves: bool = False,
    filters: Filters | None = None,
    leave_out: str | None = None,
) -> Gate:
    """A gate whose mask says what its filters say, as the search makes it."""
    filters = filters or Filters()
    allow = Shelves(bundle.patches, bundle.renders, bundle.patch_of).allow(filters)
    if leave_out is not None:
        allow = np.ones(len(bundle.renders), bool) if allow is None else allow
        allow[bundle.rows_of(leave_out)] = False
    return Gate(midi=midi, window=window, octaves=octaves, filters=filters, leave_out=leave_out, allow=allow)


def brute_force(bundle: Bundle, vector: np.ndarray, gate: Gate, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Every render that the gate opens, worked out from the tables: ids and distances of the ``k`` nearest."""
    rows = [
        render.row
        for render in bundle.renders
        if gate.midi is None
        or (
            np.isfinite(render.f0_midi)
            and opened([semitone(render.f0_midi)], semitone(gate.midi), gate.window, octaves=gate.octaves)
        )
    ]
    ids = np.array([row for row in rows if gate.allow is None or gate.allow[row]], dtype=np.int64)
    if not len(ids):
        return ids, np.empty(0)
    distances = np.maximum(1 - bundle.index.vectors(ids).astype(np.float64) @ vector.astype(np.float64), 0)
    order = np.lexsort((ids, distances))[:k]
    return ids[order], distances[order]


def same_up_to_ties(found: Found, ids: np.ndarray, distances: np.ndarray) -> None:
    """The same distances in the same order; where ids differ, so close that rounding decides."""
    assert len(found.ids) == len(ids)
    np.testing.assert_allclose(found.distances, distances, atol=TOLERANCE)
    if len(ids):
        sure = distances < distances[-1] - TOLERANCE
        assert set(ids[sure]) <= set(found.ids.tolist())


def test_recall_at_10_is_that_of_an_exact_scan(bundle: Bundle, index: MilvusIndex) -> None:
    rng = np.random.default_rng(5)
    local, hits, wanted = BundleIndex(bundle.index), 0, 0
    for row in rng.choice(len(bundle.renders), 60, replace=False):
        vector = bundle.index.vectors(np.array([row]))[0] + 0.05 * rng.standard_normal(128).astype(np.float32)
        vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        gate = gate_of(bundle, bundle.renders[row].f0_midi)
        found, ours = index.query(vector, gate, 10), local.query(vector, gate, 10)
        ids, distances = brute_force(bundle, vector, gate, 10)
        same_up_to_ties(found, ids, distances)
        same_up_to_ties(ours, ids, distances)
        hits += len(set(found.ids.tolist()) & set(ours.ids.tolist()))
        wanted += len(ours.ids)
    assert wanted > 590  # a gate at the rim opens fewer than ten
    assert hits / wanted >= 0.999


FAMILIES = st.lists(
    st.sampled_from(["bass", "brass", "organ", "string", "synth_lead"]), max_size=2, unique=True
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    row=st.integers(0, 4990),
    midi=st.one_of(st.none(), st.floats(20, 110)),
    window=st.integers(0, 13),
    octaves=st.booleans(),
    families=FAMILIES,
    banks=st.integers(0, 3),
    confidence=st.sampled_from([0.0, 0.5, 0.98, 1.0]),
    leave_out=st.booleans(),
    k=st.integers(1, 60),
)
def test_whatever_is_asked_every_hit_is_behind_the_gate_and_none_is_missing(
    bundle: Bundle, index: MilvusIndex, row: int, midi: float | None, window: int, octaves: bool,
    families: list[str], banks: int, confidence: float, leave_out: bool, k: int,
) -> None:  # fmt: skip
    named = tuple(dict.fromkeys(patch.bank for patch in bundle.patches))[:banks]
    filters = Filters(families=tuple(families), banks=named, min_confidence=confidence)
    left = bundle.renders[row].patch_id if leave_out else None
    gate = gate_of(
        bundle, midi, window, octaves=octaves and midi is not None, filters=filters, leave_out=left
    )
    vector = bundle.index.vectors(np.array([row]))[0]
    same_up_to_ties(index.query(vector, gate, k), *brute_force(bundle, vector, gate, k))


def test_a_batch_answers_as_one_by_one(bundle: Bundle, index: MilvusIndex) -> None:
    vectors = bundle.index.vectors(np.arange(0, 60, 7))
    gate = gate_of(bundle, 60.0)
    for vector, found in zip(vectors, index.query_batch(vectors, gate, 5), strict=True):
        alone = index.query(vector, gate, 5)
        np.testing.assert_array_equal(found.ids, alone.ids)
        np.testing.assert_allclose(found.distances, alone.distances, atol=TOLERANCE)
    np.testing.assert_allclose(index.vectors(np.arange(0, 60, 7)), vectors, atol=1e-7)


@pytest.mark.parametrize(
    "terms",
    [
        {}, {"octaves": True}, {"gate": "off", "k": 30}, {"families": ["organ", "brass"]}, {"min_confidence": 0.99},
        {"k": 100, "offset": 250, "fold": False}, {"pitch": 48.0},
    ],
)  # fmt: skip
def test_whole_answers_are_those_of_the_bundles_own_index(
    bundle: Bundle, index: MilvusIndex, terms: dict[str, Any]
) -> None:
    models = OnnxModels({})  # vectors and patches need none
    own, with_milvus = Engine(bundle, models), Engine(bundle, models, index=index)
    patch = bundle.patches[17].patch_id
    stage1 = bundle.index.vectors(np.array([100]))[0]
    for asked in (Like(patch), Vectors(stage1, bundle.stage2[100].astype(np.float32))):
        one, other = own.search(asked, **terms), with_milvus.search(asked, **terms)
        assert (one.query, one.total) == (other.query, other.total)
        assert [hit.patch_id for hit in one.hits] == [hit.patch_id for hit in other.hits]
        for ours, theirs in zip(one.hits, other.hits, strict=True):
            assert (ours.also, ours.pitch) == (theirs.also, theirs.pitch)
            assert ours.distance == pytest.approx(theirs.distance, abs=1e-4)


def test_pushing_is_idempotent_and_turns_the_alias_when_it_is_whole(tmp_path: Path, bundle: Bundle) -> None:
    tiny = Bundle.open(tiny_bundle_folder())
    milvus = Milvus(str(tmp_path / "index.db"))
    name, rows = name_of(tiny.id), np.arange(len(tiny.renders))
    assert (milvus.live(), milvus.count(name)) == (None, None)
    with pytest.raises(BundleError, match=r"holds 0 of 70 renders of bundle .*: timbrel index push --bundle"):
        MilvusIndex(milvus, tiny)
    written: list[tuple[int, int]] = []
    milvus.push(tiny, progress=lambda done, total: written.append((done, total)))
    assert (milvus.live(), milvus.count(name), milvus.kind(name)) == (name, 70, "FLAT")
    milvus.push(tiny, progress=lambda done, total: written.append((done, total)))
    assert written == [(70, 70)]
    # As an interrupted push leaves it: the rest is filled in, under the same ids.
    milvus.remove(name, [3, 4, 69])
    with pytest.raises(BundleError, match="holds 67 of 70"):
        MilvusIndex(milvus, tiny)
    with pytest.raises(BundleError, match="lacks renders"):
        milvus.vectors(name, [3])
    milvus.push(tiny)
    assert milvus.count(name) == 70
    np.testing.assert_allclose(milvus.vectors(name, rows.tolist()), tiny.index.vectors(rows), atol=1e-7)
    # Another bundle's collection lies beside it, and the alias goes over.
    milvus.push(tiny, rebuild=True)
    other = name_of(bundle.id)
    milvus.push(bundle)
    assert (milvus.live(), milvus.count(name), milvus.count(other)) == (other, 70, 4991)
    milvus.push(tiny)
    assert milvus.live() == name
    assert ALIAS == "timbrel"
    index = MilvusIndex(milvus, tiny)
    no_pitch = gate_of(tiny, None)
    assert len(index.query(tiny.index.vectors(np.array([0]))[0], no_pitch, 100).ids) == 70
    index.close()
    tiny.close()


AWKWARD = (
    'a"b',
    "it's",
    "back\\slash",
    "tab\there",
    "new\nline",
    "ünï 音",
    "%_",
    "",
    "x\x01y",
    "] or row >= 0",
)


@pytest.mark.parametrize("name", AWKWARD)
def test_names_are_quoted(tmp_path: Path, name: str) -> None:
    """Every awkward bank is found by its own name, and by no other's."""
    from milvus_lite.search.filter.tokens import tokenize

    assert [token.value for token in tokenize(f"bank == {literal(name)}")][2] == name


def test_expressions_say_what_the_gate_says(bundle: Bundle) -> None:
    everything = gate_of(bundle, None)
    assert expression(everything) == ""
    assert expression(gate_of(bundle, 59.6, 2)) == "semitone >= 58 and semitone <= 62"
    assert expression(gate_of(bundle, 60.0, 1, octaves=True)) == "octave in [0, 1, 11]"
    full = gate_of(
        bundle, 61.0, 0, filters=Filters(families=("brass", "organ"), min_confidence=0.5),
        leave_out=bundle.patches[0].patch_id,
    )  # fmt: skip
    assert expression(full) == (
        'semitone >= 61 and semitone <= 61 and family in ["brass", "organ"] and confidence >= 0.5 and '
        f'patch_id != "{bundle.patches[0].patch_id}"'
    )


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(
        Unavailable, match=r"Milvus at http://127.0.0.1:9 does not do it .*TIMBREL_INDEX=bundle"
    ):
        Milvus("http://127.0.0.1:9", seconds=2)


def test_settings_say_where_it_is() -> None:
    chosen = {"TIMBREL_INDEX": "milvus", "TIMBREL_MILVUS_URI": "http://milvus:19530"}
    found = load({**chosen, "TIMBREL_MILVUS_TOKEN": "someone:something"})
    assert (found.index, found.milvus_uri) == ("milvus", "http://milvus:19530")
    assert "something" not in repr(found)
    with pytest.raises(ConfigurationError, match="TIMBREL_MILVUS_URI does not say where it is"):
        load({"TIMBREL_INDEX": "milvus"})
    with pytest.raises(ConfigurationError, match="one process can open: set TIMBREL_WORKERS to 1"):
        load({**chosen, "TIMBREL_MILVUS_URI": "index.db"})
    assert load({**chosen, "TIMBREL_MILVUS_URI": "index.db", "TIMBREL_WORKERS": "1"}).milvus_uri == "index.db"


def test_a_service_answers_from_it(tmp_path: Path) -> None:
    """What `timbrel serve`'s workers open, with models in the process."""
    tiny = Bundle.open(tiny_bundle_folder())
    chosen = {
        "TIMBREL_INDEX": "milvus", "TIMBREL_MILVUS_URI": str(tmp_path / "index.db"), "TIMBREL_WORKERS": "1",
        "TIMBREL_ENGINE": "inprocess", "TIMBREL_BUNDLE": str(tiny.folder),
    }  # fmt: skip
    with pytest.raises(BundleError, match="timbrel index push"):
        Served.open(load(chosen), None, None)
    milvus = Milvus(chosen["TIMBREL_MILVUS_URI"])
    milvus.push(tiny)
    milvus.close()
    served = Served.open(load(chosen), None, None)
    hits = served.engine.search(Audio(tone(60, 0.2, 0.0), 24_000), k=3).hits
    assert hits[0].name == "Tone 8"
    served.close()
    tiny.close()


def test_the_command_fills_a_file(tmp_path: Path) -> None:
    tiny = Bundle.open(tiny_bundle_folder())
    uri = str(tmp_path / "index.db")
    command = [sys.executable, "-m", "timbrel", "index", "push", "--bundle", str(tiny.folder), "--uri", uri]
    command[1:3] = ["-c", "from timbrel.cli import main; main()"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout
    assert told == f"{name_of(tiny.id)}: 70 renders of bundle {tiny.id[:12]}\n"
    index = MilvusIndex.open(uri, tiny)
    assert index.query(tiny.index.vectors(np.array([5]))[0], gate_of(tiny, None), 1).ids.tolist() == [5]
    index.close()
    tiny.close()
