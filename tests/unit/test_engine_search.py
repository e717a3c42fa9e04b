"""Searching by patch, by vectors and by several recordings; filters, pages and near-duplicates, on the tiny bundle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from support.tiny_bundle import PLACES, bundle_parts, tiny_bundle_folder
from support.tiny_models import tone

from timbrel.audio import Audio
from timbrel.engine.arguments import MAX_RECORDINGS
from timbrel.engine.asking import Asked, Like, Vectors
from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.engine.results import SearchResult
from timbrel.engine.search import Search
from timbrel.errors import InputError, NotFound, UnsuitableQuery
from timbrel.library.bundle import Bundle
from timbrel.library.manifest import SearchEntry

RATE = 24_000


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    bundle = Bundle.open(tiny_bundle_folder())
    engine = Engine(bundle, OnnxModels({name: bundle.path(name) for name in bundle.manifest.models}))
    yield engine
    engine.close()


def sound(pitch: float, x: float, y: float) -> Audio:
    return Audio(tone(pitch, x, y).astype(np.float32), RATE)


SILENCE = Audio(np.zeros(RATE, np.float32), RATE)
NOISE = Audio(np.random.default_rng(3).uniform(-0.5, 0.5, 2 * RATE).astype(np.float32), RATE)


def ident(engine: Engine, name: str) -> str:
    return next(patch.patch_id for patch in engine.bundle.patches if patch.name == name)


def names(result: SearchResult) -> list[str]:
    return [hit.name for hit in result.hits]


# --- by a patch ---------------------------------------------------------------------------------------------------


def test_like_compares_by_the_patchs_own_render_and_leaves_it_out(engine: Engine) -> None:
    result = engine.search(Like(ident(engine, "Tone 5")), k=20, fold=False)
    assert (result.query.midi, result.query.f0_hz) == (60.0, pytest.approx(261.6256, abs=1e-3))
    assert (result.query.confidence, result.query.gate.decision) == (0.98, "pitched")
    assert result.query.gate.reason == (
        "MIDI 60.0, the render of Tone 5 nearest to the middle of its pitches; searched within ±1 semitones"
    )
    # Every patch that sounds there but itself; the nearest are its neighbours on the map.
    assert result.total == len(result.hits) == 12
    assert "Tone 5" not in names(result)
    assert set(names(result)[:2]) == {"Tone 4", "Tone 6"}
    bundle = engine.bundle
    (row,) = [r.row for r in bundle.renders if r.patch_id == ident(engine, "Tone 5") and r.key == 60]
    for hit in result.hits:
        (other,) = [r.row for r in bundle.renders if r.patch_id == hit.patch_id and round(r.f0_midi) == 60]
        expected = 1 - float(bundle.stage2[row].astype(np.float64) @ bundle.stage2[other].astype(np.float64))
        assert hit.stage2_distance == pytest.approx(expected, abs=2e-3)
        ours, theirs = bundle.index.vectors(np.array([row, other]))
        cosine = float(ours @ theirs)
        assert hit.stage1_distance == pytest.approx(max(0.0, 1 - cosine), abs=1e-6)


@pytest.mark.parametrize(("pitch", "chosen"), [(50.9, 48.0), (51.1, 54.0), (127.0, 72.0), (0.0, 48.0)])
def test_like_near_a_pitch_takes_the_render_nearest_to_it(
    engine: Engine, pitch: float, chosen: float
) -> None:
    result = engine.search(Like(ident(engine, "Tone 5")), pitch=pitch)
    assert result.query.gate.midi == chosen
    assert {hit.pitch for hit in result.hits} == {chosen}
    assert f"nearest to MIDI {pitch:.1f}; " in result.query.gate.reason


def test_like_a_patch_without_a_pitch(engine: Engine) -> None:
    like = Like(ident(engine, "Hiss"))
    result = engine.search(like)
    assert (result.query.gate.decision, result.query.midi, result.query.confidence) == (
        "unpitched",
        None,
        0.0,
    )
    assert result.query.gate.reason == "no render of Hiss has a clear pitch; all pitches were searched"
    assert result.total == 12
    with pytest.raises(UnsuitableQuery, match=r"^unpitched: no render of Hiss"):
        engine.search(like, gate="require")
    assert engine.search(Like(ident(engine, "Tone 5")), gate="off").query.gate.decision == "off"


def test_like_a_patch_that_is_not_there(engine: Engine) -> None:
    with pytest.raises(NotFound, match="no patch 'dx7-0'; take a patch_id from a search"):
        engine.search(Like("dx7-0"))


# --- by vectors ---------------------------------------------------------------------------------------------------


def test_vectors_find_what_their_recording_finds(engine: Engine) -> None:
    recording = sound(60, 0.2, 0.0)
    stage1, stage2 = engine.embed(recording)
    heard = engine.search(recording, pitch=60)
    given = engine.search(Vectors(3 * stage1, 0.5 * stage2), pitch=60)
    assert given.query.gate.decision == "overridden"
    assert (given.query.f0_hz, given.query.midi, given.query.confidence) == (None, None, 0.0)
    assert (names(given), given.total) == (names(heard), heard.total)
    for ours, theirs in zip(given.hits, heard.hits, strict=True):
        assert ours.stage1_distance == pytest.approx(theirs.stage1_distance, abs=1e-6)
        assert ours.stage2_distance == pytest.approx(theirs.stage2_distance, abs=1e-6)
    everywhere = engine.search(Vectors(stage1, stage2), k=20)
    assert everywhere.query.gate.reason == "vectors do not tell a pitch; all pitches were searched"
    assert everywhere.total == 13
    assert names(everywhere)[0] == "Tone 8"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s1, s2: (s1[:-1], s2), r"stage1 has shape \[\d+\]; this bundle's encoder gives \[\d+\]"),
        (lambda s1, s2: (s1, s2[None]), r"stage2 has shape \[1, 96\]; .* \[96\]: make the vectors anew"),
        (lambda s1, s2: (0 * s1, s2), "stage1 is no direction"),
        (lambda s1, s2: (s1, s2 * math.inf), "stage2 is no direction"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(engine: Engine, change: Any, message: str) -> None:
    vectors = Vectors(*change(*engine.embed(sound(60, 0, 0))))
    with pytest.raises(InputError, match=message), np.errstate(invalid="ignore"):
        engine.search(vectors)


def test_vectors_without_a_pitch_are_refused_where_one_is_required(engine: Engine) -> None:
    vectors = Vectors(*engine.embed(sound(60, 0, 0)))
    with pytest.raises(UnsuitableQuery, match="name its pitch"):
        engine.search(vectors, gate="require")
    assert engine.search(vectors, gate="require", pitch=60).hits
    assert engine.search(vectors, pitch=120).query.gate.decision == "out_of_range"


# --- by several recordings ----------------------------------------------------------------------------------------


def test_several_recordings_are_searched_by_the_mean_of_their_vectors(engine: Engine) -> None:
    recordings = [sound(60, -0.2, -0.6), sound(60.4, -0.2, 0.0), sound(59.8, -0.2, 0.6)]
    result = engine.search(recordings, k=20, fold=False)
    assert result.query.gate.decision == "pitched"
    assert result.query.gate.midi == pytest.approx(60.0, abs=0.1)
    assert result.query.midi == result.query.gate.midi
    assert result.query.gate.reason.startswith(
        "MIDI 60.0, the median of 3 recordings (MIDI 59.8 to 60.4); searched"
    )
    means = [np.mean(each, axis=0) for each in zip(*map(engine.embed, recordings), strict=True)]
    by_mean = engine.search(Vectors(*means), pitch=result.query.gate.midi, k=20, fold=False)
    assert names(result) == names(by_mean)
    assert [hit.stage2_distance for hit in result.hits] == pytest.approx(
        [hit.stage2_distance for hit in by_mean.hits], abs=1e-6
    )
    assert names(result)[0] == "Tone 5", "the one in the middle"


def test_recordings_that_do_not_agree_are_compared_at_all_pitches(engine: Engine) -> None:
    result = engine.search([sound(60, 0.2, 0), sound(62.5, 0.2, 0)], k=20)
    assert result.query.gate.decision == "mixed"
    assert result.query.midi is result.query.f0_hz is result.query.gate.midi is None
    assert result.query.gate.reason == (
        "the recordings do not agree on a pitch within 1 semitones (MIDI 60.0, 62.5); all pitches were searched"
    )
    assert result.total == 13
    assert "MIDI 60.0, none" in engine.search([sound(60, 0.2, 0), NOISE]).query.gate.reason
    with pytest.raises(UnsuitableQuery, match=r"^mixed: "):
        engine.search([sound(60, 0.2, 0), NOISE], gate="require")
    named = engine.search([sound(60, 0.2, 0), sound(62.5, 0.2, 0)], pitch=60)
    assert (named.query.gate.decision, named.query.gate.midi) == ("overridden", 60.0)


def test_a_silent_recording_among_others_is_left_out(engine: Engine) -> None:
    alone = engine.search(sound(60, 0.2, 0.0))
    result = engine.search([SILENCE, sound(60, 0.2, 0.0)])
    assert names(result) == names(alone)
    assert "without recording 1, which has no sound; searched within" in result.query.gate.reason
    nothing = engine.search([SILENCE, SILENCE])
    assert (nothing.query.gate.decision, nothing.hits, nothing.total) == ("silent", (), 0)
    assert nothing.query.gate.reason.startswith("none of the 2 recordings sounds: ")
    unpitched = engine.search([NOISE, NOISE])
    assert unpitched.query.gate.decision == "unpitched"
    assert names(unpitched)[0] == "Hiss"


@pytest.mark.parametrize("count", [0, MAX_RECORDINGS + 1])
def test_too_many_or_no_recordings(engine: Engine, count: int) -> None:
    with pytest.raises(InputError, match=f"a search takes 1 to 8 recordings, not {count}"):
        engine.search([SILENCE] * count)


# --- filters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [sound(60, 0.2, 0.0), NOISE])
def test_filters_leave_what_they_name(engine: Engine, asked: Asked) -> None:
    flutes = engine.search(asked, k=20, families=["flute", "organ"], fold=False)
    assert {hit.family for hit in flutes.hits} == {"flute", "organ"}
    assert flutes.total == len(flutes.hits)
    spare = engine.search(asked, banks=["spare"])
    assert (names(spare), spare.total) == (["Octave Up"], 1)
    both = engine.search(asked, banks=["spare", "tiny"], families=["brass"])
    assert set(names(both)) <= {"Tone 2", "Octave Up"}
    sure = engine.search(asked, k=20, min_confidence=0.9, fold=False, gate="off")
    assert sure.total == 12
    assert {"Octave Up", "Hiss"}.isdisjoint(names(sure))
    assert engine.search(asked, k=20, min_confidence=0.6, fold=False, gate="off").total == 13


def test_filters_leave_the_order_as_it_is(engine: Engine) -> None:
    asked = sound(60, 0.2, 0.0)
    everything = engine.search(asked, k=20, fold=False)
    filtered = engine.search(asked, k=20, families=["organ", "bass", "brass"], fold=False)
    wanted = [hit for hit in everything.hits if hit.family in ("bass", "brass", "organ")]
    assert names(filtered) == [hit.name for hit in wanted]
    assert [(hit.stage1_distance, hit.stage2_distance) for hit in filtered.hits] == [
        pytest.approx((hit.stage1_distance, hit.stage2_distance), abs=1e-6) for hit in wanted
    ]


def test_the_gate_widens_to_what_a_filter_leaves(engine: Engine) -> None:
    result = engine.search(sound(57, 0.0, 0.3), banks=["spare"])
    assert names(result) == ["Octave Up"]
    assert result.hits[0].pitch == 60.0
    assert result.query.gate.reason.endswith(
        "searched within ±3 semitones, widened from ±1 to reach most patches"
    )


def test_a_filter_that_leaves_nothing_says_what_to_do(engine: Engine) -> None:
    far = engine.search(Like(ident(engine, "Octave Up")), banks=["spare"])
    assert (far.hits, far.total) == ((), 0)
    assert far.query.gate.reason.endswith(
        "no render that the filters leave lies within 12 semitones: widen the filters, or ask with octaves, another "
        "pitch or gate=off"
    )
    none = engine.search(NOISE, banks=["spare"], families=["organ"])
    assert none.query.gate.reason.endswith(
        "all pitches were searched; the filters leave no render: widen them"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": ["flutes"]}, "the library has no family 'flutes': choose among flute, bass, brass, "),
        ({"families": ["flute", "x"]}, "the library has no family 'x': choose among bass, "),
        ({"banks": ["Tiny"]}, "the library has no bank 'Tiny': choose among tiny, spare"),
        ({"min_confidence": 1.5}, "min_confidence is a confidence from 0 to 1, not 1.5"),
        ({"min_confidence": math.nan}, "min_confidence is a confidence from 0 to 1, not nan"),
        ({"offset": -1}, "offset is a whole number from 0 to 999, not -1"),
        ({"offset": 1000}, "offset is a whole number from 0 to 999, not 1000"),
        ({"offset": 995}, "offset + k is at most 1000, not 1005: narrow the search by family, bank or pitch"),
    ],
)
def test_wrong_filters_and_pages_are_refused(engine: Engine, options: dict[str, Any], message: str) -> None:
    for asked in (sound(60, 0, 0), SILENCE):
        with pytest.raises(InputError) as caught:
            engine.search(asked, **options)
        assert caught.value.message.startswith(message)


# --- octaves ------------------------------------------------------------------------------------------------------


def test_octaves_reach_renders_in_other_octaves(engine: Engine) -> None:
    near = engine.search(sound(60, 0.0, 0.3), banks=["spare"], fold=False)
    assert [hit.pitch for hit in near.hits] == [60.0]
    asked = sound(60, 0.2, 0.0)
    result = engine.search(asked, k=20, octaves=True, fold=False)
    assert "searched within ±1 semitones in every octave" in result.query.gate.reason
    assert {hit.pitch for hit in result.hits} <= {48.0, 60.0, 72.0, 84.0}
    beyond = engine.search(Like(ident(engine, "Tone 5")), pitch=48, banks=["spare"], octaves=True)
    assert names(beyond) == ["Octave Up"]
    assert beyond.hits[0].pitch in (60.0, 72.0, 84.0)
    # Without a pitch there are no octaves of it.
    assert engine.search(NOISE, octaves=True) == engine.search(NOISE)


# --- pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("candidates", [1, 2, 5, 100])
@pytest.mark.parametrize("gate", ["auto", "off"])
def test_pages_follow_one_another_without_gap_or_repetition(
    engine: Engine, candidates: int, gate: str
) -> None:
    search = replace(engine.bundle.manifest.search, candidates=candidates)
    narrow = Search(_with_search(engine.bundle, search), engine._timed, engine._index)
    small = Engine(engine.bundle, engine.models)
    small._search = narrow
    asked = sound(60, 0.2, 0.0)
    pages = [small.search(asked, k=4, offset=offset, gate=gate) for offset in range(0, 20, 4)]
    assert {page.total for page in pages} == {12 if gate == "auto" else 13}
    listed = [hit.patch_id for page in pages for hit in page.hits]
    assert len(listed) == len(set(listed)) == pages[0].total
    assert [page.offset for page in pages] == [0, 4, 8, 12, 16]
    assert small.search(asked, k=4, offset=4, gate=gate) == pages[1]
    if candidates == 100:
        distances = [hit.stage2_distance for page in pages for hit in page.hits]
        assert distances == sorted(distances)


def _with_search(bundle: Bundle, search: SearchEntry) -> Bundle:
    """The bundle, searched otherwise."""
    changed = Bundle.__new__(Bundle)
    changed.__dict__.update(bundle.__dict__, manifest=replace(bundle.manifest, search=search))
    return changed


# --- near-duplicates ----------------------------------------------------------------------------------------------


def test_near_duplicates_are_one_hit_by_the_nearer_of_them(engine: Engine) -> None:
    for number in (1, 2):
        result = engine.search(sound(60, *PLACES[number]), k=20)
        assert names(result)[0] == f"Tone {number + 1}"
        assert result.hits[0].also == (ident(engine, f"Tone {4 - number}"),)
        assert result.total == len(result.hits) == 12
        assert sum(bool(hit.also) for hit in result.hits) == 1
    apart = engine.search(sound(60, *PLACES[1]), k=20, fold=False)
    assert apart.total == 13
    assert not any(hit.also for hit in apart.hits)
    assert {"Tone 2", "Tone 3"} <= set(names(apart))


def test_what_a_filter_leaves_out_is_not_named_beside_a_hit(engine: Engine) -> None:
    (hit,) = engine.search(sound(60, *PLACES[1]), families=["brass"], banks=["tiny"]).hits
    assert (hit.name, hit.also) == ("Tone 2", ())
    first = engine.search(Like(ident(engine, "Tone 2"))).hits[0]
    assert (first.name, first.also) == ("Tone 3", ())


@pytest.mark.parametrize(
    ("distance", "groups"),
    [
        (0.0, []),
        # Distances of neighbours: 1-2 .0050, 2-3 .0044, 1-3 .019; 4-5 .0061, 5-6 .0051, 4-6 .022.
        (0.0047, [(2, 3)]),
        # Three follows two nowhere: its leader would be one, which is too far away.
        (0.006, [(1, 2), (5, 6)]),
        (0.0065, [(1, 2), (4, 5)]),
        (0.02, [(1, 2, 3), (4, 5), (6, 13), (7, 8), (10, 11)]),
    ],
)
def test_groups_follow_a_leader_and_no_chain(
    tmp_path: Any, distance: float, groups: Sequence[tuple[int, ...]]
) -> None:
    parts = bundle_parts(tiny_bundle_folder().with_name("bundle.parts"))
    search = SearchEntry(candidates=100, window_semitones=1, fold_distance=distance)
    bundle = Bundle.build(tmp_path / "bundle", **parts | {"search": search})
    grouped: dict[int, list[int]] = {}
    for number, leader in enumerate(bundle.leader_of.tolist(), start=1):
        grouped.setdefault(leader, []).append(number)
    found = sorted(tuple(members) for members in grouped.values() if len(members) > 1)
    bundle.close()
    assert found == sorted(groups)


def test_the_folded_list_is_the_other_with_repeats_struck_out(engine: Engine) -> None:
    asked = sound(60, *PLACES[1])
    folded, apart = engine.search(asked, k=20), engine.search(asked, k=20, fold=False)
    gone = {other for hit in folded.hits for other in hit.also}
    assert [hit.patch_id for hit in folded.hits] == [h.patch_id for h in apart.hits if h.patch_id not in gone]
    distances = [hit.stage2_distance for hit in folded.hits]
    assert all(one <= other for one, other in pairwise(distances))
