"""Timbrel: timbre search and synthesis, self-hosted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timbrel.audio import Audio
    from timbrel.client import AsyncClient, Client, Timeouts

__all__ = ["AsyncClient", "Audio", "Client", "Timeouts"]


def __getattr__(name: str) -> Any:
    """What callers use, imported when it is first asked for: `import timbrel` alone loads nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'timbrel' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module("timbrel.audio" if name == "Audio" else "timbrel.client"), name)
    globals()[name] = value
    return value
