"""Calls answered in this process: a bundle, its models run by onnxruntime."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, TypeVar

from timbrel import audio
from timbrel.client import calls
from timbrel.client.calls import Call
from timbrel.client.results import InstrumentArchive, PatchFile
from timbrel.engine import catalogue, sfz
from timbrel.engine.asking import Asked, Like, Vectors
from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.engine.results import SearchResult
from timbrel.library.bundle import Bundle

Result = TypeVar("Result")


class LocalTransport:
    """Over an engine; recordings are read within the limits that a service has by default."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limits = audio.Limits()

    @classmethod
    def open(cls, bundle: str | os.PathLike[str]) -> LocalTransport:
        """Over the bundle in a folder. Raises BundleError."""
        opened = Bundle.open(Path(bundle))
        return cls(Engine(opened, OnnxModels({name: opened.path(name) for name in opened.manifest.models})))

    def answer(self, call: Call[Result]) -> Result:
        answered: Result = self._answer(call)
        return answered

    def close(self) -> None:
        self._engine.close()

    def _answer(self, call: Call[Any]) -> Any:
        engine, bundle = self._engine, self._engine.bundle
        match call:
            case calls.Search():
                return self._search(call)
            case calls.Locate(recording=recording, refine=refine):
                return engine.locate(audio.read(recording, limits=self._limits), refine=refine)
            case calls.Synthesize():
                return engine.synthesize(
                    x=call.x, y=call.y, pitch=call.pitch, velocity=call.velocity, seconds=call.seconds
                )
            case calls.ExportInstrument(x=x, y=y, seconds=seconds):
                made = engine.instrument(x=x, y=y, seconds=seconds)
                name = sfz.instrument_name(made)
                files = sfz.instrument_files(made, bundle.manifest)
                return InstrumentArchive(name=name, data=sfz.zipped(files, name))
            case calls.ListPatches():
                return catalogue.page(
                    bundle, families=call.families, banks=call.banks, offset=call.offset, limit=call.limit
                )
            case calls.GetPatch(patch_id=patch_id):
                return catalogue.patch(bundle, patch_id)
            case calls.GetPatchFile(patch_id=patch_id):
                return PatchFile(**bundle.patch_file(patch_id)._asdict())
            case calls.GetPreview(patch_id=patch_id):
                return bundle.preview(patch_id)
            case calls.GetInfo():
                return catalogue.info(bundle, self._limits)
        raise TypeError(f"{type(call).__name__} is no call of timbrel.client.calls")

    def _search(self, call: calls.Search) -> SearchResult:
        asked: Asked
        if call.like is not None:
            asked = Like(call.like)
        elif call.vectors is not None:
            asked = Vectors(*call.vectors)
        else:
            asked = audio.read_all(call.recordings, limits=self._limits)
        terms = call.terms
        return self._engine.search(
            asked,
            k=terms.k,
            offset=terms.offset,
            gate=call.gate,
            pitch=call.pitch,
            octaves=terms.octaves,
            families=terms.filters.families,
            banks=terms.filters.banks,
            min_confidence=terms.filters.min_confidence,
            fold=terms.fold,
        )


class AsyncLocalTransport:
    """The same for an event loop: each call on a thread of asyncio's."""

    def __init__(self, local: LocalTransport) -> None:
        self._local = local

    async def answer(self, call: Call[Result]) -> Result:
        return await asyncio.to_thread(self._local.answer, call)

    async def close(self) -> None:
        self._local.close()
