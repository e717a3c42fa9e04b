"""The supervised, normalised, temperature-scaled cross-entropy loss.

NT-Xent: Chen et al. 2020; with labels, SupCon: Khosla et al. 2020, eq. 2.
"""

from __future__ import annotations

import torch
from torch import Tensor


def supervised_nt_xent(vectors: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Pull vectors of one label together, push all others away.

    ``vectors``: ``[n, d]``, each of length 1; ``labels``: ``[n]`` integers. For each anchor the mean, over
    the other vectors of its label, of ``-log softmax`` of their cosine / ``temperature`` among all vectors
    but the anchor itself; then the mean over the anchors that have such a partner. 0 when none has.
    """
    itself = torch.eye(len(labels), dtype=torch.bool, device=vectors.device)
    logits = (vectors @ vectors.T / temperature).masked_fill(itself, float("-inf"))
    log_share = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    partners = (labels[:, None] == labels[None, :]) & ~itself
    count = partners.sum(dim=1)
    anchored = count > 0
    if not bool(anchored.any()):
        return vectors.sum() * 0.0
    total = -log_share.masked_fill(~partners, 0.0).sum(dim=1)
    return (total[anchored] / count[anchored]).mean()
