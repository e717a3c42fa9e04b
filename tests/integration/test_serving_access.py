"""API keys, CORS and the start-up check on real running services."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from support.recordings import wav_note
from support.serving import Serving
from support.tiny_bundle import tiny_bundle_folder

from timbrel.serving import keys

NAMED = "https://named.example"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A service that every address of this machine reaches, with two workers; its keys are in keys.json."""
    folder = tmp_path_factory.mktemp("keyed")
    keys.create(folder / "keys.json", "first")
    running = Serving.start(
        tiny_bundle_folder(),
        folder,
        host="0.0.0.0",
        engine="inprocess",
        workers="2",
        keys_file=str(folder / "keys.json"),
        cors_origins=NAMED,
    )
    try:
        yield running.wait_ready()
    finally:
        running.stop()


def _new_key(keyed: Serving, per_minute: int = 600) -> tuple[str, str]:
    key, presented = keys.create(keyed.state.parent / "keys.json", "test", per_minute=per_minute)
    return key.key_id, presented


def _client(keyed: Serving, presented: str) -> httpx.Client:
    return httpx.Client(
        base_url=keyed.url, timeout=60, headers={"authorization": f"Bearer {presented}"}, trust_env=False
    )


def test_it_does_not_start_open_to_strangers_without_a_key(tmp_path: Path) -> None:
    refused = Serving.start(
        tiny_bundle_folder(), tmp_path, host="0.0.0.0", keys_file=str(tmp_path / "keys.json")
    )
    assert refused.wait_end() == 2
    (line,) = refused.lines()
    assert line.startswith("timbrel: listening on 0.0.0.0 needs API keys")
    assert "`timbrel keys create NAME`" in line
    assert "TIMBREL_API_KEYS=off" in line


def test_without_a_key_only_health_is_answered(keyed: Serving) -> None:
    with keyed.client() as http:
        for path in ("/", "/docs", "/docs.json", "/patches/dx7-0/file", "/patches/dx7-0/preview", "/nowhere"):
            answer = http.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized"), path
        for path in ("/search", "/locate", "/synthesize", "/instrument"):
            answer = http.post(path, files={"audio": ("clip", b"RIFF")})
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized"), path
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert http.get("/livez").status_code == http.get("/readyz").status_code == 200
        assert 'outcome="unauthorized"' in http.get("/metrics").text  # asked for from this machine
        assert http.get("/metrics", headers={"x-forwarded-for": "127.0.0.1"}).status_code == 401


def test_with_a_key_until_it_is_revoked(keyed: Serving) -> None:
    key_id, presented = _new_key(keyed)
    with _client(keyed, presented) as http:
        found = http.post("/search", files={"audio": ("clip", wav_note())}, data={"k": "1"})
        assert found.status_code == 200
        assert http.get(found.json()["hits"][0]["links"]["preview"]).status_code == 200
        page = httpx.get(f"{keyed.url}/docs", auth=("", presented), trust_env=False)  # as a browser asks
        assert page.status_code == 200
        keys.revoke(keyed.state.parent / "keys.json", key_id)
        assert {http.get("/docs.json").status_code for _ in range(8)} == {401}


def test_a_limit_holds_over_both_workers_together(keyed: Serving) -> None:
    _, presented = _new_key(keyed, per_minute=30)

    def ask(_: int) -> httpx.Response:
        with _client(keyed, presented) as http:  # a connection of its own: the workers share them out
            return http.get("/docs.json")

    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(80)))
    passed = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(passed) + len(refused) == 80
    assert 30 <= len(passed) <= 31 + (time.monotonic() - began) / 2
    for answer in refused:
        assert answer.json()["error"]["code"] == "too_many_requests"
        assert 1 <= int(answer.headers["retry-after"]) <= 2


def test_only_named_origins_may_read_answers(keyed: Serving) -> None:
    _, presented = _new_key(keyed)
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    with keyed.client() as http:
        named = http.options("/search", headers={"origin": NAMED, **asks})
        assert (named.status_code, named.headers["access-control-allow-origin"]) == (200, NAMED)
        other = http.options("/search", headers={"origin": "https://other.example", **asks})
        assert other.status_code == 400
        assert "access-control-allow-origin" not in other.headers
        refused = http.get("/docs.json", headers={"origin": NAMED})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, NAMED)
    with _client(keyed, presented) as http:
        assert "access-control-allow-origin" not in http.get("/docs.json", headers={"origin": "null"}).headers


def test_no_origin_may_without_being_named(http: httpx.Client) -> None:
    for method in ("GET", "OPTIONS"):
        answer = http.request(method, "/docs.json", headers={"origin": NAMED})
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_key_is_in_no_log(keyed: Serving) -> None:
    _, presented = _new_key(keyed)
    with _client(keyed, presented) as http:
        assert http.post("/synthesize", json={"x": 9}).status_code == 400
    logs = "".join(path.read_text(errors="replace") for path in (keyed.state / "logs").iterdir())
    assert presented not in logs
    assert presented.rpartition("_")[2] not in logs
