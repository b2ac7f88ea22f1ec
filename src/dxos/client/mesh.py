"""`MeshProxy`: the network, as the host sees it."""

from __future__ import annotations

from typing import final

from dxos.client.observable import MulticastObservable, Source
from dxos.services import contract
from dxos.services.contract import ConnectionState, NetworkService, NetworkStatus


@final
class MeshProxy:
    """Whether this peer takes part in the network, and with whom."""

    def __init__(self, service: NetworkService) -> None:
        self._service = service
        self._status: Source[NetworkStatus] = Source(NetworkStatus(ConnectionState.OFFLINE))
        self._stream: contract.Subscription | None = None

    @property
    def network_status(self) -> MulticastObservable[NetworkStatus]:
        """The state of the network and of each signalling server."""
        return self._status

    async def update_config(self, state: ConnectionState) -> None:
        """Go offline, which closes every connection, or online again; what was written offline is sent then."""
        await self._service.update_config(state)

    def to_json(self) -> dict[str, object]:
        """The network's state as plain data."""
        status = self._status.get()
        servers = [{"server": one.server, "state": one.state.name} for one in status.signaling]
        return {
            "networkStatus": {
                "swarm": status.swarm.name,
                "signaling": servers,
                "connections": status.connections,
            }
        }

    def _open(self) -> None:
        self._stream = self._service.query_status(self._status._next)

    def _stop(self) -> None:
        if self._stream is not None:
            self._stream.unsubscribe()

    def _end(self) -> None:
        self._status._next(NetworkStatus(ConnectionState.OFFLINE))
        self._status._complete()

    def __repr__(self) -> str:
        status = self._status.get()
        return f"<MeshProxy {status.swarm.name} {status.connections} connections>"
