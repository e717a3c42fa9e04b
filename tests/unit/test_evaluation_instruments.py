"""Instrument retrieval on notes whose places were chosen by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from timbrel.cli import main
from timbrel.errors import DataError
from timbrel.evaluation.encoders import baselines, every_encoder
from timbrel.evaluation.instruments import NoteLabels, instrument_hits, read_notes, references, stages


def labels(*notes: tuple[int, float, int]) -> NoteLabels:
    instrument, pitch, velocity = (np.array(column) for column in zip(*notes, strict=True))
    return NoteLabels(instrument, pitch, velocity)


def test_the_reference_is_the_note_of_median_pitch_at_velocity_100() -> None:
    notes = labels(
        (7, 48.0, 100), (7, 60.0, 100), (7, 72.0, 100), (7, 60.0, 40), (2, 61.0, 100), (2, 50.0, 100), (3, 60.0, 90)
    )  # fmt: skip
    # Of 2's two notes both are as near to the median (55.5): the lower. 3 has none at velocity 100.
    assert references(notes).tolist() == [5, 1]


def test_hits_by_hand() -> None:
    """Instruments on a line: 0 at 0, 1 at 10, 2 at 20, one query each at 1, 16 and 24."""
    notes = labels((0, 60, 100), (1, 60, 100), (2, 60, 100), (0, 62, 90), (1, 62, 90), (2, 62, 90))
    vectors = np.array([[0.0], [10.0], [20.0], [1.0], [16.0], [24.0]])
    found = instrument_hits(vectors, notes, metric="l2", at=(1, 2))
    # 16 lies nearer to 20 than to 10.
    assert found == {"top1": pytest.approx(2 / 3), "top2": 1.0, "queries": 3.0}


def test_ties_count_against_the_query() -> None:
    notes = labels((0, 60, 100), (1, 60, 100), (0, 62, 90))
    found = instrument_hits(np.array([[0.0], [4.0], [2.0]]), notes, metric="l2", at=(1, 2))
    assert found == {"top1": 0.0, "top2": 1.0, "queries": 1.0}


def test_cosine_looks_past_length() -> None:
    notes = labels((0, 60, 100), (1, 60, 100), (0, 62, 90))
    vectors = np.array([[1.0, 0.0], [6.0, 6.0], [9.0, 1.0]])
    assert instrument_hits(vectors, notes, metric="cosine", at=(1,))["top1"] == 1.0
    assert instrument_hits(vectors, notes, metric="l2", at=(1,))["top1"] == 0.0


def test_a_query_finds_its_instrument_by_its_notes_nearby() -> None:
    notes = labels((0, 59.9, 100), (0, 61, 100), (0, 72, 100), (1, 60, 100), (1, 61.1, 100), (1, 72, 100))
    vectors = np.array([[0.0], [0.1], [9.0], [5.0], [5.1], [0.2]])
    found = instrument_hits(vectors, notes, metric="l2", window=1.0, at=(1, 2))
    # References are the notes of 61. Queries: 60 of either finds 61 of its own; 72 of either has none nearby.
    assert found == {"top1": 0.5, "top2": 0.5, "queries": 4.0}


def test_stages_on_instruments_by_hand() -> None:
    """Three instruments at two neighbouring keys; by stage 1 the third one's note is 0's, by stage 2 its own."""
    notes = labels(
        (0, 60, 100), (0, 61, 100), (1, 60, 100), (1, 61, 100), (2, 60, 100), (2, 61, 100), (2, 60, 80)
    )  # fmt: skip
    angles1 = np.radians([0, 0, 90, 90, 180, 180, 40])
    angles2 = np.radians([0, 0, 90, 90, 180, 180, 150])
    stage1, stage2 = (np.stack([np.cos(a), np.sin(a)], axis=1) for a in (angles1, angles2))
    found = stages(stage1, stage2, notes, window=1.0)
    # References are the lower keys; four queries, and only the soft note is far from its instrument by stage 1.
    assert found["stage1"] == {"top1": 0.75, "top5": 1.0}
    assert found["exhaustive"] == found["exhaustive, unscaled"] == {"top1": 1.0, "top5": 1.0}
    assert found["two_stage"]["25"] == {"top1": 1.0, "top5": 1.0, "overlap10": 1.0}
    # Where only the first axis is compared, 150 and 180 degrees are one, and of the second instrument nothing is left.
    bent = stages(stage1, stage2, notes, window=1.0, whitening=np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert bent["stage2"] == {"top1": 0.75, "top5": 1.0}


def write_nsynth(folder: Path) -> None:
    """Two instruments at three pitches each in NSynth's layout: few and many partials, 16 kHz."""
    facts = {}
    audio = folder / "nsynth-test" / "audio"
    audio.mkdir(parents=True)
    time = np.arange(32_000) / 16_000
    for family, partials in (("flute", 1), ("brass", 20)):
        for pitch in (57, 58, 60):
            name = f"{family}_acoustic_000-{pitch:03d}-100"
            hertz = 440.0 * 2.0 ** ((pitch - 69) / 12)
            sound = sum(np.sin(2 * np.pi * hertz * n * time) / n for n in range(1, partials + 1))
            soundfile.write(
                audio / f"{name}.wav", 0.3 * sound / np.abs(sound).max(), 16_000, subtype="PCM_16"
            )
            facts[name] = {
                "note_str": name,
                "instrument_str": f"{family}_acoustic_000",
                "instrument_family_str": family,
                "instrument_source_str": "acoustic",
                "pitch": pitch,
                "velocity": 100,
            }
    (folder / "nsynth-test" / "examples.json").write_text(json.dumps(facts))


def test_an_nsynth_folder_is_measured_with_every_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nsynth(tmp_path)
    monkeypatch.setenv("TIMBREL_WEIGHTS", str(tmp_path / "none"))
    report = tmp_path / "retrieval.json"
    report.write_text('{"sweeps": 1}')
    done = CliRunner().invoke(
        main, ["evaluate", "instruments", str(tmp_path), "--window", "2", "-o", str(report)]
    )
    assert done.exit_code == 0, done.output
    assert "left out: " in done.stderr
    assert "timbrel weights fetch efficientat-mn04" in done.stderr
    content = json.loads(report.read_text())
    assert content["sweeps"] == 1
    found = content["instruments"]
    assert set(found["by_encoder"]) == {"search", "stage1", "stage2", "mfcc", "mel", "codec"}
    # References are the notes of 58. 60 has 58 within two semitones, 57 too: all four queries are found.
    for name in ("stage2", "mfcc"):
        for way in ("reference", "gated"):
            assert found["by_encoder"][name][way]["cosine"] == {"top1": 1.0, "top5": 1.0, "queries": 4.0}
    assert found["top1"] == found["by_encoder"]["search"]["gated"]["cosine"]["top1"]
    assert set(content["baselines"]) == {"mfcc", "mel", "codec"}
    assert found["stages"]["exhaustive"]["top1"] == 1.0
    for name, beside in content["baselines"].items():
        assert beside == {"instruments": found["by_encoder"][name]["gated"]["cosine"]}


def test_folders_of_neither_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither notes\.csv nor nsynth-test"):
        read_notes(tmp_path)
    done = CliRunner().invoke(main, ["evaluate", "instruments", str(tmp_path)])
    assert done.exit_code == 2
    assert done.stderr.startswith("timbrel: ")


@pytest.mark.skipif(
    not os.environ.get("TIMBREL_SHARED"), reason="TIMBREL_SHARED is not set: no weights to compare with"
)
def test_the_published_encoder_is_asked_where_its_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMBREL_WEIGHTS", str(Path(os.environ["TIMBREL_SHARED"], "weights")))
    empty = {name: np.zeros((2, 4), dtype=np.float32) for name in ("stage1", "stage2")}
    embed, absent = every_encoder(lambda *_: empty)
    assert "efficientat-mn04" not in absent
    clips = np.random.default_rng(0).standard_normal((2, 72_000)).astype(np.float32) * 0.1
    found = embed(clips)
    assert set(found) == {"stage1", "stage2", "mfcc", "mel", "efficientat-mn04", "efficientat-mn04-style"}
    assert found["efficientat-mn04"].shape == (2, 384)
    # Means and deviations of 17 blocks' channels; the last block's means are the embedding.
    style = found["efficientat-mn04-style"]
    assert style.shape == (2, 1_792)
    np.testing.assert_allclose(style[:, -768:-384], found["efficientat-mn04"], rtol=0, atol=1e-5)


def test_the_bundles_own_vectors_may_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMBREL_WEIGHTS", str(tmp_path))

    def never(*_: object) -> dict[str, np.ndarray]:
        raise AssertionError("the bundle was asked")

    embed, _ = every_encoder(never, bundled=False)
    assert list(embed(np.ones((1, 72_000), dtype=np.float32))) == ["mfcc", "mel"]
    assert baselines(["stage1", "mel", "stage2", "codec"]) == ["mel", "codec"]
