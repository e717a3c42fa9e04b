"""The engine's models in a Triton server, by gRPC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import grpc
import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from timbrel.errors import DeadlineExceeded, TimbrelError, Unavailable
from timbrel.serving import tracing

_UNREACHABLE = {str(code) for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)}
_MISSING = {str(code) for code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED)}


class TritonModels:
    """Implements ``timbrel.engine.models.Models``; one object serves any number of threads."""

    def __init__(self, url: str, timeout: float, version: int | None = None) -> None:
        """``url`` is host:port of Triton's gRPC endpoint; ``timeout`` bounds each call, in seconds.

        ``version``: of the models; without it the latest that is loaded.
        """
        self._url = url
        self._timeout = timeout
        self._version = "" if version is None else str(version)
        # gRPC's own reconnect back-off grows to two minutes: a restarted Triton should be found at once.
        self._client = InferenceServerClient(
            url,
            channel_args=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 2000),
                ("grpc.enable_http_proxy", 0),
            ],
        )

    def run(self, model: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs of ``model`` by name.

        Raises DeadlineExceeded after the timeout, Unavailable if Triton or the model is not there.
        """
        tensors = []
        for name, array in inputs.items():
            tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
            tensors.append(tensor)
        with tracing.inference(model, self._url) as call:
            try:
                result = self._client.infer(
                    model,
                    tensors,
                    model_version=self._version,
                    client_timeout=self._timeout,
                    headers=call.headers,
                )
            except InferenceServerException as error:
                raise self._translated(model, error) from error
            response = result.get_response()
            call.note(model_version=response.model_version)
        return {output.name: np.asarray(result.as_numpy(output.name)) for output in response.outputs}

    def is_ready(self, models: Iterable[str]) -> bool:
        """Whether the server answers and these models are loaded."""
        try:
            index = self._client.get_model_repository_index(client_timeout=min(self._timeout, 2.0))
        except InferenceServerException:
            return False
        loaded = {
            model.name
            for model in index.models
            if model.state == "READY" and self._version in ("", model.version)
        }
        return loaded.issuperset(models)

    def close(self) -> None:
        self._client.close()

    def _translated(self, model: str, error: InferenceServerException) -> TimbrelError:
        status, message = str(error.status()), str(error.message()).splitlines()[0]
        if status == str(grpc.StatusCode.DEADLINE_EXCEEDED):
            return DeadlineExceeded(
                f"the model {model} took longer than {self._timeout:g} s: try again later"
            )
        # A stub that died is started again by Triton at the next request.
        if status in _MISSING or any(
            sign in message for sign in ("not ready", "unknown model", "not healthy")
        ):
            return Unavailable(
                f"the model {model} is not served at {self._url} now: try again later ({message})"
            )
        if status in _UNREACHABLE:
            return Unavailable(f"the model server at {self._url} does not answer: try again later")
        return TimbrelError(f"the model {model} failed: {message}")
