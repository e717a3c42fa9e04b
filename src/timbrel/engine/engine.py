"""The engine: search, locate, synthesize, instrument and embed over one bundle. Synchronous and thread-safe.

    audio, patch or vectors ─► F0 ─► gate ─► timbre encoder ─► index (pitch ± window) ─► exact style order ─► hits
    audio ─► F0 ─► gate ─► note as trained on ─► codec encoder ─► map encoder ─► refine ─► place on the map
    place, pitch, velocity, seconds ─► generator ─► codec decoder ─► length ─► phase ─► level ─► audio

It knows the models only through the ``Models`` protocol, the codec only through ``Codec``, and the clock only to tell
``observe`` the seconds of each stage.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import numpy as np

from timbrel import audio as audio_edge
from timbrel.audio import Audio
from timbrel.codec import phase, spectrum
from timbrel.codec.runtime import ENCODER, codec_of
from timbrel.encoders import frontend
from timbrel.engine import asking, placing, refinement
from timbrel.engine.arguments import (
    DEFAULT_SECONDS,
    DEFAULT_VELOCITY,
    HIGHEST_VELOCITY,
    LONGEST_SECONDS,
    SHORTEST_SECONDS,
    number,
    whole,
)
from timbrel.engine.asking import Asked, Like, Question, Vectors
from timbrel.engine.finish import finished
from timbrel.engine.index import BundleIndex, Index
from timbrel.engine.models import Models
from timbrel.engine.results import Instrument, Location, Neighbour, Query, SearchResult
from timbrel.engine.search import Search
from timbrel.engine.terms import Terms
from timbrel.errors import InputError, UnsuitableQuery
from timbrel.library import vectors
from timbrel.library.bundle import Bundle
from timbrel.library.filters import Filters
from timbrel.pgesam import duration
from timbrel.pitch import gate as gates
from timbrel.pitch.estimate import estimate
from timbrel.pitch.gate import Decision, GateDecision, Mode

SAMPLE_RATE = spectrum.SAMPLE_RATE
NOTE_FRAMES = 300
NEAREST = 10
# Notes decoded in one call: a model server takes up to 16 (model_repository/codec_decoder).
DECODER_BATCH = 8
# The stages that ``observe`` hears of.
STAGES = ("f0", "gate", "stage1", "index", "stage2", "map", "refine", "generate", "decode")

Observe = Callable[[str, float], None]
Note = Callable[..., None]
"""Takes facts about the stage that is at work, by keyword: of "gate" ``gate_decision``, of "index" ``candidates``."""
Around = Callable[[str], AbstractContextManager[Note]]
Searched = Callable[[Asked, Question, SearchResult], None]


class Engine:
    """Answers over one bundle; to serve another bundle, make another engine."""

    def __init__(
        self,
        bundle: Bundle,
        models: Models,
        *,
        observe: Observe = lambda stage, seconds: None,
        around: Around = lambda stage: nullcontext(lambda **facts: None),
        searched: Searched = lambda asked, question, result: None,
        index: Index | None = None,
    ) -> None:
        """``observe(stage, seconds)`` is called after each stage, ``searched`` after each search with what was asked,
        understood and answered; ``around(stage)`` is entered while a stage works. All from the thread that runs it.
        ``index``: of this bundle's renders; without one, the bundle's own.
        """
        self.bundle = bundle
        self.models = models
        self._codec = codec_of(models, bundle.manifest.models[ENCODER].inputs)
        self._observe = observe
        self._around = around
        self._searched = searched
        self._index = index or BundleIndex(bundle.index)
        self._search = Search(bundle, self._timed, self._index)

    def search(
        self,
        asked: Asked,
        *,
        k: int = 10,
        offset: int = 0,
        gate: str = Mode.AUTO,
        pitch: float | None = None,
        octaves: bool = False,
        families: Sequence[str] = (),
        banks: Sequence[str] = (),
        min_confidence: float = 0.0,
        fold: bool = True,
    ) -> SearchResult:
        """The patches that sound most like what is asked with, each by its best render: ``k`` (1-100) of them,
        after the first ``offset``.

        Args:
            asked: a recording; up to eight recordings of one sound (the mean of their vectors, at the median of
                their pitches where these agree within the library's window); a patch of the library (``Like``,
                which is left out of the answer); or ``Vectors``.
            gate: "auto" compares with renders near the pitch where there is one, and says what it did; "require"
                refuses anything else; "off" compares with all renders.
            pitch: MIDI; replaces the measured one, is that of the vectors, or chooses among a patch's renders.
            octaves: renders an octave or more from the pitch are as near as those at it.
            families, banks: only patches of these, where any are named.
            min_confidence: only renders whose pitch is at least so sure, 0-1.
            fold: patches that are the same sound are one hit, the others in its ``also``.

        Raises:
            InputError: an argument out of range, an unknown family or bank, vectors of another encoder.
            NotFound: there is no such patch.
            UnsuitableQuery: ``gate`` is "require" and there is no pitch to hold the search to.
            Unavailable: a model does not answer.
        """
        filters = Filters(families=tuple(families), banks=tuple(banks), min_confidence=min_confidence)
        terms = Terms(k=k, offset=offset, octaves=octaves, filters=filters, fold=fold)
        if pitch is not None:
            pitch = number("pitch", pitch, 0, 127, "a MIDI number")
        question = self._question(asked, gates.parse(gate), pitch)
        result = self._search.answer(question, terms)
        self._searched(asked, question, result)
        return result

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
        key = whole("pitch", pitch, limits.pitch_low, limits.pitch_high)
        struck = whole("velocity", velocity, 1, HIGHEST_VELOCITY)
        seconds = number("seconds", seconds, SHORTEST_SECONDS, LONGEST_SECONDS, "a length")
        (embedding,) = self._generate(x, y, [key], struck)
        return self._decode(embedding, seconds, struck)

    def instrument(
        self,
        *,
        x: float,
        y: float,
        seconds: float = DEFAULT_SECONDS,
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
        seconds = number("seconds", seconds, SHORTEST_SECONDS, LONGEST_SECONDS, "a length")
        limits = self.bundle.manifest.map
        keys = range(limits.pitch_low, limits.pitch_high + 1)
        notes = []
        # Decoded one by one: the spectra of all notes together would take a hundred megabytes.
        for key, embedding in zip(keys, self._generate(x, y, keys, DEFAULT_VELOCITY), strict=True):
            notes.append((key, self._decode(embedding, seconds, DEFAULT_VELOCITY)))
            progress(len(notes), len(keys))
        return Instrument(x=x, y=y, notes=tuple(notes))

    def close(self) -> None:
        """Let go of the models, the index and the bundle."""
        self._index.close()
        self.models.close()
        self.bundle.close()

    def _place(self, x: float, y: float) -> tuple[float, float]:
        """The place as floats, or an InputError when it lies beyond the map."""
        radius = self.bundle.manifest.map.radius
        x = number("x", x, -radius, radius, "a coordinate of the map")
        y = number("y", y, -radius, radius, "a coordinate of the map")
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

    def _question(self, asked: Asked, mode: Mode, pitch: float | None) -> Question:
        if isinstance(asked, Like):
            return asking.of_patch(self.bundle, self._index, asked, mode=mode, pitch=pitch)
        if isinstance(asked, Vectors):
            return asking.of_vectors(
                self.bundle,
                asked,
                mode=mode,
                pitch=pitch,
                lowest=self._search.lowest,
                highest=self._search.highest,
            )
        return asking.of_recordings(
            (asked,) if isinstance(asked, Audio) else asked,
            lambda recording: self._judge(recording, mode, pitch),
            self.embed,
            mode=mode,
            window=self.bundle.manifest.search.window_semitones,
        )

    def _judge(self, audio: Audio, mode: str, pitch: float | None) -> tuple[Query, bool]:
        """Measure the pitch, ask the gate; and whether there is anything to hear at all."""
        with self._timed("f0"):
            measured = estimate(audio.samples, audio.sample_rate)
        with self._timed("gate") as note:
            decide = partial(
                gates.decide,
                audio.samples,
                audio.sample_rate,
                measured,
                lowest=self._search.lowest,
                highest=self._search.highest,
            )
            decision = decide(mode=mode, override=pitch)
            if decision.decision is Decision.OFF:
                # An open gate still has nothing to compare silence with.
                heard = decide()
                decision = decision if heard.has_sound else heard
            note(gate_decision=decision.decision.value)
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

    @contextmanager
    def _timed(self, stage: str) -> Iterator[Note]:
        """Around a stage: tell ``observe`` how long it took, if it succeeded."""
        started = time.perf_counter()
        with self._around(stage) as note:
            yield note
        self._observe(stage, time.perf_counter() - started)


def _velocity_gain(velocity: int) -> np.float32:
    """The level of a velocity relative to 100: the square of their ratio (General MIDI 1 developer guidelines, MMA
    1996), and no more than 1."""
    return np.float32(min(1.0, (velocity / DEFAULT_VELOCITY) ** 2))
