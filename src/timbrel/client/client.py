"""The client: every operation of Timbrel, wherever it is computed."""

from __future__ import annotations

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


class Client:
    """Timbrel's operations, asked of a service or computed here; the same calls, the same answers.

        Client("http://127.0.0.1:3000")     a service over HTTP
        Client("grpc://127.0.0.1:3001")     the same over gRPC (grpcs:// with TLS)
        Client(bundle="bundle")             no service: the bundle's models run in this process

    A client may be shared between threads. Close it when done, or use it in a ``with`` statement. Every method raises
    errors of ``timbrel.errors`` only: those of the service with its class, code and message (``TooManyRequests`` with
    its ``retry_after``); ``Unreachable`` where no service answers or its certificate is not trusted,
    ``DeadlineExceeded`` after ``timeout``, ``ProtocolError`` where something else answers.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        bundle: str | os.PathLike[str] | None = None,
        **options: Unpack[Options],
    ) -> None:
        """
        Args:
            address: of a service.
            bundle: a bundle's folder, instead of an address.
            timeout: seconds for a whole call, or bounds for each part of it.
            retries: how often a call is made again that the service did not take, see ``client.patience``.
            api_key: what the service knows the caller by, if it asks for a key.
            ca_file: certificates (PEM) of the authorities whose word is taken on that of an https:// or grpcs://
                service, instead of those that this machine trusts.

        Raises:
            ConfigurationError: no such address, no usable key or ``ca_file``.
            InputError: ``timeout`` or ``retries`` out of range.
            BundleError: the folder holds no sound bundle.
        """
        self._transport = opening.transport(address, bundle, **options)

    def search(self, audio: Sound | Sequence[Sound], **options: Unpack[SearchOptions]) -> SearchResult:
        """The patches that sound most like a recording, or like several (a list of up to eight) of one sound.

        Args:
            audio: a path; the bytes of an audio file; ``Audio``; or (samples, sample_rate), float [n] or
                [n, channels].
            k, offset: how many hits (1-100), after how many: a page. Together 1,000 at most.
            gate: "auto" compares near the measured pitch where there is one; "require" refuses any other
                recording; "off" compares at all pitches.
            pitch: MIDI, instead of the measured one.
            octaves: renders one or more octaves away count as near.
            families, banks: only patches of these.
            min_confidence: only renders whose pitch is that sure, 0-1.
            fold: patches that are the same sound are one hit.

        Raises:
            InputError: a value out of range; AudioError or AudioTooLarge for a recording that cannot be read.
            UnsuitableQuery: the gate refuses.
        """
        return self._transport.answer(calls.search(sounds.recordings(audio), **options))

    def search_like(self, patch_id: str, **options: Unpack[SearchOptions]) -> SearchResult:
        """The other patches that sound like this one; options as in ``search``, ``pitch`` chooses the render to
        compare by. Raises NotFound, and what ``search`` raises.
        """
        return self._transport.answer(calls.search_like(patch_id, **options))

    def search_vectors(
        self, stage1: ArrayLike, stage2: ArrayLike, **options: Unpack[SearchOptions]
    ) -> SearchResult:
        """The patches nearest to vectors [d1] and [d2] of this bundle's encoder, which ``timbrel embed`` gives; options
        and errors as in ``search``. Vectors have no pitch of their own: name it.
        """
        return self._transport.answer(calls.search_vectors(stage1, stage2, **options))

    def locate(self, audio: Sound, *, refine: bool = True) -> Location:
        """Where on the timbre map a recording lies; ``refine`` looks around for the place that sounds most like it.

        Raises InputError as ``search``, and UnsuitableQuery for a recording in which nothing sounds.
        """
        return self._transport.answer(calls.locate(recording=sounds.encoded(audio), refine=refine))

    def synthesize(
        self,
        *,
        x: float,
        y: float,
        pitch: int,
        velocity: int = DEFAULT_VELOCITY,
        seconds: float = DEFAULT_SECONDS,
    ) -> Audio:
        """The sound of a place on the map at a MIDI key: float32 [n], 24 kHz, 0.2-10 ``seconds`` long.

        A service sends 16-bit samples. Raises InputError for a place beyond the map, or a value out of range.
        """
        return self._transport.answer(
            calls.synthesize(x=x, y=y, pitch=pitch, velocity=velocity, seconds=seconds)
        )

    def instrument(self, *, x: float, y: float, seconds: float = DEFAULT_SECONDS) -> InstrumentArchive:
        """A place on the map as an instrument for a sampler (SFZ and a WAV file per key). Raises InputError."""
        return self._transport.answer(calls.export_instrument(x=x, y=y, seconds=seconds))

    def patches(
        self,
        *,
        families: Sequence[str] = (),
        banks: Sequence[str] = (),
        offset: int = 0,
        limit: int = DEFAULT_PAGE,
    ) -> PatchPage:
        """``limit`` (1-1,000) patches of the library after the first ``offset``. Raises InputError."""
        return self._transport.answer(
            calls.list_patches(families=families, banks=banks, offset=offset, limit=limit)
        )

    def patch(self, patch_id: str) -> PatchInfo:
        """What is known of a patch. Raises NotFound."""
        return self._transport.answer(calls.get_patch(patch_id))

    def patch_file(self, patch_id: str) -> PatchFile:
        """The patch as its instrument reads it. Raises NotFound."""
        return self._transport.answer(calls.get_patch_file(patch_id))

    def preview(self, patch_id: str) -> bytes:
        """A few seconds of the patch as MP3, which ``timbrel.audio.read`` decodes. Raises NotFound."""
        return self._transport.answer(calls.get_preview(patch_id))

    def info(self) -> ServerInfo:
        """What is served, and within which limits."""
        return self._transport.answer(calls.GetInfo())

    def close(self) -> None:
        """Let go of connections, or of the bundle."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
