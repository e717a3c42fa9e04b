"""What is measured on the map and on generated embeddings, and the alarms that training raises. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SMALLEST_SPREAD = 0.15
LARGEST_STRETCH = 3.0
LARGEST_LEAK = 0.1
LARGEST_GAP = 3.0
SIGNS = ("collapsed", "stretched", "pitch_leaks")


@dataclass(frozen=True, slots=True, kw_only=True)
class MapStatistics:
    """How a set of notes lies on the map. Variances are of μ, per axis and summed.

    v_inst: mean over instruments of the variance across that instrument's pitches (pitch leaking into timbre).
    v_pitch: mean over pitches of the variance across instruments (how far instruments lie apart).
    spread: root of the smallest, stretch: root of largest / smallest principal variance of instrument means.
    radius: mean distance from the origin; outside: share of notes outside the unit disc.
    """

    v_inst_axes: tuple[float, ...]
    v_pitch_axes: tuple[float, ...]
    spread: float
    stretch: float
    radius: float
    outside: float

    @property
    def v_inst(self) -> float:
        return sum(self.v_inst_axes)

    @property
    def v_pitch(self) -> float:
        return sum(self.v_pitch_axes)

    @property
    def ratio(self) -> float:
        """V_inst / V_pitch; infinite on a collapsed map."""
        return self.v_inst / self.v_pitch if self.v_pitch > 0 else float("inf")

    def alarms(self) -> tuple[str, ...]:
        """The failure signs that are present: ``collapsed``, ``stretched``, ``pitch_leaks``."""
        signs = {
            "collapsed": self.v_pitch < SMALLEST_SPREAD**2,
            "stretched": self.stretch > LARGEST_STRETCH,
            "pitch_leaks": self.ratio > LARGEST_LEAK,
        }
        return tuple(name for name, present in signs.items() if present)

    def metrics(self, prefix: str) -> dict[str, float]:
        """Flat figures for a run record, the failure signs among them as ``<prefix>.alarm.<sign>``, 0 or 1."""
        return {
            f"{prefix}.v_inst": self.v_inst,
            f"{prefix}.v_pitch": self.v_pitch,
            f"{prefix}.v_inst_over_v_pitch": self.ratio,
            f"{prefix}.spread": self.spread,
            f"{prefix}.stretch": self.stretch,
            f"{prefix}.radius": self.radius,
            f"{prefix}.outside": self.outside,
            **{f"{prefix}.alarm.{sign}": float(sign in self.alarms()) for sign in SIGNS},
        }


def map_statistics(mu: np.ndarray, instrument: np.ndarray, pitch: np.ndarray) -> MapStatistics:
    """``mu`` [n, d], ``instrument`` and ``pitch`` [n] integer ids. Groups of a single note are left out."""
    means = np.stack([mu[instrument == i].mean(0) for i in np.unique(instrument)])
    principal = (
        np.linalg.eigvalsh(np.atleast_2d(np.cov(means.T))) if len(means) > 1 else np.zeros(mu.shape[1])
    )
    principal = np.maximum(principal, 1e-12)
    norms = np.linalg.norm(mu, axis=1)
    return MapStatistics(
        v_inst_axes=_mean_variance(mu, instrument),
        v_pitch_axes=_mean_variance(mu, pitch),
        spread=float(np.sqrt(principal[0])),
        stretch=float(np.sqrt(principal[-1] / principal[0])),
        radius=float(norms.mean()),
        outside=float((norms > 1.0).mean()),
    )


def _mean_variance(mu: np.ndarray, groups: np.ndarray) -> tuple[float, ...]:
    variances = [
        mu[groups == group].var(0, dtype=np.float64)
        for group in np.unique(groups)
        if np.count_nonzero(groups == group) > 1
    ]
    if not variances:
        return (0.0,) * mu.shape[1]
    return tuple(float(v) for v in np.mean(variances, axis=0))


def pitch_accuracy(logits: np.ndarray, pitch: np.ndarray) -> float:
    """Share of notes whose largest logit is their pitch; ``logits`` [n, 25], ``pitch`` [n] in 0..24."""
    return float((logits.argmax(1) == pitch).mean())


def embedding_mse(predicted: np.ndarray, target: np.ndarray) -> float:
    """Mean squared error over notes, frames and dimensions, in float64."""
    return float(np.mean((predicted.astype(np.float64) - target.astype(np.float64)) ** 2))


def overfits(train_error: float, heldout_error: float) -> bool:
    """Alarm of stage 2: the training error is far below the held-out error."""
    return heldout_error > LARGEST_GAP * train_error


def family_accuracy(
    known: np.ndarray, known_family: np.ndarray, query: np.ndarray, query_family: np.ndarray, *, k: int = 5
) -> float:
    """Share of ``query`` points [n, d] whose family wins the vote of the ``k`` nearest ``known`` ones."""
    distances = ((query[:, None, :] - known[None, :, :]) ** 2).sum(-1)
    nearest = known_family[np.argsort(distances, axis=1, kind="stable")[:, : min(k, len(known))]]
    hits = 0
    for votes, truth in zip(nearest, query_family, strict=True):
        counts = np.bincount(votes)
        winner = next(vote for vote in votes if counts[vote] == counts.max())
        hits += int(winner == truth)
    return hits / len(query)


def nearest_mean(known: np.ndarray, embeddings: np.ndarray, query: np.ndarray, *, k: int = 5) -> np.ndarray:
    """The NN-Map baseline: for each ``query`` [n, d] the mean of the embeddings of the ``k`` nearest ``known`` [m, d].

    ``embeddings`` [m, frames, 128] are those of the known points (of one pitch, by the caller's choice).
    """
    distances = ((query[:, None, :] - known[None, :, :]) ** 2).sum(-1)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, : min(k, len(known))]
    return np.stack([embeddings[rows].astype(np.float32).mean(0) for rows in nearest])
