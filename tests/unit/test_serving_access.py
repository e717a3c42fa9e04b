"""API keys: the file, the buckets, and the door of the HTTP service."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.responses import PlainTextResponse

from timbrel import settings
from timbrel.cli import main
from timbrel.errors import ConfigurationError, NotFound, TooManyRequests, Unauthorized, Unavailable
from timbrel.serving import keys
from timbrel.serving.access import Access, check_start, presented_key
from timbrel.serving.exchange import ExchangeMiddleware
from timbrel.serving.guard import GuardMiddleware


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def _access(file: Path, clock: Clock | None = None) -> Access:
    return Access(file, file.parent / "rates", clock=clock or Clock())


# --- the file ----------------------------------------------------------------------------------------------------


def test_the_key_is_kept_nowhere(file: Path) -> None:
    key, presented = keys.create(file, "studio", per_minute=5)
    secret = presented.rpartition(key.key_id)[2][1:]
    assert len(secret) == 43
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert keys.read(file) == (key,)
    again, other = keys.create(file, "studio")
    assert again.salt != key.salt
    assert other != presented
    assert keys.read(file) == (key, again)


def test_a_revoked_key_is_refused_at_once(file: Path) -> None:
    access = _access(file)
    (gone, first), (kept, second) = keys.create(file, "a"), keys.create(file, "b")
    assert access.check(first) == gone
    assert keys.revoke(file, gone.key_id) == gone
    with pytest.raises(Unauthorized, match="not known, or was revoked"):
        access.check(first)
    assert access.check(second) == kept
    with pytest.raises(NotFound, match="timbrel keys list"):
        keys.revoke(file, gone.key_id)


@pytest.mark.parametrize("content", ["", "{", '{"keys": [{"key_id": "../../etc"}]}', '["a"]'])
def test_a_damaged_file_lets_nobody_in(file: Path, content: str) -> None:
    _, presented = keys.create(file, "a")
    file.write_text(content)
    with pytest.raises(ConfigurationError, match="not what `timbrel keys` writes"):
        keys.read(file)
    with pytest.raises(Unavailable, match="cannot be read"):
        _access(file).check(presented)


def test_what_is_no_key_is_refused(file: Path) -> None:
    key, presented = keys.create(file, "a")
    access = _access(file)
    nobody = f"timbrel_{keys.NOBODY.key_id}_{'A' * 43}"
    wrong = presented[:-1] + ("A" if presented[-1] != "A" else "B")
    for guess in (None, "", "a", key.digest, presented + "\n", presented[:-1], wrong, nobody, "é" * 68):
        with pytest.raises(Unauthorized):
            access.check(guess)
    assert access.check(presented) == key


def test_the_commands(file: Path) -> None:
    run, environment = CliRunner(), {"TIMBREL_KEYS_FILE": str(file)}
    made = run.invoke(main, ["keys", "create", "studio", "--per-minute", "7"], env=environment)
    assert made.exit_code == 0
    key = _access(file).check(made.stdout.strip())
    assert (key.name, key.per_minute) == ("studio", 7)
    listed = run.invoke(main, ["keys", "list"], env=environment).stdout.splitlines()
    assert listed[1].split() == [key.key_id, "studio", "7", key.created]
    assert made.stdout.strip() not in "\n".join(listed)
    assert run.invoke(main, ["keys", "revoke", key.key_id], env=environment).exit_code == 0
    assert keys.read(file) == ()
    again = run.invoke(main, ["keys", "revoke", key.key_id], env=environment)
    assert again.exit_code == 2
    assert again.stderr.startswith("timbrel: there is no API key")


# --- how often ---------------------------------------------------------------------------------------------------


def test_a_bucket_empties_and_fills_at_its_rate(file: Path) -> None:
    clock = Clock()
    access = _access(file, clock)
    _, presented = keys.create(file, "a", per_minute=6)
    for _ in range(6):
        access.check(presented)
    for _ in range(3):  # what is refused takes nothing
        with pytest.raises(TooManyRequests, match="6 times a minute: try again in 10 s") as caught:
            access.check(presented)
        assert caught.value.retry_after == 10
    clock.now += 9.9
    with pytest.raises(TooManyRequests, match="in 1 s"):
        access.check(presented)
    clock.now += 0.2
    access.check(presented)
    clock.now += 3600
    for _ in range(6):
        access.check(presented)
    with pytest.raises(TooManyRequests):
        access.check(presented)


def test_keys_have_buckets_of_their_own_and_a_restart_fills_none(file: Path) -> None:
    clock = Clock()
    (_, first), (_, second) = (keys.create(file, name, per_minute=1) for name in "ab")
    _access(file, clock).check(first)
    _access(file, clock).check(second)
    with pytest.raises(TooManyRequests):
        _access(file, clock).check(first)
    clock.now = 5.0  # the machine was started anew: its clock began again
    _access(file, clock).check(first)


def test_the_limit_holds_over_processes_together(file: Path) -> None:
    _, presented = keys.create(file, "a", per_minute=50)
    program = (
        "import sys; from pathlib import Path; from timbrel.errors import TooManyRequests\n"
        "from timbrel.serving.access import Access\n"
        "access, passed = Access(Path(sys.argv[1]), Path(sys.argv[2]), clock=lambda: 7.0), 0\n"
        "for _ in range(40):\n"
        "    try: access.check(sys.argv[3]); passed += 1\n"
        "    except TooManyRequests: pass\n"
        "print(passed)"
    )
    command = [sys.executable, "-c", program, str(file), str(file.parent / "rates"), presented]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    passed = [int(process.communicate()[0]) for process in running]
    assert sum(passed) == 50


def test_a_bucket_that_cannot_be_written_is_no_free_pass(file: Path) -> None:
    _, presented = keys.create(file, "a")
    (file.parent / "rates").write_text("in the way")
    with pytest.raises(Unavailable, match="requests cannot be counted"):
        _access(file).check(presented)


# --- the door ----------------------------------------------------------------------------------------------------


def _ask(
    configured: settings.Settings,
    path: str = "/search",
    *,
    server: str = "127.0.0.1",
    client: str = "127.0.0.1",
    host: str | None = "127.0.0.1:3000",
    **headers: str,
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of an answer, as the service's middleware gives them over an app that says yes."""
    app = ExchangeMiddleware(
        GuardMiddleware(PlainTextResponse('"yes"'), settings=configured), max_file_bytes=9
    )
    named = headers | ({"host": host} if host is not None else {})
    scope = {
        "type": "http", "method": "GET", "path": path, "query_string": b"", "server": (server, 3000),
        "client": (client, 5000), "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in named.items()],
    }  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], answered, json.loads(b"".join(each.get("body", b"") for each in sent))


def _settings(tmp_path: Path, **values: Any) -> settings.Settings:
    return settings.load({}, keys_file=tmp_path / "keys.json", state=tmp_path / "state", **values)


def test_loopback_needs_no_key(tmp_path: Path) -> None:
    assert _ask(_settings(tmp_path))[0] == 200
    assert _ask(_settings(tmp_path), server="::1", host="[::1]:3000")[0] == 200
    assert _ask(_settings(tmp_path), server="::ffff:127.0.0.1", host="localhost")[0] == 200


def test_a_key_is_needed_wherever_strangers_may_ask(tmp_path: Path) -> None:
    for configured, more in (
        (_settings(tmp_path, host="0.0.0.0"), {}),
        (_settings(tmp_path, api_keys="on"), {}),
        (_settings(tmp_path), {"server": "10.0.0.7"}),  # bentoml serve --host, which the settings do not tell
        (_settings(tmp_path), {"server": "no address"}),
        (_settings(tmp_path), {"x_forwarded_for": "127.0.0.1"}),
        (_settings(tmp_path), {"forwarded": "for=127.0.0.1"}),
    ):
        status, headers, body = _ask(configured, **more)
        assert (status, body["error"]["code"]) == (401, "unauthorized")
        assert headers["www-authenticate"].startswith("Bearer, Basic ")
        assert _ask(configured, "/livez", **more)[0] == 200
        assert _ask(configured, "/readyz", **more)[0] == 200
        _, presented = keys.create(configured.keys_file, "a")
        assert _ask(configured, authorization=f"Bearer {presented}", **more)[0] == 200
        basic = base64.b64encode(f"me:{presented}".encode()).decode()
        assert _ask(configured, authorization=f"Basic {basic}", **more)[0] == 200
        for wrong in (
            f"Bearer {presented}x",
            presented,
            "Basic !",
            "Basic " + base64.b64encode(b"\xff").decode(),
        ):
            assert _ask(configured, authorization=wrong, **more)[0] == 401
    assert _ask(_settings(tmp_path, host="0.0.0.0", api_keys="off"), server="10.0.0.7")[0] == 200


def test_too_many_requests_say_when_to_come_again(tmp_path: Path) -> None:
    configured = _settings(tmp_path, api_keys="on")
    _, presented = keys.create(configured.keys_file, "a", per_minute=1)
    assert _ask(configured, authorization=f"Bearer {presented}")[0] == 200
    status, headers, body = _ask(configured, authorization=f"Bearer {presented}")
    assert (status, body["error"]["code"]) == (429, "too_many_requests")
    assert 1 <= int(headers["retry-after"]) <= 60


def test_metrics_are_for_this_machine_or_a_key(tmp_path: Path) -> None:
    for values in ({}, {"host": "0.0.0.0"}, {"host": "0.0.0.0", "api_keys": "off"}, {"api_keys": "on"}):
        configured = _settings(tmp_path, **values)
        assert _ask(configured, "/metrics")[0] == 200
        assert _ask(configured, "/metrics", client="10.0.0.9")[0] == 401
        assert _ask(configured, "/metrics", x_forwarded_for="10.0.0.9")[0] == 401
        _, presented = keys.create(configured.keys_file, "prometheus")
        allowed = _ask(configured, "/metrics", client="10.0.0.9", authorization=f"Bearer {presented}")
        assert allowed[0] == 200


def test_another_name_for_loopback_is_not_answered_without_a_key(tmp_path: Path) -> None:
    status, _, body = _ask(_settings(tmp_path), host="rebound.example:3000")
    assert (status, body["error"]["code"]) == (421, "unknown_host")
    assert _ask(_settings(tmp_path), host="127.0.0.1.rebound.example")[0] == 421
    named = _settings(tmp_path, server_names="studio.lan")
    assert _ask(named, host="Studio.lan:3000")[0] == 200
    for host in (None, "LOCALHOST:80", "[::1]", "192.168.0.4:3000"):
        assert _ask(_settings(tmp_path), host=host)[0] == 200
    keyed = _settings(tmp_path, api_keys="on")
    _, presented = keys.create(keyed.keys_file, "a")
    assert _ask(keyed, host="timbre.example", authorization=f"Bearer {presented}")[0] == 200


def test_it_does_not_start_open_to_strangers_without_a_key(tmp_path: Path) -> None:
    beyond = _settings(tmp_path, host="0.0.0.0")
    with pytest.raises(ConfigurationError, match=r"timbrel keys create NAME.*TIMBREL_API_KEYS=off"):
        check_start(beyond)
    check_start(_settings(tmp_path))
    check_start(_settings(tmp_path, host="0.0.0.0", api_keys="off"))
    keys.create(beyond.keys_file, "a")
    check_start(beyond)


def test_what_grpc_would_present() -> None:
    assert presented_key("bearer  abc ") == "abc"
    assert presented_key("") is None
    assert presented_key("Digest abc") is None
