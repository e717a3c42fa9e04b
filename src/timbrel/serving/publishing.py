"""The launcher's side of serving another bundle without stopping: `timbrel bundle use | promote | rollback`.

    check ─► copy ─► Triton loads its models beside the others ─► every worker opens it and tries it out
          ─► every worker answers from it from its next request on, and if it was promoted it is the champion
          ─► what nobody works with any more is let go

Until the last step but one the former bundle is served, and it goes on being served if anything is wrong. What is
served is a copy, so that whoever writes into the folder meanwhile (`dvc repro`, `git checkout`) changes no answer.

A champion that came without the launcher being asked (it was starting, or another service's promotion) is taken up
all the same.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from timbrel.engine.onnx_models import OnnxModels
from timbrel.errors import BundleError, ConfigurationError, TimbrelError, Unavailable
from timbrel.library import champion
from timbrel.library.bundle import Bundle
from timbrel.library.champion import Succession
from timbrel.library.manifest import FILE_NAME as MANIFEST_NAME
from timbrel.library.manifest import read_manifest
from timbrel.serving.board import Answered, Asked, Board, Plan, Status
from timbrel.serving.triton_repository import TritonRepository
from timbrel.settings import Settings, variable

READY_SECONDS = 180.0
_POLL_SECONDS = 0.1

Say = Callable[[str], None]


class Publisher:
    """Of one run."""

    def __init__(self, settings: Settings, run: Path, say: Say, check: Callable[[], None]) -> None:
        """``check`` is called whenever time passes; what it raises ends the waiting."""
        self._triton: TritonRepository | None = None
        self._settings = settings
        self._board = Board(run)
        self._say = say
        self._check = check
        self._last = 0
        self._kept: set[int] = set()
        # The champion that was last looked at.
        self._champion = settings.bundle.name if settings.bundle.parent == settings.live else None

    def copied(self) -> Path:
        """The folder of the first edition, a copy of the settings' bundle. Raises BundleError."""
        return self._board.edition(self._copied(self._settings.bundle))

    def begin(self, triton: TritonRepository | None) -> None:
        """Have the workers serve the first edition. ``triton``: where the models run, if it takes those of others.

        Raises Unavailable if there is no room to say so.
        """
        self._triton = triton
        live = self._settings.live if self._settings.follows_champion else None
        port, versioned = self._settings.http_port, triton is not None
        self._publish(Plan(port=port, versioned=versioned, served=self._last, live=live))

    def tend(self) -> None:
        """Do what is asked for, and let go what nobody needs any more."""
        for name, asked in self._board.asked():
            try:
                answered = Answered(done=True, message=self.use(asked.bundle, asked.succession))
            except TimbrelError as error:
                self._check()
                answered = Answered(done=False, message=error.message)
            self._say(answered.message)
            self._board.answer(name, answered)
        if self._settings.follows_champion:
            self._follow()
        self._retire()

    def _follow(self) -> None:
        """Serve a champion that came without a question; once, whether it can be served or not."""
        try:
            live = champion.read(self._settings.live)
            if live is None or live.champion == self._champion:
                return
            self._champion = live.champion
            self._say(self.use(self._settings.live / live.champion))
        except TimbrelError as error:
            self._check()
            self._say(f"the champion is not served: {error.message}")

    def use(self, folder: Path, succession: Succession | None = None) -> str:
        """Serve the bundle in ``folder``; returns the sentence that says so when every worker does.

        With a ``succession`` it becomes the champion as soon as every worker is ready and told to answer from it.

        Raises BundleError (it is not whole, or there is no room), ConfigurationError (its models cannot take the
        place of the present ones), Unavailable (they cannot be loaded, or a worker cannot answer with them); what was
        served goes on being served then.
        """
        plan = self._board.plan()
        bundle = _checked(folder)
        if bundle == self._id_of(plan.served):
            self._succeed(succession)
            return f"bundle {bundle[:12]} is served already"
        if self._triton is None and self._settings.triton_url:
            raise ConfigurationError(
                f"the models run in the Triton at {self._settings.triton_url}, which `timbrel serve` did not start: "
                "stop the service, give that Triton the new models, promote the bundle, start the service again"
            )
        number = self._copied(folder)
        try:
            if self._triton is not None:
                self._triton.load(self._board.edition(number), number)
            self._publish(plan.model_copy(update={"following": number}))
            self._await_ready(number)
            self._publish(plan.model_copy(update={"served": number}))
            # Should this process end before it is the champion, the service ends with it, and the next one serves
            # the former champion.
            self._succeed(succession)
        except BaseException:
            self._publish(plan)
            raise
        self._await(lambda status: status.served == number)
        return f"bundle {bundle[:12]} is served from now on"

    def _succeed(self, succession: Succession | None) -> None:
        if succession is not None:
            champion.commit(succession)
            self._champion = succession.live.champion

    def _id_of(self, number: int) -> str:
        """The id of an edition's bundle."""
        return read_manifest(self._board.edition(number) / MANIFEST_NAME).id

    def _copied(self, folder: Path) -> int:
        """Copy a bundle; returns the number of the new edition."""
        self._last += 1
        number, target = self._last, self._board.edition(self._last)
        self._kept.add(number)
        try:
            for name in (*read_manifest(folder / MANIFEST_NAME).files, MANIFEST_NAME):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, target / name)
        except OSError as error:
            shutil.rmtree(target, ignore_errors=True)
            raise BundleError(
                f"the bundle cannot be copied to {self._settings.state} ({error.strerror}): make room there, or set "
                f"{variable('state')} to another folder"
            ) from None
        return number

    def _publish(self, plan: Plan) -> None:
        try:
            self._board.publish(plan)
        except OSError as error:
            raise Unavailable(
                f"{self._settings.state} cannot be written ({error.strerror}): make room there, then try again"
            ) from None

    def _await_ready(self, number: int) -> None:
        """Return when every worker could serve the edition. Raises Unavailable when one cannot."""

        def ready(status: Status) -> bool:
            if status.refused == number:
                raise Unavailable(f"a worker cannot serve the bundle: {status.reason}")
            return status.ready == number

        if not self._await(ready):
            raise Unavailable(
                f"the workers were not ready for the bundle after {READY_SECONDS:.0f} s: the former one is served"
            )

    def _await(self, done: Callable[[Status], bool]) -> bool:
        """Wait until it is so for every worker that has started; False if it does not get so."""
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            self._check()
            started = [status for status in self._board.statuses() if status.served is not None]
            if started and all(list(map(done, started))):
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def _retire(self) -> None:
        """Let go the editions that are neither served nor worked with."""
        needed = {self._board.plan().served}
        if self._kept <= needed:
            return
        for status in self._board.statuses():
            needed.update(status.held)
        for number in sorted(self._kept - needed):
            if self._triton is not None:
                try:
                    self._triton.unload(number)
                except Unavailable:
                    return  # it died: the next one does not find them
            shutil.rmtree(self._board.edition(number), ignore_errors=True)
            self._kept.discard(number)


def _checked(folder: Path) -> str:
    """The id of a bundle that is whole and whose models can be run. Raises BundleError."""
    bundle = Bundle.open(folder)
    try:
        OnnxModels({name: bundle.path(name) for name in bundle.manifest.models}).close()
        return bundle.id
    finally:
        bundle.close()


def use(settings: Settings, folder: Path) -> str:
    """Ask the service that runs with these settings to serve the bundle in ``folder``; returns what it says.

    Raises ConfigurationError if no service runs, BundleError if the bundle cannot be served.
    """
    return _asked(Board.of_service(settings), Asked(bundle=folder.absolute()))


def take_up(settings: Settings, bundle: Path, succession: Succession, say: Say) -> str | None:
    """Have the service that runs with these settings serve a bundle and make it the champion; returns what it says.

    None if no such service runs, or it was told to serve another bundle than the champion.

    Raises ConfigurationError if the service ends before it answers, BundleError if the bundle cannot be served.
    """
    try:
        board = Board.of_service(settings)
        followed = board.plan().live
    except (ConfigurationError, OSError):
        return None
    if followed != succession.folder:
        say(
            f"the service on port {settings.http_port} was started with a bundle of its own and goes on with it: "
            f"start it without --bundle and {variable('bundle')} to serve the champion"
        )
        return None
    return _asked(board, Asked(bundle=bundle, succession=succession))


def _asked(board: Board, asked: Asked) -> str:
    try:
        name = board.ask(asked)
    except OSError as error:
        raise Unavailable(f"the service cannot be asked ({error.strerror}): make room there") from None
    while (answered := board.answered(name)) is None:
        time.sleep(_POLL_SECONDS)
    if not answered.done:
        raise BundleError(answered.message)
    return answered.message
