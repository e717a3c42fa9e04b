"""How loss weights and the learning rate move during training; γ runs from 0 to 1 (step / steps).

The paper's summary lets the family term fade as (1 - γ)^α, its public configuration as 1 - γ^α. Both are here by name:
with α = 1.5 the first falls at once, the second keeps the families together for most of the training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from timbrel.errors import ConfigurationError

TERMS = ("reconstruction", "neighbour", "regularisation", "kl", "pitch", "family", "instrument")
HALVINGS = (0.5, 0.6, 0.7, 0.8, 0.9)


def rising(gamma: float, exponent: float) -> float:
    """γ^α: 0 at the start, 1 at the end."""
    return gamma**exponent


def power_of_one_minus(gamma: float, exponent: float) -> float:
    """(1 - γ)^α, the paper's summary: 1 at the start, 0 at the end, steepest at the start for α > 1."""
    return (1.0 - gamma) ** exponent


def one_minus_power(gamma: float, exponent: float) -> float:
    """1 - γ^α, the public configuration: 1 at the start, 0 at the end, steepest at the end for α > 1."""
    return 1.0 - gamma**exponent


FAMILY_SCHEDULES: Mapping[str, Callable[[float, float], float]] = MappingProxyType(
    {"power_of_one_minus": power_of_one_minus, "one_minus_power": one_minus_power}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curriculum:
    """Weight of each loss term at any γ. ``weights`` has one entry per name in ``TERMS``.

    Raises ConfigurationError for a missing or unknown term and for an unknown family schedule.
    """

    weights: Mapping[str, float]
    family_schedule: str = "one_minus_power"
    family_exponent: float = 1.5
    neighbour_exponent: float = 0.5
    instrument_exponent: float = 0.8

    def __post_init__(self) -> None:
        if set(self.weights) != set(TERMS):
            raise ConfigurationError(f"vae.weights must name exactly: {', '.join(TERMS)}")
        if self.family_schedule not in FAMILY_SCHEDULES:
            raise ConfigurationError(
                f"vae.family_schedule is {self.family_schedule!r}; choose one of {', '.join(FAMILY_SCHEDULES)}"
            )

    def at(self, gamma: float) -> dict[str, float]:
        """The weights to multiply the seven terms with at ``gamma``."""
        weights = dict(self.weights)
        weights["neighbour"] *= rising(gamma, self.neighbour_exponent)
        weights["family"] *= FAMILY_SCHEDULES[self.family_schedule](gamma, self.family_exponent)
        weights["instrument"] *= rising(gamma, self.instrument_exponent)
        return weights


def learning_rate_factor(step: int, *, steps: int, warmup_steps: int) -> float:
    """Linear warm-up, then 1, halved at 50, 60, 70, 80 and 90 % of ``steps``."""
    warm = min(1.0, (step + 1) / (warmup_steps + 1))
    halvings = sum(step >= share * steps for share in HALVINGS)
    return warm * 0.5**halvings
