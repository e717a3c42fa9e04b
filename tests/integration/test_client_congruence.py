"""One list of calls, on every way in: in this process, over HTTP, over gRPC; what differs is a fault.

Told apart are: numbers by more than 1e-6 (of each other), notes by more than 2^-14 of full scale (a service sends 16
bits), and everything else by anything: ids, their order, texts, files, and an error's class, code and message.

Not on the list: recordings beyond a service's own bound on uploads, which a client cannot know before it asks; they are
AudioTooLarge everywhere, in other words.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.recordings import encoded, note, wav_note
from support.serving import Serving
from support.tiny_bundle import FAMILIES, tiny_bundle_folder
from support.tiny_models import D1, D2

from timbrel.audio import Audio, read
from timbrel.client import AsyncClient, Client
from timbrel.errors import TimbrelError

NUMBERS = 1e-6
SAMPLES = 2.0**-14


class Told(NamedTuple):
    """How a call ended, if not with an answer."""

    kind: type
    code: str
    message: str


class Ask(NamedTuple):
    """A call by the client's method."""

    method: str
    positional: tuple[Any, ...] = ()
    named: Mapping[str, Any] = MappingProxyType({})

    def of(self, client: Client) -> Any:
        try:
            return getattr(client, self.method)(*self.positional, **self.named)
        except TimbrelError as error:
            return Told(type(error), error.code, error.message)

    async def of_async(self, client: AsyncClient) -> Any:
        try:
            return await getattr(client, self.method)(*self.positional, **self.named)
        except TimbrelError as error:
            return Told(type(error), error.code, error.message)


def difference(one: Any, other: Any, where: str = "answer") -> str | None:
    """Where two answers differ beyond the tolerances; None where they do not."""
    if type(one) is not type(other):
        return f"{where}: {one!r} and {other!r}"
    if isinstance(one, Audio):
        if one.sample_rate != other.sample_rate or one.samples.shape != other.samples.shape:
            return f"{where}: {len(one.samples)} at {one.sample_rate}, {len(other.samples)} at {other.sample_rate}"
        assert one.samples.dtype == other.samples.dtype == np.float32
        apart = float(np.abs(one.samples - other.samples).max())
        return f"{where}: {apart} apart" if apart > SAMPLES else None
    if is_dataclass(one):
        pairs = [(f.name, getattr(one, f.name), getattr(other, f.name)) for f in fields(one)]
    elif isinstance(one, tuple):
        if len(one) != len(other):
            return f"{where}: {len(one)} and {len(other)} of them"
        pairs = [(str(n), each, its) for n, (each, its) in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, float):
        return (
            None if math.isclose(one, other, rel_tol=NUMBERS, abs_tol=NUMBERS) else f"{where}: {one}, {other}"
        )
    else:
        return None if one == other else f"{where}: {one!r} and {other!r}"
    return next((found for name, a, b in pairs if (found := difference(a, b, f"{where}.{name}"))), None)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A service whose worker runs the models itself, as a client with a bundle does."""
    folder = tmp_path_factory.mktemp("serving")
    running = Serving.start(tiny_bundle_folder(), folder, engine="inprocess", workers="1")
    try:
        yield running.wait_ready()
    finally:
        running.stop()


@pytest.fixture(scope="module")
def addresses(serving: Serving) -> dict[str, dict[str, Any]]:
    """What a client is made of, by the way it goes."""
    return {
        "bundle": {"bundle": tiny_bundle_folder()},
        "http": {"address": serving.url},
        "grpc": {"address": f"grpc://{serving.grpc_target}"},
    }


@pytest.fixture(scope="module")
def clients(addresses: dict[str, dict[str, Any]]) -> Iterator[dict[str, Client]]:
    made = {way: Client(**address) for way, address in addresses.items()}
    yield made
    for client in made.values():
        client.close()


@pytest.fixture(scope="module")
def ids(clients: dict[str, Client]) -> list[str]:
    return [patch.patch_id for patch in clients["bundle"].patches().patches]


def _alike(clients: dict[str, Client], ask: Ask) -> Any:
    """The answer that all of them give."""
    answers = {way: ask.of(client) for way, client in clients.items()}
    expected = answers["bundle"]
    for way, answer in answers.items():
        found = difference(expected, answer)
        assert found is None, f"{ask}: bundle and {way} differ: {found}"
    return expected


# --- the list ----------------------------------------------------------------------------------------------------

C4 = (note(44_100), 44_100)
STEREO = (note(48_000, channels=2).astype(np.float32), 48_000)
SILENCE = (np.zeros(24_000), 24_000)
NOISE = (np.random.default_rng(5).uniform(-0.5, 0.5, 30_000), 24_000)
SHORT = (note(24_000, seconds=0.02), 24_000)
LOUD = Audio(np.float32(4.0) * note(24_000, hz=330).astype(np.float32), 24_000)
BROKEN = Audio(np.full(9_000, np.nan, dtype=np.float32), 24_000)
LONG = (np.zeros(61 * 8_000), 8_000)
FLAC = encoded(note(44_100, hz=440), 44_100, "FLAC", "PCM_16")
MP3 = encoded(note(24_000, hz=196), 24_000, "MP3", "MPEG_LAYER_III")
SOUNDS: list[Any] = [
    C4,
    STEREO,
    SILENCE,
    NOISE,
    SHORT,
    LOUD,
    BROKEN,
    FLAC,
    MP3,
    wav_note(hz=200),
    b"",
    b"RIFF",
]
VECTORS = (np.random.default_rng(1).normal(size=D1), np.random.default_rng(2).normal(size=D2))
PLACE = {"x": 0.2, "y": -0.4}


def listed(ids: list[str], folder: Path) -> list[tuple[Ask, str]]:
    """Calls, each with the class of its answer or the code of its error."""
    path = folder / "clip ♫.wav"
    path.write_bytes(wav_note(hz=300))
    found, refused = "SearchResult", "invalid_input"
    return [
        (Ask("info"), "ServerInfo"),
        (Ask("search", (C4,)), found),
        (Ask("search", (STEREO,), {"k": 3, "offset": 2}), found),
        (Ask("search", (path,)), found),
        (Ask("search", (str(path),), {"octaves": True}), found),
        (Ask("search", ([C4, LOUD, FLAC],), {"gate": "auto"}), found),
        (Ask("search", ([C4, SILENCE],), {"pitch": 60.5}), found),
        (Ask("search", (SILENCE,)), found),
        (Ask("search", (SHORT,)), found),
        (Ask("search", (NOISE,), {"gate": "off", "fold": False}), found),
        (Ask("search", (MP3,), {"families": ["bass", "brass"], "banks": ["tiny"]}), found),
        (Ask("search", (C4,), {"min_confidence": 0.9, "k": 100}), found),
        (Ask("search", (NOISE,), {"gate": "require"}), "unsuitable_query"),
        (Ask("search", (b"no audio",)), "unreadable_audio"),
        (Ask("search", (b"",)), "unreadable_audio"),
        (Ask("search", (BROKEN,)), "unreadable_audio"),
        (Ask("search", ([C4, b"no audio"],)), "unreadable_audio"),
        (Ask("search", (folder / "nothing",)), "unreadable_audio"),
        (Ask("search", (LONG,)), "audio_too_large"),
        (Ask("search", ((np.zeros(100, dtype=np.int16), 24_000),)), refused),
        (Ask("search", ((np.zeros((2, 24_000)), 24_000),)), refused),
        (Ask("search", ((np.ones(9_000), 4_000),)), "unreadable_audio"),
        (Ask("search", ([],)), refused),
        (Ask("search", ([C4] * 9,)), refused),
        (Ask("search", (7,)), refused),
        (Ask("search", (C4,), {"families": ["brass", "no such family"]}), refused),
        (Ask("search", (C4,), {"banks": "tiny"}), refused),
        (Ask("search", (C4,), {"families": None}), refused),
        (Ask("search", (C4,), {"families": [None]}), refused),
        (Ask("search", (C4,), {"families": ["x" * 300]}), refused),
        (Ask("search", (C4,), {"families": ["a\nb"]}), refused),
        (Ask("search", (C4,), {"families": ["bass"] * 101}), refused),
        (Ask("search", (C4,), {"k": 100, "offset": 950}), refused),
        (Ask("search", (C4,), {"gate": "ajar"}), refused),
        (Ask("search", (C4,), {"fold": "yes"}), refused),
        (Ask("search_like", (ids[4],), {"pitch": 66, "k": 4}), found),
        (Ask("search_like", (ids[13],)), found),
        (Ask("search_like", (ids[13],), {"gate": "require"}), "unsuitable_query"),
        (Ask("search_like", ("nobody",)), "not_found"),
        (Ask("search_like", ("",)), "not_found"),
        (Ask("search_like", ("x" * 201,)), refused),
        (Ask("search_like", (None,)), refused),
        (Ask("search_vectors", VECTORS, {"pitch": 60}), found),
        (Ask("search_vectors", (VECTORS[0].astype(np.float32), VECTORS[1].tolist())), found),
        (Ask("search_vectors", VECTORS, {"gate": "require"}), "unsuitable_query"),
        (Ask("search_vectors", (VECTORS[1], VECTORS[0])), refused),
        (Ask("search_vectors", (np.zeros(D1), VECTORS[1])), refused),
        (Ask("search_vectors", (np.full(D1, np.inf), VECTORS[1])), refused),
        (Ask("search_vectors", ([VECTORS[0]], VECTORS[1])), refused),
        (Ask("search_vectors", ([], VECTORS[1])), refused),
        (Ask("search_vectors", (np.ones(9000), VECTORS[1])), refused),
        (Ask("search_vectors", (["a"], VECTORS[1])), refused),
        (Ask("locate", (C4,)), "Location"),
        (Ask("locate", (LOUD,), {"refine": False}), "Location"),
        (Ask("locate", (NOISE,)), "Location"),
        (Ask("locate", (SILENCE,)), "unsuitable_query"),
        (Ask("locate", (b"no audio",)), "unreadable_audio"),
        (Ask("locate", (C4,), {"refine": 1}), refused),
        (Ask("synthesize", (), {**PLACE, "pitch": 60}), "Audio"),
        (Ask("synthesize", (), {**PLACE, "pitch": 60.0, "velocity": 30, "seconds": 0.2}), "Audio"),
        (Ask("synthesize", (), {**PLACE, "pitch": 60.5}), refused),
        (Ask("synthesize", (), {**PLACE, "pitch": 73}), refused),
        (Ask("synthesize", (), {**PLACE, "pitch": 60, "velocity": 0}), refused),
        (Ask("synthesize", (), {"x": 0.8, "y": 0.8, "pitch": 60}), refused),
        (Ask("synthesize", (), {"x": float("nan"), "y": 0, "pitch": 60}), refused),
        (Ask("instrument", (), {**PLACE, "seconds": 0.3}), "InstrumentArchive"),
        (Ask("instrument", (), {**PLACE, "seconds": 11}), refused),
        (Ask("instrument", (), {"x": 0.9, "y": 0.9}), refused),
        (Ask("patches"), "PatchPage"),
        (Ask("patches", (), {"offset": 3, "limit": 2, "families": list(FAMILIES[:6])}), "PatchPage"),
        (Ask("patches", (), {"banks": ["spare"], "offset": 50}), "PatchPage"),
        (Ask("patches", (), {"banks": ["no such bank"]}), refused),
        (Ask("patches", (), {"limit": 1001}), refused),
        (Ask("patches", (), {"offset": -1}), refused),
        (Ask("patch", (ids[0],)), "PatchInfo"),
        (Ask("patch_file", (ids[0],)), "PatchFile"),
        (Ask("patch_file", (ids[13],)), "PatchFile"),
        (Ask("preview", (ids[0],)), "bytes"),
        *[
            (Ask(method, (wrong,)), "not_found")
            for method in ("patch", "patch_file", "preview")
            for wrong in ("nobody", "", ".", "..", "a/b", "%2e", "é ?#")
        ],
    ]


def _expected(answer: Any) -> str:
    return answer.code if isinstance(answer, Told) else type(answer).__name__


def test_the_list(clients: dict[str, Client], ids: list[str], tmp_path: Path) -> None:
    for ask, expected in listed(ids, tmp_path):
        answer = _alike(clients, ask)
        assert _expected(answer) == expected, f"{ask}: {answer}"


@pytest.mark.parametrize("way", ["bundle", "http", "grpc"])
def test_the_list_awaited(
    addresses: dict[str, Any], clients: dict[str, Client], ids: list[str], tmp_path: Path, way: str
) -> None:
    """The twin answers as its sibling, four calls at a time."""
    calls = [ask for ask, _ in listed(ids, tmp_path)]

    async def awaited() -> list[Any]:
        gate = asyncio.Semaphore(4)

        async def one(ask: Ask) -> Any:
            async with gate:
                return await ask.of_async(client)

        async with AsyncClient(**addresses[way]) as client:
            return await asyncio.gather(*map(one, calls))

    for ask, answer in zip(calls, asyncio.run(awaited()), strict=True):
        found = difference(ask.of(clients["bundle"]), answer)
        assert found is None, f"{ask}: {found}"


def test_one_client_for_many_threads(clients: dict[str, Client], ids: list[str]) -> None:
    calls = [Ask("search_like", (patch_id,), {"k": 5}) for patch_id in ids]
    calls += [Ask("synthesize", (), {**PLACE, "pitch": pitch, "seconds": 0.2}) for pitch in range(48, 73, 2)]
    expected = [ask.of(clients["bundle"]) for ask in calls]
    for client in clients.values():
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda ask, client=client: ask.of(client), calls))
        assert [difference(*pair) for pair in zip(expected, answers, strict=True)] == [None] * len(calls)


# --- what the answers are worth ----------------------------------------------------------------------------------


def test_a_note_is_found_again(clients: dict[str, Client]) -> None:
    """Out of one client into the other: the note of a patch's place sounds at the pitch it was asked at."""
    for client in clients.values():
        sound = client.synthesize(x=0.0, y=0.0, pitch=64, seconds=1.5)
        assert sound.seconds == pytest.approx(1.5, abs=1 / 75)
        assert np.abs(sound.samples).max() == pytest.approx(10 ** (-1 / 20), abs=1e-3)
        result = client.search(sound, k=1)
        assert result.query.midi == pytest.approx(64, abs=0.2)
        assert result.query.gate.midi == pytest.approx(64, abs=0.2)


def test_an_instrument_is_saved(clients: dict[str, Client], tmp_path: Path) -> None:
    for way, client in clients.items():
        made = client.instrument(**PLACE, seconds=0.3)
        assert made.name == "timbrel_x0.20_y-0.40"
        folder = made.save(tmp_path / way)
        assert len(list((folder / "samples").glob("*.wav"))) == 25
        assert (folder / f"{made.name}.sfz").read_text().count("<region>") == 25
        assert made.save(tmp_path / f"{way}.zip").read_bytes() == made.data


def test_a_preview_sounds(clients: dict[str, Client], ids: list[str]) -> None:
    for client in clients.values():
        sound = read(client.preview(ids[0]))
        assert sound.sample_rate == 24_000
        assert np.abs(sound.samples).max() > 0.1


def test_the_readme_can_be_copied(
    addresses: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    section = (
        (Path(__file__).parents[2] / "README.md").read_text().split("## From Python\n")[1].split("\n## ")[0]
    )
    lines = [line[4:] for line in section.splitlines() if line.startswith("    ") or not line]
    program = "\n".join(lines)
    assert '"http://127.0.0.1:3000"' in program
    monkeypatch.chdir(tmp_path)
    told = []
    for address in (addresses["http"]["address"], addresses["grpc"]["address"]):
        exec(compile(program.replace("http://127.0.0.1:3000", address), "README.md", "exec"), {})
        told.append(capsys.readouterr().out)
        assert (tmp_path / "warm.zip").stat().st_size > 25 * 24_000 * 2
    assert told[0] == told[1]
    assert told[0].startswith("float32 24000 ('bass', 'brass'")
    assert told[0].count(".syx") == 3


# --- generated calls ---------------------------------------------------------------------------------------------

WRONG = st.sampled_from([None, True, "a", "60", math.nan, math.inf, -math.inf, -1, 1e300, 10**30, [], b"x"])
NAMES = st.lists(st.one_of(st.sampled_from([*FAMILIES, "tiny", "spare"]), st.text(max_size=8)), max_size=3)


def mostly(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Now and then something that is no value of this kind at all."""
    return st.integers(0, 14).flatmap(lambda dice: WRONG if dice == 0 else values)


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "k": mostly(st.integers(0, 101)),
        "offset": mostly(st.one_of(st.integers(-1, 20), st.integers(890, 1001))),
        "gate": mostly(st.sampled_from(["auto", "require", "off", "OFF"])),
        "pitch": mostly(st.floats(-1, 128)),
        "octaves": mostly(st.booleans()),
        "families": st.one_of(st.just([]), NAMES),
        "banks": st.one_of(st.just([]), NAMES),
        "min_confidence": mostly(st.floats(-0.1, 1.1)),
        "fold": mostly(st.booleans()),
    },
)
COORDINATE = mostly(st.floats(-1.1, 1.1))
TONES = st.builds(
    lambda hz, rate, seconds: (note(rate, seconds=seconds, hz=hz), rate),
    st.floats(30, 2_000),
    st.sampled_from([8_000, 22_050, 48_000]),
    st.floats(0.03, 1.5),
)
SYNTHESIS = st.fixed_dictionaries(
    {"x": COORDINATE, "y": COORDINATE, "pitch": mostly(st.integers(46, 74))},
    optional={"velocity": mostly(st.integers(0, 128)), "seconds": mostly(st.floats(0.1, 1.5))},
)
PAGE = st.fixed_dictionaries(
    {},
    optional={
        "families": NAMES,
        "banks": NAMES,
        "offset": mostly(st.integers(-1, 20)),
        "limit": mostly(st.integers(0, 1001)),
    },
)


def _vector(size: int) -> st.SearchStrategy[Any]:
    whole = st.lists(st.floats(-1e3, 1e3, width=32), min_size=size, max_size=size)
    return st.one_of(whole, whole, mostly(st.lists(st.floats(), max_size=3)))


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    ids = st.deferred(lambda: st.one_of(st.sampled_from(_IDS), st.sampled_from(_IDS), st.text(max_size=12)))
    match draw(st.sampled_from(["audio", "like", "vectors", "locate", "synthesize", "patches", "patch"])):
        case "audio":
            one = st.one_of(TONES, st.sampled_from(SOUNDS), st.binary(max_size=64))
            return Ask("search", (draw(st.one_of(one, st.lists(one, max_size=3))),), draw(OPTIONS))
        case "like":
            return Ask("search_like", (draw(mostly(ids)),), draw(OPTIONS))
        case "vectors":
            return Ask("search_vectors", (draw(_vector(D1)), draw(_vector(D2))), draw(OPTIONS))
        case "locate":
            sound = draw(st.one_of(TONES, st.sampled_from(SOUNDS)))
            return Ask("locate", (sound,), {"refine": draw(mostly(st.booleans()))})
        case "synthesize":
            return Ask("synthesize", (), draw(SYNTHESIS))
        case "patches":
            return Ask("patches", (), draw(PAGE))
    return Ask(draw(st.sampled_from(["patch", "patch_file", "preview"])), (draw(mostly(ids)),))


_IDS: list[str] = []


@settings(
    max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
@given(ask=asks())
def test_generated_calls(clients: dict[str, Client], ids: list[str], ask: Ask) -> None:
    answer = _alike(clients, ask)
    assert not (
        isinstance(answer, Told) and answer.code in ("internal_error", "protocol_error", "unreachable")
    )


@pytest.fixture(scope="module", autouse=True)
def _ids_for_the_generator(ids: list[str]) -> None:
    _IDS[:] = ids
