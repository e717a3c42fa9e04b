"""What the notes stage tells: its figures, and the sources that the bundle names."""

from __future__ import annotations

import json
from pathlib import Path

from timbrel.params import load
from timbrel.stages.bundle import _data
from timbrel.stages.notes import final_figures

ROOT = Path(__file__).parents[2]


def test_counts_become_plain_figures() -> None:
    report = {
        "instruments": 5,
        "notes": 31,
        "velocity_notes": {"kept": 6, "silent": 1},
        "families": {
            "bass": {"train": 2, "validation": 0, "test": 1},
            "reed": {"train": 1, "validation": 1, "test": 0},
        },
        "sources": {"dx7": 3, "soundfont": 2},
        "dropped": {"silent": 2},
        "soundfonts_absent": 2,
    }
    assert final_figures(report) == {
        "instruments": 5.0,
        "notes": 31.0,
        "velocity_notes": 6.0,
        "families": 2.0,
        "instruments_bass_train": 2.0,
        "instruments_bass_validation": 0.0,
        "instruments_bass_test": 1.0,
        "instruments_reed_train": 1.0,
        "instruments_reed_validation": 1.0,
        "instruments_reed_test": 0.0,
        "instruments_train": 3.0,
        "instruments_validation": 1.0,
        "instruments_test": 1.0,
        "instruments_dx7": 3.0,
        "instruments_soundfont": 2.0,
        "dropped_silent": 2.0,
        "soundfonts_absent": 2.0,
    }


def test_the_bundle_names_the_fonts_that_were_there(tmp_path: Path) -> None:
    params = load(ROOT / "params.yaml")
    assert len(params.notes.soundfonts) == 2
    for name, report in (
        ("notes", {"soundfonts": ["TimGM6mb.sf2"]}),
        ("patches", {"tried": {"user": 0}}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(report))
    sources = _data(params, tmp_path / "notes", tmp_path / "patches")
    assert [source.name for source in sources] == ["FM voices of our own", "TimGM6mb.sf2"]
    found = {"soundfonts": ["TimGM6mb.sf2", "sf_GMbank.sf2", "mine.sf2"]}
    (tmp_path / "notes" / "report.json").write_text(json.dumps(found))
    licences = [source.licence for source in _data(params, tmp_path / "notes", tmp_path / "patches")]
    assert licences[2:] == ["public domain", "the user's own; its licence is the user's to know"]
