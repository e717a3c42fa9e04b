"""The clients before a service that asks for API keys, and behind a proxy that speaks TLS."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.recordings import wav_note
from support.serving import Serving
from support.tiny_bundle import tiny_bundle_folder
from support.tls import Certificate, certificate, tls_proxy

from timbrel.client import AsyncClient, Client
from timbrel.errors import ConfigurationError, TooManyRequests, Unauthorized, Unreachable
from timbrel.serving import keys

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A service on loopback that asks everybody for a key; those are in keys.json."""
    folder = tmp_path_factory.mktemp("keyed")
    keys.create(folder / "keys.json", "first")
    running = Serving.start(
        tiny_bundle_folder(),
        folder,
        engine="inprocess",
        workers="1",
        api_keys="on",
        keys_file=str(folder / "keys.json"),
    )
    try:
        yield running.wait_ready()
    finally:
        running.stop()


def _new_key(keyed: Serving, per_minute: int = 600) -> str:
    return keys.create(keyed.state.parent / "keys.json", "test", per_minute=per_minute)[1]


@pytest.fixture(params=["http", "grpc"])
def address(request: pytest.FixtureRequest, keyed: Serving) -> str:
    return keyed.url if request.param == "http" else f"grpc://{keyed.grpc_target}"


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Calls a method of one of the two clients."""

    def asked(address: str, method: str = "info", *positional: Any, **options: Any) -> Any:
        if request.param == "sync":
            with Client(address, **options) as client:
                return getattr(client, method)(*positional)

        async def wait() -> Any:
            async with AsyncClient(address, **options) as client:
                return await getattr(client, method)(*positional)

        return asyncio.run(wait())

    return asked


def _counted(keyed: Serving, outcome: str) -> float:
    """How many requests for /info the service has answered so."""
    told = httpx.get(f"{keyed.url}/metrics", trust_env=False).text
    found = re.search(rf'timbrel_requests_total{{endpoint="info",outcome="{outcome}"}} (\S+)', told)
    return float(found[1]) if found else 0.0


def _until_refused(client: Client) -> TooManyRequests:
    while True:
        try:
            client.info()
        except TooManyRequests as refused:
            return refused


# --- API keys ----------------------------------------------------------------------------------------------------


def test_with_a_key(keyed: Serving, address: str, ask: Ask) -> None:
    key = _new_key(keyed)
    assert ask(address, api_key=key).patches == 14
    found = ask(address, "search", wav_note(), api_key=key)
    assert found.query.gate.decision.value == "pitched"
    (patch_id, *_) = (hit.patch_id for hit in found.hits)
    assert ask(address, "patch", patch_id, api_key=key).name == found.hits[0].name


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (None, "an API key is needed"),
        ("timbrel_" + "0" * 12 + "_" + "x" * 43, "not known"),
        ("x", "not known"),
    ],
    ids=["none", "unknown", "no key at all"],
)
def test_without_the_right_key(keyed: Serving, address: str, ask: Ask, wrong: str | None, told: str) -> None:
    """Told once, in the service's words: a wrong key does not get right by waiting."""
    before = _counted(keyed, "unauthorized")
    with pytest.raises(Unauthorized, match=told) as raised:
        ask(address, api_key=wrong)
    assert (raised.value.code, raised.value.http_status) == ("unauthorized", 401)
    assert "`timbrel keys create NAME`" in raised.value.message
    assert _counted(keyed, "unauthorized") == before + 1


def test_a_key_that_asks_too_often_is_told_when_to_come_again(keyed: Serving, address: str, ask: Ask) -> None:
    """A minute is longer than a client waits by itself: the caller is told."""
    key = _new_key(keyed, per_minute=1)
    assert ask(address, api_key=key).patches == 14
    before = _counted(keyed, "too_many_requests")
    with pytest.raises(TooManyRequests, match="may ask 1 times a minute") as raised:
        ask(address, api_key=key)
    assert raised.value.code == "too_many_requests"
    assert 30 < raised.value.retry_after <= 60
    assert f"try again in {raised.value.retry_after} s" in raised.value.message
    assert _counted(keyed, "too_many_requests") == before + 1


def test_a_client_waits_as_long_as_it_is_told(keyed: Serving, address: str, ask: Ask) -> None:
    """At 60 a minute the next place is free within a second."""
    key = _new_key(keyed, per_minute=60)
    with Client(address, api_key=key, retries=0) as client:
        emptied = _until_refused(client)
    assert emptied.retry_after == 1
    assert ask(address, api_key=key).patches == 14


# --- TLS ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def secured(keyed: Serving, shown: Certificate) -> Iterator[dict[str, str]]:
    """Addresses of the service behind proxies that speak TLS."""
    with (
        tls_proxy(keyed.ports.http, shown, ["http/1.1"]) as http,
        tls_proxy(keyed.ports.grpc, shown, ["h2"]) as grpc,
    ):
        yield {"https": f"https://127.0.0.1:{http}", "grpcs": f"grpcs://127.0.0.1:{grpc}"}


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_behind_tls(
    keyed: Serving, secured: dict[str, str], shown: Certificate, ask: Ask, scheme: str
) -> None:
    options = {"api_key": _new_key(keyed), "ca_file": shown.authority}
    assert ask(secured[scheme], **options).patches == 14
    inside = ask(keyed.url, "search", wav_note(), api_key=options["api_key"])
    assert ask(secured[scheme], "search", wav_note(), **options) == inside
    with pytest.raises(Unauthorized):
        ask(secured[scheme], ca_file=shown.authority)


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_a_certificate_that_nobody_vouches_for(
    secured: dict[str, str], ask: Ask, tmp_path: Path, scheme: str
) -> None:
    for trusted in (None, certificate(tmp_path).authority):
        with pytest.raises(Unreachable, match="is not trusted") as raised:
            ask(secured[scheme], ca_file=trusted, api_key="secret")
        assert secured[scheme] in raised.value.message
        assert "ca_file" in raised.value.message


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_a_certificate_for_another_address(keyed: Serving, ask: Ask, tmp_path: Path, scheme: str) -> None:
    other = certificate(tmp_path, "192.0.2.1")
    port, protocol = (keyed.ports.http, "http/1.1") if scheme == "https" else (keyed.ports.grpc, "h2")
    with (
        tls_proxy(port, other, [protocol]) as proxy,
        pytest.raises(Unreachable, match="is not trusted"),
    ):
        ask(f"{scheme}://127.0.0.1:{proxy}", ca_file=other.authority)


def test_authorities_are_read_before_anything_is_asked(
    keyed: Serving, shown: Certificate, tmp_path: Path
) -> None:
    (tmp_path / "empty.pem").touch()
    for file in (tmp_path / "nowhere.pem", tmp_path / "empty.pem", shown.key):
        for made in (Client, AsyncClient):
            with pytest.raises(ConfigurationError, match="no certificates in PEM"):
                made("grpcs://127.0.0.1:1", ca_file=file)
    for url in (keyed.url, f"grpc://{keyed.grpc_target}"):
        with pytest.raises(ConfigurationError, match="speaks no TLS"):
            Client(url, ca_file=shown.authority)
