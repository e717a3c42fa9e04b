"""``Client`` for asyncio: the same operations, to be awaited."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Unpack

from numpy.typing import ArrayLike

from timbrel.audio import Audio
from timbrel.client import calls, opening, sounds
from timbrel.client.calls import SearchOptions
from timbrel.client.opening import Options
from timbrel.client.results import InstrumentArchive, PatchFile
from timbrel.client.sounds import Sound
from timbrel.engine.arguments import DEFAULT_PAGE, DEFAULT_SECONDS, DEFAULT_VELOCITY
from timbrel.engine.results import Location, PatchInfo, PatchPage, SearchResult, ServerInfo


class AsyncClient:
    """Arguments, answers and errors are those of ``Client``, which describes them.

    It belongs to the event loop it is used in. Close it with ``await client.close()``, or use ``async with``. A call
    that is cancelled is not made again; in-process, its computation runs to its end, unheard.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        bundle: str | os.PathLike[str] | None = None,
        **options: Unpack[Options],
    ) -> None:
        """As ``Client``; a bundle is read at once."""
        self._transport = opening.async_transport(address, bundle, **options)

    async def search(self, audio: Sound | Sequence[Sound], **options: Unpack[SearchOptions]) -> SearchResult:
        """See ``Client.search``."""
        recordings = await asyncio.to_thread(sounds.recordings, audio)
        return await self._transport.answer(calls.search(recordings, **options))

    async def search_like(self, patch_id: str, **options: Unpack[SearchOptions]) -> SearchResult:
        """See ``Client.search_like``."""
        return await self._transport.answer(calls.search_like(patch_id, **options))

    async def search_vectors(
        self, stage1: ArrayLike, stage2: ArrayLike, **options: Unpack[SearchOptions]
    ) -> SearchResult:
        """See ``Client.search_vectors``."""
        return await self._transport.answer(calls.search_vectors(stage1, stage2, **options))

    async def locate(self, audio: Sound, *, refine: bool = True) -> Location:
        """See ``Client.locate``."""
        recording = await asyncio.to_thread(sounds.encoded, audio)
        return await self._transport.answer(calls.locate(recording=recording, refine=refine))

    async def synthesize(
        self,
        *,
        x: float,
        y: float,
        pitch: int,
        velocity: int = DEFAULT_VELOCITY,
        seconds: float = DEFAULT_SECONDS,
    ) -> Audio:
        """See ``Client.synthesize``."""
        return await self._transport.answer(
            calls.synthesize(x=x, y=y, pitch=pitch, velocity=velocity, seconds=seconds)
        )

    async def instrument(self, *, x: float, y: float, seconds: float = DEFAULT_SECONDS) -> InstrumentArchive:
        """See ``Client.instrument``."""
        return await self._transport.answer(calls.export_instrument(x=x, y=y, seconds=seconds))

    async def patches(
        self,
        *,
        families: Sequence[str] = (),
        banks: Sequence[str] = (),
        offset: int = 0,
        limit: int = DEFAULT_PAGE,
    ) -> PatchPage:
        """See ``Client.patches``."""
        return await self._transport.answer(
            calls.list_patches(families=families, banks=banks, offset=offset, limit=limit)
        )

    async def patch(self, patch_id: str) -> PatchInfo:
        """See ``Client.patch``."""
        return await self._transport.answer(calls.get_patch(patch_id))

    async def patch_file(self, patch_id: str) -> PatchFile:
        """See ``Client.patch_file``."""
        return await self._transport.answer(calls.get_patch_file(patch_id))

    async def preview(self, patch_id: str) -> bytes:
        """See ``Client.preview``."""
        return await self._transport.answer(calls.get_preview(patch_id))

    async def info(self) -> ServerInfo:
        """See ``Client.info``."""
        return await self._transport.answer(calls.GetInfo())

    async def close(self) -> None:
        """See ``Client.close``."""
        await self._transport.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
