"""A place of the map as an instrument: every file of it, and sfizz, a real sampler, that plays it in tune."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pysfizz
import pytest
import soundfile
from support.tiny_bundle import tiny_bundle_folder

from timbrel.codec import spectrum
from timbrel.engine import sfz
from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.engine.results import Instrument
from timbrel.errors import InputError
from timbrel.library.bundle import Bundle
from timbrel.pitch.estimate import estimate_by_swift

RATE = 24_000
NAME = "timbrel_x0.30_y-0.20"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    bundle = Bundle.open(tiny_bundle_folder())
    engine = Engine(bundle, OnnxModels({name: bundle.path(name) for name in bundle.manifest.models}))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def made(engine: Engine) -> Instrument:
    return engine.instrument(x=0.3, y=-0.2, seconds=1.2)


@pytest.fixture(scope="module")
def files(engine: Engine, made: Instrument) -> dict[str, bytes]:
    return sfz.instrument_files(made, engine.bundle.manifest)


@pytest.fixture(scope="module")
def sampler(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> pysfizz.Synth:
    folder = tmp_path_factory.mktemp("sfz") / NAME
    sfz.write_folder(files, folder)
    synth = pysfizz.Synth(sample_rate=RATE, block_size=256)
    assert synth.load_sfz_file(folder / f"{NAME}.sfz")
    return synth


def test_every_key_of_the_map_is_the_note_that_synthesize_gives(engine: Engine, made: Instrument) -> None:
    assert [key for key, _ in made.notes] == list(range(48, 73))
    for key, audio in made.notes[::6]:
        alone = engine.synthesize(x=0.3, y=-0.2, pitch=key, seconds=1.2)
        assert audio.sample_rate == RATE
        # A batch may round otherwise than a single note does.
        np.testing.assert_allclose(audio.samples, alone.samples, atol=1e-3)


def test_the_generator_is_asked_once_and_progress_is_told(engine: Engine) -> None:
    seen: list[str] = []
    observed = Engine(engine.bundle, engine.models, observe=lambda stage, seconds: seen.append(stage))
    told: list[tuple[int, int]] = []
    observed.instrument(x=0.0, y=0.0, seconds=0.2, progress=lambda *at: told.append(at))
    assert (seen.count("generate"), seen.count("decode")) == (1, 25)
    assert told == [(n, 25) for n in range(1, 26)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": 2.0}, "x is a coordinate of the map from -1 to 1, not 2"),
        ({"x": 0.9, "y": 0.9}, "(0.9, 0.9) lies beyond the map; choose x and y with x² + y² at most 1²"),
        ({"seconds": 0.1}, "seconds is a length from 0.2 to 10, not 0.1"),
    ],
)
def test_an_instrument_with_wrong_arguments_is_refused(
    engine: Engine, options: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        engine.instrument(**{"x": 0.0, "y": 0.0, **options})
    assert caught.value.message == message


def test_the_files_are_wav_sfz_and_readme(engine: Engine, files: dict[str, bytes]) -> None:
    samples = [f"samples/{NAME}-{key:03d}.wav" for key in range(48, 73)]
    assert list(files) == [f"{NAME}.sfz", "README.txt", *samples]
    for path in samples:
        sound, rate = soundfile.read(io.BytesIO(files[path]), dtype="float32")
        assert (rate, sound.shape) == (RATE, (90 * 320,))
        assert np.abs(sound).max() == pytest.approx(10 ** (-1 / 20), abs=1e-4)
    regions = files[f"{NAME}.sfz"].decode("ascii").split("<region>")[1:]
    assert regions[0].split() == ["lokey=0", "hikey=48", "pitch_keycenter=48", f"sample={samples[0]}"]
    assert regions[1].split()[:3] == ["lokey=49", "hikey=49", "pitch_keycenter=49"]
    assert regions[24].split() == ["lokey=72", "hikey=127", "pitch_keycenter=72", f"sample={samples[24]}"]
    readme = files["README.txt"].decode()
    assert engine.bundle.id in readme
    assert "Licence: CC0-1.0" in readme
    assert "not looped" in readme


def test_equal_instruments_are_equal_zips(engine: Engine, files: dict[str, bytes]) -> None:
    again = sfz.instrument_files(engine.instrument(x=0.3, y=-0.2, seconds=1.2), engine.bundle.manifest)
    assert sfz.zipped(again, NAME) == sfz.zipped(files, NAME)
    with zipfile.ZipFile(io.BytesIO(sfz.zipped(files, NAME))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{NAME}/{path}" for path in files]
        assert all(archive.read(f"{NAME}/{path}") == data for path, data in files.items())
        assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o644}


def test_a_folder_is_written_whole_and_never_over_another(files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new" / "deep", tmp_path / "empty"):
        sfz.write_folder(files, folder)
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert found == set(files)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "song.txt").write_text("la")
    for taken in (tmp_path / "mine", tmp_path / "mine" / "song.txt"):
        with pytest.raises(InputError, match="is there already"):
            sfz.write_folder(files, taken)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["song.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine", "new"]


def test_sfizz_has_a_region_for_every_key_of_the_keyboard(sampler: pysfizz.Synth) -> None:
    assert sampler.playable_keys == list(range(128))
    centres = {key: sampler.get_note_info(key)[0]["pitch_keycenter"] for key in (0, 47, 48, 60, 72, 73, 127)}
    assert centres == {0: 48, 47: 48, 48: 48, 60: 60, 72: 72, 73: 72, 127: 72}
    assert all(len(sampler.get_note_info(key)) == 1 for key in range(128))


@pytest.mark.parametrize("key", [41, 48, 55, 60, 67, 72, 79])
def test_sfizz_plays_each_key_in_tune_at_one_level(sampler: pysfizz.Synth, key: int) -> None:
    stereo = sampler.render_note(key, 127, 1.0, 1.5)
    found = estimate_by_swift(stereo.mean(axis=0).astype(np.float32), RATE)
    assert found.midi == pytest.approx(key, abs=0.5)
    peak = np.abs(stereo).max()
    loudest = np.abs(sampler.render_note(60, 127, 1.0, 1.5)).max()
    assert 0.05 < peak < 1.0
    assert 20 * np.log10(peak / loudest) == pytest.approx(0.0, abs=1.0)


def test_sfizz_plays_the_sample_itself(sampler: pysfizz.Synth, made: Instrument) -> None:
    """At its own key and at its own rate, a sample comes out as it went in, but for the sampler's gain."""
    sample = dict(made.notes)[60].samples[:RATE]
    played = sampler.render_note(60, 127, 2.0, 2.0)[0, :RATE]
    played = played * (np.linalg.norm(sample) / np.linalg.norm(played))
    same = spectrum.log_spectral_distance(spectrum.log_magnitude(sample), spectrum.log_magnitude(played))
    other = spectrum.log_magnitude(dict(made.notes)[61].samples[:RATE])
    assert same < 1.0 < spectrum.log_spectral_distance(spectrum.log_magnitude(sample), other)


def test_a_key_let_go_fades_within_the_release(sampler: pysfizz.Synth) -> None:
    played = sampler.render_note(60, 127, 0.3, 1.2).mean(axis=0)
    before = np.abs(played[round(0.2 * RATE) : round(0.3 * RATE)]).max()
    after = np.abs(played[round((0.3 + sfz.RELEASE_SECONDS + 0.05) * RATE) :]).max()
    assert after < 1e-3 * before
    held = sampler.render_note(60, 127, 1.0, 1.2).mean(axis=0)
    assert np.abs(held[round(0.6 * RATE) : round(0.8 * RATE)]).max() > 0.2 * before
