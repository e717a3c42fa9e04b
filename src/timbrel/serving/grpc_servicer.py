"""The operations of ``timbrel.v1.Timbrel``, on the engine, the threads and the queue that HTTP's are on.

A batch works on as many of its requests at a time as there are threads, and its answers keep the requests' order.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import soundfile

from timbrel import audio as audio_edge
from timbrel.engine import catalogue
from timbrel.engine.arguments import DEFAULT_PAGE, MAX_RECORDINGS
from timbrel.errors import DeadlineExceeded, InputError, TimbrelError
from timbrel.library import previews
from timbrel.serving import grpc_messages as messages
from timbrel.serving import operations
from timbrel.serving.exchange import Problem
from timbrel.serving.grpc_exchange import Admit, Caller, Exchanges, counting_part
from timbrel.serving.grpc_uploads import Uploads, check_size
from timbrel.serving.schemas import SearchRequest
from timbrel.serving.shelf import Served, Shelf
from timbrel.serving.workshop import Workshop
from timbrel.settings import Settings
from timbrel.v1 import timbrel_pb2 as pb
from timbrel.v1 import timbrel_pb2_grpc as pb_grpc

_NAMES_BYTES = 64 * 1024

Part = TypeVar("Part")
Request = TypeVar("Request")
Response = TypeVar("Response")


class TimbrelServicer(pb_grpc.TimbrelServicer):
    """One per worker, over what its shelf serves."""

    def __init__(
        self,
        settings: Settings,
        shelf: Shelf,
        *,
        workshop: Workshop,
        foundry: Workshop,
        admit: Admit | None = None,
    ) -> None:
        self._settings = settings
        self._limits = settings.limits
        self._shelf = shelf
        self._workshop = workshop
        self._foundry = foundry
        self._exchanges = Exchanges(admit)

    @property
    def exchanges(self) -> Exchanges:
        return self._exchanges

    async def Search(self, request: pb.SearchRequest, context: Any) -> pb.SearchResponse:
        async with self._exchanges.answering(context, "search") as caller:
            return await self._search(request, caller)

    async def SearchUpload(
        self, parts: AsyncIterator[pb.SearchUploadRequest], context: Any
    ) -> pb.SearchResponse:
        async with self._exchanges.answering(context, "search") as caller:
            with Uploads(self._limits, most=MAX_RECORDINGS) as uploads:
                options = await self._receive(parts, uploads, pb.SearchOptions())
                asked, recordings = messages.search_options(options), uploads.finished()

                def work(served: Served) -> pb.SearchResponse:
                    return self._found(served, recordings, asked)

                return await self._answer(work, caller)

    async def SearchBatch(
        self, requests: AsyncIterator[pb.SearchRequest], context: Any
    ) -> AsyncIterator[pb.SearchBatchResponse]:
        async def answer(request: pb.SearchRequest, caller: Caller) -> pb.SearchBatchResponse:
            try:
                with counting_part("search", caller):
                    caller.admit()
                    return pb.SearchBatchResponse(response=await self._search(request, caller))
            except TimbrelError as error:
                return pb.SearchBatchResponse(error=_error(error))

        async with self._exchanges.answering(context, None) as caller:
            async for response in self._in_order(requests, lambda request: answer(request, caller)):
                yield response

    async def Locate(self, request: pb.LocateRequest, context: Any) -> pb.LocateResponse:
        async with self._exchanges.answering(context, "locate") as caller:
            options = messages.locate_options(request.options)

            def work(served: Served) -> pb.LocateResponse:
                location = operations.locate(served.engine, request.audio, options, self._limits)
                return messages.locate_response(location)

            return await self._answer(work, caller)

    async def LocateUpload(
        self, parts: AsyncIterator[pb.LocateUploadRequest], context: Any
    ) -> pb.LocateResponse:
        async with self._exchanges.answering(context, "locate") as caller:
            with Uploads(self._limits, most=1) as uploads:
                options = messages.locate_options(await self._receive(parts, uploads, pb.LocateOptions()))
                (recording,) = uploads.finished()

                def work(served: Served) -> pb.LocateResponse:
                    location = operations.locate(served.engine, recording, options, self._limits)
                    return messages.locate_response(location)

                return await self._answer(work, caller)

    async def Synthesize(self, request: pb.SynthesizeRequest, context: Any) -> pb.SynthesizeResponse:
        async with self._exchanges.answering(context, "synthesize") as caller:
            return pb.SynthesizeResponse(wav=await self._synthesize(request, caller))

    async def SynthesizeStream(
        self, request: pb.SynthesizeRequest, context: Any
    ) -> AsyncIterator[pb.PcmPart]:
        async with self._exchanges.answering(context, "synthesize") as caller:
            wav = await self._synthesize(request, caller)
            samples, sample_rate = soundfile.read(io.BytesIO(wav), dtype="int16")
            for part in messages.pcm_parts(samples.astype("<i2").tobytes(), sample_rate):
                yield part

    async def SynthesizeBatch(
        self, requests: AsyncIterator[pb.SynthesizeRequest], context: Any
    ) -> AsyncIterator[pb.SynthesizeBatchResponse]:
        async def answer(request: pb.SynthesizeRequest, caller: Caller) -> pb.SynthesizeBatchResponse:
            try:
                with counting_part("synthesize", caller):
                    caller.admit()
                    made = pb.SynthesizeResponse(wav=await self._synthesize(request, caller))
                    return pb.SynthesizeBatchResponse(response=made)
            except TimbrelError as error:
                return pb.SynthesizeBatchResponse(error=_error(error))

        async with self._exchanges.answering(context, None) as caller:
            async for response in self._in_order(requests, lambda request: answer(request, caller)):
                yield response

    async def ExportInstrument(
        self, request: pb.ExportInstrumentRequest, context: Any
    ) -> AsyncIterator[pb.FilePart]:
        async with self._exchanges.answering(context, "instrument") as caller:
            asked = messages.instrument_request(request)

            def work(served: Served) -> tuple[str, bytes]:
                return operations.instrument(served.engine, asked)

            name, data = await self._answer(work, caller, self._foundry)
            for part in messages.file_parts(data, filename=f"{name}.zip", media_type="application/zip"):
                yield part

    async def ListPatches(self, request: pb.ListPatchesRequest, context: Any) -> pb.ListPatchesResponse:
        async with self._looking_up(context, "patches") as served:
            if request.ByteSize() > _NAMES_BYTES:
                raise InputError(f"the names are longer than {_NAMES_BYTES // 1024} KiB: name fewer")
            page = catalogue.page(
                served.bundle,
                families=request.families,
                banks=request.banks,
                offset=request.offset,
                limit=request.limit if request.HasField("limit") else DEFAULT_PAGE,
            )
            return pb.ListPatchesResponse(
                total=page.total, offset=page.offset, patches=map(messages.patch, page.patches)
            )

    async def GetPatch(self, request: pb.GetPatchRequest, context: Any) -> pb.Patch:
        async with self._looking_up(context, "patch") as served:
            return messages.patch(catalogue.patch(served.bundle, request.patch_id))

    async def GetPatchFile(self, request: pb.GetPatchFileRequest, context: Any) -> pb.File:
        async with self._looking_up(context, "patch_file") as served:
            file = served.bundle.patch_file(request.patch_id)
            return pb.File(filename=file.filename, media_type=file.media_type, data=file.data)

    async def GetPatchPreview(self, request: pb.GetPatchPreviewRequest, context: Any) -> pb.File:
        async with self._looking_up(context, "patch_preview") as served:
            data = served.bundle.preview(request.patch_id)
            return pb.File(filename=f"{request.patch_id}.mp3", media_type=previews.MEDIA_TYPE, data=data)

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Any) -> pb.ServerInfo:
        async with self._looking_up(context, "info") as served:
            return messages.server_info(served.bundle, self._settings, served.source.kind)

    @asynccontextmanager
    async def _looking_up(self, context: Any, endpoint: str) -> AsyncIterator[Served]:
        """Around what asks no model."""
        async with self._exchanges.answering(context, endpoint) as caller:
            with self._shelf.current() as served:
                caller.answered_from(served.bundle.id)
                yield served

    async def _answer(
        self, work: Callable[[Served], Response], caller: Caller, workshop: Workshop | None = None
    ) -> Response:
        """What ``work`` makes, within the caller's time."""
        workshop = workshop or self._workshop
        bundle, result = await workshop.run(self._shelf.working(work), within=caller.remaining())
        caller.answered_from(bundle)
        return result

    async def _search(self, request: pb.SearchRequest, caller: Caller) -> pb.SearchResponse:
        asked, recordings = messages.search_request(request), list(request.recordings.audio)
        check_size(sum(map(len, recordings)), self._limits)
        return await self._answer(lambda served: self._found(served, recordings, asked), caller)

    def _found(self, served: Served, recordings: Any, asked: SearchRequest) -> pb.SearchResponse:
        return messages.search_response(operations.search(served.engine, recordings, asked, self._limits))

    async def _synthesize(self, request: pb.SynthesizeRequest, caller: Caller) -> bytes:
        asked = messages.synthesize_request(request)

        def work(served: Served) -> bytes:
            return audio_edge.wav_bytes(operations.synthesize(served.engine, asked))

        return await self._answer(work, caller)

    async def _receive(self, parts: AsyncIterator[Any], uploads: Uploads, options: Any) -> Any:
        """Take the parts of an upload; returns the options that came before them, else those given."""
        began = False
        patience = self._settings.deadline_seconds
        while (part := await _next(parts, patience)) is not None:
            kind = part.WhichOneof("part")
            if kind == "recording":
                began = True
                uploads.add(part.recording)
            elif kind == "options" and not began:
                began, options = True, part.options
            else:
                raise InputError("a stream is made of the options, at most once and first, and of recordings")
        return options

    async def _in_order(
        self, requests: AsyncIterator[Request], answer: Callable[[Request], Awaitable[Response]]
    ) -> AsyncIterator[Response]:
        """The answers to a stream of requests, each as soon as it and all before it are there."""
        places = asyncio.Semaphore(self._settings.threads)
        answers: asyncio.Queue[asyncio.Task[Response] | None] = asyncio.Queue()

        async def begin() -> None:
            try:
                await places.acquire()
                async for request in requests:
                    answers.put_nowait(asyncio.ensure_future(answer(request)))
                    await places.acquire()
            finally:
                answers.put_nowait(None)

        beginning = asyncio.create_task(begin())
        try:
            while (task := await answers.get()) is not None:
                yield await task
                # Only now: who does not read its answers gets no more of them made.
                places.release()
            await beginning
        finally:
            beginning.cancel()
            while not answers.empty():
                left = answers.get_nowait()
                if left is not None:
                    left.cancel()


async def _next(parts: AsyncIterator[Part], patience: float) -> Part | None:
    """The next part of a stream; None at its end. Raises DeadlineExceeded if none comes."""
    try:
        return await asyncio.wait_for(anext(parts), patience)
    except StopAsyncIteration:
        return None
    except TimeoutError:
        raise DeadlineExceeded(f"nothing more came within {patience:g} s: send the parts faster") from None


def _error(error: TimbrelError) -> pb.Error:
    again = Problem.of(error).seconds
    return pb.Error(code=error.code, message=error.message, retry_after_seconds=again)
