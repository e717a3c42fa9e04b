"""The client's parts that need no service: the list of calls, recordings, the archive, and what is imported."""

from __future__ import annotations

import inspect
import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support.recordings import note

import timbrel
from timbrel.audio import Audio, read
from timbrel.client import AsyncClient, Client, InstrumentArchive, calls, grpc_wire, patience, sounds, wire
from timbrel.client.calls import Call
from timbrel.client.patience import Patience, Refused, Timeouts
from timbrel.errors import InputError, ProtocolError, Unavailable


def _methods(client: type) -> dict[str, Any]:
    return {name: member for name, member in inspect.getmembers(client, inspect.isfunction) if name[0] != "_"}


def test_the_twins_have_the_same_operations() -> None:
    plain, awaited = _methods(Client), _methods(AsyncClient)
    assert list(plain) == list(awaited)
    assert len(plain) == 12
    for name, method in plain.items():
        assert inspect.signature(method) == inspect.signature(awaited[name]), name
        assert inspect.iscoroutinefunction(awaited[name]), name
        assert not inspect.iscoroutinefunction(method), name
    assert inspect.signature(Client.__init__) == inspect.signature(AsyncClient.__init__)


def test_every_call_can_be_asked_every_way() -> None:
    known = {each for each in vars(calls).values() if isinstance(each, type) and issubclass(each, Call)} - {
        Call
    }
    assert len(known) == 9
    assert set(wire._READERS) == set(grpc_wire._METHODS) == known


def test_what_timbrel_offers() -> None:
    for name in timbrel.__all__:
        assert getattr(timbrel, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Clients'"):
        _ = timbrel.Clients  # type: ignore[attr-defined]


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name + " is not installed")

sys.meta_path.insert(0, Blocked())
"""
HEAVY = {
    "bentoml", "dvc", "faiss", "llvmlite", "mlflow", "numba", "onnxruntime", "prometheus_client", "pydantic", "scipy",
    "starlette", "swift_f0", "torch", "tritonclient",
}  # fmt: skip


@pytest.mark.parametrize(
    ("program", "blocked"),
    [
        ("import timbrel; assert not {'numpy', 'httpx', 'soundfile'} & set(sys.modules)", set()),
        ("import timbrel; timbrel.Client('http://127.0.0.1:9').close()", {*HEAVY, "grpc", "google"}),
        ("import timbrel; timbrel.Client('grpc://127.0.0.1:9').close()", {*HEAVY, "httpx"}),
        ("import timbrel; timbrel.AsyncClient('http://127.0.0.1:9')", HEAVY),
    ],
)
def test_a_client_needs_little(program: str, blocked: set[str]) -> None:
    script = BLOCKED.format(blocked=blocked) + program
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_samples_are_sent_as_they_are(tmp_path: Path) -> None:
    samples = (4 * note(44_100)).astype(np.float32)
    decoded, rate = soundfile.read(io.BytesIO(sounds.encoded((samples, 44_100))), dtype="float32")
    assert rate == 44_100
    np.testing.assert_array_equal(decoded, samples)
    # What is heard of it is what `read` makes of any file: full scale at most.
    assert np.abs(read(sounds.encoded(Audio(samples, 44_100))).samples).max() == 1.0
    stereo = np.stack([samples, -0.5 * samples], axis=1)
    decoded, _ = soundfile.read(io.BytesIO(sounds.encoded((stereo, 44_100))), dtype="float32")
    np.testing.assert_array_equal(decoded, stereo)
    path = tmp_path / "clip.wav"
    path.write_bytes(b"bytes")
    assert (
        sounds.encoded(path) == sounds.encoded(str(path)) == sounds.encoded(bytearray(b"bytes")) == b"bytes"
    )
    pair = (samples, 44_100)
    assert len(sounds.recordings(pair)) == 1
    assert len(sounds.recordings([pair, path])) == len(sounds.recordings((pair, path))) == 2


@pytest.mark.parametrize("rate", [0, -1, 44_100.5, "44100", float("nan")])
def test_no_sample_rate(rate: Any) -> None:
    with pytest.raises(InputError, match="sample_rate"):
        sounds.encoded((np.zeros(100), rate))


def _archive(*names: str) -> InstrumentArchive:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"data")
    return InstrumentArchive(name="made", data=out.getvalue())


def test_an_archive_writes_nothing_outside(tmp_path: Path) -> None:
    assert _archive("made/a", "made/samples/b").files() == {"a": b"data", "samples/b": b"data"}
    for names in (("made/a", "else/b"), ("made/../b",), ("/etc/b",)):
        with pytest.raises(ProtocolError, match="outside"):
            _archive(*names).save(tmp_path / "made")
    with pytest.raises(ProtocolError, match="no zip"):
        InstrumentArchive(name="made", data=b"PK").save(tmp_path / "made")
    assert list(tmp_path.iterdir()) == []
    _archive("made/a").save(tmp_path / "made")
    with pytest.raises(InputError, match="there already"):
        _archive("made/a").save(tmp_path / "made")


@pytest.mark.parametrize("name", ["../up", "a/b", "a\\b", "..", ""])
def test_a_file_name_leads_nowhere(name: str) -> None:
    with pytest.raises(ValueError, match="no usable name"):
        wire.bare_name(name)


def test_waits_grow_with_jitter_and_never_undercut(monkeypatch: pytest.MonkeyPatch) -> None:
    most: list[float] = []

    def highest(low: float, high: float) -> float:
        most.append(high)
        return high

    monkeypatch.setattr(patience.random, "uniform", highest)
    patient = Patience(Timeouts(total=1000), 10)
    error = Unavailable("busy")
    waits = [patient.before_next(Refused(error)) for _ in range(8)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    assert patient.before_next(Refused(error, 8.0)) == pytest.approx(8.0 + 5.0)
    with pytest.raises(Unavailable):
        patient.before_next(Refused(error, 31.0))
    with pytest.raises(Unavailable):
        Patience(Timeouts(total=1000), 0).before_next(Refused(error))
    with pytest.raises(Unavailable):
        Patience(Timeouts(total=1), 3).before_next(Refused(error, 2.0))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        (" 0 ", 0.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("Wed, 21 Oct 2026", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert patience.retry_after({"retry-after": value}) == seconds
    assert patience.retry_after({}) is None
