"""What answers calls: the one seam between the clients and the three ways to a service."""

from __future__ import annotations

from typing import Protocol, TypeVar

from timbrel.client.calls import Call

Result = TypeVar("Result")


class Transport(Protocol):
    """Answers every call of ``timbrel.client.calls``. Safe to share between threads."""

    def answer(self, call: Call[Result]) -> Result:
        """Raises TimbrelError."""
        ...

    def close(self) -> None: ...


class AsyncTransport(Protocol):
    """The same for one event loop."""

    async def answer(self, call: Call[Result]) -> Result:
        """Raises TimbrelError."""
        ...

    async def close(self) -> None: ...
