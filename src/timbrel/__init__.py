"""Timbrel: timbre search and synthesis, self-hosted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timbrel.audio import Audio
    from timbrel.client import AsyncClient, Client, Timeouts

# onnxruntime's Linux wheels tell Microsoft what they run, and leave an id of the machine in the home folder, unless
# this is set before they are first used. Whoever wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["AsyncClient", "Audio", "Client", "Timeouts"]


def __getattr__(name: str) -> Any:
    """What callers use, imported when it is first asked for: `import timbrel` alone loads nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'timbrel' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module("timbrel.audio" if name == "Audio" else "timbrel.client"), name)
    globals()[name] = value
    return value
