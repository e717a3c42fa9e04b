"""What every build leaves behind: one MLflow run per stage, and a small report in Git.

``stage_run`` opens a run and gives the stage its ``Record``. MLflow itself is imported only inside, when a run opens.
"""

from timbrel.tracking.record import Record, stage_run

__all__ = ["Record", "stage_run"]
