"""The engine: search, locate, synthesize, instrument and embed over one bundle. Synchronous and thread-safe.

    audio ─► F0 ─► gate ─► clip ─► timbre encoder ─► index (pitch ± window) ─► exact style order ─► hits
    audio ─► F0 ─► gate ─► note as trained on ─► codec encoder ─► map encoder ─► refine ─► place on the map
    place, pitch, velocity, seconds ─► generator ─► codec decoder ─► length ─► phase ─► level ─► audio

It knows the models only through the ``Models`` protocol, the codec only through ``Codec``, and the clock only to tell
``observe`` the seconds of each stage.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np

from timbrel import audio as audio_edge
from timbrel.audio import Audio
from timbrel.codec import phase, spectrum
from timbrel.codec.runtime import ENCODER, codec_of
from timbrel.encoders import frontend
from timbrel.engine import placing, refinement
from timbrel.engine.finish import finished
from timbrel.engine.models import Models
from timbrel.engine.results import Hit, Instrument, Location, Neighbour, Query, SearchResult
from timbrel.errors import InputError, UnsuitableQuery
from timbrel.library import two_stage, vectors
from timbrel.library.bundle import Bundle
from timbrel.library.coverage import Coverage
from timbrel.pgesam import duration
from timbrel.pitch import gate as gates
from timbrel.pitch.estimate import estimate
from timbrel.pitch.gate import Decision, GateDecision, Mode

SAMPLE_RATE = spectrum.SAMPLE_RATE
NOTE_FRAMES = 300
MAX_HITS = 100
DEFAULT_VELOCITY, HIGHEST_VELOCITY = 100, 127
NEAREST = 10
# Notes decoded in one call: a model server takes up to 16 (model_repository/codec_decoder).
DECODER_BATCH = 8
SHORTEST_SECONDS, LONGEST_SECONDS = 0.2, 10.0
# The stages that ``observe`` hears of.
STAGES = ("f0", "gate", "stage1", "index", "stage2", "map", "refine", "generate", "decode")

Observe = Callable[[str, float], None]


class Engine:
    """Answers over one bundle; to serve another bundle, make another engine."""

    def __init__(
        self, bundle: Bundle, models: Models, *, observe: Observe = lambda stage, seconds: None
    ) -> None:
        """``observe(stage, seconds)`` is called after each stage, from the thread that ran it."""
        self.bundle = bundle
        self.models = models
        self._codec = codec_of(models, bundle.manifest.models[ENCODER].inputs)
        self._observe = observe
        self._coverage = Coverage(bundle.renders, bundle.patch_of)

    def search(
        self, audio: Audio, *, k: int = 10, gate: str = "auto", pitch: float | None = None
    ) -> SearchResult:
        """The ``k`` patches (1-100) that sound most like the recording, each by its best render.

        ``gate``: "auto" compares with renders near the measured pitch where there is one, and says what it
        did; "require" refuses anything else; "off" compares with all renders. ``pitch`` (MIDI) replaces the
        measured one.

        Raises:
            InputError: an argument out of range.
            UnsuitableQuery: ``gate`` is "require" and the recording has no pitch to hold the search to.
            Unavailable: a model does not answer.
        """
        k = _whole("k", k, 1, MAX_HITS)
        if pitch is not None:
            pitch = _number("pitch", pitch, 0, 127, "a MIDI number")
        query, audible = self._judge(audio, gate, pitch)
        if gate == Mode.REQUIRE:
            gates.require(query.gate)
        if not audible:
            return SearchResult(query=query, hits=())
        stage1, stage2 = self.embed(audio)
        search = self.bundle.manifest.search
        midi, window = query.gate.midi, 0
        with self._timed("index"):
            if midi is not None:
                window = self._coverage.window(midi, least=search.window_semitones, patches=k)
            found = self.bundle.index.query(stage1, pitch=midi, window=window, k=search.candidates)
        with self._timed("stage2"):
            matches = two_stage.order(
                found, query=stage2, stage2=self.bundle.stage2, patch_of=self.bundle.patch_of, k=k,
                scales=self.bundle.scales,
            )  # fmt: skip
        decision = replace(query.gate, reason=self._explain(query.gate, window))
        return SearchResult(query=replace(query, gate=decision), hits=tuple(map(self._hit, matches)))

    def embed(self, audio: Audio) -> tuple[np.ndarray, np.ndarray]:
        """The recording's stage-1 vector float32 [d1] and stage-2 vector float32 [d2], both l2-normalised."""
        with self._timed("stage1"):
            clip = self._clip(audio)
            stage1, stage2 = vectors.embed_clips(self.models.run, clip[None])
        return stage1[0], stage2[0]

    def locate(self, audio: Audio, *, refine: bool = True) -> Location:
        """Where the recording lies on the timbre map.

        ``refine``: look around the place that the map encoder names for the one whose note, at the recording's
        pitch, sounds most like it; without a pitch there is nothing to compare.

        Raises:
            UnsuitableQuery: the recording is silent or too short: it has no place.
            Unavailable: a model does not answer.
        """
        query, audible = self._judge(audio, Mode.AUTO, None)
        if not audible:
            raise UnsuitableQuery(
                f"{query.gate.decision.value}: {query.gate.reason}; send a note that sounds"
            )
        limits = self.bundle.manifest.map
        with self._timed("map"):
            samples = audio_edge.resample(audio, SAMPLE_RATE).samples
            heard = placing.hear(samples, midi=query.midi, low=limits.pitch_low, high=limits.pitch_high)
            embedding = self._codec.encode_spectra(heard.spectra)
            place = vectors.positions_of_embeddings(self.models.run, embedding[None])[0]
        if refine and query.midi is not None:
            with self._timed("refine"):
                key = round(min(max(query.midi + heard.transposed, limits.pitch_low), limits.pitch_high))
                recording = heard.spectra.log_magnitude
                found = refinement.refine(self._spectra, recording, place, key, limits.radius)
                place = found.place
        # A place just beyond the rim could not be played.
        x, y = map(float, place * min(1.0, limits.radius / max(float(np.linalg.norm(place)), 1e-12)))
        return Location(
            query=replace(query, gate=self._on_the_map(query)), x=x, y=y, nearest=self.nearest(x, y)
        )

    def nearest(self, x: float, y: float) -> tuple[Neighbour, ...]:
        """The patches nearest to a place on the map, nearest first."""
        distances = np.hypot(self.bundle.positions[:, 0] - x, self.bundle.positions[:, 1] - y)
        numbers = np.argsort(distances, kind="stable")[:NEAREST]
        chosen = [(self.bundle.patches[number], float(distances[number])) for number in numbers]
        return tuple(
            Neighbour(
                patch_id=patch.patch_id, name=patch.name, family=patch.family, bank=patch.bank,
                x=patch.x, y=patch.y, distance=distance,
            )
            for patch, distance in chosen
        )  # fmt: skip

    def synthesize(
        self, *, x: float, y: float, pitch: int, seconds: float, velocity: int = DEFAULT_VELOCITY
    ) -> Audio:
        """The sound of a place on the map: 24 kHz mono, ``seconds`` long to the nearest 1/75 s.

        ``velocity`` (1-127) changes the timbre, and the level by 40 log10(velocity / 100) dB as General MIDI
        recommends: the peak is at -1 dBFS at velocity 100. There is no room above, so a harder note is no louder.

        Raises:
            InputError: a place beyond the map, a pitch outside its range, a velocity outside 1-127, or a length
                outside 0.2-10 s.
            Unavailable: a model does not answer.
        """
        x, y = self._place(x, y)
        limits = self.bundle.manifest.map
        key = _whole("pitch", pitch, limits.pitch_low, limits.pitch_high)
        struck = _whole("velocity", velocity, 1, HIGHEST_VELOCITY)
        seconds = _number("seconds", seconds, SHORTEST_SECONDS, LONGEST_SECONDS, "a length")
        (embedding,) = self._generate(x, y, [key], struck)
        return self._decode(embedding, seconds, struck)

    def instrument(
        self,
        *,
        x: float,
        y: float,
        seconds: float = 4.0,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Instrument:
        """A place on the map at every key of the map (25), each note as ``synthesize`` gives it.

        The generator makes all keys in one call; ``progress(notes done, notes in all)`` is called after each
        is decoded.

        Raises:
            InputError: a place beyond the map, or a length outside 0.2-10 s.
            Unavailable: a model does not answer.
        """
        x, y = self._place(x, y)
        seconds = _number("seconds", seconds, SHORTEST_SECONDS, LONGEST_SECONDS, "a length")
        limits = self.bundle.manifest.map
        keys = range(limits.pitch_low, limits.pitch_high + 1)
        notes = []
        # Decoded one by one: the spectra of all notes together would take a hundred megabytes.
        for key, embedding in zip(keys, self._generate(x, y, keys, DEFAULT_VELOCITY), strict=True):
            notes.append((key, self._decode(embedding, seconds, DEFAULT_VELOCITY)))
            progress(len(notes), len(keys))
        return Instrument(x=x, y=y, notes=tuple(notes))

    def close(self) -> None:
        """Let go of the models and the bundle."""
        self.models.close()
        self.bundle.close()

    def _place(self, x: float, y: float) -> tuple[float, float]:
        """The place as floats, or an InputError when it lies beyond the map."""
        radius = self.bundle.manifest.map.radius
        x = _number("x", x, -radius, radius, "a coordinate of the map")
        y = _number("y", y, -radius, radius, "a coordinate of the map")
        if math.hypot(x, y) > radius + 1e-9:
            raise InputError(
                f"({x:g}, {y:g}) lies beyond the map; choose x and y with x² + y² at most {radius:g}²"
            )
        return x, y

    def _generate(self, x: float, y: float, keys: Sequence[int], velocity: int) -> np.ndarray:
        """The notes of one place at ``keys`` as codec frames, float32 [keys, 300, 128], in one call."""
        count = len(keys)
        inputs: dict[str, np.ndarray] = {
            "position": np.tile(np.array([x, y], dtype=np.float32), (count, 1)),
            "pitch": np.array(keys, dtype=np.int64) - self.bundle.manifest.map.pitch_low,
            "velocity": np.full(count, velocity / HIGHEST_VELOCITY, dtype=np.float32),
            "frames": np.array([NOTE_FRAMES], dtype=np.int64),
        }
        with self._timed("generate"):
            return self.models.run("generator", inputs)["embedding"]

    def _spectra(self, places: np.ndarray, key: int, frames: int) -> np.ndarray:
        """The first ``frames`` frames of the notes of ``places`` [n, 2] at one key: dB, float32 [n, frames, 1025]."""
        generated = self.models.run(
            "generator",
            {
                "position": np.ascontiguousarray(places, dtype=np.float32),
                "pitch": np.full(len(places), key - self.bundle.manifest.map.pitch_low, dtype=np.int64),
                "velocity": np.full(len(places), DEFAULT_VELOCITY / HIGHEST_VELOCITY, dtype=np.float32),
                "frames": np.array([frames], dtype=np.int64),
            },
        )
        embedding = vectors.finite(generated["embedding"], "generator")
        batches = (embedding[n : n + DECODER_BATCH] for n in range(0, len(embedding), DECODER_BATCH))
        decoded = (self._codec.decode_spectra(batch).log_magnitude for batch in batches)
        return np.concatenate([vectors.finite(each, "codec_decoder") for each in decoded])

    def _decode(self, embedding: np.ndarray, seconds: float, velocity: int) -> Audio:
        """The sound of one generated note, ``seconds`` long."""
        with self._timed("decode"):
            decoded = self._codec.decode_spectra(embedding[None])
            frames = max(duration.SHORTEST_FRAMES, round(seconds * spectrum.FRAME_RATE))
            log_magnitude = duration.with_duration(decoded.log_magnitude[0], frames)
            kept = duration.frames_kept(len(embedding), frames)
            known = None if decoded.phase is None else decoded.phase[0, :kept]
            samples = finished(phase.reconstruct(log_magnitude, known=known))
        return Audio(samples * _velocity_gain(velocity), SAMPLE_RATE)

    def _judge(self, audio: Audio, mode: str, pitch: float | None) -> tuple[Query, bool]:
        """Measure the pitch, ask the gate; and whether there is anything to hear at all."""
        with self._timed("f0"):
            measured = estimate(audio.samples, audio.sample_rate)
        with self._timed("gate"):
            decide = partial(
                gates.decide,
                audio.samples,
                audio.sample_rate,
                measured,
                lowest=self._coverage.lowest,
                highest=self._coverage.highest,
            )
            decision = decide(mode=mode, override=pitch)
            if decision.decision is Decision.OFF:
                # An open gate still has nothing to compare silence with.
                heard = decide()
                decision = decision if heard.has_sound else heard
        query = Query(
            f0_hz=measured.f0_hz if measured.voiced else None,
            midi=measured.midi if measured.voiced else None,
            confidence=measured.confidence,
            gate=decision,
        )
        return query, decision.has_sound

    def _clip(self, audio: Audio) -> np.ndarray:
        """The encoder's clip, float32 [72000], from the recording's onset."""
        return frontend.clip(audio_edge.resample(audio, SAMPLE_RATE).samples)

    def _explain(self, decision: GateDecision, window: int) -> str:
        """The gate's reason, and what the search did with it."""
        if decision.decision is Decision.OFF:
            return decision.reason
        if decision.midi is None:
            return f"{decision.reason}; all pitches were searched"
        least = self.bundle.manifest.search.window_semitones
        widened = f", widened from ±{least} to reach most patches" if window > least else ""
        return f"{decision.reason}; searched within ±{window} semitones{widened}"

    def _on_the_map(self, query: Query) -> GateDecision:
        """The gate's decision against the pitches of the map rather than of the library."""
        limits = self.bundle.manifest.map
        if query.midi is None or limits.pitch_low - 0.5 <= query.midi < limits.pitch_high + 0.5:
            return query.gate
        reason = (
            f"MIDI {query.midi:.1f} lies outside the map, which was trained on {limits.pitch_low} to "
            f"{limits.pitch_high}: take the place as a guess"
        )
        return GateDecision(Decision.OUT_OF_RANGE, reason, None, query.confidence)

    def _hit(self, match: two_stage.Match) -> Hit:
        render = self.bundle.renders[match.row]
        patch = self.bundle.patch(render.patch_id)
        return Hit(
            patch_id=patch.patch_id,
            name=patch.name,
            family=patch.family,
            bank=patch.bank,
            pitch=None if math.isnan(render.f0_midi) else render.f0_midi,
            stage1_distance=match.stage1_distance,
            stage2_distance=match.stage2_distance,
            distance=match.distance,
            x=patch.x,
            y=patch.y,
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Tell ``observe`` how long a stage took, if it succeeded."""
        started = time.perf_counter()
        yield
        self._observe(stage, time.perf_counter() - started)


def _number(name: str, value: object, low: float, high: float, what: str) -> float:
    """``value`` as a float within low..high, or an InputError that says what is wanted."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InputError(f"{name} is {what} from {low:g} to {high:g}, not {value!r}")
    number = float(value)
    if not low <= number <= high:  # false for NaN, too
        raise InputError(f"{name} is {what} from {low:g} to {high:g}, not {number:g}")
    return number


def _whole(name: str, value: object, low: int, high: int) -> int:
    """``value`` as an int within low..high, or an InputError."""
    number = _number(name, value, low, high, "a whole number")
    if number != int(number):
        raise InputError(f"{name} is a whole number from {low} to {high}, not {number:g}")
    return int(number)


def _velocity_gain(velocity: int) -> np.float32:
    """The level of a velocity relative to 100: the square of their ratio (General MIDI 1 developer guidelines, MMA
    1996), and no more than 1."""
    return np.float32(min(1.0, (velocity / DEFAULT_VELOCITY) ** 2))
