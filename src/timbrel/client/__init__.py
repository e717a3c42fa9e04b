"""The Python client: one interface over a bundle in this process and over a service.

Client, AsyncClient ─► calls (checked arguments) ─► transport: local │ http │ grpc ─► the same result classes
"""

from timbrel.client.async_client import AsyncClient
from timbrel.client.client import Client
from timbrel.client.patience import Timeouts
from timbrel.client.results import InstrumentArchive, PatchFile

__all__ = ["AsyncClient", "Client", "InstrumentArchive", "PatchFile", "Timeouts"]
