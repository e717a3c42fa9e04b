"""The processes of a Ray cluster: one that runs already, or one of this machine for as long as it is needed.

Every node needs Timbrel with the packages of requirements/pipeline.in, and sees the bundle, the banks and the folder of
the shards at the same paths; Ray itself carries only what a task is and what became of it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Self

from timbrel.bulk.workers import WorkerLost
from timbrel.errors import ConfigurationError, Unavailable

# Nothing is reported to Ray's makers; and where one task fails, the others' errors are of no interest.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_IGNORE_UNHANDLED_ERRORS": "1"}
CONNECT_SECONDS = 10
# Without it Ray exchanges a loopback address for the machine's own. (Named for where it is the default.)
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


class RayWorkers:
    """``Workers`` on Ray; one task per CPU."""

    def __init__(self, address: str | None = None, count: int | None = None) -> None:
        """``address``: host:port of a cluster's head, or "auto" for the one of this machine; none: one is started here,
        on loopback, with ``count`` CPUs (all).

        Raises ConfigurationError where Ray is not installed.
        """
        os.environ.update(ENVIRONMENT if address else {**ENVIRONMENT, **LOOPBACK})
        try:
            import ray
        except ImportError as error:
            raise ConfigurationError("Ray is not installed: scripts/setup serve pipeline scale") from error
        self._ray: Any = ray
        self._address = address
        self._asked = count
        self.count = 0

    def __enter__(self) -> Self:
        options: dict[str, Any] = {"address": self._address}
        if self._address is None:
            options = {
                "address": "local",
                "num_cpus": self._asked,
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
            }
        try:
            _reach(self._address)  # Ray itself keeps trying for minutes
            self._ray.init(**options, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # a node that does not come up in time is told with no class of its own
            raise Unavailable(
                f"the Ray cluster {self._address or 'of this machine'} does not answer ({error}): start it with `ray "
                "start --head`, or name no address"
            ) from error
        available = int(self._ray.cluster_resources().get("CPU", 0))
        self.count = max(1, min(available, self._asked or available))
        self._remote = self._ray.remote(num_cpus=1, max_retries=0)(_call)
        return self

    @property
    def node_address(self) -> str:
        """The address at which this machine's part of the cluster listens."""
        return str(self._ray.util.get_node_ip_address())

    def __exit__(self, *error: object) -> None:
        self._ray.shutdown()

    def submit(self, work: Callable[[Any], Any], task: Any) -> Hashable:
        reference: Hashable = self._remote.remote(work, task)
        return reference

    def first_done(self, handles: Sequence[Any]) -> Hashable:
        done: Hashable = self._ray.wait(list(handles), num_returns=1)[0][0]
        return done

    def result(self, handle: Any) -> Any:
        try:
            return self._ray.get(handle)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            raise WorkerLost(str(error).split("\n", 1)[0]) from error


def _reach(address: str | None) -> None:
    """Raises OSError where nothing listens at host:port."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdigit() and "://" not in host:
        with socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS):
            pass


def _call(work: Callable[[Any], Any], task: Any) -> Any:
    return work(task)
