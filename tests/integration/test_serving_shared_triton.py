"""A Triton that `timbrel serve` did not start, on a folder that both can reach: as in deploy/, where it has the GPU."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tritonclient.grpc as triton_grpc
from support.compose import compose
from support.serving import Ports, Serving, free_ports, until
from support.tiny_bundle import build_tiny_bundle, tiny_bundle_folder

from timbrel.library.manifest import MODELS, read_manifest
from timbrel.serving.triton_files import find_wheel, lay_out_backends


@dataclass
class OthersTriton:
    """The real server, started with the options that deploy/compose.yaml gives it, from the start without a model."""

    models: Path
    ports: Ports
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        wheel, reason = find_wheel()
        if wheel is None:
            pytest.skip(f"Triton cannot run here: {reason}")
        if not (self.folder / "backends").exists():
            lay_out_backends(wheel, self.folder / "backends")
        (_, *deployed) = compose()["services"]["triton"]["command"]
        places = ("--model-repository=", "--http-port=", "--grpc-port=", "--metrics-port=")
        command = [
            str(wheel.server),
            *(option for option in deployed if not option.startswith(places)),
            f"--model-repository={self.models}",
            f"--backend-directory={self.folder / 'backends'}",
            f"--http-port={self.ports.triton_http}",
            f"--grpc-port={self.ports.triton_grpc}",
            "--grpc-address=127.0.0.1",
            "--http-address=127.0.0.1",
            "--allow-metrics=false",
        ]
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=wheel.environment(os.environ), stdout=log, stderr=log, start_new_session=True
            )

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.ports.triton_grpc}"

    def versions(self) -> dict[str, set[str]]:
        """Which versions of each model answer; empty while the server does not."""
        client = triton_grpc.InferenceServerClient(self.url)
        try:
            found: dict[str, set[str]] = {}
            for model in client.get_model_repository_index(client_timeout=5).models:
                if model.state == "READY":
                    found.setdefault(model.name, set()).add(model.version)
            return found
        except triton_grpc.InferenceServerException:
            return {}
        finally:
            client.close()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, how)
            self.process.wait(timeout=60)
            self.process = None


@pytest.fixture
def triton(tmp_path: Path) -> Iterator[OthersTriton]:
    (tmp_path / "models").mkdir()
    (tmp_path / "triton").mkdir()
    server = OthersTriton(tmp_path / "models", free_ports(), tmp_path / "triton")
    server.start()
    try:
        yield server
    finally:
        server.stop()


def test_it_is_given_its_models_and_those_of_the_next_bundle(triton: OthersTriton, tmp_path: Path) -> None:
    second = tmp_path / "second" / "bundle"
    build_tiny_bundle(second, variant=1).close()
    ids = [read_manifest(folder / "manifest.json").id for folder in (tiny_bundle_folder(), second)]
    serving = Serving.start(
        tiny_bundle_folder(),
        tmp_path / "serving",
        workers="1",
        triton_url=triton.url,
        triton_repository=str(triton.models),
    )
    try:
        serving.wait_ready()
        assert triton.versions() == {name: {"1"} for name in MODELS}
        first = _asked(serving)
        assert first[0] == ids[0]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIMBREL_")}
        environment |= {"TIMBREL_STATE": str(serving.state), "TIMBREL_HTTP_PORT": str(serving.ports.http)}
        command = [str(Path(sys.executable).parent / "timbrel"), "bundle", "use", str(second)]
        used = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert (used.returncode, used.stderr) == (0, "")
        changed = _asked(serving)
        assert changed[0] == ids[1]
        assert not np.allclose(changed[1], first[1], atol=1e-2)
        # The former bundle's are unloaded when nobody works with them any more.
        until(lambda: triton.versions() == {name: {"2"} for name in MODELS})

        # It dies and is started again by whoever runs it, with what is in its folder.
        triton.stop(signal.SIGKILL)
        with serving.client() as client:
            assert client.get("/readyz").status_code == 503
            triton.start()
            until(lambda: client.get("/readyz").status_code == 200)
        assert _same(_asked(serving), changed)
    finally:
        status = serving.stop()
    assert status == 0
    # Another run gives it its own bundle, whatever models it finds there.
    (triton.models / "former_encoder").mkdir()
    (triton.models / "former_encoder" / "config.pbtxt").write_text('name: "former_encoder"')
    (triton.models / "not-ours").mkdir()
    again = Serving.start(
        tiny_bundle_folder(),
        tmp_path / "again",
        workers="1",
        triton_url=triton.url,
        triton_repository=str(triton.models),
    )
    try:
        again.wait_ready()
        assert triton.versions() == {name: {"1"} for name in MODELS}
        assert _same(_asked(again), first)
        assert {path.name for path in triton.models.iterdir()} == {*MODELS, "not-ours"}
    finally:
        again.stop()


def _asked(serving: Serving) -> tuple[str, np.ndarray]:
    """The bundle that answered, and its note."""
    with serving.client() as client:
        answer = client.post("/synthesize", json={"x": 0.2, "y": -0.4, "pitch": 60, "seconds": 0.5})
        assert answer.status_code == 200, answer.text
        samples, _ = soundfile.read(io.BytesIO(answer.content), dtype="float32")
        return answer.headers["timbrel-bundle"], samples


def _same(one: tuple[str, np.ndarray], other: tuple[str, np.ndarray]) -> bool:
    return one[0] == other[0] and bool(np.allclose(one[1], other[1], atol=1e-3))
