"""The HTTP service, asked as clients ask it: every format, every kind of bad input, links, docs, metrics."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from prometheus_client.parser import text_string_to_metric_families
from support.recordings import encoded, note, wav_note
from support.serving import Serving
from support.tiny_bundle import tiny_bundle_folder
from support.tiny_models import D1, D2, tone

from timbrel.audio import Audio
from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.library.bundle import Bundle
from timbrel.pitch.estimate import estimate


def _search(http: httpx.Client, audio: bytes, **fields: str) -> httpx.Response:
    return http.post("/search", files={"audio": ("clip", audio)}, data=fields)


def _error(answer: httpx.Response) -> dict[str, str]:
    """The envelope's content, checked."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    assert sorted(body["error"]) == ["code", "message"]
    assert body["error"]["message"]
    assert "\n" not in body["error"]["message"]
    return dict(body["error"])


def _works(http: httpx.Client) -> None:
    """The service answers a good question."""
    answer = _search(http, wav_note(), k="1")
    assert answer.status_code == 200, answer.text
    assert answer.json()["query"]["midi"] == pytest.approx(60, abs=0.5)
    assert len(answer.json()["hits"]) == 1


# --- what works --------------------------------------------------------------------------------------------------

FORMATS = [
    *[("WAV", subtype, 44_100) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")],
    *[
        ("WAV", "PCM_16", rate)
        for rate in (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 48_000, 96_000, 192_000)
    ],
    *[("WAV", "FLOAT", rate) for rate in (8_000, 192_000)],
    *[("FLAC", subtype, 48_000) for subtype in ("PCM_S8", "PCM_16", "PCM_24")],
    *[("FLAC", "PCM_16", rate) for rate in (8_000, 192_000)],
    *[("OGG", "VORBIS", rate) for rate in (8_000, 44_100, 192_000)],
    ("OGG", "OPUS", 48_000),
    *[("MP3", "MPEG_LAYER_III", rate) for rate in (8_000, 24_000, 44_100, 48_000)],
    *[("AIFF", subtype, 44_100) for subtype in ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")],
    *[("AIFF", "PCM_16", rate) for rate in (8_000, 192_000)],
]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("container", "subtype", "rate"), FORMATS)
def test_every_format(http: httpx.Client, container: str, subtype: str, rate: int, channels: int) -> None:
    audio = encoded(note(rate, channels=channels), rate, container, subtype)
    answer = _search(http, audio, k="3")
    assert answer.status_code == 200, answer.text
    query = answer.json()["query"]
    assert query["midi"] == pytest.approx(60, abs=0.5)
    assert query["f0_hz"] == pytest.approx(261.63, rel=0.03)
    assert query["gate"]["decision"] == "pitched"
    assert len(answer.json()["hits"]) == 3


def test_a_hit_tells_everything_and_leads_to_its_patch(http: httpx.Client) -> None:
    answer = _search(http, wav_note()).json()
    assert sorted(answer) == ["hits", "offset", "query", "total"]
    assert (answer["total"], answer["offset"]) == (12, 0)
    assert sorted(answer["query"]) == ["confidence", "f0_hz", "gate", "midi"]
    assert 0 < answer["query"]["confidence"] <= 1
    hits = answer["hits"]
    assert len(hits) == 10
    assert len({hit["patch_id"] for hit in hits}) == 10
    assert [hit["distance"] for hit in hits] == sorted(hit["distance"] for hit in hits)
    for hit in hits:
        assert {"patch_id", "name", "family", "pitch", "stage1_distance", "stage2_distance", "links"} <= set(
            hit
        )
        assert hit["pitch"] == pytest.approx(60, abs=1.5)
    first = hits[0]
    patch = http.get(first["links"]["patch"])
    assert patch.status_code == 200
    # A DX7 single-voice dump: F0 43 00 00 01 1B, 155 bytes, checksum, F7.
    assert (len(patch.content), patch.content[:6]) == (163, bytes.fromhex("f0430000011b"))
    assert patch.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
    assert patch.headers["content-disposition"].endswith(".syx")
    preview = http.get(first["links"]["preview"])
    assert (preview.status_code, preview.headers["content-type"]) == (200, "audio/mpeg")
    sound, rate = soundfile.read(io.BytesIO(preview.content))
    assert rate == 24_000
    assert np.abs(sound).max() > 0.1


def test_options_count(http: httpx.Client) -> None:
    held = _search(http, wav_note(), pitch="66", k="4").json()
    assert held["query"]["gate"]["decision"] == "overridden"
    assert len(held["hits"]) == 4
    assert all(hit["pitch"] == pytest.approx(66, abs=1.5) for hit in held["hits"])
    opened = _search(http, wav_note(), gate="off").json()
    assert opened["query"]["gate"]["decision"] == "off"
    queried = http.post("/search?k=2&gate=require", files={"audio": ("clip", wav_note())}).json()
    assert len(queried["hits"]) == 2
    assert queried["query"]["gate"]["decision"] == "pitched"


def test_the_library_page_by_page(http: httpx.Client) -> None:
    info = http.get("/info").json()
    assert (info["patches"], info["renders"], info["banks"]) == (14, 70, ["spare", "tiny"])
    assert info["map"]["pitch_low"] == 48
    assert (info["stage1_dimension"], info["stage2_dimension"]) == (D1, D2)
    whole = http.get("/patches").json()
    assert (whole["total"], whole["offset"], len(whole["patches"])) == (14, 0, 14)
    pages = [http.get("/patches", params={"offset": n, "limit": 5}).json() for n in (0, 5, 10)]
    assert [patch for page in pages for patch in page["patches"]] == whole["patches"]
    spare = http.get("/patches?bank=spare&family=brass&family=flute").json()
    assert (spare["total"], [patch["name"] for patch in spare["patches"]]) == (1, ["Octave Up"])
    assert spare["patches"][0]["pitches"] == [60, 66, 72, 78, 84]
    (patch,) = spare["patches"]
    assert http.get(f"/patches/{patch['patch_id']}").json() == patch
    assert http.get(patch["links"]["patch"]).status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "code", "told"),
    [
        ("/patches?limit=0", 400, "invalid_input", "limit"),
        ("/patches?limit=1001", 400, "invalid_input", "limit"),
        ("/patches?offset=-1", 400, "invalid_input", "offset"),
        ("/patches?offset=1e3", 400, "invalid_input", "offset"),
        ("/patches?offset=1&offset=2", 400, "invalid_input", "more than once"),
        ("/patches?page=2", 400, "invalid_input", "no field 'page'"),
        ("/patches?family=none", 400, "invalid_input", "no family 'none'"),
        (f"/patches?bank={'x' * 201}", 400, "invalid_input", "bank"),
        ("/patches/nobody", 404, "not_found", "no patch 'nobody'"),
    ],
)
def test_no_page_and_no_patch(http: httpx.Client, path: str, status: int, code: str, told: str) -> None:
    answer = http.get(path)
    assert answer.status_code == status
    assert _error(answer)["code"] == code
    assert told in _error(answer)["message"]


# --- search by a patch, by vectors, by several recordings; filters, pages, near-duplicates -----------------------


@pytest.fixture(scope="module")
def ids() -> dict[str, str]:
    """Patch ids of the served bundle by name."""
    with contextlib.closing(Bundle.open(tiny_bundle_folder())) as bundle:
        return {patch.name: patch.patch_id for patch in bundle.patches}


def test_search_like_a_patch(http: httpx.Client, ids: dict[str, str]) -> None:
    like = {"like": ids["Tone 5"], "pitch": 66, "k": 3}
    answer = http.post("/search", json=like)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["query"]["midi"] == 66.0
    assert found["query"]["gate"]["reason"].startswith(
        "MIDI 66.0, the render of Tone 5 nearest to MIDI 66.0;"
    )
    assert {hit["name"] for hit in found["hits"][:2]} == {"Tone 4", "Tone 6"}
    assert found["total"] == 11, "all that sound there: without itself, and two of the same sound as one"
    distances = [hit["stage1_distance"] for hit in found["hits"]]
    assert all(0 < distance < 1 for distance in distances)
    form = {name: (None, str(value)) for name, value in like.items()}
    assert http.post("/search", files=form).json() == found
    assert http.post("/search", params={"k": 3, "pitch": 66}, json={"like": ids["Tone 5"]}).json() == found
    assert (
        http.post(
            "/search", params={"like": ids["Tone 5"]}, files={"pitch": (None, "66"), "k": (None, "3")}
        ).json()
        == found
    )


def test_search_by_vectors(http: httpx.Client) -> None:
    bundle = Bundle.open(tiny_bundle_folder())
    models = OnnxModels({name: bundle.path(name) for name in bundle.manifest.models})
    samples, rate = soundfile.read(io.BytesIO(wav_note()), dtype="float32", always_2d=True)
    with contextlib.closing(Engine(bundle, models)) as engine:
        stage1, stage2 = engine.embed(Audio(samples.mean(axis=1), rate))
    body = {"stage1": stage1.tolist(), "stage2": stage2.tolist(), "pitch": 60}
    found = http.post("/search", json=body)
    assert found.status_code == 200, found.text
    heard = _search(http, wav_note(), pitch="60").json()
    assert found.json()["query"]["gate"]["decision"] == "overridden"
    assert [hit["patch_id"] for hit in found.json()["hits"]] == [hit["patch_id"] for hit in heard["hits"]]
    for ours, theirs in zip(found.json()["hits"], heard["hits"], strict=True):
        for stage in ("stage1_distance", "stage2_distance"):
            assert ours[stage] == pytest.approx(theirs[stage], abs=1e-4)


def test_search_by_several_recordings(http: httpx.Client) -> None:
    def ask(*pitches: float) -> dict[str, Any]:
        clips = [encoded(tone(pitch, 0.2, 0.0), 24_000, "WAV", "FLOAT") for pitch in pitches]
        answer = http.post("/search", files=[("audio", (f"{n}.wav", clip)) for n, clip in enumerate(clips)])
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    agreed = ask(60, 60.4, 59.8)
    assert agreed["query"]["midi"] == pytest.approx(60, abs=0.1)
    assert "the median of 3 recordings (MIDI 59.8 to 60.4)" in agreed["query"]["gate"]["reason"]
    assert agreed["hits"][0]["name"] == "Tone 8"
    mixed = ask(60, 66)
    assert (mixed["query"]["gate"]["decision"], mixed["query"]["midi"]) == ("mixed", None)
    assert (
        "do not agree on a pitch within 1 semitones (MIDI 60.0, 66.0); all pitches"
        in mixed["query"]["gate"]["reason"]
    )
    assert mixed["total"] == 13


def test_filters_pages_and_near_duplicates(http: httpx.Client, ids: dict[str, str]) -> None:
    def ask(**options: Any) -> dict[str, Any]:
        answer = http.post("/search", json={"like": ids["Tone 1"], **options})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    folded = ask(k=20)
    assert (folded["total"], folded["hits"][0]["name"]) == (11, "Tone 2")
    assert folded["hits"][0]["also"] == [ids["Tone 3"]]
    assert ask(k=20, fold=False)["total"] == 12
    pages = [ask(k=4, offset=offset) for offset in (0, 4, 8, 12)]
    assert [hit for page in pages for hit in page["hits"]] == folded["hits"]
    assert [len(page["hits"]) for page in pages] == [4, 4, 3, 0]
    brass = ask(family="brass")
    assert {hit["name"] for hit in brass["hits"]} == {"Tone 2", "Octave Up"}
    assert [hit["also"] for hit in brass["hits"]] == [[], []]
    assert [hit["name"] for hit in ask(family=["brass", "flute"], bank="tiny", fold=False)["hits"]] == [
        "Tone 2",
        "Tone 3",
    ]
    assert {hit["name"] for hit in ask(bank=["spare"], octaves=True)["hits"]} == {"Octave Up"}
    assert ask(min_confidence=0.9, k=20, fold=False)["total"] == 11
    parts = [("audio", ("clip", wav_note())), ("family", (None, "brass")), ("family", (None, "bass"))]
    several = http.post("/search", files=parts, data={"fold": "false"}).json()
    assert {hit["family"] for hit in several["hits"]} == {"brass", "bass"}


@pytest.mark.parametrize("seconds", [0.2, 1.0, 10.0])
def test_synthesize_gives_the_pitch_and_length_asked_for(http: httpx.Client, seconds: float) -> None:
    answer = http.post("/synthesize", json={"x": 0.2, "y": -0.3, "pitch": 62, "seconds": seconds})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/wav")
    info = soundfile.info(io.BytesIO(answer.content))
    assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")
    assert info.duration == pytest.approx(seconds, abs=1 / 75)
    sound, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32")
    assert np.abs(sound).max() == pytest.approx(10 ** (-1 / 20), abs=0.01)
    if seconds >= 1:
        assert estimate(sound, rate).midi == pytest.approx(62, abs=0.5)


def test_instrument_gives_a_zip_that_a_sampler_can_be_given(http: httpx.Client) -> None:
    place = {"x": 0.2, "y": -0.3, "seconds": 1.0}
    answer = http.post("/instrument", json=place)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    assert answer.headers["content-disposition"] == 'attachment; filename="timbrel_x0.20_y-0.30.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
        assert names[:2] == ["timbrel_x0.20_y-0.30.sfz", "README.txt"]
        assert len(names) == 27
        for pitch in (48, 62, 72):
            wave = archive.read(f"timbrel_x0.20_y-0.30/samples/timbrel_x0.20_y-0.30-{pitch:03d}.wav")
            sound, rate = soundfile.read(io.BytesIO(wave), dtype="float32")
            assert (rate, len(sound)) == (24_000, 24_000)
            assert estimate(sound, rate).midi == pytest.approx(pitch, abs=0.5)
    assert http.post("/instrument", json=place).content == answer.content


def test_questions_are_answered_while_instruments_are_made(http: httpx.Client, serving: Serving) -> None:
    def make(number: int) -> int:
        with serving.client() as client:
            return client.post("/instrument", json={"x": 0.1 * number, "y": 0.0}).status_code

    with ThreadPoolExecutor(4) as pool:
        made = [pool.submit(make, number) for number in range(4)]
        while not all(each.done() for each in made):
            assert http.get("/livez").status_code == 200
            _works(http)
    # Each worker makes one at a time and lets two wait: none of four is turned away unless all meet in one.
    statuses = [each.result() for each in made]
    assert set(statuses) <= {200, 503}
    assert 200 in statuses


def test_locate_places_a_recording_and_names_its_neighbours(http: httpx.Client) -> None:
    answer = http.post("/locate", files={"audio": ("clip", wav_note())})
    assert answer.status_code == 200
    place = answer.json()
    assert np.isfinite([place["x"], place["y"]]).all()
    assert place["query"]["midi"] == pytest.approx(60, abs=0.5)
    distances = [patch["distance"] for patch in place["nearest"]]
    assert distances == sorted(distances)
    first = place["nearest"][0]
    assert first["distance"] == pytest.approx(np.hypot(first["x"] - place["x"], first["y"] - place["y"]))
    assert http.get(first["links"]["patch"]).status_code == 200
    plain = http.post("/locate", files={"audio": ("clip", wav_note())}, data={"refine": "false"})
    queried = http.post("/locate?refine=false", files={"audio": ("clip", wav_note())})
    assert plain.status_code == 200
    assert plain.json() == queried.json() != place


# --- the gate ----------------------------------------------------------------------------------------------------


def _noise() -> np.ndarray:
    return 0.3 * np.random.default_rng(0).normal(size=36_000).clip(-3, 3)


GATED = [
    ("unpitched", _noise()),
    ("silent", np.zeros(24_000)),
    ("too_short", note(24_000, seconds=0.02)),
    ("out_of_range", note(24_000, hz=3_000.0)),
]


@pytest.mark.parametrize(("decision", "samples"), GATED, ids=[name for name, _ in GATED])
def test_the_gate_decides_with_a_reason_and_refuses_what_requires_a_pitch(
    http: httpx.Client, decision: str, samples: np.ndarray
) -> None:
    audio = encoded(samples, 24_000, "WAV", "PCM_16")
    answer = _search(http, audio)
    assert answer.status_code == 200, answer.text
    gate = answer.json()["query"]["gate"]
    assert gate["decision"] == decision
    assert gate["reason"]
    assert (answer.json()["hits"] == []) == (decision in ("silent", "too_short"))
    refused = _search(http, audio, gate="require")
    assert refused.status_code == 422
    error = _error(refused)
    assert error["code"] == "unsuitable_query"
    assert error["message"].startswith(f"{decision}: ")
    _works(http)


# --- what does not work ------------------------------------------------------------------------------------------


def _header_only() -> bytes:
    return wav_note()[:44]


def _with_nan() -> bytes:
    samples = note(24_000)
    samples[1000] = np.nan
    return encoded(samples, 24_000, "WAV", "FLOAT")


def _half_an_hour() -> bytes:
    return encoded(np.zeros(30 * 60 * 8_000), 8_000, "FLAC", "PCM_16")


BAD_AUDIO = {
    "empty": (b"", 400, "unreadable_audio"),
    "header only": (_header_only(), 400, "unreadable_audio"),
    "header cut off": (wav_note()[:20], 400, "unreadable_audio"),
    "not audio": (b"these are words, no sound" * 100, 400, "unreadable_audio"),
    "an image's first bytes": (b"\x89PNG\r\n\x1a\n" + bytes(2000), 400, "unreadable_audio"),
    "NaN": (_with_nan(), 400, "unreadable_audio"),
    "0 samples": (encoded(np.zeros(0), 24_000, "WAV", "PCM_16"), 400, "unreadable_audio"),
    "30 minutes": (_half_an_hour(), 413, "audio_too_large"),
    "100 MB": (bytes(100_000_000), 413, "audio_too_large"),
}


@pytest.mark.parametrize("path", ["/search", "/locate"])
@pytest.mark.parametrize("name", BAD_AUDIO)
def test_bad_recordings(http: httpx.Client, name: str, path: str) -> None:
    audio, status, code = BAD_AUDIO[name]
    answer = http.post(path, files={"audio": ("clip.wav", audio)})
    assert answer.status_code == status, answer.text
    assert _error(answer)["code"] == code
    _works(http)


def _audio() -> dict[str, Any]:
    return {"audio": ("clip.wav", wav_note())}


BAD_REQUESTS = {
    "wrong field": (
        "POST",
        "/search",
        {"files": {"file": _audio()["audio"]}},
        400,
        "field 'audio' is missing",
    ),
    "missing field": ("POST", "/search", {"files": {"k": (None, "1")}}, 400, "field 'audio' is missing"),
    "no form": ("POST", "/search", {}, 400, "multipart/form-data"),
    "JSON for a form": ("POST", "/locate", {"json": {"audio": "x"}}, 400, "multipart/form-data"),
    "text for a file": (
        "POST",
        "/search",
        {"files": {"audio": (None, "http://127.0.0.1/x.wav")}},
        400,
        "not a file",
    ),
    "unknown field": ("POST", "/search", {"files": _audio(), "data": {"limit": "3"}}, 400, "'limit'"),
    "no such patch": ("POST", "/search", {"json": {"like": "dx7-0"}}, 404, "take a patch_id from a search"),
    "nothing to search with": (
        "POST",
        "/search",
        {"json": {}},
        400,
        "there is nothing to search with: send one",
    ),
    "two things at once": (
        "POST",
        "/search",
        {"json": {"like": "dx7-0", "stage1": [1], "stage2": [1]}},
        400,
        "one of these at a time",
    ),
    "one vector": ("POST", "/search", {"json": {"stage2": [1.0]}}, 400, "belong together"),
    "vectors of another encoder": (
        "POST",
        "/search",
        {"json": {"stage1": [1.0], "stage2": [1.0]}},
        400,
        "stage1 has shape [1]; this bundle's encoder gives [",
    ),
    "a vector of text": ("POST", "/search", {"json": {"stage1": "a", "stage2": [1]}}, 400, "stage1: "),
    "vectors and a pitch required": (
        "POST",
        "/search",
        {"json": {"stage1": [1.0] * D1, "stage2": [1.0] * D2, "gate": "require"}},
        422,
        "name its pitch",
    ),
    "too much JSON for a search": (
        "POST",
        "/search",
        {"json": {"like": "x" * 2**20}},
        413,
        "larger than 1024 KiB",
    ),
    "nine recordings": (
        "POST",
        "/search",
        {"files": [("audio", ("a.wav", wav_note()))] * 9},
        400,
        "at most 8 recordings",
    ),
    "the second recording is none": (
        "POST",
        "/search",
        {"files": [("audio", ("a.wav", wav_note())), ("audio", ("b.wav", b"words"))]},
        400,
        "recording 2: ",
    ),
    "unknown family": (
        "POST",
        "/search",
        {"files": _audio(), "data": {"family": "flutes"}},
        400,
        "no family 'flutes': choose among flute, ",
    ),
    "unknown bank": (
        "POST",
        "/search",
        {"files": _audio(), "data": {"bank": "other"}},
        400,
        "no bank 'other': choose among spare, tiny",
    ),
    "confidence 2": (
        "POST",
        "/search",
        {"files": _audio(), "data": {"min_confidence": "2"}},
        400,
        "min_confidence: ",
    ),
    "offset 1000": ("POST", "/search", {"files": _audio(), "data": {"offset": "1000"}}, 400, "offset: "),
    "past the last page": (
        "POST",
        "/search",
        {"files": _audio(), "data": {"offset": "995"}},
        400,
        "offset + k is at most 1000, not 1005",
    ),
    "octaves = yes": ("POST", "/search", {"files": _audio(), "data": {"octaves": "yes"}}, 400, "octaves: "),
    "k = 0": ("POST", "/search", {"files": _audio(), "data": {"k": "0"}}, 400, "k: "),
    "k = 1000": ("POST", "/search", {"files": _audio(), "data": {"k": "1000"}}, 400, "k: "),
    "k = all": ("POST", "/search", {"files": _audio(), "data": {"k": "all"}}, 400, "k: "),
    "gate = maybe": ("POST", "/search", {"files": _audio(), "data": {"gate": "maybe"}}, 400, "gate: "),
    "pitch 200": ("POST", "/search", {"files": _audio(), "data": {"pitch": "200"}}, 400, "pitch: "),
    "pitch NaN": ("POST", "/search", {"files": _audio(), "data": {"pitch": "nan"}}, 400, "pitch: "),
    "synthesize pitch 200": ("POST", "/synthesize", {"json": {"x": 0, "y": 0, "pitch": 200}}, 400, "pitch: "),
    "synthesize pitch 90": ("POST", "/synthesize", {"json": {"x": 0, "y": 0, "pitch": 90}}, 400, "48 to 72"),
    "synthesize pitch 60.5": (
        "POST",
        "/synthesize",
        {"json": {"x": 0, "y": 0, "pitch": 60.5}},
        400,
        "pitch: ",
    ),
    "velocity 0": (
        "POST",
        "/synthesize",
        {"json": {"x": 0, "y": 0, "pitch": 60, "velocity": 0}},
        400,
        "velocity: ",
    ),
    "velocity 128": (
        "POST",
        "/synthesize",
        {"json": {"x": 0, "y": 0, "pitch": 60, "velocity": 128}},
        400,
        "velocity: ",
    ),
    "beyond the map": ("POST", "/synthesize", {"json": {"x": 9, "y": 9, "pitch": 60}}, 400, "x is"),
    "0 seconds": (
        "POST",
        "/synthesize",
        {"json": {"x": 0, "y": 0, "pitch": 60, "seconds": 0}},
        400,
        "seconds: ",
    ),
    "an hour": (
        "POST",
        "/synthesize",
        {"json": {"x": 0, "y": 0, "pitch": 60, "seconds": 3600}},
        400,
        "seconds: ",
    ),
    "x missing": ("POST", "/synthesize", {"json": {"y": 0, "pitch": 60}}, 400, "x is missing"),
    "x text": ("POST", "/synthesize", {"json": {"x": "left", "y": 0, "pitch": 60}}, 400, "x: "),
    "instrument beyond the map": ("POST", "/instrument", {"json": {"x": 9, "y": 9}}, 400, "x is"),
    "instrument of an hour": (
        "POST",
        "/instrument",
        {"json": {"x": 0, "y": 0, "seconds": 3600}},
        400,
        "seconds: ",
    ),
    "instrument at one pitch": (
        "POST",
        "/instrument",
        {"json": {"x": 0, "y": 0, "pitch": 60}},
        400,
        "no field 'pitch'",
    ),
    "instrument by a form": ("POST", "/instrument", {"data": {"x": "0"}}, 400, "application/json"),
    "refine = perhaps": (
        "POST",
        "/locate",
        {"files": _audio(), "data": {"refine": "perhaps"}},
        400,
        "refine: ",
    ),
    "k for locate": ("POST", "/locate", {"files": _audio(), "data": {"k": "3"}}, 400, "'k'"),
    "half a JSON": ("POST", "/synthesize", {"content": b'{"x": 1,'}, 400, "not JSON"),
    "a JSON list": ("POST", "/synthesize", {"json": [0, 0, 60]}, 400, "no JSON object"),
    "a large JSON": ("POST", "/synthesize", {"content": b" " * 1_000_000}, 413, "larger than 64 KiB"),
    "unknown route": ("GET", "/nothing/here", {}, 404, "/nothing/here"),
    "wrong method": ("GET", "/search", {}, 405, "use POST"),
    "delete": ("DELETE", "/livez", {}, 405, "use "),
    "unknown patch": ("GET", "/patches/dx7-000000000000/file", {}, 404, "dx7-000000000000"),
    "unknown preview": ("GET", "/patches/dx7-000000000000/preview", {}, 404, "dx7-000000000000"),
    "climbing out": ("GET", "/patches/..%2f..%2fmanifest.json/file", {}, 404, ""),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_bad_requests(http: httpx.Client, name: str) -> None:
    method, path, parts, status, words = BAD_REQUESTS[name]
    answer = http.request(method, path, **parts)
    assert answer.status_code == status, answer.text
    assert words in _error(answer)["message"]
    _works(http)


def test_a_large_upload_is_refused_before_it_is_sent(serving: Serving, http: httpx.Client) -> None:
    """Only the headers go out; the refusal comes back while the server waits for 100 MB."""
    head = (
        b"POST /search HTTP/1.1\r\nHost: timbrel\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: 100000000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", serving.ports.http), timeout=60) as connection:
        connection.sendall(head)
        received = b""
        while b"}}" not in received:
            chunk = connection.recv(4096)
            assert chunk
            received += chunk
    assert received.startswith(b"HTTP/1.1 413 ")
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == "audio_too_large"
    _works(http)


def test_an_endless_upload_without_a_length_is_cut_off(http: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="audio"; filename="x"\r\n\r\n'
        for _ in range(100):
            yield bytes(1_000_000)

    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = http.post("/search", content=endless(), headers=headers)
    assert answer.status_code == 413
    assert _error(answer)["code"] == "audio_too_large"
    _works(http)


def test_an_upload_that_breaks_off_harms_nobody(serving: Serving, http: httpx.Client) -> None:
    with socket.create_connection(("127.0.0.1", serving.ports.http), timeout=60) as connection:
        connection.sendall(
            b"POST /search HTTP/1.1\r\nHost: timbrel\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: 5000\r\n\r\n--b\r\n"
        )
    _works(http)


# --- pages -------------------------------------------------------------------------------------------------------


def test_health(http: httpx.Client) -> None:
    assert http.get("/livez").status_code == 200
    assert http.get("/readyz").status_code == 200


def test_the_documentation_page_needs_no_other_host(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "/docs.json" in page.text
    for asset in ("/static_content/swagger-ui.css", "/static_content/swagger-ui-bundle.js"):
        assert http.get(asset).status_code == 200


def test_the_openapi_document_is_true(http: httpx.Client) -> None:
    document = http.get("/docs.json").json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {
        "/search", "/synthesize", "/instrument", "/locate", "/info", "/patches", "/patches/{patch_id}",
        "/patches/{patch_id}/file", "/patches/{patch_id}/preview", "/livez", "/readyz", "/metrics",
    }  # fmt: skip
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    assert {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]} <= set(schemas)
    # Every answer that the service gives to these is one that the document names, errors in the envelope.
    for method, path, parts, status, _ in BAD_REQUESTS.values():
        template = "/patches/{patch_id}/" + path.rpartition("/")[2] if path.startswith("/patches/") else path
        operation = document["paths"].get(template, {}).get(method.lower())
        if operation is not None:
            assert http.request(method, path, **parts).status_code == status
            answer = operation["responses"][str(status)]["content"]["application/json"]
            assert answer["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}
    hit = _search(http, wav_note(), k="1").json()["hits"][0]
    assert set(hit) == set(schemas["HitAnswer"]["properties"]) == set(schemas["HitAnswer"]["required"])
    for path, model in (("/info", "InfoAnswer"), ("/patches", "PatchesAnswer")):
        answer = http.get(path).json()
        assert set(answer) == set(schemas[model]["properties"]) == set(schemas[model]["required"])
    assert set(answer["patches"][0]) == set(schemas["PatchAnswer"]["properties"])
    parameters = document["paths"]["/patches"]["get"]["parameters"]
    assert {each["name"]: each["schema"].get("default") for each in parameters} == {
        "offset": 0, "limit": 100, "family": [], "bank": [],
    }  # fmt: skip
    form = document["paths"]["/search"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    options = {"like", "k", "offset", "gate", "pitch", "octaves", "family", "bank", "min_confidence", "fold"}
    assert set(form["properties"]) == {"audio", *options}
    assert {each["name"] for each in document["paths"]["/search"]["post"]["parameters"]} == options
    request = document["paths"]["/search"]["post"]["requestBody"]["content"]["application/json"]
    assert set(schemas["SearchRequest"]["properties"]) == {*options, "stage1", "stage2"}
    assert schemas["SearchRequest"]["properties"]["stage2"]["maxItems"] == D2
    for name, example in request["examples"].items():
        assert http.post("/search", json=example["value"]).status_code == (400 if "vectors" in name else 200)
    pitch = schemas["SynthesizeRequest"]["properties"]["pitch"]
    assert (pitch["minimum"], pitch["maximum"]) == (48, 72)
    velocity = schemas["SynthesizeRequest"]["properties"]["velocity"]
    assert (velocity["minimum"], velocity["maximum"], velocity["default"]) == (1, 127, 100)
    assert "learnt velocities 40 to 127" in velocity["description"]


# --- metrics -----------------------------------------------------------------------------------------------------


def _samples(http: httpx.Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = http.get("/metrics").text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_are_exact_over_two_workers(serving: Serving) -> None:
    def ask(job: str) -> int:
        # A connection of its own each time, so that both workers get their share.
        with serving.client() as client:
            if job == "search":
                return _search(client, wav_note(), k="1").status_code
            if job == "silent":
                return _search(client, encoded(np.zeros(24_000), 24_000, "WAV", "PCM_16")).status_code
            if job == "refused":
                return _search(client, wav_note(), k="0").status_code
            if job == "noise":
                return _search(client, b"words").status_code
            if job == "synthesize":
                body = {"x": 0, "y": 0, "pitch": 60, "seconds": 0.2}
                return client.post("/synthesize", json=body).status_code
            if job == "instrument":
                return client.post("/instrument", json={"x": 0, "y": 0, "seconds": 0.2}).status_code
            if job == "locate":
                return client.post("/locate", files=_audio()).status_code
            return client.get("/nowhere").status_code

    jobs = {"search": 12, "silent": 5, "refused": 7, "noise": 4, "synthesize": 9, "locate": 6, "nowhere": 8}
    jobs |= {"instrument": 2}
    with serving.client() as client:
        before = _samples(client)
    workers_before = serving.log("service")
    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(ask, [job for job, count in jobs.items() for _ in range(count)]))
    assert {status: statuses.count(status) for status in set(statuses)} == {200: 34, 400: 11, 404: 8}
    log = serving.log("service")[len(workers_before) :]
    assert "[entry_service:timbrel:1]" in log
    assert "[entry_service:timbrel:2]" in log
    with serving.client() as client:
        after = _samples(client)

    def risen(name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return after.get(key, 0.0) - before.get(key, 0.0)

    def requests(endpoint: str, outcome: str) -> float:
        return risen("timbrel_requests_total", endpoint=endpoint, outcome=outcome)

    assert requests("search", "ok") == 17
    assert requests("search", "invalid_input") == 7
    assert requests("search", "unreadable_audio") == 4
    assert requests("synthesize", "ok") == 9
    assert requests("instrument", "ok") == 2
    assert requests("locate", "ok") == 6
    assert requests("other", "not_found") == 8
    assert risen("timbrel_request_seconds_count", endpoint="search") == 28
    stages = {
        "f0": 23,
        "gate": 23,
        "stage1": 12,
        "index": 12,
        "stage2": 12,
        "map": 6,
        "refine": 6,
        "generate": 9 + 2,
        "decode": 9 + 2 * 25,
    }
    for stage, count in stages.items():
        assert risen("timbrel_stage_seconds_count", stage=stage) == count, stage
        assert risen("timbrel_stage_seconds_bucket", stage=stage, le="+Inf") == count, stage
    assert risen("timbrel_gate_decisions_total", decision="pitched") == 12
    assert risen("timbrel_gate_decisions_total", decision="silent") == 5
    # Whichever worker is asked, the sums are the same.
    for _ in range(6):
        with serving.client() as client:
            again = _samples(client)
        counted = {key: value for key, value in again.items() if key[0].startswith("timbrel_")}
        counted = {key: value for key, value in counted.items() if ("endpoint", "other") not in key[1]}
        # Memory is what it is now, and notes are checked when there is time.
        later = ("timbrel_worker_memory", "timbrel_note")
        counted = {key: value for key, value in counted.items() if not key[0].startswith(later)}
        assert counted == {key: after[key] for key in counted}


def test_what_is_served_shows_in_metrics_once(http: httpx.Client) -> None:
    samples = _samples(http)
    bundles = [key for key in samples if key[0] == "timbrel_bundle_info"]
    models = [dict(key[1]) for key in samples if key[0] == "timbrel_model_info"]
    assert len(bundles) == 1
    assert samples[bundles[0]] == 1
    assert sorted(model["model"] for model in models) == [
        "codec_decoder", "codec_encoder", "generator", "map_encoder", "timbre_encoder",
    ]  # fmt: skip
    assert {model["engine"] for model in models} == {"triton"}
    assert all(len(model["sha256"]) == 64 for model in models)
    assert not any("pid" in dict(labels) for name, labels in samples if name.startswith("timbrel_"))


def test_stray_paths_make_no_new_series(http: httpx.Client) -> None:
    http.get("/stray/0")
    before = len(_samples(http))
    for number in range(1, 20):
        http.get(f"/stray/{number}")
    assert len(_samples(http)) == before
