"""The check of synthesized notes: what it measures, what it leaves out, and that nobody waits for it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from prometheus_client import REGISTRY
from support.serving import until
from support.tiny_models import SAMPLE_RATE, tone

from timbrel.audio import Audio
from timbrel.serving import note_check
from timbrel.serving.note_check import WAITING, NoteCheck, error_cents


def _note(midi: float, level: float = 1.0) -> Audio:
    return Audio(tone(midi, 0.2, -0.4, seconds=0.5, held=0.4) * np.float32(level), SAMPLE_RATE)


def _told() -> dict[str, float]:
    results = {
        result: REGISTRY.get_sample_value("timbrel_notes_checked_total", {"result": result}) or 0.0
        for result in ("in_tune", "off", "unpitched")
    }
    return results | {"sum": REGISTRY.get_sample_value("timbrel_note_error_cents_sum") or 0.0}


def test_the_error_is_measured_from_the_key_at_any_level() -> None:
    assert error_cents(_note(60.0), 60) == pytest.approx(0, abs=4)
    assert error_cents(_note(60.3), 60) == pytest.approx(30, abs=4)
    assert error_cents(_note(71.8), 60) == pytest.approx(1180, abs=8)
    # As soft as a note of velocity 1.
    assert error_cents(_note(60.3, 1e-4), 60) == pytest.approx(30, abs=4)


def test_what_has_no_pitch_has_no_error() -> None:
    hiss = np.random.default_rng(3).uniform(-0.5, 0.5, SAMPLE_RATE).astype(np.float32)
    assert error_cents(Audio(hiss, SAMPLE_RATE), 60) is None
    assert error_cents(Audio(np.zeros(SAMPLE_RATE, dtype=np.float32), SAMPLE_RATE), 60) is None


def test_each_result_is_counted() -> None:
    before, check = _told(), NoteCheck()
    check.start(1.0)
    hiss = np.random.default_rng(3).uniform(-0.5, 0.5, SAMPLE_RATE).astype(np.float32)
    for note, key in (
        (_note(60.0), 60),
        (_note(60.4), 60),
        (_note(61.0), 60),
        (Audio(hiss, SAMPLE_RATE), 60),
    ):
        check.offer(note, key)
    until(lambda: sum(_told()[each] - before[each] for each in ("in_tune", "off", "unpitched")) == 4, 30)
    risen = {name: value - before[name] for name, value in _told().items()}
    assert (risen["in_tune"], risen["off"], risen["unpitched"]) == (2, 1, 1)
    assert risen["sum"] == pytest.approx(0 + 40 + 100, abs=12)
    check.close()


def test_the_share_decides_and_a_backlog_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, release, checked = threading.Event(), threading.Event(), []

    def slow(note: Audio, key: int) -> float:
        checked.append(key)
        begun.set()
        release.wait(30)
        return 0.0

    monkeypatch.setattr(note_check, "error_cents", slow)
    check, note = NoteCheck(), _note(60.0)
    check.offer(note, 0)  # not started: nothing is checked
    check.start(1.0)
    check.offer(note, 1)
    assert begun.wait(30)
    for key in range(2, 2 + 2 * WAITING):
        check.offer(note, key)
    release.set()
    until(lambda: len(checked) == 1 + WAITING, 30)
    assert checked == list(range(1, 2 + WAITING))
    check.close()
    check.offer(note, 99)
    assert 99 not in checked


def test_a_note_that_cannot_be_measured_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    measured = note_check.error_cents

    def fragile(note: Audio, key: int) -> float | None:
        if key == 1:
            raise RuntimeError("no room")
        return measured(note, key)

    monkeypatch.setattr(note_check, "error_cents", fragile)
    before, check = _told(), NoteCheck()
    check.start(1.0)
    check.offer(_note(60.0), 1)
    check.offer(_note(60.0), 60)
    until(lambda: _told()["in_tune"] == before["in_tune"] + 1, 30)
    assert "the pitch of a note could not be measured" in caplog.text
    check.close()
