"""The metrics of quality and capacity, scraped from a real service with two workers: each value, a swap, a death."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.parser import text_string_to_metric_families
from support.recordings import encoded, wav_note
from support.serving import Serving, until
from support.tiny_bundle import build_tiny_bundle, bundle_parts

from timbrel.audio import read
from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.library import hubness
from timbrel.library.bundle import Bundle
from timbrel.library.reference import CELLS, Reference

THREADS, QUEUE = 2, 5
NOTE = {"x": 0.2, "y": -0.4, "pitch": 60, "seconds": 0.4}

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with scales: the brightest tone's neighbours are nearest."""
    folder = tmp_path_factory.mktemp("scaled") / "bundle"
    bundle = build_tiny_bundle(folder)
    scales = np.where(bundle.patch_of == int(bundle.positions[:, 0].argmax()), 0.8, 1.0)
    bundle.close()
    parts = bundle_parts(folder.with_name("bundle.parts"))
    hubness.save_scales(parts["index"], scales)
    Bundle.build(folder, **parts).close()
    return folder


@pytest.fixture(scope="module")
def measured(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Two workers that compute by themselves and check every note."""
    running = Serving.start(
        folder, tmp_path_factory.mktemp("measured"),
        workers="2", engine="inprocess", threads=str(THREADS), queue=str(QUEUE), checked_share="1",
    )  # fmt: skip
    try:
        running.wait_ready()
        until(lambda: _value(_scrape(running), "timbrel_workers") == 2)
        yield running
    finally:
        running.stop()


def _scrape(serving: Serving) -> Samples:
    """On a connection of its own, so that either worker may be the one that is asked."""
    with serving.client() as client:
        text = client.get("/metrics").text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def _cells(samples: Samples, name: str, quantity: str) -> list[float]:
    return [_value(samples, name, quantity=quantity, cell=f"{cell:02}") for cell in range(CELLS)]


def _ask(serving: Serving, how: dict[str, Any]) -> dict[str, Any]:
    with serving.client() as client:
        answer = client.post("/search", **how)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _recording(data: bytes, **options: str) -> dict[str, Any]:
    return {"files": {"audio": ("clip", data)}, "data": {"k": "12", **options}}


def test_every_search_is_counted_once_whichever_worker_answers(measured: Serving, folder: Path) -> None:
    bundle = Bundle.open(folder)
    reference = Reference.of(bundle)
    engine = Engine(bundle, OnnxModels({name: bundle.path(name) for name in bundle.manifest.models}))
    rng = np.random.default_rng(5)
    clips = [wav_note(hz=hz) for hz in (98.0, 130.8, 196.0, 261.6, 392.0, 523.3)]
    hiss = encoded(rng.uniform(-0.5, 0.5, 24_000), 24_000, "WAV", "PCM_16")
    silence = encoded(np.zeros(24_000), 24_000, "WAV", "PCM_16")
    stage1, stage2 = engine.embed(read(clips[2]))
    vectors = {"json": {"stage1": stage1.tolist(), "stage2": stage2.tolist(), "pitch": 55.0, "k": 12}}
    like = {"json": {"like": bundle.patches[3].patch_id, "k": 3}}
    further = _recording(clips[3], k="2", offset="4")
    asked = [*(_recording(clip) for clip in clips), _recording(hiss), _recording(hiss, gate="off")]
    asked += [_recording(clips[0], pitch="60"), _recording(silence), vectors, like, further]

    before = _scrape(measured)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda how: _ask(measured, how), asked))
    after = _scrape(measured)

    def risen(name: str, **labels: str) -> float:
        return _value(after, name, **labels) - _value(before, name, **labels)

    first = answers[:-1]
    assert [bool(answer["hits"]) for answer in first] == [True] * 9 + [False, True, True]
    assert risen("timbrel_searches_total", answer="hits") == 11
    assert risen("timbrel_searches_total", answer="empty") == 1
    hits = [hit for answer in first for hit in answer["hits"]]
    assert risen("timbrel_search_hits_total") == len(hits)
    assert reference.hubs == {bundle.patches[int(bundle.positions[:, 0].argmax())].patch_id}
    hub_hits = sum(hit["patch_id"] in reference.hubs for hit in hits)
    assert risen("timbrel_search_hub_hits_total") == hub_hits > 0

    outside = [answer["hits"] for answer in first[:-1] if answer["hits"]]
    for place, number in (("best", 0), ("tenth", 9)):
        distances = [found[number]["distance"] for found in outside if len(found) > number]
        assert risen("timbrel_search_distance_count", place=place) == len(distances) > 0
        assert risen("timbrel_search_distance_sum", place=place) == pytest.approx(sum(distances), abs=1e-6)

    heard = [read(clip) for clip in [*clips, hiss, hiss, clips[0]]]
    embedded = [engine.embed(clip)[0] for clip in heard] + [stage1]
    counted = Counter(reference.embedding_cell(vector) for vector in embedded)
    rising = np.subtract(*(_cells(each, "timbrel_query_cell_total", "embedding") for each in (after, before)))
    assert rising.tolist() == [counted[cell] for cell in range(CELLS)]
    # G2 lies below the library (C3 to C6), and is asked for once as C4; hiss has no pitch, with and without the gate.
    pitches = [43.0, 48.0, 55.0, 60.0, 67.0, 72.0, None, None, 60.0]
    counted = Counter(reference.pitch_cell(pitch) for pitch in pitches)
    rising = np.subtract(*(_cells(each, "timbrel_query_cell_total", "pitch") for each in (after, before)))
    assert rising.tolist() == [counted[cell] for cell in range(CELLS)]
    accepted = [answer["query"]["gate"]["midi"] for answer in first[:9]]
    accepted = [pitch for pitch in accepted if pitch is not None]
    assert risen("timbrel_query_pitch_midi_count") == len(accepted) == 6
    assert risen("timbrel_query_pitch_midi_sum") == pytest.approx(sum(accepted), abs=0.1)
    assert risen("timbrel_query_pitch_midi_bucket", le="60.0") - risen(
        "timbrel_query_pitch_midi_bucket", le="48.0"
    ) == sum(48 < pitch <= 60 for pitch in accepted)
    engine.close()


def test_the_librarys_shares_are_told(measured: Serving, folder: Path) -> None:
    bundle = Bundle.open(folder)
    reference = Reference.of(bundle)
    bundle.close()
    samples = _scrape(measured)
    for quantity, shares in (("embedding", reference.embedding_shares), ("pitch", reference.pitch_shares)):
        told = _cells(samples, "timbrel_reference_share", quantity)
        assert told == shares.tolist()
        assert sum(told) == pytest.approx(1)


def test_the_pitch_of_notes_is_measured_after_they_are_sent(measured: Serving) -> None:
    def checked(samples: Samples) -> dict[str, float]:
        return {
            result: _value(samples, "timbrel_notes_checked_total", result=result)
            for result in ("in_tune", "off", "unpitched")
        }

    before = _scrape(measured)
    for key in (48, 55, 60, 67, 72):
        with measured.client() as client:
            assert client.post("/synthesize", json={**NOTE, "pitch": key}).status_code == 200
    until(lambda: sum(checked(_scrape(measured)).values()) == sum(checked(before).values()) + 5)
    after = _scrape(measured)
    assert checked(after) == checked(before) | {"in_tune": checked(before)["in_tune"] + 5}
    errors = [_value(each, "timbrel_note_error_cents_bucket", le="50.0") for each in (before, after)]
    assert errors[1] - errors[0] == 5


def test_the_workers_and_their_places_are_told(measured: Serving) -> None:
    samples = _scrape(measured)
    assert _value(samples, "timbrel_workshop_places", workshop="questions") == 2 * (THREADS + QUEUE)
    assert _value(samples, "timbrel_workshop_places", workshop="instruments") == 2 * (1 + THREADS)
    for workshop in ("questions", "instruments"):
        assert _value(samples, "timbrel_workshop_busy", workshop=workshop) == 0
        assert _value(samples, "timbrel_workshop_waiting", workshop=workshop) == 0
    resident = sum(worker.memory_info().rss for worker in measured.workers())
    assert _value(samples, "timbrel_worker_memory_bytes") == pytest.approx(resident, rel=0.2)


def test_a_swapped_in_library_has_shares_of_its_own(measured: Serving, folder: Path, tmp_path: Path) -> None:
    before = _scrape(measured)
    bundle = build_tiny_bundle(tmp_path / "bundle", variant=1)
    reference = Reference.of(bundle)
    bundle.close()
    try:
        measured.used(tmp_path / "bundle")
        after = _scrape(measured)
        shares = reference.embedding_shares.tolist()
        assert _cells(after, "timbrel_reference_share", "embedding") == shares
        assert shares != _cells(before, "timbrel_reference_share", "embedding")
        # What was counted stays; trying the new bundle out is no search.
        for key, value in before.items():
            if key[0].startswith(("timbrel_search", "timbrel_query", "timbrel_note")):
                assert after[key] == value, key
        assert _value(after, "timbrel_workshop_places", workshop="questions") == 2 * (THREADS + QUEUE)
    finally:
        measured.used(folder)
    first = _cells(before, "timbrel_reference_share", "embedding")
    assert _cells(_scrape(measured), "timbrel_reference_share", "embedding") == first


def test_what_a_dead_worker_was_doing_counts_no_more_and_what_it_did_still_does(measured: Serving) -> None:
    answers = [_ask(measured, _recording(wav_note())) for _ in range(8)]  # some by each worker
    before = _scrape(measured)

    def ask() -> int:
        try:
            with measured.client() as client:
                return client.post("/instrument", json={"x": 0.2, "y": -0.4, "seconds": 4.0}).status_code
        except httpx.TransportError:  # of the one that dies
            return 0

    def busy(samples: Samples) -> float:
        return _value(samples, "timbrel_workshop_busy", workshop="instruments")

    workers = measured.workers()
    files = _metrics_folder(workers[0])

    def at_work() -> list[psutil.Process]:
        return [worker for worker in workers if _is_busy(files, worker.pid)]

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        until(lambda: bool(at_work()))
        assert busy(_scrape(measured)) >= 1
        [victim, *_] = at_work()
        victim.kill()
        until(lambda: not psutil.pid_exists(victim.pid))
        assert list(files.glob(f"gauge_live*_{victim.pid}.db"))
        _scrape(measured)
        assert not list(files.glob(f"gauge_live*_{victim.pid}.db"))
        assert list(files.glob(f"counter_{victim.pid}.db"))
        for each in asking:
            assert each.result() in (0, 200, 503)
    until(lambda: _value(_scrape(measured), "timbrel_workers") == 2)
    until(lambda: len(measured.workers()) == 2)
    after = _scrape(measured)
    assert busy(after) == 0
    assert _value(after, "timbrel_workshop_waiting", workshop="instruments") == 0
    assert _value(after, "timbrel_workshop_places", workshop="questions") == 2 * (THREADS + QUEUE)
    hits = sum(len(answer["hits"]) for answer in answers)
    assert _value(after, "timbrel_search_hits_total") == _value(before, "timbrel_search_hits_total") >= hits
    assert _cells(after, "timbrel_reference_share", "pitch") == _cells(
        before, "timbrel_reference_share", "pitch"
    )


def _metrics_folder(worker: psutil.Process) -> Path:
    return Path(worker.environ()["PROMETHEUS_MULTIPROC_DIR"])


def _is_busy(files: Path, worker: int) -> bool:
    """Whether this worker makes an instrument."""
    values = MmapedDict.read_all_values_from_file(str(files / f"gauge_livesum_{worker}.db"))
    for key, value, *_ in values:
        metric, _, labels, _ = json.loads(key)
        if (metric, labels) == ("timbrel_workshop_busy", {"workshop": "instruments"}):
            return bool(value)
    raise AssertionError(f"{worker} says nothing of its workshop for instruments")
