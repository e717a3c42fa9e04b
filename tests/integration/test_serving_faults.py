"""What breaks while it serves: Triton killed or stuck, a model gone, a worker killed, the end in the middle of work.

Real processes throughout. Whatever happens, an answer is the right one or an error that says when to come again.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest
from support.recordings import wav_note
from support.serving import Serving, nothing_left, still_running, triton_of, until, waiting_for
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


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """One worker with few places, a short deadline, and a Triton of its own."""
    running = Serving.start(
        tiny_bundle_folder(),
        tmp_path,
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
    found, sounding = _search(serving).json(), _note(serving).content
    family, regions = serving.family(), len(serving.shared_memory())
    triton = triton_of(serving)
    stubs = triton.children(recursive=True)
    assert len(stubs) == 5
    with ThreadPoolExecutor(2) as pool:
        triton.suspend()
        over_http, over_grpc = pool.submit(_search, serving), pool.submit(_grpc_note, serving)
        until(lambda: waiting_for(serving.ports.triton_grpc))
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
            assert [hit.patch_id for hit in hits] == [hit["patch_id"] for hit in found["hits"]]
    serving.wait_line("Triton is ready again")
    assert any(line.startswith("Triton ended by itself (exit status -9)") for line in serving.lines())
    assert _is_ready(serving)
    assert _note(serving).content == sounding == _grpc_note(serving)

    # Nothing of the old one is left, and the service itself was never touched.
    assert still_running([triton, *stubs]) == []
    assert len(serving.shared_memory()) == regions
    kept = {process.pid for process in family} - {triton.pid, *(stub.pid for stub in stubs)}
    assert kept <= {process.pid for process in serving.family()}
    family = serving.family()
    assert serving.stop() == 0
    nothing_left(serving, family)


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
