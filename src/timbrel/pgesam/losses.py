"""The seven terms of the map's loss, as pure functions of tensors.

Shapes: ``b`` notes in a batch, ``d`` map dimensions. Every function returns a scalar tensor. The formulas are those of
arXiv 2510.04339 and its public training configuration.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

# Keeps the square root differentiable for two notes at the very same point.
_SMALLEST_SQUARE = 1e-12


def reconstruction(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all elements; ``predicted`` and ``target`` [b, frames, 128]."""
    return functional.mse_loss(predicted, target)


def neighbour(mu: Tensor, instrument: Tensor, *, margin: float) -> Tensor:
    """Pull notes of one instrument together, push different instruments ``margin`` apart.

    ``mu`` [b, d], ``instrument`` [b] integer ids. With D the distance of a pair of notes:
    mean over same-instrument pairs of D² + mean over different-instrument pairs of max(0, margin - D)².
    A note is no pair with itself; a batch without one kind of pair gets 0 for that kind.
    """
    squared = (mu[:, None, :] - mu[None, :, :]).square().sum(-1)
    same = instrument[:, None] == instrument[None, :]
    distance = squared.clamp_min(_SMALLEST_SQUARE).sqrt()
    push = (margin - distance).clamp_min(0.0).square()
    # Every pair stands in the matrix twice; the diagonal, of the same kind, adds nothing to the sum.
    alike = same.sum() - len(mu)
    pull = squared.masked_fill(~same, 0.0).sum() / alike.clamp_min(1)
    return pull + push.masked_fill(same, 0.0).sum() / (~same).sum().clamp_min(1)


def regularisation(mu: Tensor) -> Tensor:
    """Mean of max(‖μ‖ - 1, 0): nothing inside the unit disc, linear outside. ``mu`` [b, d]."""
    norm = mu.square().sum(-1).clamp_min(_SMALLEST_SQUARE).sqrt()
    return (norm - 1.0).clamp_min(0.0).mean()


def kl(mu: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence to the unit normal, -½ Σ (1 + log σ² - μ² - σ²) / b; both [b, d]."""
    terms = 1.0 + log_variance - mu.square() - log_variance.exp()
    return -0.5 * terms.sum() / mu.shape[0]


def pitch(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the pitch head; ``logits`` [b, 25], ``target`` [b] in 0..24 (MIDI 48..72)."""
    return functional.cross_entropy(logits, target)


def family(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the family classifier on μ; ``logits`` [b, 11], ``target`` [b]."""
    return functional.cross_entropy(logits, target)


def instrument(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the instrument classifier on μ; ``logits`` [b, instruments], ``target`` [b]."""
    return functional.cross_entropy(logits, target)
