"""Where tasks run: processes of this machine, or a Ray cluster (``on_ray``), behind one small interface.

``map_tasks`` keeps a bounded number of tasks in flight, so that neither tasks nor results pile up, and gives a task
whose process was lost to another one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, Protocol, Self, TypeVar

from timbrel.errors import Unavailable
from timbrel.notes.render import core_count

Task = TypeVar("Task")
Result = TypeVar("Result")

# What numerical libraries read when they are loaded: one thread in each of the processes that share the cores.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Tasks handed out for each process: the one it works at and the next, so that none waits for the caller.
_AHEAD = 2


class WorkerLost(Exception):
    """The process that worked at a task is gone."""


class Workers(Protocol):
    """Processes that do work. A handle stands for a task that was submitted."""

    count: int

    def submit(self, work: Callable[[Any], Any], task: Any) -> Hashable: ...

    def first_done(self, handles: Sequence[Hashable]) -> Hashable:
        """Waits for any of them."""
        ...

    def result(self, handle: Hashable) -> Any:
        """Of a task that is done. Raises what the work raised, or WorkerLost."""
        ...


def map_tasks(
    workers: Workers, work: Callable[[Task], Result], tasks: Iterable[Task], *, retries: int = 3
) -> Iterator[Result]:
    """``work(task)`` of every task, in the order in which they get done.

    Raises Unavailable where a task lost its process ``retries`` times more after the first; what ``work`` raises.
    """
    waiting: dict[Hashable, tuple[Task, int]] = {}
    remaining = iter(tasks)
    more = True
    while more or waiting:
        while more and len(waiting) < _AHEAD * workers.count:
            try:
                task = next(remaining)
            except StopIteration:
                more = False
            else:
                waiting[workers.submit(work, task)] = (task, 0)
        if not waiting:
            return
        handle = workers.first_done(list(waiting))
        task, lost = waiting.pop(handle)
        try:
            result = workers.result(handle)
        except WorkerLost as error:
            if lost >= retries:
                raise Unavailable(
                    f"{task} lost its process {lost + 1} times ({error}): look at the machine's memory, then run it "
                    "again; what is done is kept"
                ) from error
            waiting[workers.submit(work, task)] = (task, lost + 1)
        else:
            yield result


class LocalWorkers:
    """Processes of this machine, one per core, spawned and not forked: the caller may hold threads.

    Each has pipes of its own: one that is killed, at whatever moment, takes nothing with it but its tasks.
    """

    def __init__(self, count: int | None = None) -> None:
        self.count = count or core_count()
        self._stack = ExitStack()
        self._processes: list[_Process] = []

    def __enter__(self) -> Self:
        self._stack.enter_context(_one_thread_each())
        self._processes = [_Process() for _ in range(self.count)]
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for process in self._processes:
            process.end(at_once=kind is not None)
        self._stack.close()

    def submit(self, work: Callable[[Any], Any], task: Any) -> Hashable:
        return min(self._processes, key=lambda process: process.tasks).submit(work, task)

    def first_done(self, handles: Sequence[Any]) -> Hashable:
        done: Hashable = next(iter(wait(handles, return_when=FIRST_COMPLETED).done))
        return done

    def result(self, handle: Any) -> Any:
        try:
            return handle.result()
        except BrokenProcessPool as error:
            raise WorkerLost("it ended at once") from error


class _Process:
    """One process, and its successor where it is lost."""

    def __init__(self) -> None:
        self._pending: list[Future[Any]] = []
        self._start()

    @property
    def tasks(self) -> int:
        """How many it has to do."""
        self._pending = [future for future in self._pending if not future.done()]
        return len(self._pending)

    def _start(self) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_end_with_parent)
        self._pid = self._pool.submit(os.getpid)

    def submit(self, work: Callable[[Any], Any], task: Any) -> Future[Any]:
        try:
            future = self._pool.submit(work, task)
        except BrokenProcessPool:
            self._start()
            future = self._pool.submit(work, task)
        self._pending.append(future)
        return future

    def end(self, *, at_once: bool) -> None:
        if at_once and self._pid.done() and self._pid.exception() is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid.result(), signal.SIGKILL)
        self._pool.shutdown(cancel_futures=at_once)


def _end_with_parent() -> None:
    """Let this process end when the one that started it is gone, however that came."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """What is started meanwhile computes on one thread per process."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
