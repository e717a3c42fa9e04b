"""Which models a worker computes with: Triton's or its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from timbrel.engine.models import Models
from timbrel.engine.onnx_models import OnnxModels
from timbrel.errors import ConfigurationError
from timbrel.library.bundle import Bundle
from timbrel.serving.triton_client import TritonModels
from timbrel.settings import EngineKind, Settings


@dataclass(frozen=True, slots=True)
class ModelSource:
    """``kind`` is "triton" or "inprocess"; ``is_ready()`` tells whether the models answer."""

    kind: str
    models: Models
    is_ready: Callable[[], bool]


def model_source(settings: Settings, bundle: Bundle, version: int | None = None) -> ModelSource:
    """The models of the settings. ``auto`` is Triton where a URL is given: a worker starts no server itself.

    ``version``: of the bundle's models in the Triton that the launcher started; one that others run has its own.
    """
    wants_triton = settings.engine is EngineKind.TRITON or (
        settings.engine is EngineKind.AUTO and settings.triton_url
    )
    if wants_triton:
        if not settings.triton_url:
            raise ConfigurationError(
                "TIMBREL_ENGINE is triton, but TIMBREL_TRITON_URL is not set: start with `timbrel serve`"
            )
        triton = TritonModels(settings.triton_url, settings.deadline_seconds, version)
        return ModelSource(EngineKind.TRITON.value, triton, lambda: triton.is_ready(bundle.manifest.models))
    paths = {name: bundle.path(name) for name in bundle.manifest.models}
    return ModelSource(EngineKind.INPROCESS.value, OnnxModels(paths), lambda: True)
