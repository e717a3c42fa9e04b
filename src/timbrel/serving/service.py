"""The BentoML service: search, synthesize, instrument and locate over one bundle.

    bentoml serve timbrel.serving.service:TimbrelService        (``timbrel serve`` starts Triton as well)

Each worker process holds the bundle and an engine of its own; the models run in Triton, shared by all workers, or in
the worker (TIMBREL_ENGINE, see ``timbrel.settings``).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import bentoml
import numpy as np
from _bentoml_sdk.io_models import IORootModel
from bentoml.validators import ContentType
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from timbrel import audio as audio_edge
from timbrel import settings as environment
from timbrel.engine.arguments import DEFAULT_SECONDS, DEFAULT_VELOCITY
from timbrel.engine.engine import Engine
from timbrel.errors import TimbrelError, Unavailable
from timbrel.library.bundle import Bundle
from timbrel.serving import access, decoding, metrics, operations, pages
from timbrel.serving.answers import LocateAnswer, SearchAnswer
from timbrel.serving.engines import model_source
from timbrel.serving.exchange import ExchangeMiddleware, noting
from timbrel.serving.grpc_server import GrpcServer
from timbrel.serving.grpc_servicer import TimbrelServicer
from timbrel.serving.guard import GuardMiddleware
from timbrel.serving.processes import end_with_parent
from timbrel.serving.requests import InstrumentInput, LocateInput, SearchInput, SynthesizeInput
from timbrel.serving.schemas import InstrumentRequest, LocateOptions, SearchRequest, SynthesizeRequest
from timbrel.serving.workshop import Workshop

SETTINGS = environment.load()
# BentoML's own limit only has to be later than ours, which answers with the envelope.
_BENTOML_SECONDS = SETTINGS.deadline_seconds + 60


class Wav(IORootModel[Annotated[Path, ContentType("audio/wav")]]):
    """The answer of /synthesize."""

    media_type = "audio/wav"


class Zip(IORootModel[Annotated[Path, ContentType("application/zip")]]):
    """The answer of /instrument."""

    media_type = "application/zip"


class _WithoutOurOwn(logging.Filter):
    """BentoML logs every exception with its traceback; ours are answers, and counted as such."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not (isinstance(error, TimbrelError) and type(error) is not TimbrelError)


logging.getLogger("bentoml._internal.server.http_app").addFilter(_WithoutOurOwn())


class _Served:
    """The bundle of this worker's instance, for the routes outside the class."""

    bundle: Bundle | None = None


def _served_bundle() -> Bundle:
    if _Served.bundle is None:
        raise Unavailable("the service is starting: try again in a few seconds")
    return _Served.bundle


@bentoml.asgi_app(pages.application(_served_bundle, SETTINGS.limits), path="/", name="pages")
@bentoml.service(
    name="timbrel",
    workers=SETTINGS.workers,
    traffic={"timeout": _BENTOML_SECONDS},
    # /metrics is ours (see timbrel.serving.metrics).
    metrics={"enabled": False},
)
class TimbrelService:
    """Timbre search and synthesis."""

    def __init__(self) -> None:
        # BentoML's supervisor starts workers in sessions of their own: killed, it would leave them with its port.
        end_with_parent()
        access.check_start(SETTINGS)
        self._bundle = Bundle.open(SETTINGS.bundle)
        self._source = model_source(SETTINGS, self._bundle)
        self._observing = False
        self._engine = Engine(self._bundle, self._source.models, observe=self._observe)
        decoding.shared.warm_up(SETTINGS.threads)
        self._warm_up()
        self._observing = True
        self._workshop = Workshop(
            threads=SETTINGS.threads, queue=SETTINGS.queue, deadline_seconds=SETTINGS.deadline_seconds
        )
        # An instrument is 25 notes: on a thread of its own it never keeps the short questions waiting.
        self._foundry = Workshop(
            threads=1, queue=SETTINGS.threads, deadline_seconds=SETTINGS.deadline_seconds
        )
        metrics.serving(self._bundle, self._source.kind)
        _Served.bundle = self._bundle
        self._grpc: GrpcServer | None = None

    @bentoml.api(route="/search", input_spec=SearchInput)
    async def search(self, audio: list[Path], request: SearchRequest) -> SearchAnswer:
        """Which patches sound like this?"""

        def work() -> SearchAnswer:
            return SearchAnswer.of(operations.search(self._engine, audio, request, SETTINGS.limits))

        with noting():
            return await self._workshop.run(work)

    @bentoml.api(route="/synthesize", input_spec=SynthesizeInput, output_spec=Wav)
    async def synthesize(
        self,
        x: float,
        y: float,
        pitch: int,
        velocity: int = DEFAULT_VELOCITY,
        seconds: float = DEFAULT_SECONDS,
    ) -> Response:
        """What does this place of the timbre map sound like?"""

        request = SynthesizeRequest(x=x, y=y, pitch=pitch, velocity=velocity, seconds=seconds)

        def work() -> bytes:
            return audio_edge.wav_bytes(operations.synthesize(self._engine, request))

        with noting():
            return Response(await self._workshop.run(work), media_type="audio/wav")

    @bentoml.api(route="/instrument", input_spec=InstrumentInput, output_spec=Zip)
    async def instrument(self, x: float, y: float, seconds: float = DEFAULT_SECONDS) -> Response:
        """This place of the timbre map as an instrument for a sampler."""

        request = InstrumentRequest(x=x, y=y, seconds=seconds)
        with noting():
            name, data = await self._foundry.run(lambda: operations.instrument(self._engine, request))
        disposition = {"content-disposition": f'attachment; filename="{name}.zip"'}
        return Response(data, media_type="application/zip", headers=disposition)

    @bentoml.api(route="/locate", input_spec=LocateInput)
    async def locate(self, audio: Path, refine: bool = True) -> LocateAnswer:
        """Where on the timbre map does this recording lie?"""

        options = LocateOptions(refine=refine)

        def work() -> LocateAnswer:
            return LocateAnswer.of(operations.locate(self._engine, audio, options, SETTINGS.limits))

        with noting():
            return await self._workshop.run(work)

    def __is_ready__(self) -> bool:
        return self._source.is_ready()

    @bentoml.on_startup
    async def _open_grpc(self) -> None:
        if SETTINGS.grpc:
            servicer = TimbrelServicer(
                SETTINGS,
                self._engine,
                kind=self._source.kind,
                workshop=self._workshop,
                foundry=self._foundry,
                admit=access.admission(SETTINGS),
            )
            self._grpc = GrpcServer(SETTINGS, servicer, self._source.is_ready)
            await self._grpc.start()

    @bentoml.on_shutdown
    async def _close(self) -> None:
        if self._grpc is not None:
            await self._grpc.stop()
        self._workshop.close()
        self._foundry.close()
        decoding.shared.close()
        self._source.models.close()

    def _observe(self, stage: str, seconds: float) -> None:
        if self._observing:
            metrics.stage_done(stage, seconds)

    def _warm_up(self) -> None:
        """Answer once before the first caller: sessions and caches fill at first use."""
        limits = self._bundle.manifest.map
        time = np.arange(audio_edge.SAMPLE_RATE, dtype=np.float32) / audio_edge.SAMPLE_RATE
        tone = audio_edge.Audio(0.5 * np.sin(2 * np.pi * 261.63 * time), audio_edge.SAMPLE_RATE)
        try:
            self._engine.search(tone, k=1)
            self._engine.locate(tone)
            self._engine.synthesize(x=0.0, y=0.0, pitch=limits.pitch_low, seconds=0.5)
        except Unavailable:
            # Triton may come later; /readyz says no until then.
            logging.getLogger("timbrel").warning("the models do not answer yet")


_service: Any = TimbrelService
if SETTINGS.origins:
    _service.add_asgi_middleware(
        CORSMiddleware,
        allow_origins=SETTINGS.origins,
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type"],
        expose_headers=["content-disposition", "retry-after"],
    )
_service.add_asgi_middleware(ExchangeMiddleware, max_file_bytes=SETTINGS.limits.max_bytes)
_service.add_asgi_middleware(GuardMiddleware, settings=SETTINGS)
