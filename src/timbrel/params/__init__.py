"""``params.yaml``: read once, checked whole, passed down as plain values.

``load`` reports every problem of the file in one ``ConfigurationError``, a line each with its dotted path, before
any work begins. Every setting must be present: a profile hides nothing behind a default, and DVC sees all of it.
"""

from timbrel.params.profile import RULES, Params
from timbrel.params.reading import load, with_overlays
from timbrel.params.results import Index, Threshold
from timbrel.params.values import Amount, Midi, Positive, Rate, Section, Share, Velocity

__all__ = [
    "RULES", "Amount", "Index", "Midi", "Params", "Positive", "Rate", "Section", "Share", "Threshold", "Velocity",
    "load", "with_overlays",
]  # fmt: skip
