"""The folder that a Triton reads its models from, and what is loaded of it: a version for each bundle that is served.

Triton is in explicit mode: it loads and unloads when it is told to. It may be the launcher's own, or one that others
run (TIMBREL_TRITON_URL) on a folder that both can reach (TIMBREL_TRITON_REPOSITORY), which belongs to one service.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import grpc
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from timbrel.errors import TimbrelError, Unavailable
from timbrel.library.manifest import MODELS
from timbrel.serving.triton_files import lay_out_encoders, lay_out_models
from timbrel.settings import Settings

LOAD_SECONDS = 600.0
"""TensorRT may take minutes."""
READY_SECONDS = 300.0
_POLL_SECONDS = 0.5


class TritonRepository:
    """``url`` is host:port of the gRPC endpoint of the Triton that reads ``folder``."""

    def __init__(self, settings: Settings, folder: Path, url: str) -> None:
        self._settings = settings
        self._folder = folder
        self._url = url

    @classmethod
    def shared(cls, settings: Settings, folder: Path, check: Callable[[], None]) -> TritonRepository:
        """Of a Triton that others run: given the settings' bundle as its only one, once it answers.

        ``check`` is called while it does not; what it raises ends the waiting. Raises as ``lay_out`` and ``load``.
        """
        repository = cls(settings, folder, settings.triton_url)
        repository._wait(check)
        try:
            # An earlier run's: its numbers began with 1, too.
            for configuration in sorted(folder.glob("*/config.pbtxt")):
                shutil.rmtree(configuration.parent)
            for name in [*MODELS, *repository.lay_out()]:
                repository._reload(name)
        except OSError as error:
            raise Unavailable(f"the models cannot be written to {folder} ({error.strerror})") from None
        return repository

    def lay_out(self) -> list[str]:
        """Write the settings' bundle as version 1, and their encoders; returns these encoders' names.

        Raises ConfigurationError or BundleError.
        """
        settings = self._settings
        configurations, device = settings.model_repository, settings.triton_device
        lay_out_models(settings.bundle, configurations, self._folder, 1, device)
        if settings.encoders is None:
            return []
        return lay_out_encoders(settings.encoders, configurations, self._folder, device)

    def load(self, bundle: Path, version: int) -> None:
        """Load the models of another bundle beside those that are loaded; returns when they answer.

        Raises as ``lay_out_models``, and Unavailable if they cannot be loaded; none of them is left then.
        """
        settings = self._settings
        try:
            lay_out_models(bundle, settings.model_repository, self._folder, version, settings.triton_device)
            self._reload_all()
        except (OSError, TimbrelError) as error:
            self._remove(version)
            if isinstance(error, OSError):
                raise Unavailable(
                    f"the models cannot be written to {self._folder} ({error.strerror}): make room there"
                ) from None
            raise

    def unload(self, version: int) -> None:
        """Take a bundle's models away; requests that they have begun are finished. Raises Unavailable."""
        self._remove(version)
        self._reload_all()

    def _remove(self, version: int) -> None:
        for name in MODELS:
            shutil.rmtree(self._folder / name / str(version), ignore_errors=True)

    def _reload_all(self) -> None:
        for name in MODELS:
            self._reload(name)

    def _reload(self, name: str) -> None:
        """Have the server load and unload versions of a model until it has those that are in its folder."""
        client = InferenceServerClient(self._url, channel_args=[("grpc.enable_http_proxy", 0)])
        try:
            client.load_model(name, client_timeout=LOAD_SECONDS)
        except InferenceServerException as error:
            if error.status() == str(grpc.StatusCode.UNAVAILABLE):
                raise Unavailable("Triton does not answer: try again in a few seconds") from None
            reason = str(error.message()).splitlines()[0][:300]
            raise Unavailable(f"Triton cannot load the model {name}: {reason}") from None
        finally:
            client.close()

    def _wait(self, check: Callable[[], None]) -> None:
        """Return when the server answers. Raises Unavailable if it never does."""
        end = time.monotonic() + READY_SECONDS
        while not self._is_live():
            check()
            if time.monotonic() > end:
                raise Unavailable(f"the Triton at {self._url} did not answer within {READY_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)

    def _is_live(self) -> bool:
        client = InferenceServerClient(self._url, channel_args=[("grpc.enable_http_proxy", 0)])
        try:
            return bool(client.is_server_live(client_timeout=2.0))
        except InferenceServerException:
            return False
        finally:
            client.close()
