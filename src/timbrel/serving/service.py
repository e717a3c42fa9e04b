"""The BentoML service: search, synthesize, instrument and locate over one bundle.

    bentoml serve timbrel.serving.service:TimbrelService        (``timbrel serve`` starts Triton as well)

Each worker process holds the bundle and an engine of its own (``timbrel.serving.shelf``); the models run in Triton,
shared by all workers, or in the worker (TIMBREL_ENGINE, see ``timbrel.settings``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import bentoml
from _bentoml_sdk.io_models import IORootModel
from bentoml.validators import ContentType
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from timbrel import audio as audio_edge
from timbrel import settings as environment
from timbrel.engine.arguments import DEFAULT_SECONDS, DEFAULT_VELOCITY
from timbrel.errors import TimbrelError, Unavailable
from timbrel.serving import access, decoding, logs, note_check, operations, pages, tracing
from timbrel.serving.answers import LocateAnswer, SearchAnswer
from timbrel.serving.board import Board
from timbrel.serving.exchange import BUNDLE, REQUEST_ID, ExchangeMiddleware, answered_from, noting
from timbrel.serving.grpc_server import GrpcServer
from timbrel.serving.grpc_servicer import TimbrelServicer
from timbrel.serving.guard import CrowdMiddleware, GuardMiddleware
from timbrel.serving.metrics import WORKSHOPS
from timbrel.serving.processes import end_with_parent
from timbrel.serving.requests import InstrumentInput, LocateInput, SearchInput, SynthesizeInput
from timbrel.serving.schemas import InstrumentRequest, LocateOptions, SearchRequest, SynthesizeRequest
from timbrel.serving.shelf import Follower, Served, Shelf, first_served
from timbrel.serving.workshop import Workshop

SETTINGS = environment.load()
logs.configure(SETTINGS.log)
# BentoML's own limit only has to be later than ours, which answers with the envelope.
_BENTOML_SECONDS = SETTINGS.deadline_seconds + 60

Result = TypeVar("Result")


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


class _Instance:
    """What this worker's instance serves and works with, for what lies outside the class."""

    shelf: Shelf | None = None
    workshops: ClassVar[Mapping[str, Workshop]] = {}


def _shelf() -> Shelf:
    if _Instance.shelf is None:
        raise Unavailable("the service is starting: try again in a few seconds")
    return _Instance.shelf


@bentoml.asgi_app(pages.application(_shelf, SETTINGS.limits), path="/", name="pages")
@bentoml.service(
    name="timbrel",
    workers=SETTINGS.workers,
    traffic={"timeout": _BENTOML_SECONDS},
    # /metrics is ours (see timbrel.serving.metrics).
    metrics={"enabled": False},
    # Requests are logged by us, whichever way they come (timbrel.serving.logs).
    logging={"access": {"enabled": False}},
)
class TimbrelService:
    """Timbre search and synthesis."""

    def __init__(self) -> None:
        # BentoML's supervisor starts workers in sessions of their own: killed, it would leave them with its port.
        end_with_parent()
        access.check_start(SETTINGS)
        tracing.start(SETTINGS)
        self._board = Board.of_worker()
        self._shelf = Shelf(first_served(SETTINGS, self._board))
        decoding.shared.warm_up(SETTINGS.threads)
        note_check.shared.start(SETTINGS.checked_share)
        questions, instruments = WORKSHOPS
        self._workshop = Workshop(
            questions,
            threads=SETTINGS.threads,
            queue=SETTINGS.queue,
            deadline_seconds=SETTINGS.deadline_seconds,
        )
        # An instrument is 25 notes: on a thread of its own it never keeps the short questions waiting.
        self._foundry = Workshop(
            instruments, threads=1, queue=SETTINGS.threads, deadline_seconds=SETTINGS.deadline_seconds
        )
        _Instance.shelf = self._shelf
        shared = dict.fromkeys(("/search", "/synthesize", "/locate"), self._workshop)
        _Instance.workshops = {**shared, "/instrument": self._foundry}
        self._following: asyncio.Task[None] | None = None
        self._grpc: GrpcServer | None = None

    @bentoml.api(route="/search", input_spec=SearchInput)
    async def search(self, audio: list[Path], request: SearchRequest) -> SearchAnswer:
        """Which patches sound like this?"""

        def work(served: Served) -> SearchAnswer:
            return SearchAnswer.of(operations.search(served.engine, audio, request, SETTINGS.limits))

        return await self._answer(self._workshop, work)

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

        def work(served: Served) -> bytes:
            return audio_edge.wav_bytes(operations.synthesize(served.engine, request))

        return Response(await self._answer(self._workshop, work), media_type="audio/wav")

    @bentoml.api(route="/instrument", input_spec=InstrumentInput, output_spec=Zip)
    async def instrument(self, x: float, y: float, seconds: float = DEFAULT_SECONDS) -> Response:
        """This place of the timbre map as an instrument for a sampler."""

        request = InstrumentRequest(x=x, y=y, seconds=seconds)

        def work(served: Served) -> tuple[str, bytes]:
            return operations.instrument(served.engine, request)

        name, data = await self._answer(self._foundry, work)
        disposition = {"content-disposition": f'attachment; filename="{name}.zip"'}
        return Response(data, media_type="application/zip", headers=disposition)

    @bentoml.api(route="/locate", input_spec=LocateInput)
    async def locate(self, audio: Path, refine: bool = True) -> LocateAnswer:
        """Where on the timbre map does this recording lie?"""

        options = LocateOptions(refine=refine)

        def work(served: Served) -> LocateAnswer:
            return LocateAnswer.of(operations.locate(served.engine, audio, options, SETTINGS.limits))

        return await self._answer(self._workshop, work)

    async def _answer(self, workshop: Workshop, work: Callable[[Served], Result]) -> Result:
        with noting():
            bundle, result = await workshop.run(self._shelf.working(work))
        answered_from(bundle)
        return result

    def __is_ready__(self) -> bool:
        return self._shelf.is_ready()

    @bentoml.on_startup
    async def _open(self) -> None:
        if self._board is not None:
            follower = Follower(SETTINGS, self._board, self._shelf)
            self._following = asyncio.create_task(follower.follow())
        if SETTINGS.grpc:
            servicer = TimbrelServicer(
                SETTINGS,
                self._shelf,
                workshop=self._workshop,
                foundry=self._foundry,
                admit=access.admission(SETTINGS),
            )
            self._grpc = GrpcServer(SETTINGS, servicer, self._shelf.is_ready)
            await self._grpc.start()

    @bentoml.on_shutdown
    async def _close(self) -> None:
        if self._following is not None:
            self._following.cancel()
        if self._grpc is not None:
            await self._grpc.stop()
        self._workshop.close()
        self._foundry.close()
        decoding.shared.close()
        note_check.shared.close()
        self._shelf.close()
        await asyncio.to_thread(tracing.stop)


_service: Any = TimbrelService
if SETTINGS.origins:
    _service.add_asgi_middleware(
        CORSMiddleware,
        allow_origins=SETTINGS.origins,
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type"],
        expose_headers=["content-disposition", "retry-after", BUNDLE, REQUEST_ID],
    )
_service.add_asgi_middleware(ExchangeMiddleware, max_file_bytes=SETTINGS.limits.max_bytes)
_service.add_asgi_middleware(GuardMiddleware, settings=SETTINGS)
_service.add_asgi_middleware(CrowdMiddleware, workshop_of=lambda path: _Instance.workshops.get(path))
