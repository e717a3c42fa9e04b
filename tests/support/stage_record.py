"""A stage's record without MLflow, for stages that a test runs in its own process."""

from __future__ import annotations

from pathlib import Path


class Notes:
    """Keeps what a stage tells about itself."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint = folder / "checkpoint.pt"
        self.points: list[tuple[int | None, dict[str, float]]] = []

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        self.points.append((step, values))

    def dataset(self, name: str, path: Path) -> None:
        assert path.exists(), name

    def artifact(self, path: Path) -> None:
        assert path.exists()

    def figure(self, name: str, figure: object) -> None:
        assert figure is not None, name
