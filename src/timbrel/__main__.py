"""``python -m timbrel``: the command line where the package is not installed, as in the image of a Bento."""

from __future__ import annotations

from timbrel.cli import main

main(prog_name="timbrel")
