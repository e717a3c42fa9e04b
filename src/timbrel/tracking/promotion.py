"""A registered bundle takes the place of the champion, if it is no worse; or the one before comes back.

    find ─► compare ─► try out ─► put into live/ ─► service takes it up ─► live.json ─► aliases, record ─► tidy up
                                                    └ no service: at once ┘

live.json, replaced whole, is the only step that changes what is live (``timbrel.library.champion``). Killed before it,
the former champion is live, after it the new one; the next command brings the aliases up to date and tidies up.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from timbrel.errors import BundleError, ConfigurationError, TimbrelError
from timbrel.library import champion
from timbrel.library.champion import Change, Live, Succession
from timbrel.params import Threshold
from timbrel.tracking.registry import CANDIDATE, Registry, Version

Say = Callable[[str], None]
# Has a running service serve the bundle in a folder and make the change; None if no service is there to do so.
TakeUp = Callable[[Path, Succession], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoter:
    """``live``: the folder of live.json. ``try_out`` raises BundleError if a bundle does not answer.

    Without a ``registry`` (MLflow is not installed, its file is locked or lost) there is only the way back.
    """

    registry: Registry | None
    live: Path
    try_out: Callable[[Path], object]
    take_up: TakeUp
    say: Say

    def promote(
        self, name: str | None, thresholds: Sequence[Threshold], *, force: bool = False, reason: str = ""
    ) -> str:
        """Make a version the champion; None is the candidate. Returns the sentence that says so.

        Raises BundleError: there is no such version, it does not answer, or it is worse and not forced; Unavailable
        or ConfigurationError: the service cannot take it up. The former champion is live then.
        """
        registry = self.registry
        if registry is None:
            raise ConfigurationError("there is no registry to promote from")
        with champion.changing(self.live):
            now = champion.read(self.live)
            registry.follow(self.live)
            version = _meant(registry, name)
            if now is not None and version.bundle == now.champion:
                return self._confirm(version, now)
            former = registry.find(now.champion) if now is not None else None
            worse = compare(version, former, thresholds) if former is not None else []
            if worse and not force:
                raise BundleError(
                    f"{version.title} is not promoted: {'; '.join(worse)}; `--force --reason TEXT` promotes it anyway"
                )
            self.say(f"trying out {version.title}")
            self.try_out(version.folder)
            change = _change(
                "promotion", now, version.bundle, worse=worse, forced=bool(worse), reason=reason,
                figures=version.figures,
            )  # fmt: skip
            return self._succeed(version.folder, _following(now, change))

    def _confirm(self, version: Version, now: Live) -> str:
        """It is live already: whoever was killed half-way is put right."""
        folder = champion.place(version.folder, self.live)
        said = self.take_up(folder, Succession(folder=self.live, live=now, instead_of=now.champion))
        champion.clear(self.live)
        return f"{version.title} is the champion already" + (f"; {said}" if said else "")

    def _succeed(self, bundle: Path, live: Live) -> str:
        now = champion.read(self.live)
        self.say(f"putting bundle {live.champion[:12]} into {self.live}")
        folder = champion.place(bundle, self.live)
        change = Succession(folder=self.live, live=live, instead_of=now.champion if now else None)
        try:
            self.say("asking the service, if one runs")
            said = self.take_up(folder, change)
        except TimbrelError:
            # The service may have ended right after the change.
            if champion.read(self.live) != live:
                raise
            said = None
        else:
            if said is None:
                champion.commit(change)
        self._record()
        champion.clear(self.live)
        return f"bundle {live.champion[:12]} is the champion" + (f"; {said}" if said else "")

    def _record(self) -> None:
        """Have the registry follow. What is live does not depend on it."""
        if self.registry is None:
            return
        self.say("bringing the registry up to date")
        try:
            self.registry.follow(self.live)
        except Exception as error:  # whatever MLflow or its database has to say
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self.say(f"the registry is behind until the next `timbrel bundle list` ({reason})")

    def roll_back(self, reason: str = "") -> str:
        """Make the champion of before the champion again, without comparing; doing so twice changes nothing.

        Raises BundleError if there was none, or it does not answer; as ``promote`` otherwise.
        """
        with champion.changing(self.live):
            now = champion.read(self.live)
            if now is None or now.previous is None:
                raise BundleError(
                    "no champion was there before: `timbrel bundle promote VERSION` chooses another"
                )
            bundle = self.live / now.previous
            self.say(f"trying out bundle {now.previous[:12]}")
            try:
                self.try_out(bundle)
            except BundleError:
                if self.registry is None:
                    raise
                # Its files in the registry may be whole.
                bundle = self.registry.find(now.previous).folder
                self.try_out(bundle)
            change = _change("rollback", now, now.previous, reason=reason)
            return self._succeed(bundle, _following(now, change))


def _meant(registry: Registry, name: str | None) -> Version:
    if name is not None:
        return registry.find(name)
    try:
        return registry.find(CANDIDATE)
    except BundleError:
        raise BundleError(
            "there is no candidate: name a version of `timbrel bundle list`, or build one with `dvc repro`"
        ) from None


def compare(candidate: Version, former: Version, thresholds: Sequence[Threshold]) -> list[str]:
    """What speaks against the candidate, a sentence each; empty if nothing does."""
    sentences, compared = [], 0
    for threshold in thresholds:
        new, old = candidate.figures.get(threshold.name), former.figures.get(threshold.name)
        if old is None:
            compared += new is not None
            continue
        if new is None:
            sentences.append(f"{threshold.name} is not known of it (champion: {old:.6g})")
            continue
        compared += 1
        loss = old - new if threshold.better == "higher" else new - old
        # Figures are rounded to six digits.
        if loss > threshold.tolerance + 1e-9:
            bound = old - threshold.tolerance if threshold.better == "higher" else old + threshold.tolerance
            least = "at least" if threshold.better == "higher" else "at most"
            sentences.append(
                f"{threshold.name} is {new:.6g}, the champion's {old:.6g} ({least} {bound:.6g} is asked for)"
            )
    if not compared and not sentences:
        sentences.append("none of its figures is known: `dvc repro` measures and registers them")
    return sentences + _measured_otherwise(candidate.settings, former.settings)


def _measured_otherwise(new: Mapping[str, object], old: Mapping[str, object]) -> list[str]:
    if not new or not old:
        return []
    names = sorted(name for name in new.keys() | old.keys() if name.startswith("evaluation."))
    other = [f"{name} {old.get(name)} → {new.get(name)}" for name in names if old.get(name) != new.get(name)]
    return [f"its figures were measured in another way ({', '.join(other)})"] if other else []


def _change(
    kind: Literal["promotion", "rollback"],
    now: Live | None,
    bundle: str,
    *,
    worse: Sequence[str] = (),
    forced: bool = False,
    reason: str = "",
    figures: Mapping[str, float] | None = None,
) -> Change:
    return Change(
        number=len(now.changes) + 1 if now else 1,
        kind=kind,
        bundle=bundle,
        former=now.champion if now else None,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        who=f"{getpass.getuser()}@{socket.gethostname()}",
        forced=forced,
        reason=reason,
        worse=tuple(worse),
        figures=dict(figures or {}),
    )


def _following(now: Live | None, change: Change) -> Live:
    changes = (*(now.changes if now else ()), change)
    return Live(champion=change.bundle, previous=change.former, changes=changes)
