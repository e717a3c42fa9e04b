"""What breaks while it serves: Triton killed or stuck, a model gone, a worker killed, the end in the middle of work.

Real processes throughout. Whatever happens, an answer is the right one or an error that says when to come again.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest
import tritonclient.grpc as triton_grpc
from support.recordings import wav_note
from support.serving import Serving, nothing_left, still_running, triton_of, unread, until
from support.tiny_bundle import tiny_bundle_folder

from timbrel.client import Client
from timbrel.serving.triton_files import find_wheel
from timbrel.v1 import timbrel_pb2 as pb
from timbrel.v1 import timbrel_pb2_grpc as pb_grpc

needs_triton = pytest.mark.skipif(
    find_wheel()[0] is None, reason=f"Triton cannot run here: {find_wheel()[1]}"
)
NOTE = {"x": 0.2, "y": -0.4, "pitch": 60, "seconds": 0.3}
GRPC_NOTE = pb.SynthesizeRequest(**NOTE)  # type: ignore[arg-type]
THREADS, QUEUE = 2, 3


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One worker with few places, a short deadline, and a Triton of its own. Its end is the last test that has it."""
    running = Serving.start(
        tiny_bundle_folder(),
        tmp_path_factory.mktemp("faults"),
        workers="1",
        threads=str(THREADS),
        queue=str(QUEUE),
        deadline_seconds="5",
    )
    try:
        yield running.wait_ready()
    finally:
        running.stop()


def _search(serving: Serving) -> httpx.Response:
    with serving.client() as client:
        return client.post("/search", files={"audio": ("clip", wav_note())}, data={"k": "3"})


def _note(serving: Serving) -> httpx.Response:
    with serving.client() as client:
        return client.post("/synthesize", json=NOTE)


def _grpc_note(serving: Serving) -> bytes | grpc.RpcError:
    with serving.channel() as channel:
        try:
            return pb_grpc.TimbrelStub(channel).Synthesize(GRPC_NOTE, timeout=60).wav
        except grpc.RpcError as error:
            return error


def _is_ready(serving: Serving) -> bool:
    with serving.client() as client:
        return client.get("/readyz").status_code == 200


def _refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert ("retry-after" in answer.headers) == (status == 503)


@needs_triton
def test_a_triton_killed_in_mid_request_comes_back_by_itself(serving: Serving) -> None:
    found, sounding = _search(serving), _note(serving).content
    family, regions = serving.family(), len(serving.shared_memory())
    triton = triton_of(serving)
    stubs = triton.children(recursive=True)
    assert len(stubs) == 5
    with ThreadPoolExecutor(2) as pool:
        triton.suspend()
        over_http, over_grpc = pool.submit(_search, serving), pool.submit(_grpc_note, serving)
        until(lambda: any(unread(serving.ports.triton_grpc)))
        triton.kill()
        _refused(over_http.result(), 503, "unavailable")
        refused = over_grpc.result()
    assert isinstance(refused, grpc.RpcError)
    trailing = dict(refused.trailing_metadata())  # type: ignore[attr-defined]
    assert refused.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
    assert trailing["timbrel-code"] == "unavailable"
    assert int(trailing["retry-after"]) >= 1
    assert not _is_ready(serving)

    # Who comes again as told gets the answer of before.
    with Client(serving.url, retries=10) as http, Client(f"grpc://{serving.grpc_target}", retries=10) as rpc:
        for client in (http, rpc):
            hits = client.search(wav_note(), k=3).hits
            assert [hit.patch_id for hit in hits] == _ids(found)
    serving.wait_line("Triton is ready again")
    assert any(line.startswith("Triton ended by itself (exit status -9)") for line in serving.lines())
    assert _is_ready(serving)
    assert _note(serving).content == sounding == _grpc_note(serving)

    # Nothing of the old one is left, and the service itself was never touched.
    assert still_running([triton, *stubs]) == []
    assert len(serving.shared_memory()) == regions
    kept = {process.pid for process in family} - {triton.pid, *(stub.pid for stub in stubs)}
    assert kept <= {process.pid for process in serving.family()}


@needs_triton
def test_a_stuck_triton_costs_a_deadline_and_nothing_piles_up(serving: Serving) -> None:
    sounding = _note(serving).content
    triton = triton_of(serving)
    triton.suspend()
    try:
        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(lambda _: _note(serving), range(24)))
            spoken = _grpc_note(serving)
        late = [answer for answer in answers if answer.status_code == 504]
        for answer in answers:
            _refused(answer, *((504, "deadline_exceeded") if answer in late else (503, "unavailable")))
        # Those that had a place waited for it; the others were told at once.
        assert 1 <= len(late) <= THREADS + QUEUE
        assert isinstance(spoken, grpc.RpcError)
        assert not _is_ready(serving)
        with serving.client() as client:
            assert client.get("/livez").status_code == 200
            assert client.get("/info").status_code == 200
    finally:
        triton.resume()
    until(lambda: _is_ready(serving) and _note(serving).status_code == 200)
    assert _note(serving).content == sounding == _grpc_note(serving)
    assert triton_of(serving).pid == triton.pid


@needs_triton
def test_without_a_model_its_questions_wait_and_the_others_go_on(serving: Serving) -> None:
    found = _search(serving)
    triton = triton_grpc.InferenceServerClient(f"127.0.0.1:{serving.ports.triton_grpc}")
    triton.unload_model("timbre_encoder")
    until(lambda: not triton.is_model_ready("timbre_encoder"))
    answer = _search(serving)
    _refused(answer, 503, "unavailable")
    assert "timbre_encoder" in answer.json()["error"]["message"]
    assert _note(serving).status_code == 200
    assert not _is_ready(serving)
    triton.load_model("timbre_encoder")
    until(lambda: _is_ready(serving))
    assert _ids(_search(serving)) == _ids(found)
    triton.close()


@needs_triton
def test_sigterm_finishes_what_has_begun(serving: Serving) -> None:
    sounding = _note(serving).content
    family, triton = serving.family(), triton_of(serving)
    triton.suspend()
    with ThreadPoolExecutor(THREADS + QUEUE) as pool:
        answers = [pool.submit(_note, serving) for _ in range(THREADS + QUEUE)]
        # All are read, and the first of them are in Triton.
        until(
            lambda: (
                unread(serving.ports.http) == [0] * len(answers) and any(unread(serving.ports.triton_grpc))
            )
        )
        serving.process.send_signal(signal.SIGTERM)
        serving.wait_line("stopping")
        triton.resume()
        for answer in answers:
            assert (answer.result().status_code, answer.result().content) == (200, sounding)
    assert serving.wait_end() == 0
    nothing_left(serving, family)
    assert "Traceback" not in serving.log("service")


def test_a_worker_killed_under_load_costs_nothing_to_who_asks_again(tmp_path: Path) -> None:
    serving = Serving.start(tiny_bundle_folder(), tmp_path, engine="inprocess", workers="2").wait_ready()
    done = threading.Event()

    def ask(address: str) -> list[list[str]]:
        answers = []
        with Client(address, retries=10) as client:
            while not done.is_set():
                answers.append([hit.patch_id for hit in client.search(wav_note(), k=3).hits])
        return answers

    try:
        until(lambda: len(serving.workers()) == 2)
        before = _ids(_search(serving))
        with ThreadPoolExecutor(4) as pool:
            asking = [
                pool.submit(ask, address) for address in 2 * [serving.url, f"grpc://{serving.grpc_target}"]
            ]
            try:
                victim = serving.workers()[0]
                ended = [victim, *victim.children(recursive=True)]
                assert len(ended) > 1  # its decoders
                victim.kill()
                assert still_running(ended) == []
                until(lambda: len(serving.workers()) == 2)
            finally:
                done.set()
            for each in asking:
                answers = each.result()
                assert answers
                assert all(answer == before for answer in answers)
        assert _is_ready(serving)
        family = serving.family()
        assert serving.stop() == 0
        nothing_left(serving, family)
    finally:
        serving.stop()


def _ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200
    return [hit["patch_id"] for hit in answer.json()["hits"]]
