"""The system and network services: whether the host works, and what the network looks like from here."""

import os
import platform
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, final

import anyio.lowlevel

from dxos.aio import Listeners, Subscription
from dxos.errors import UsageError
from dxos.services.backup import back_up_profile
from dxos.services.contract import (
    ConnectionState,
    JsonObject,
    NetworkStatus,
    Next,
    Platform,
    Progress,
    SignalState,
    SignalStatus,
    SystemStatus,
)
from dxos.spaces.peer import Peer
from dxos.store.profile import mark_for_reset
from dxos.version import __version__


@final
class SystemServiceHost:
    """Implements `SystemService`."""

    def __init__(
        self,
        profile: Path | None,
        now_ms: Callable[[], int],
        describe: Callable[[], dict[str, Any]],
        set_active: Callable[[bool], Awaitable[None]],
    ) -> None:
        self._profile, self._now_ms = profile, now_ms
        self._describe, self._set_active = describe, set_active
        self.reset_wanted = self.is_marked_for_reset = False
        self._status = SystemStatus.INACTIVE
        self._listeners: Listeners[SystemStatus] = Listeners()

    def query_status(self, next: Next[SystemStatus | None]) -> Subscription:
        next(self._status)
        return self._listeners.subscribe(next)

    async def get_platform(self) -> Platform:
        await anyio.lowlevel.checkpoint()
        system = f"{platform.system()} {platform.release()}"
        return Platform(__version__, platform.python_version(), system, os.getpid())

    async def get_config(self) -> JsonObject:
        await anyio.lowlevel.checkpoint()
        return self._describe()

    async def get_diagnostics(self) -> JsonObject:
        platform_ = await self.get_platform()
        return {
            "created_ms": self._now_ms(),
            "platform": {"version": platform_.version, "python": platform_.python, "system": platform_.system},
            "status": self._status.name,
            "config": self._describe(),
        }

    async def update_status(self, status: SystemStatus) -> None:
        await self._set_active(status is SystemStatus.ACTIVE)

    def tell(self, status: SystemStatus) -> None:
        """Tell whether the host works."""
        self._status = status
        self._listeners.emit(status)

    async def reset(self) -> None:
        if self._profile is not None and self._status is SystemStatus.ACTIVE:
            mark_for_reset(self._profile)  # What this process does not come to, the next one does.
            self.is_marked_for_reset = True
        self.reset_wanted = True

    async def back_up(self, path: str, passphrase: str, next: Next[Progress]) -> int:
        if self._profile is None:
            raise UsageError("This profile is in memory; only one in a folder can be backed up.")
        return await back_up_profile(self._profile, Path(path), passphrase, next, now_ms=self._now_ms())


@final
class NetworkServiceHost:
    """Implements `NetworkService`."""

    def __init__(self, peer: Peer) -> None:
        self._network = peer.network

    def query_status(self, next: Next[NetworkStatus]) -> Subscription:
        next(self._present())
        return Subscription(self._network.subscribe(lambda _: next(self._present())))

    async def update_config(self, state: ConnectionState) -> None:
        await self._network.set_online(state is ConnectionState.ONLINE)

    def _present(self) -> NetworkStatus:
        status = self._network.status
        return NetworkStatus(
            swarm=ConnectionState.ONLINE if status.online else ConnectionState.OFFLINE,
            signaling=tuple(SignalStatus(one.server, SignalState(one.state.value)) for one in status.signaling),
            connections=sum(len(swarm.connected) for swarm in self._network.swarms.values()),
        )
