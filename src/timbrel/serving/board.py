"""What `timbrel serve`, its workers and `timbrel bundle` tell each other: small files, each replaced whole.

    <run>/editions/<number>/     copies of the bundles, numbered as they came, as their models are in Triton
    <run>/plan.json              the launcher's: which edition is served, and which shall be made ready
    <run>/workers/<pid>.json     a worker's: which edition it serves, which is ready, which it works with, what is wrong
    <run>/asked/<name>.json      what `timbrel bundle` asks for, and the answer to it, <name>.answer

The run's folder is private to the user who serves.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import psutil  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict

from timbrel.errors import ConfigurationError
from timbrel.files import atomic_write
from timbrel.library.champion import Succession
from timbrel.settings import Settings, variable

FOLDER_VARIABLE = "TIMBREL_RUN"
"""Tells a worker where the board is; the launcher sets it. Without it a worker serves one bundle for good."""


class Plan(BaseModel):
    """``served``: the edition that requests are answered from; ``following``: the one to be made ready beside it.

    ``versioned``: the launcher's own Triton has each edition's models, under its number.
    ``live``: the folder whose champion is to be served; None if the service was told to serve another bundle.
    """

    model_config = ConfigDict(frozen=True)

    port: int
    versioned: bool
    served: int
    following: int | None = None
    live: Path | None = None


class Status(BaseModel):
    """Of one worker. ``served`` is None while it starts. ``held``: whatever it works with, for requests that began
    before a change, too. ``refused``: an edition that it cannot serve, for ``reason``.
    """

    model_config = ConfigDict(frozen=True)

    served: int | None = None
    ready: int | None = None
    held: tuple[int, ...] = ()
    refused: int | None = None
    reason: str = ""


class Asked(BaseModel):
    """That a bundle be served, and if it is promoted, ``succession``: the change to be made when it is."""

    model_config = ConfigDict(frozen=True)

    bundle: Path
    succession: Succession | None = None


class Answered(BaseModel):
    """How that went."""

    model_config = ConfigDict(frozen=True)

    done: bool
    message: str


Note = TypeVar("Note", bound=BaseModel)


class Board:
    """The files of one run. Writing raises OSError where there is no room."""

    def __init__(self, run: Path) -> None:
        self._run = run

    @classmethod
    def of_worker(cls) -> Board | None:
        """The board of the launcher that started this process; None if none did."""
        folder = os.environ.get(FOLDER_VARIABLE)
        return cls(Path(folder)) if folder else None

    @classmethod
    def of_service(cls, settings: Settings) -> Board:
        """The board of the service that runs with these settings. Raises ConfigurationError if none does."""
        for folder in sorted(settings.state.glob("run-*-*")):
            board = cls(folder)
            try:
                if board.is_tended() and board.plan().port == settings.http_port:
                    return board
            except (OSError, ValueError):
                continue
        raise ConfigurationError(
            f"no `timbrel serve` runs on port {settings.http_port} with the state {settings.state}: start it, or set "
            f"{variable('http_port')} and {variable('state')} as it was started with"
        )

    def is_tended(self) -> bool:
        """Whether the launcher, whose process id is in the folder's name, still runs."""
        try:
            owner = psutil.Process(int(self._run.name.split("-")[1]))
            return self._run.exists() and bool(owner.status() != psutil.STATUS_ZOMBIE)
        except (psutil.NoSuchProcess, ValueError, IndexError):
            return False

    def edition(self, number: int) -> Path:
        """The folder of an edition's bundle."""
        return self._run / "editions" / str(number)

    def plan(self) -> Plan:
        return Plan.model_validate_json((self._run / "plan.json").read_bytes())

    def publish(self, plan: Plan) -> None:
        _write(self._run / "plan.json", plan)

    def claim(self) -> int:
        """The edition that a worker which starts now has to serve; it is kept for it from now on."""
        while True:
            number = self.plan().served
            self.tell(Status(held=(number,)))
            # The plan may have changed before the claim could be seen.
            if self.plan().served == number:
                return number

    def tell(self, status: Status) -> None:
        """Put this process's status up."""
        _write(self._run / "workers" / f"{os.getpid()}.json", status)

    def statuses(self) -> list[Status]:
        """Of the workers that live."""
        living = []
        for path, status in _notes(self._run / "workers", Status):
            if psutil.pid_exists(int(path.stem)):
                living.append(status)
            else:
                path.unlink(missing_ok=True)
        return living

    def ask(self, asked: Asked) -> str:
        """Ask the launcher; returns the name of the question."""
        name = uuid.uuid4().hex
        _write(self._run / "asked" / f"{name}.json", asked)
        return name

    def asked(self) -> list[tuple[str, Asked]]:
        """The open questions, by name."""
        return [(path.stem, asked) for path, asked in _notes(self._run / "asked", Asked)]

    def answer(self, name: str, answered: Answered) -> None:
        path = self._run / "asked" / f"{name}.json"
        _write(path.with_suffix(".answer"), answered)
        path.unlink()

    def answered(self, name: str) -> Answered | None:
        """The answer to a question, which is taken away with it; None while there is none.

        Raises ConfigurationError if the service has ended.
        """
        path = self._run / "asked" / f"{name}.answer"
        tended = self.is_tended()  # before a last look at the answer
        try:
            answer = Answered.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            if not tended:
                raise ConfigurationError("the service has ended without an answer: start it again") from None
            return None
        path.unlink()
        return answer


def _write(path: Path, note: BaseModel) -> None:
    with atomic_write(path, mode=0o600) as handle:
        handle.write(note.model_dump_json().encode())


def _notes(folder: Path, kind: type[Note]) -> Iterator[tuple[Path, Note]]:
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("."):  # still being written
            continue
        yield path, kind.model_validate_json(path.read_bytes())
