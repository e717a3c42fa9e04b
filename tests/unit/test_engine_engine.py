"""The engine over the tiny bundle: the right patch, the right pitch, the right place, and refusals that help."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny_bundle import KEYS, PLACES, tiny_bundle_folder
from support.tiny_models import tone

from timbrel.audio import Audio
from timbrel.codec import spectrum
from timbrel.engine.engine import STAGES, Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.engine.refinement import loudness_matched_distances
from timbrel.errors import InputError, Unavailable, UnsuitableQuery
from timbrel.library.bundle import Bundle
from timbrel.pitch.estimate import estimate

RATE = 24_000
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    bundle = Bundle.open(tiny_bundle_folder())
    engine = Engine(bundle, OnnxModels({name: bundle.path(name) for name in bundle.manifest.models}))
    yield engine
    engine.close()


def sound(pitch: float, x: float, y: float, *, level: float = 1.0, lead: float = 0.0) -> Audio:
    samples = level * np.concatenate([np.zeros(round(lead * RATE), np.float32), tone(pitch, x, y)])
    return Audio(samples.astype(np.float32), RATE)


def noise(seconds: float = 2.0) -> Audio:
    return Audio(np.random.default_rng(3).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32), RATE)


@pytest.mark.parametrize("number", range(len(PLACES)))
def test_a_sound_finds_its_patch_at_another_level_after_silence(engine: Engine, number: int) -> None:
    result = engine.search(sound(60.2, *PLACES[number], level=0.3, lead=0.4), k=3)
    best = result.hits[0]
    assert best.name == f"Tone {number + 1}"
    assert best.pitch == 60.0
    assert 0 <= best.stage2_distance < 0.05
    patch = engine.bundle.patch(best.patch_id)
    assert (best.x, best.y, best.family, best.bank) == (patch.x, patch.y, patch.family, "tiny")
    assert [hit.stage2_distance for hit in result.hits] == sorted(hit.stage2_distance for hit in result.hits)


def test_a_pitched_query_is_compared_with_renders_near_its_pitch(engine: Engine) -> None:
    result = engine.search(sound(66, 0.2, 0.0), k=13, fold=False)
    assert result.query.gate.decision == "pitched"
    assert result.query.midi == pytest.approx(66, abs=0.1)
    assert result.query.f0_hz == pytest.approx(369.99, rel=0.01)
    assert result.query.gate.reason.endswith("searched within ±1 semitones")
    assert len(result.hits) == 13  # all but the noise, which has no pitch
    assert {hit.pitch for hit in result.hits} == {66.0}
    assert "Octave Up" in {hit.name for hit in result.hits}


def test_between_renders_the_window_widens_and_says_so(engine: Engine) -> None:
    result = engine.search(sound(63.0, 0.2, 0.6), k=13, fold=False)
    assert result.query.gate.reason.endswith(
        "searched within ±3 semitones, widened from ±1 to reach most patches"
    )
    assert len(result.hits) == 13
    assert {hit.pitch for hit in result.hits} <= {60.0, 66.0}


def test_off_compares_with_every_render(engine: Engine) -> None:
    result = engine.search(sound(66, 0.2, 0.0), k=100, gate="off", fold=False)
    assert result.query.gate.decision == "off"
    assert result.query.midi == pytest.approx(66, abs=0.1)  # still told
    assert {hit.patch_id for hit in result.hits} == {patch.patch_id for patch in engine.bundle.patches}


def test_the_override_replaces_the_measured_pitch(engine: Engine) -> None:
    result = engine.search(sound(66, 0.2, 0.0), pitch=60)
    assert (result.query.gate.decision, result.query.gate.midi) == ("overridden", 60.0)
    assert {hit.pitch for hit in result.hits} == {60.0}
    assert engine.search(noise(), pitch=60, gate="require").query.gate.decision == "overridden"


def test_noise_is_unpitched_and_finds_noise(engine: Engine) -> None:
    result = engine.search(noise())
    assert result.query.gate.decision == "unpitched"
    assert result.query.f0_hz is result.query.midi is result.query.gate.midi is None
    assert result.query.gate.reason.endswith("all pitches were searched")
    assert (result.hits[0].name, result.hits[0].pitch) == ("Hiss", None)


def test_what_lies_outside_the_library_is_compared_with_everything(engine: Engine) -> None:
    result = engine.search(sound(95, 0.2, 0.0))
    assert result.query.gate.decision == "out_of_range"
    assert (
        "outside the library, which sounds from 48.0 to 84.0; all pitches were searched"
        in result.query.gate.reason
    )
    assert len(result.hits) == 10


@pytest.mark.parametrize(
    ("audio", "decision"),
    [
        (Audio(np.zeros(RATE, np.float32), RATE), "silent"),
        (Audio(np.full(RATE, 0.3, np.float32), RATE), "silent"),
        (Audio(np.full(1, 0.5, np.float32), RATE), "silent"),
        (Audio(tone(60, 0, 0)[2000:2500], RATE), "too_short"),
    ],
)
@pytest.mark.parametrize("gate", ["auto", "off"])
def test_nothing_to_compare_gives_a_decision_and_no_guess(
    engine: Engine, audio: Audio, decision: str, gate: str
) -> None:
    result = engine.search(audio, gate=gate)
    assert result.query.gate.decision == decision
    assert result.query.gate.reason
    assert result.hits == ()
    with pytest.raises(UnsuitableQuery, match=f"^{decision}: .*; send one clear note"):
        engine.search(audio, gate="require")
    with pytest.raises(UnsuitableQuery, match=f"^{decision}: .*; send a note that sounds"):
        engine.locate(audio)


@pytest.mark.parametrize("audio", [noise(), sound(95, 0.2, 0.0)])
def test_require_refuses_what_has_no_pitch_to_hold_the_search_to(engine: Engine, audio: Audio) -> None:
    with pytest.raises(UnsuitableQuery, match="use gate=auto"):
        engine.search(audio, gate="require")
    assert engine.search(sound(60, 0, 0), gate="require").hits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is a whole number from 1 to 100, not 0"),
        ({"k": 101}, "k is a whole number from 1 to 100, not 101"),
        ({"k": 2.5}, "k is a whole number from 1 to 100, not 2.5"),
        ({"k": True}, "k is a whole number from 1 to 100, not True"),
        ({"k": "3"}, "k is a whole number from 1 to 100, not '3'"),
        ({"gate": "maybe"}, "gate is one of auto, require, off, not 'maybe'"),
        ({"pitch": 200}, "pitch is a MIDI number from 0 to 127, not 200"),
        ({"pitch": -1}, "pitch is a MIDI number from 0 to 127, not -1"),
        ({"pitch": math.nan}, "pitch is a MIDI number from 0 to 127, not nan"),
        ({"pitch": "A4"}, "pitch is a MIDI number from 0 to 127, not 'A4'"),
    ],
)
def test_a_search_with_wrong_arguments_is_refused(
    engine: Engine, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        engine.search(sound(60, 0, 0), **options)
    assert caught.value.message == message


def test_other_sample_rates_give_the_same_answer(engine: Engine) -> None:
    import soxr

    original = sound(60, -0.2, 0.6)
    other = Audio(soxr.resample(original.samples, RATE, 44_100), 44_100)
    expected, found = engine.search(original, k=5), engine.search(other, k=5)
    assert [hit.patch_id for hit in found.hits] == [hit.patch_id for hit in expected.hits]
    np.testing.assert_allclose(
        [hit.stage2_distance for hit in found.hits], [hit.stage2_distance for hit in expected.hits], atol=0.01
    )


def test_embeddings_are_the_library_s_own_for_the_library_s_own_sound(engine: Engine) -> None:
    stage1, stage2 = engine.embed(sound(KEYS[2], *PLACES[4]))
    assert (stage1.dtype, stage2.dtype) == (np.float32, np.float32)
    assert np.linalg.norm(stage1) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(stage2) == pytest.approx(1, abs=1e-5)
    row = next(
        r.row
        for r in engine.bundle.renders
        if r.key == 60 and r.patch_id == engine.bundle.patches[4].patch_id
    )
    np.testing.assert_allclose(stage2, engine.bundle.stage2[row], atol=2e-3)


@pytest.mark.parametrize("pitch", [48, 55, 60, 67, 72])
@pytest.mark.parametrize("seconds", [0.5, 4.0, 6.0])
def test_a_synthesised_note_has_its_pitch_its_length_and_its_level(
    engine: Engine, pitch: int, seconds: float
) -> None:
    audio = engine.synthesize(x=0.3, y=-0.2, pitch=pitch, seconds=seconds)
    assert audio.sample_rate == RATE
    assert audio.samples.dtype == np.float32
    assert len(audio.samples) == pytest.approx(seconds * RATE, abs=160)
    assert np.abs(audio.samples).max() == pytest.approx(10 ** (-1 / 20), rel=1e-5)
    assert estimate(audio.samples, RATE).midi == pytest.approx(pitch, abs=0.5)


def test_places_on_the_map_sound_different_and_the_same_place_the_same(engine: Engine) -> None:
    dark, bright, again = (
        engine.synthesize(x=x, y=0.0, pitch=60, seconds=1.0).samples for x in (-0.8, 0.8, 0.8)
    )
    centroids = []
    for samples in (dark, bright):
        spectrum = np.abs(np.fft.rfft(samples)) ** 2
        centroids.append(float((np.arange(len(spectrum)) * spectrum).sum() / spectrum.sum()))
    assert centroids[1] > 1.5 * centroids[0]
    assert np.array_equal(bright, again)


def test_a_softer_note_is_quieter_and_darker_and_a_harder_one_brighter(engine: Engine) -> None:
    levels, centroids = [], []
    for velocity in (50, 100, 127):
        samples = engine.synthesize(x=0.0, y=0.0, pitch=60, seconds=1.0, velocity=velocity).samples
        spectrum = np.abs(np.fft.rfft(samples)) ** 2
        levels.append(20 * math.log10(float(np.abs(samples).max())))
        centroids.append(float((np.arange(len(spectrum)) * spectrum).sum() / spectrum.sum()))
    # 40 log10(50 / 100) dB; above 100 there is no room.
    assert levels == pytest.approx([-1.0 - 12.04, -1.0, -1.0], abs=0.01)
    assert centroids[0] < 0.95 * centroids[1]
    assert centroids[1] < 0.95 * centroids[2]
    usual = engine.synthesize(x=0.0, y=0.0, pitch=60, seconds=1.0).samples
    assert np.array_equal(engine.synthesize(x=0.0, y=0.0, pitch=60, seconds=1.0, velocity=100).samples, usual)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": 2.0}, "x is a coordinate of the map from -1 to 1, not 2"),
        ({"y": math.nan}, "y is a coordinate of the map from -1 to 1, not nan"),
        ({"x": "left"}, "x is a coordinate of the map from -1 to 1, not 'left'"),
        ({"x": 0.9, "y": 0.9}, "(0.9, 0.9) lies beyond the map; choose x and y with x² + y² at most 1²"),
        ({"pitch": 47}, "pitch is a whole number from 48 to 72, not 47"),
        ({"pitch": 200}, "pitch is a whole number from 48 to 72, not 200"),
        ({"pitch": 60.5}, "pitch is a whole number from 48 to 72, not 60.5"),
        ({"velocity": 0}, "velocity is a whole number from 1 to 127, not 0"),
        ({"velocity": 128}, "velocity is a whole number from 1 to 127, not 128"),
        ({"velocity": 64.5}, "velocity is a whole number from 1 to 127, not 64.5"),
        ({"seconds": 0.0}, "seconds is a length from 0.2 to 10, not 0"),
        ({"seconds": 11}, "seconds is a length from 0.2 to 10, not 11"),
        ({"seconds": math.inf}, "seconds is a length from 0.2 to 10, not inf"),
    ],
)
def test_a_synthesis_with_wrong_arguments_is_refused(
    engine: Engine, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        engine.synthesize(**{"x": 0.0, "y": 0.0, "pitch": 60, "seconds": 1.0, **options})
    assert caught.value.message == message


def test_every_hit_s_place_can_be_played(engine: Engine) -> None:
    for patch in engine.bundle.patches:
        assert len(engine.synthesize(x=patch.x, y=patch.y, pitch=60, seconds=0.2).samples) == 15 * 320


def test_a_library_sound_lies_where_its_patch_lies(engine: Engine) -> None:
    for number in (0, 5, 11):
        located = engine.locate(sound(60, *PLACES[number], level=0.2), refine=False)
        patch = engine.bundle.patches[number]
        # A patch's place is the mean over its renders, a query is one note.
        assert math.hypot(located.x - patch.x, located.y - patch.y) < 0.35
        assert located.query.gate.decision == "pitched"
        distances = [near.distance for near in located.nearest]
        assert distances == sorted(distances)
        assert len(distances) == 10
        assert patch.name in {near.name for near in located.nearest[:5]}
        first = located.nearest[0]
        assert first.distance == pytest.approx(math.hypot(first.x - located.x, first.y - located.y))


def test_the_refined_place_sounds_more_like_the_recording(engine: Engine) -> None:
    distances: dict[bool, list[float]] = {False: [], True: []}
    for number in (1, 6, 10):
        heard = spectrum.log_magnitude(tone(63, *PLACES[number]))[:150]
        for refine, found in distances.items():
            place = engine.locate(sound(63, *PLACES[number], lead=0.3), refine=refine)
            assert math.hypot(place.x, place.y) <= engine.bundle.manifest.map.radius
            made = engine.synthesize(x=place.x, y=place.y, pitch=63, seconds=4.0)
            notes = spectrum.log_magnitude(made.samples)[None, :150]
            found.append(float(loudness_matched_distances(heard, notes)[0]))
    assert np.mean(distances[True]) < np.mean(distances[False])


def test_no_call_is_larger_than_the_model_server_takes(engine: Engine) -> None:
    largest: dict[str, int] = {}

    class Counting:
        def run(self, model: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            largest[model] = max(largest.get(model, 0), len(next(iter(inputs.values()))))
            return engine.models.run(model, inputs)

        def close(self) -> None:
            pass

    counted = Engine(engine.bundle, Counting())
    counted.search(sound(60, 0.2, 0.0))
    counted.locate(sound(60, 0.2, 0.0))
    counted.instrument(x=0.0, y=0.0, seconds=0.2)
    for model, size in largest.items():
        config = (ROOT / "model_repository" / model / "config.pbtxt").read_text()
        (limit,) = map(int, re.findall(r"^max_batch_size: (\d+)", config, re.MULTILINE))
        # 0: the model sees the batch as a dimension of its own, of any size.
        assert limit == 0 or size <= limit, model
    assert largest["generator"] == 25


def test_what_has_no_pitch_is_placed_as_it_is(engine: Engine) -> None:
    plain, refined = (engine.locate(noise(), refine=refine) for refine in (False, True))
    assert (plain.x, plain.y) == (refined.x, refined.y)


def test_a_place_beyond_the_map_s_pitches_is_called_a_guess(engine: Engine) -> None:
    gate = engine.locate(sound(80, 0.2, 0.0)).query.gate
    assert gate.decision == "out_of_range"
    assert "outside the map, which was trained on 48 to 72: take the place as a guess" in gate.reason


def test_every_stage_is_observed_once_in_order() -> None:
    seen: list[tuple[str, float]] = []
    bundle = Bundle.open(tiny_bundle_folder())
    models = OnnxModels({name: bundle.path(name) for name in bundle.manifest.models})
    engine = Engine(bundle, models, observe=lambda stage, seconds: seen.append((stage, seconds)))
    engine.search(sound(60, 0, 0))
    assert [stage for stage, _ in seen] == ["f0", "gate", "stage1", "index", "stage2"]
    engine.synthesize(x=0, y=0, pitch=60, seconds=1)
    engine.locate(sound(60, 0, 0))
    assert [stage for stage, _ in seen[5:]] == ["generate", "decode", "f0", "gate", "map", "refine"]
    assert {stage for stage, _ in seen} == set(STAGES)
    assert all(seconds > 0 for _, seconds in seen)


def test_a_failed_stage_is_not_observed_and_its_error_comes_out() -> None:
    class Broken:
        def run(self, model: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            if model == "generator":
                raise Unavailable("the model server does not answer; start it")
            return {"stage1": np.full((1, 16), np.nan), "stage2": np.zeros((1, 96))}

        def close(self) -> None:
            pass

    seen: list[str] = []
    engine = Engine(
        Bundle.open(tiny_bundle_folder()), Broken(), observe=lambda stage, seconds: seen.append(stage)
    )
    with pytest.raises(Unavailable, match="does not answer"):
        engine.synthesize(x=0, y=0, pitch=60, seconds=1)
    with pytest.raises(Unavailable, match="timbre_encoder answered with values that are not finite"):
        engine.search(sound(60, 0, 0))
    assert seen == ["f0", "gate"]


def test_what_is_around_a_stage_is_entered_while_it_works_and_told_its_facts() -> None:
    told: list[tuple[str, object]] = []

    @contextmanager
    def around(stage: str) -> Iterator[Callable[..., None]]:
        told.append((stage, "begins"))
        yield lambda **facts: told.append((stage, facts))
        told.append((stage, "ends"))

    bundle = Bundle.open(tiny_bundle_folder())
    models = OnnxModels({name: bundle.path(name) for name in bundle.manifest.models})
    result = Engine(bundle, models, around=around).search(sound(60, 0, 0), k=1)
    stages = ["f0", "gate", "stage1", "index", "stage2"]
    assert [stage for stage, what in told if what == "begins"] == stages
    assert [stage for stage, what in told if what == "ends"] == stages
    assert ("gate", {"gate_decision": result.query.gate.decision.value}) in told
    (candidates,) = (
        what["candidates"] for stage, what in told if stage == "index" and isinstance(what, dict)
    )
    assert 1 <= candidates <= len(bundle.renders)


def test_threads_get_the_answers_that_one_thread_gets(engine: Engine) -> None:
    sounds = [sound(KEYS[number % 5], *PLACES[number]) for number in range(12)]
    alone = [engine.search(audio, k=3) for audio in sounds]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda audio: engine.search(audio, k=3), sounds))
    assert [result.hits for result in together] == [result.hits for result in alone]
