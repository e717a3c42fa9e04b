"""What puts a bundle into the volume of a cluster's pods: whole, the one that is wanted, or not at all."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.kustomize import KUBERNETES
from support.tiny_bundle import tiny_bundle_folder

from timbrel.errors import BundleError
from timbrel.library.bundle import Bundle
from timbrel.library.manifest import read_manifest


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_bundle", KUBERNETES / "base" / "fetch_bundle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bundle_id() -> str:
    return read_manifest(tiny_bundle_folder() / "manifest.json").id


class _Quiet(http.server.SimpleHTTPRequestHandler):
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL under which its files are to be had."""
    folder = tmp_path / "store"
    folder.mkdir()
    _Quiet.asked = 0
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "bundles").mkdir()
    (tmp_path / "current").mkdir()
    return tmp_path / "bundles"


def _packed(path: Path, source: Path, name: str = "bundle") -> None:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(source, arcname=name)


def test_it_is_downloaded_once_and_pointed_at(
    script: ModuleType, store: tuple[Path, str], volume: Path, bundle_id: str
) -> None:
    folder, url = store
    current = volume.parent / "current"
    _packed(folder / "bundle.tar.gz", tiny_bundle_folder())
    for _ in range(2):
        script.main(volume, current, f"{url}/bundle.tar.gz", bundle_id)
        assert [path.name for path in volume.iterdir()] == [bundle_id]
        assert (current / "bundle").resolve() == (volume / bundle_id).resolve()
    assert _Quiet.asked == 1
    bundle = Bundle.open(current / "bundle")
    assert len(bundle.patches) == 14
    bundle.close()


def test_without_an_address_it_is_the_images_own(
    script: ModuleType, volume: Path, bundle_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "bundle").symlink_to(tiny_bundle_folder())
    monkeypatch.setattr(script, "ROOT", tmp_path / "image")
    script.main(volume, volume.parent / "current", "", "")
    assert [path.name for path in volume.iterdir()] == [bundle_id]
    assert (volume.parent / "current" / "bundle" / "manifest.json").is_file()


def test_what_is_not_wanted_or_not_whole_is_refused_and_leaves_nothing(
    script: ModuleType, store: tuple[Path, str], volume: Path, bundle_id: str
) -> None:
    folder, url = store
    current = volume.parent / "current"
    good = folder / "good.tar.gz"
    _packed(good, tiny_bundle_folder())
    (folder / "torn.tar.gz").write_bytes(good.read_bytes()[:-20_000])
    (folder / "page.tar.gz").write_bytes(b"<html>")
    changed = folder / "changed"
    for path in tiny_bundle_folder().rglob("*"):
        if path.is_file():
            copy = changed / path.relative_to(tiny_bundle_folder())
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    table = changed / "library" / "patches.csv"
    table.write_bytes(table.read_bytes().replace(b"Tone 1", b"Tone X"))
    _packed(folder / "changed.tar.gz", changed)
    with tarfile.open(folder / "outside.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("../../outside/manifest.json")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"{}"))
    for name, error, said in (
        ("torn.tar.gz", (EOFError, tarfile.TarError, OSError), "."),
        ("page.tar.gz", (tarfile.TarError, OSError), "."),
        ("absent.tar.gz", OSError, "404"),
        ("changed.tar.gz", BundleError, "does not match its hash"),
        ("outside.tar.gz", tarfile.TarError, "outside the destination"),
    ):
        with pytest.raises(error, match=said):
            script.main(volume, current, f"{url}/{name}", bundle_id)
    with pytest.raises(BundleError, match=f"{'1' * 64} is wanted"):
        script.main(volume, current, f"{url}/good.tar.gz", "1" * 64)
    with pytest.raises(BundleError, match="needs BUNDLE_ID"):
        script.main(volume, current, f"{url}/good.tar.gz", "")
    with pytest.raises(BundleError, match="does not say where it is"):
        script.main(volume, current, "", bundle_id)
    assert list(volume.iterdir()) == []
    assert list(current.iterdir()) == []
    assert not (volume.parent / "outside").exists()


def test_one_that_was_damaged_in_the_volume_is_not_served(
    script: ModuleType, store: tuple[Path, str], volume: Path, bundle_id: str
) -> None:
    folder, url = store
    _packed(folder / "bundle.tar.gz", tiny_bundle_folder())
    script.main(volume, volume.parent / "current", f"{url}/bundle.tar.gz", bundle_id)
    index = next((volume / bundle_id / "index").glob("*.bin"))
    index.write_bytes(index.read_bytes()[:-1] + b"!")
    with pytest.raises(BundleError, match="does not match its hash"):
        script.main(volume, volume.parent / "current", f"{url}/bundle.tar.gz", bundle_id)
