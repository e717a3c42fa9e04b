"""Splits by instrument: seeded, stratified over families, no instrument in two."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np

from timbrel.errors import ConfigurationError


def assign_splits(
    families: Mapping[str, str],
    shares: Mapping[str, float],
    *,
    seed: int,
    rest: str = "train",
    heldout_families: Collection[str] = (),
) -> dict[str, str]:
    """Split of every instrument.

    ``families``: instrument -> family. ``shares``: split -> share of the instruments, what remains is ``rest``.
    Within a family the order is shuffled by the seed; fractions of an instrument carry over to the next family,
    so that the overall shares hold although families are small. The result does not depend on the order
    of ``families``. Every instrument of ``heldout_families`` is in ``test``, beside those shares.
    """
    unseen = {name: "test" for name, family in families.items() if family in heldout_families}
    families = {name: family for name, family in families.items() if name not in unseen}
    if any(share < 0 for share in shares.values()) or sum(shares.values()) >= 1:
        raise ConfigurationError(
            f"split shares must be >= 0 and leave something to {rest}, got {dict(shares)}"
        )
    result: dict[str, str] = {}
    owed = dict.fromkeys(shares, 0.0)
    for family in sorted(set(families.values())):
        members = sorted(name for name, its in families.items() if its == family)
        digest = hashlib.sha256(f"{seed}/{family}".encode()).digest()
        order = np.random.default_rng(int.from_bytes(digest[:8], "big")).permutation(len(members))
        queue = [members[index] for index in order]
        for split, share in shares.items():
            owed[split] += share * len(members)
            # A family of one instrument stays in training: held-out families are another experiment.
            take = min(round(owed[split]), len(queue) - 1)
            for _ in range(max(0, take)):
                result[queue.pop()] = split
                owed[split] -= 1
        for name in queue:
            result[name] = rest
    return _fill_empty(result, families, shares, rest) | unseen


def _fill_empty(
    result: dict[str, str], families: Mapping[str, str], shares: Mapping[str, float], rest: str
) -> dict[str, str]:
    """Give every split with a share at least one instrument, from the family that has most, when few exist."""
    for split, share in shares.items():
        if share == 0 or split in result.values():
            continue
        left = sorted(name for name, its in result.items() if its == rest)
        if len(left) < 2:
            continue
        sizes = Counter(families[name] for name in left)
        result[max(left, key=lambda name: (sizes[families[name]], name))] = split
    return result
