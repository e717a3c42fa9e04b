"""The bundle that a worker answers from, and how another takes its place between two requests.

A request takes what is served when its work begins and keeps it to its end, so every answer is wholly of one bundle.
What is served next is opened and tried beside it; the former is closed when its last request is answered.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from timbrel.engine.asking import Asked, Question
from timbrel.engine.engine import Engine
from timbrel.engine.index import Index
from timbrel.engine.results import SearchResult
from timbrel.engine.trial import try_out
from timbrel.errors import TimbrelError, Unavailable
from timbrel.library.bundle import Bundle
from timbrel.milvus.index import MilvusIndex
from timbrel.serving import metrics, tracing
from timbrel.serving.board import Board, Status
from timbrel.serving.engines import ModelSource, model_source
from timbrel.serving.quality import Quality
from timbrel.settings import IndexKind, Settings

POLL_SECONDS = 0.2
_log = logging.getLogger("timbrel")

Result = TypeVar("Result")


class Served:
    """One edition: a bundle, its models and the engine over both. ``number`` is None where there are no others."""

    def __init__(
        self, number: int | None, bundle: Bundle, source: ModelSource, index: Index | None = None
    ) -> None:
        self.number = number
        self.bundle = bundle
        self.source = source
        self.quality = Quality(bundle)
        self._observing = False
        self.engine = Engine(
            bundle,
            source.models,
            observe=self._observe,
            around=tracing.stage,
            searched=self._searched,
            index=index,
        )

    @classmethod
    def open(cls, settings: Settings, board: Board | None, number: int | None) -> Served:
        """Raises BundleError. Whether the models answer, ``try_out`` says."""
        if board is None or number is None:
            bundle, version = Bundle.open(settings.bundle), None
        else:
            bundle, version = Bundle.open(board.edition(number)), number if board.plan().versioned else None
        index = None
        if settings.index is IndexKind.MILVUS:
            index = MilvusIndex.open(
                settings.milvus_uri, bundle, token=settings.milvus_token, seconds=settings.deadline_seconds
            )
        return cls(number, bundle, model_source(settings, bundle, version), index)

    def try_out(self) -> None:
        """Answer once before the first caller: sessions and caches fill at first use. Raises TimbrelError."""
        try:
            try_out(self.engine)
        finally:
            self._observing = True

    def close(self) -> None:
        self.engine.close()

    def _observe(self, stage: str, seconds: float) -> None:
        if self._observing:
            metrics.stage_done(stage, seconds)

    def _searched(self, asked: Asked, question: Question, result: SearchResult) -> None:
        if self._observing:
            self.quality.searched(asked, question, result)


class Shelf:
    """What is served now, and what earlier requests still work with. Thread-safe."""

    def __init__(self, served: Served) -> None:
        self._lock = threading.Lock()
        self._served = served
        self._users: dict[Served, int] = {served: 0}
        metrics.serving(served.bundle, served.source.kind, served.quality.reference)

    @property
    def number(self) -> int | None:
        return self._served.number

    @property
    def held(self) -> tuple[int, ...]:
        """The numbers of what is served and of what is still worked with."""
        with self._lock:
            return tuple(served.number for served in self._users if served.number is not None)

    def is_ready(self) -> bool:
        """Whether the models answer."""
        with self.current() as served:
            return served.source.is_ready()

    @contextmanager
    def current(self) -> Iterator[Served]:
        """What is served, for as long as the work within takes."""
        with self._lock:
            served = self._served
            self._users[served] += 1
        try:
            yield served
        finally:
            with self._lock:
                self._users[served] -= 1
            self._let_go(served)

    def working(self, work: Callable[[Served], Result]) -> Callable[[], tuple[str, Result]]:
        """``work`` over what is served when it begins; the id of that bundle is returned with the result."""

        def whole() -> tuple[str, Result]:
            with self.current() as served:
                return served.bundle.id, work(served)

        return whole

    def put(self, served: Served) -> None:
        """Answer from this from the next request on."""
        with self._lock:
            former, self._served = self._served, served
            self._users[served] = 0
        reference = served.quality.reference
        metrics.serving(served.bundle, served.source.kind, reference, instead_of=former.bundle)
        self._let_go(former)

    def close(self) -> None:
        self._served.close()

    def _let_go(self, served: Served) -> None:
        with self._lock:
            if served is self._served or self._users.get(served) != 0:
                return
            del self._users[served]
        served.close()


class Follower:
    """Makes one worker do what the launcher's plan says, and says how far it is."""

    def __init__(self, settings: Settings, board: Board, shelf: Shelf) -> None:
        self._settings = settings
        self._board = board
        self._shelf = shelf
        self._ready: Served | None = None
        self._refused: tuple[int | None, str] = (None, "")
        self._told: Status | None = None

    async def follow(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                try:
                    await self._step()
                except (
                    Exception
                ):  # such as a full disk: what is served goes on, and the next step may go well
                    _log.exception("this worker cannot follow the launcher's plan now")
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._drop()

    async def _step(self) -> None:
        plan = await asyncio.to_thread(self._board.plan)
        if plan.served != self._shelf.number:
            ready = await self._made_ready(plan.served)
            if ready is not None:
                self._ready = None
                self._shelf.put(ready)
                _log.info("served from now on: bundle %s", ready.bundle.id)
        elif plan.following is None:
            self._drop()
            self._refused = (None, "")
        elif plan.following != self._refused[0]:
            await self._made_ready(plan.following)
        await asyncio.to_thread(self._tell)

    async def _made_ready(self, number: int) -> Served | None:
        """The edition, opened and tried; None if it cannot be served."""
        if self._ready is None or self._ready.number != number:
            self._drop()
            try:
                self._ready = await asyncio.to_thread(self._opened, number)
            except Exception as error:
                if not isinstance(error, TimbrelError):
                    _log.exception("edition %d cannot be served", number)
                self._refused = (number, str(error))
        return self._ready

    def _opened(self, number: int) -> Served:
        served = Served.open(self._settings, self._board, number)
        try:
            served.try_out()
        except BaseException:
            served.close()
            raise
        return served

    def _drop(self) -> None:
        if self._ready is not None:
            self._ready.close()
            self._ready = None

    def _tell(self) -> None:
        status = Status(
            served=self._shelf.number,
            ready=self._ready.number if self._ready else None,
            held=self._shelf.held,
            refused=self._refused[0],
            reason=self._refused[1],
        )
        if status != self._told:
            self._board.tell(status)
            self._told = status


def first_served(settings: Settings, board: Board | None) -> Served:
    """What a worker that starts serves. Triton may come later: /readyz says no until then. Raises BundleError."""
    served = Served.open(settings, board, board.claim() if board else None)
    try:
        served.try_out()
    except Unavailable:
        _log.warning("the models do not answer yet")
    return served
