"""`timbrel bundle use`: another bundle under load, without a failed request, and never an answer of two bundles."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc
from support.recordings import wav_note
from support.serving import Serving, nothing_left, still_running, until
from support.tiny_bundle import build_tiny_bundle, tiny_bundle_folder

from timbrel import audio
from timbrel.client import Client
from timbrel.files import sha256_of
from timbrel.library.manifest import MODELS, read_manifest
from timbrel.serving.triton_files import find_wheel
from timbrel.v1 import timbrel_pb2 as pb
from timbrel.v1 import timbrel_pb2_grpc as pb_grpc

needs_triton = pytest.mark.skipif(
    find_wheel()[0] is None, reason=f"Triton cannot run here: {find_wheel()[1]}"
)
REQUESTS, CALLERS, LEAST_SWAPS = 5_000, 6, 4
NOTE = {"x": 0.2, "y": -0.4, "pitch": 60, "seconds": 0.2}
# Triton puts questions together, which moves the last digits; the two bundles are further apart.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two bundles by their ids: the same patches, other models."""
    second = tmp_path_factory.mktemp("second") / "bundle"
    build_tiny_bundle(second, variant=1).close()
    return {read_manifest(folder / "manifest.json").id: folder for folder in (tiny_bundle_folder(), second)}


@pytest.fixture(scope="module")
def serving(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Two workers and a Triton over the first bundle."""
    folder = tmp_path_factory.mktemp("swapping")
    running = Serving.start(next(iter(bundles.values())), folder, workers="2")
    try:
        yield running.wait_ready()
    finally:
        running.stop()


def _refused(serving: Serving, folder: Path) -> str:
    result = serving.use(folder)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    return line.removeprefix("timbrel: ")


def _served_ids(serving: Serving) -> set[str]:
    """What both workers say; each connection goes to either."""
    ids = set()
    for _ in range(16):
        with serving.client() as client:
            answer = client.get("/info")
            assert answer.json()["bundle_id"] == answer.headers["timbrel-bundle"]
            ids.add(answer.headers["timbrel-bundle"])
    return ids


@dataclass
class Heard:
    """What the callers were told: every different answer by its kind and its bundle, and what went wrong."""

    answers: dict[tuple[str, str], set[bytes]] = field(default_factory=lambda: defaultdict(set))
    failures: list[str] = field(default_factory=list)
    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, bundle: str, answer: bytes) -> None:
        with self.lock:
            self.count += 1
            self.answers[kind, bundle].add(answer)


class Caller:
    """Asks one thing after the other, over HTTP and gRPC, as fast as they are answered."""

    def __init__(self, serving: Serving, patch_id: str, heard: Heard) -> None:
        self._http = serving.client()
        self._channel = serving.channel()
        self._stub = pb_grpc.TimbrelStub(self._channel)
        self._like = patch_id
        self._heard = heard
        self._clip = wav_note()

    def ask(self, number: int) -> None:
        kind = number % 20
        try:
            if kind == 0:
                self._post(
                    "recording",
                    "/search",
                    files={"audio": ("clip", self._clip)},
                    data={"k": "3", "fold": "false"},
                )
            elif kind < 3:
                self._post("note", "/synthesize", json=NOTE)
            elif kind == 3:
                answer, call = self._stub.Synthesize.with_call(pb.SynthesizeRequest(**NOTE), timeout=60)
                self._heard.add("note", _bundle_of(call), answer.wav)
            elif kind < 7:
                request = pb.SearchRequest(like=self._like, options=pb.SearchOptions(k=3, fold=False))
                answer, call = self._stub.Search.with_call(request, timeout=60)
                hits = [[hit.patch_id, hit.stage1_distance, hit.stage2_distance] for hit in answer.hits]
                self._heard.add("like", _bundle_of(call), json.dumps(hits).encode())
            else:
                self._post("like", "/search", json={"like": self._like, "k": 3, "fold": False})
        except Exception as error:
            with self._heard.lock:
                self._heard.failures.append(f"{kind}: {error!r}")

    def _post(self, kind: str, path: str, **sent: Any) -> None:
        answer = self._http.post(path, **sent)
        assert answer.status_code == 200, (answer.status_code, answer.text)
        content = answer.content if kind == "note" else json.dumps(_hits(answer)).encode()
        self._heard.add(kind, answer.headers["timbrel-bundle"], content)

    def close(self) -> None:
        self._http.close()
        self._channel.close()


def _bundle_of(call: Any) -> str:
    return str(dict(call.trailing_metadata())["timbrel-bundle"])


def _hits(answer: httpx.Response) -> list[list[Any]]:
    return [
        [hit["patch_id"], hit["stage1_distance"], hit["stage2_distance"]] for hit in answer.json()["hits"]
    ]


def _expected(folder: Path, patch_id: str) -> dict[str, Any]:
    """What each question's answer is, from the bundle itself."""
    with Client(bundle=folder) as client:
        found = {
            "recording": client.search(wav_note(), k=3, fold=False),
            "like": client.search_like(patch_id, k=3, fold=False),
        }
        hits = {
            kind: [[hit.patch_id, hit.stage1_distance, hit.stage2_distance] for hit in result.hits]
            for kind, result in found.items()
        }
        return {**hits, "note": client.synthesize(**NOTE).samples}  # type: ignore[arg-type]


def _same(kind: str, one: Any, other: Any) -> bool:
    if kind == "note":
        return len(one) == len(other) and bool(np.abs(one - other).max() < 1e-3)
    return all(
        ours[0] == theirs[0] and np.allclose(ours[1:], theirs[1:], rtol=0, atol=TOLERANCE)
        for ours, theirs in zip(one, other, strict=True)
    )


def _read(kind: str, answer: bytes) -> Any:
    return audio.read(answer).samples if kind == "note" else json.loads(answer)


@needs_triton
def test_bundles_change_under_load_and_every_answer_is_of_one(
    serving: Serving, bundles: dict[str, Path]
) -> None:
    first, second = bundles
    with serving.client() as client:
        patch_id = client.get("/patches").json()["patches"][0]["patch_id"]
    workers = {process.pid for process in serving.family()}
    regions = len(serving.shared_memory())
    heard, done = Heard(), threading.Event()

    def call(start: int) -> None:
        caller = Caller(serving, patch_id, heard)
        number = start
        while not done.is_set():
            caller.ask(number)
            number += 1
        caller.close()

    swaps = 0
    with ThreadPoolExecutor(CALLERS) as pool:
        calls = [pool.submit(call, start) for start in range(CALLERS)]
        try:
            while swaps < LEAST_SWAPS or heard.count < REQUESTS:
                serving.used(bundles[second if swaps % 2 == 0 else first])
                swaps += 1
        finally:
            done.set()
        for each in calls:
            each.result()
    assert heard.failures == []
    assert heard.count >= REQUESTS

    expected = {name: _expected(folder, patch_id) for name, folder in bundles.items()}
    for kind in ("like", "recording", "note"):
        # So far apart that a mixture could not pass for either.
        assert not _same(kind, expected[first][kind], expected[second][kind])
        for name in (first, second):
            answers = heard.answers[kind, name]
            assert answers
            for answer in answers:
                assert _same(kind, _read(kind, answer), expected[name][kind]), (kind, name)
    assert {name for _, name in heard.answers} == {first, second}

    last, former = (second, first) if swaps % 2 else (first, second)
    assert _served_ids(serving) == {last}
    with serving.client() as client:
        metrics = client.get("/metrics").text
    assert f'timbrel_bundle_info{{bundle="{last}",revision="{"0" * 40}"}} 1.0' in metrics
    assert f'timbrel_bundle_info{{bundle="{former}",revision="{"0" * 40}"}} 0.0' in metrics
    # Nothing of the former ones is left in Triton, in its shared memory or on the disk, and no process was replaced.
    until(lambda: len(list(serving.state.glob("run-*/editions/*"))) == 1)
    triton = triton_grpc.InferenceServerClient(f"127.0.0.1:{serving.ports.triton_grpc}")
    until(lambda: len(_loaded(triton)) == len(MODELS))
    assert {version for _, version in _loaded(triton)} == {str(swaps + 1)}
    triton.close()
    until(lambda: len(serving.shared_memory()) == regions)
    assert workers >= _bentoml(serving)
    assert "Traceback" not in serving.log("service")


def _bentoml(serving: Serving) -> set[int]:
    """The supervisor and its workers."""
    found = set()
    for process in serving.family():
        # A decoder that ended a moment ago has no command any more.
        with contextlib.suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
            if "bentoml" in " ".join(process.cmdline()):
                found.add(process.pid)
    return found


def _loaded(triton: Any) -> list[tuple[str, str]]:
    index = triton.get_model_repository_index().models
    return [(model.name, model.version) for model in index if model.state == "READY"]


def _torn(bundle: Path) -> str:
    model = bundle / "models" / "generator.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    return "generator.onnx does not match its hash"


def _lacking(bundle: Path) -> str:
    (bundle / "models" / "codec_decoder.onnx").unlink()
    return "codec_decoder.onnx is missing"


def _not_a_model(bundle: Path) -> str:
    (bundle / "models" / "generator.onnx").write_bytes(b"nonsense")
    _describe(bundle)
    return "generator.onnx cannot be loaded"


def _another_model(bundle: Path) -> str:
    """A model that loads, and fails when it is asked."""
    shutil.copyfile(bundle / "models" / "map_encoder.onnx", bundle / "models" / "generator.onnx")
    _describe(bundle)
    return "a worker cannot serve the bundle: the model generator failed"


def _describe(bundle: Path) -> None:
    """Have the manifest agree with what lies in the folder."""
    manifest = read_manifest(bundle / "manifest.json")
    files = {
        name: replace(entry, sha256=sha256_of(bundle / name), bytes=(bundle / name).stat().st_size)
        for name, entry in manifest.files.items()
    }
    manifest = replace(manifest, files=files)
    (bundle / "manifest.json").write_bytes(replace(manifest, id=manifest.content_id()).to_json())


@needs_triton
@pytest.mark.parametrize("spoil", [_torn, _lacking, _not_a_model, _another_model])
def test_a_bad_bundle_is_refused_and_the_former_goes_on(
    serving: Serving, bundles: dict[str, Path], tmp_path: Path, spoil: Any
) -> None:
    served = _served_ids(serving)
    (other,) = bundles.keys() - served
    shutil.copytree(bundles[other], tmp_path / "bundle")
    said = spoil(tmp_path / "bundle")
    assert said in _refused(serving, tmp_path / "bundle")
    assert _served_ids(serving) == served
    with serving.client() as client:
        assert client.post("/synthesize", json=NOTE).status_code == 200
        assert client.get("/readyz").status_code == 200
    until(lambda: len(list(serving.state.glob("run-*/editions/*"))) == 1)


@needs_triton
def test_no_room_for_a_bundle_is_said_and_the_former_goes_on(
    serving: Serving, bundles: dict[str, Path]
) -> None:
    served = _served_ids(serving)
    (other,) = bundles.keys() - served
    launcher = psutil.Process(serving.process.pid)
    before = launcher.rlimit(resource.RLIMIT_FSIZE)
    launcher.rlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        said = _refused(serving, bundles[other])
    finally:
        launcher.rlimit(resource.RLIMIT_FSIZE, before)
    assert said.startswith(f"the bundle cannot be copied to {serving.state} (")
    assert "make room there" in said
    assert len(list(serving.state.glob("run-*/editions/*"))) == 1
    assert _served_ids(serving) == served
    serving.used(bundles[other])
    assert _served_ids(serving) == {other}


@needs_triton
def test_a_triton_that_another_started_is_given_no_models(
    serving: Serving, bundles: dict[str, Path], tmp_path: Path
) -> None:
    (served,) = _served_ids(serving)
    (other,) = bundles.keys() - {served}
    address = f"127.0.0.1:{serving.ports.triton_grpc}"
    apart = Serving.start(bundles[served], tmp_path, workers="1", engine="triton", triton_url=address)
    try:
        said = _refused(apart.wait_ready(), bundles[other])
        assert said.startswith(
            f"the models run in the Triton at {address}, which `timbrel serve` did not start: stop"
        )
        assert len(list(apart.state.glob("run-*/editions/*"))) == 1
        assert _served_ids(apart) == {served}
    finally:
        apart.stop()
    assert _served_ids(serving) == {served}


@needs_triton
def test_the_end_leaves_nothing(serving: Serving) -> None:
    family = serving.family()
    assert serving.stop() == 0
    nothing_left(serving, family)
    assert "no `timbrel serve` runs on port" in _refused(serving, tiny_bundle_folder())


def test_a_worker_that_starts_anew_serves_what_the_others_do(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    (first, folder), (second, other) = bundles.items()
    shutil.copytree(folder, tmp_path / "bundle")
    serving = Serving.start(tmp_path / "bundle", tmp_path, engine="inprocess", workers="2").wait_ready()
    try:
        # Another bundle in the same place changes nothing before it is asked for.
        shutil.rmtree(tmp_path / "bundle")
        shutil.copytree(other, tmp_path / "bundle")
        for expected in (first, second):
            until(lambda: len(_workers(serving)) == 2)
            victim = _workers(serving)[0]
            victim.kill()
            assert still_running([victim]) == []
            until(lambda: len(_workers(serving)) == 2)
            assert _served_ids(serving) == {expected}
            serving.used(tmp_path / "bundle")
            assert _served_ids(serving) == {second}
        family = serving.family()
        assert serving.stop() == 0
        nothing_left(serving, family)
    finally:
        serving.stop()


def _workers(serving: Serving) -> list[psutil.Process]:
    """Those that have said that they serve."""
    notes = serving.state.glob("run-*/workers/[0-9]*.json")
    started = [int(path.stem) for path in notes if json.loads(path.read_text())["served"] is not None]
    return [psutil.Process(pid) for pid in started if psutil.pid_exists(pid)]
