"""Kills a command before every change that it makes to a file or a database, and looks at what is left.

    python -m support.killed FOLDER promote rollback register pull

FOLDER/base is a registry; in a copy of it a child of this process does the command and kills itself (SIGKILL) before
its n-th change; another does the command again. What is seen after each is printed in JSON, a list for each command. Of
several changes of one kind in a row (the files of a bundle) the first, one in the middle and the last are taken.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import sqlalchemy

from support.registry import THRESHOLDS, aliases, register
from timbrel.errors import TimbrelError
from timbrel.library import champion
from timbrel.library.bundle import Bundle
from timbrel.library.bundle_copy import copy_whole
from timbrel.tracking.promotion import Promoter
from timbrel.tracking.registry import Registry

# What fills a new folder, what empties one, and the rest; opening a file to write is another.
FILL, CLEAR = {"os.link", "os.mkdir", "shutil.copyfile"}, {"os.remove", "os.rmdir"}
EVENTS = {"os.rename", *FILL, *CLEAR}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def do(what: str, root: Path) -> str:
    """The command; the bundles' ids and folders are in FOLDER/names.json."""
    names = json.loads((root.parent / "names.json").read_text())
    registry = Registry.open(root)
    promoter = Promoter(
        registry=registry,
        live=root / "live",
        try_out=Bundle.open,  # whether it answers changes no file
        take_up=lambda folder, change: None,
        say=lambda line: None,
    )
    if what == "promote":
        return promoter.promote(names["new"], THRESHOLDS)
    if what == "rollback":
        return promoter.roll_back()
    if what == "register":
        return register(registry, Path(names["unknown"])).title
    copy_whole(registry.find(names["new"]).folder, root / "pulled")
    return "pulled"


def main(folder: Path, commands: list[str]) -> None:
    # What is imported and compiled at first use, the children have from here; of another database.
    _copy(folder / "base", folder / "warm")
    Registry.open(folder / "warm").follow(folder / "warm" / "live")
    _look(folder / "warm")
    seen = {}
    for what in commands:
        steps = json.loads(_in_child(folder, "count", partial(_counted, what)))
        seen[what] = [_seen(what, folder, number, steps[number - 1]) for number in _chosen(steps)]
    print(json.dumps(seen))


def _seen(what: str, folder: Path, number: int, step: str) -> dict[str, Any]:
    root, again = folder / f"{number}", folder / f"{number}.json"
    _copy(folder / "base", root)
    killed = _child(lambda: _killed(what, root, number))
    after = _look(root)
    _child(lambda: again.write_text(json.dumps(_again(what, root))))
    shutil.rmtree(root)
    return {"step": step, "killed": killed, "after": after, **json.loads(again.read_text())}


def _chosen(steps: list[str]) -> list[int]:
    numbers: list[int] = []
    for _, group in groupby(enumerate(steps, 1), key=lambda pair: pair[1]):
        run = [number for number, _ in group]
        numbers += sorted({run[0], run[len(run) // 2], run[-1]})
    return numbers


def _watch(root: Path, changing: Callable[[str], None]) -> None:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & WRITING:
                return
        elif event not in EVENTS or (event == "os.mkdir" and Path(arguments[0]).exists()):
            return
        # A tree is removed from within its folders.
        if str(arguments[0]).startswith(str(root)) or (event in CLEAR and arguments[-1] != -1):
            filling = event in FILL or (event == "open" and "/bundle/" in str(arguments[0]))
            changing("fill" if filling else "clear" if event in CLEAR else event)

    def execute(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.split()[0].upper() in ("INSERT", "UPDATE", "DELETE"):
            changing(" ".join(statement.split()[:3]))

    sys.addaudithook(hook)
    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", execute)


def _counted(what: str, root: Path) -> str:
    steps: list[str] = []
    _watch(root, steps.append)
    do(what, root)
    return json.dumps(steps)


def _killed(what: str, root: Path, number: int) -> None:
    steps = 0

    def changing(step: str) -> None:
        nonlocal steps
        steps += 1
        if steps == number:
            os.kill(os.getpid(), signal.SIGKILL)

    _watch(root, changing)
    do(what, root)


def _look(root: Path) -> dict[str, Any]:
    """What is live, and whether it and whatever else has a bundle's name is whole."""
    live = champion.read(root / "live")
    whole = {
        folder.name: Bundle.open(folder).id
        for folder in (*root.glob("live/[!.]*/"), *root.glob("mlruns/bundles/[!.]*/"), *root.glob("pulled/"))
    }
    return {"live": live.champion if live else None, "whole": whole}


def _again(what: str, root: Path) -> dict[str, Any]:
    """Do it again, as whoever finds out that it was killed would."""
    registry = Registry.open(root)
    before = champion.read(root / "live")
    was = json.loads((root.parent / "names.json").read_text())
    said = ""
    # Rolling back twice would be the way forth.
    if not (what == "rollback" and before and before.champion == was["previous"]):
        said = do(what, root)
    registry.follow(root / "live")
    live = champion.read(root / "live")
    assert live is not None
    return {
        "said": said,
        "aliases": aliases(registry),
        "bundles": [version.bundle for version in registry.versions()],
        "changes": [[change.number, change.kind, change.bundle] for change in live.changes],
        "recorded": sorted(change.number for version in registry.versions() for change in version.changes),
        "left": sorted(path.name for path in (root / "live").iterdir() if not path.name.endswith(".lock")),
        "beside": sorted(path.name for path in root.iterdir() if path.name.startswith(".pulled")),
        "finally": _look(root),
    }


def _copy(base: Path, root: Path) -> None:
    """Files of bundles are never changed: they may be links. The database is a copy."""
    shutil.copytree(base, root, copy_function=os.link)
    (root / "mlflow.db").unlink()
    shutil.copyfile(base / "mlflow.db", root / "mlflow.db")


def _in_child(folder: Path, name: str, work: Callable[[Path], str]) -> str:
    root, result = folder / name, folder / f"{name}.json"
    _copy(folder / "base", root)
    _child(lambda: result.write_text(work(root)))
    shutil.rmtree(root)
    return result.read_text()


def _child(work: Callable[[], Any]) -> bool:
    """Do it in a child; whether it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(
                error.message if isinstance(error, TimbrelError) else traceback.format_exc(), file=sys.stderr
            )
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
