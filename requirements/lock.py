"""Write the .lock of each part from its .in file and what is installed here: ``make lock``.

Each lock holds the exact closure of its .in file less what the locks before it hold, so that no package is named
twice, but for those of a part that may be left out. The versions are those of the running environment, in which the
tests have passed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
PARTS = ("serve", "traces", "pipeline", "scale", "encoders", "dev")
# May be left out: what it has in common with later parts is in their locks, too.
OPTIONAL = ("traces",)
HEADER = (
    "# Exact closure of {part}.in{less}; `make lock` writes it, scripts/setup installs it with --no-deps.\n"
)


def read(part: str) -> Iterator[tuple[Requirement, bool]]:
    """The requirements of a .in file, each with whether its dependencies belong to it."""
    for line in (HERE / f"{part}.in").read_text().splitlines():
        text, _, comment = line.partition("#")
        if text.strip():
            yield Requirement(text), not comment.strip().startswith("no-deps")


def closure(part: str) -> dict[str, str]:
    """Canonical name → version of everything that the part's requirements pull in."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = list(read(part))
    while waiting:
        requirement, deep = waiting.pop()
        name = canonicalize_name(requirement.name)
        installed = metadata.distribution(name)
        version = installed.version.partition("+")[0]
        if version not in requirement.specifier and not requirement.specifier.contains(
            version, prereleases=True
        ):
            raise SystemExit(
                f"{name} {version} is installed, {requirement} is asked for: pip install it first"
            )
        found[name] = version
        for extra in {"", *requirement.extras} if deep else ():
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in installed.requires or ():
                inner = Requirement(text)
                if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                    waiting.append((inner, True))
    return found


def main() -> None:
    locked: dict[str, str] = {}
    for index, part in enumerate(PARTS):
        own = {name: version for name, version in closure(part).items() if name not in locked}
        if part not in OPTIONAL:
            locked.update(own)
        *most, last = ("", *(f"{name}.lock" for name in PARTS[:index] if name not in OPTIONAL))
        less = f", less {', '.join(most[1:])}{' and ' if most[1:] else ''}{last}" if last else ""
        lines = [f"{name}=={version}\n" for name, version in sorted(own.items())]
        (HERE / f"{part}.lock").write_text(HEADER.format(part=part, less=less) + "".join(lines))
        print(f"{part}.lock: {len(own)} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
