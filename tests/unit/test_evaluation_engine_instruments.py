"""Presets of engines that no encoder has learned from, as the instruments of protocol 1."""

from __future__ import annotations

import numpy as np
import pytest

from timbrel.errors import DataError
from timbrel.evaluation import engine_instruments
from timbrel.evaluation.engine_instruments import KEYS, VELOCITIES, render_notes
from timbrel.evaluation.instruments import references
from timbrel.notes import unseen_engines
from timbrel.notes.unseen_engines import Patch


def test_every_preset_is_an_instrument_with_all_its_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(engine: str, count: int, *, seed: int) -> list[Patch]:
        if engine != "vital":
            return []
        silent = {"osc_1_on": 0.0}
        return [
            Patch(engine="vital", name=name, keys=(), controls={"osc_1_random_phase": 0.0} | more)
            for name, more in (
                ("saw", {}),
                ("none", silent),
                ("other", {"osc_1_distortion_type": 3.0, "osc_1_distortion_amount": 0.8}),
                ("saw", {}),
            )
        ]

    monkeypatch.setattr(engine_instruments, "patches", drawn)
    notes, kept = render_notes(4, seed=1, workers=1)
    assert kept == {"vital": 2, "amsynth": 0, "whysynth": 0}
    each = len(KEYS) * len(VELOCITIES)
    assert notes.labels.instrument.tolist() == [0] * each + [1] * each
    assert sorted(set(notes.labels.pitch.tolist())) == sorted(KEYS)
    assert notes.labels.velocity.tolist() == [*VELOCITIES] * 2 * len(KEYS)
    assert len(references(notes.labels)) == 2
    audio = notes.audio(np.array([1, each + 1]))
    assert audio.dtype == np.float32
    assert np.abs(audio).max(axis=1) == pytest.approx([29_204 / 32_768] * 2)
    assert not np.allclose(audio[0], audio[1], atol=0.1)


def test_without_any_engine_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unseen_engines, "PLUGINS", {})
    monkeypatch.setattr(engine_instruments, "patches", lambda engine, count, *, seed: [])
    with pytest.raises(DataError, match="apt-get install amsynth whysynth, pip install vita"):
        render_notes(4, seed=1)
