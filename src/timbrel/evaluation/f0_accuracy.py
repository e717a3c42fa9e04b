"""Counting pitches: what was asked for against what a tracker hears. numpy only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from timbrel.evaluation.report import share

CENTS = 50.0


def f0_figures(asked: np.ndarray, heard: np.ndarray, family: np.ndarray) -> dict[str, Any]:
    """``asked`` MIDI [n], ``heard`` MIDI [n] (nan where the tracker voices nothing), ``family`` names [n].

    ``accuracy`` is the share within ±50 cents of all that is voiced, an octave off being an error; the unvoiced
    share stands beside it. Both also per family.
    """
    by_family = {
        str(name): _counted(asked[family == name], heard[family == name]) for name in np.unique(family)
    }
    cents = 100.0 * np.abs(heard - asked)[np.isfinite(heard)]
    octave = np.abs(cents - 1200.0 * np.round(cents / 1200.0)) <= CENTS
    return {
        **_counted(asked, heard),
        "octave_errors": int((octave & (cents > CENTS)).sum()),
        "median_error_cents": float(np.median(cents)) if len(cents) else math.nan,
        "by_family": by_family,
    }


def _counted(asked: np.ndarray, heard: np.ndarray) -> dict[str, float]:
    voiced = int(np.isfinite(heard).sum())
    # nan, an unvoiced note, is not within 50 cents.
    right = int((100.0 * np.abs(heard - asked) <= CENTS).sum())
    return {
        "notes": len(asked),
        "voiced": voiced,
        "voiced_share": share(voiced, len(asked)),
        "unvoiced_share": share(len(asked) - voiced, len(asked)),
        "accuracy": share(right, voiced),
    }
