"""Studies: one question each, answered by one command with one table and one plot.

    python -m timbrel.studies ablations      reports/studies/ablations.json, .md, .png; one MLflow run, a child per row

A study is a list of rows (``table.Row``), each of which computes its figures by itself, so that a study that was cut
off goes on where it was. ``table.run`` writes the files; everything here but ``__main__`` knows no platform.
"""

from __future__ import annotations

NAMES = ("ablations", "dimensions", "unseen-family", "range", "recordings")
