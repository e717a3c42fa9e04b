"""The page's files: of these sources, small, all licences told, kept for ever where the name says what is in it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from timbrel.serving import web_page

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "web"
ASSETS = sorted((web_page.FOLDER / "assets").iterdir())


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=list(web_page.routes())))


def test_it_was_built_from_these_sources() -> None:
    files = ["index.html", "package-lock.json", "vite.config.ts"]
    files += [path.relative_to(WEB).as_posix() for path in (WEB / "src").iterdir()]
    sources = hashlib.sha256()
    for name in sorted(files):
        sources.update(name.encode() + b"\0" + (WEB / name).read_bytes() + b"\0")
    built = (web_page.FOLDER / "sources.sha256").read_text().strip()
    assert sources.hexdigest() == built, "run `npm ci && npm run build` in web/"


def test_it_is_small() -> None:
    files = [path for path in web_page.FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 600_000


def test_the_page_names_its_assets_and_no_other_host(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = re.findall(r'(?:src|href)="(/assets/[^"]+)"', page.text)
    assert sorted(named) == [f"/assets/{path.name}" for path in ASSETS]
    assert "//" not in re.sub(r"(?s)<!--.*?-->", "", page.text)
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in page.headers["content-security-policy"]


def test_assets_are_kept_for_ever_and_the_page_is_not(client: TestClient) -> None:
    assert client.get("/").headers["cache-control"] == "no-cache"
    types = {
        ".js": "text/javascript; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".svg": "image/svg+xml",
    }
    for path in ASSETS:
        assert re.fullmatch(r"[a-z]+-[\w-]{8}\.(js|css|svg)", path.name)
        answer = client.get(f"/assets/{path.name}")
        assert answer.content == path.read_bytes()
        assert answer.headers["content-type"] == types[path.suffix]
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_what_the_browser_has_is_not_sent_again(client: TestClient) -> None:
    for path in ("/", f"/assets/{ASSETS[0].name}"):
        tag = client.get(path).headers["etag"]
        again = client.get(path, headers={"if-none-match": f'"other", W/{tag}'})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(path, headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "name", ["index.html", "..%2Findex.html", "%2e%2e/index.html", "", "index-00000000.js"]
)
def test_nothing_else_is_an_asset(client: TestClient, name: str) -> None:
    assert client.get(f"/assets/{name}").status_code == 404


def test_every_bundled_library_has_its_licence(client: TestClient) -> None:
    notices = client.get("/licences.txt")
    assert notices.headers["content-type"] == "text/plain; charset=utf-8"
    named = dict(re.findall(r"(?m)^Name: (\S+)\n(?:.*\n)*?License: (\S+)$", notices.text))
    assert {"preact", "@preact/signals", "d3-zoom", "d3-selection", "d3-quadtree", "fft.js"} <= named.keys()
    assert set(named.values()) <= {"MIT", "ISC", "BSD-3-Clause"}


def test_the_lock_names_no_registry() -> None:
    assert '"resolved"' not in (WEB / "package-lock.json").read_text()
