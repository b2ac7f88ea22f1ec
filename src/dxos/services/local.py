"""The host in the same process: every call of the contract is a direct call."""

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import final

import anyio

from dxos.errors import ProfileLockedError
from dxos.mesh.signal import Signal
from dxos.mesh.signal_client import SignalClient
from dxos.mesh.tcp import TcpTransport
from dxos.mesh.transport import Transport
from dxos.services.contract import Services
from dxos.services.data import DataServiceHost, QueryServiceHost
from dxos.services.halo import ContactsServiceHost, DevicesServiceHost, IdentityServiceHost
from dxos.services.history import HistoryServiceHost
from dxos.services.invitations import InvitationsServiceHost
from dxos.services.spaces import SpacesServiceHost
from dxos.services.system import NetworkServiceHost, SystemServiceHost
from dxos.spaces.peer import Peer, open_peer
from dxos.store.backup import sealed_writer
from dxos.store.profile import Profile, reset_profile


@final
@dataclass(frozen=True, slots=True)
class HostServices:
    """All services of one open profile; see the contract."""

    system: SystemServiceHost
    network: NetworkServiceHost
    identity: IdentityServiceHost
    devices: DevicesServiceHost
    contacts: ContactsServiceHost
    invitations: InvitationsServiceHost
    spaces: SpacesServiceHost
    data: DataServiceHost
    query: QueryServiceHost
    history: HistoryServiceHost


def unix_ms() -> int:
    """Now, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _explain(error: ProfileLockedError, path: Path | None) -> ProfileLockedError:
    """Say so, if the process that holds the profile is a worker, whose mark is in the profile's folder."""
    assert path is not None, "a profile in memory is nobody else's"
    holder = error.detail.get("pid", 0)
    for mark in path.glob("host/alive.*"):
        with suppress(OSError, ValueError):
            if holder and int(mark.read_text()) == holder:
                return ProfileLockedError(
                    f"Worker process {holder} has this profile open for the processes that share it; "
                    'share it too with `services="worker"`, or close them.',
                    **error.detail,
                )
    return error


@final
class LocalServices:
    """A `ServicesProvider` that opens a profile in this process.

    Args:
        path: Folder of the profile; None keeps everything in memory.
        backup_passphrase: Seals the backup that is made before a migration; None: it is as open as the profile.
        signal_servers: WebSocket URLs of signalling servers; none: this peer stays alone.
        signal: Makes another way to find peers; for tests.
        transport: Makes another way to connect them than TCP; for tests.
        random: Gives that many random bytes, good enough for secrets.
        now_ms: Unix time in milliseconds.
        leadership_id: Of this host among all that have had the profile; 0 where no client outlives its host.
    """

    def __init__(
        self,
        path: Path | None,
        signal_servers: Sequence[str] = (),
        *,
        backup_passphrase: str | None = None,
        signal: Callable[[], Signal] | None = None,
        transport: Callable[[], Transport] | None = None,
        random: Callable[[int], bytes] = secrets.token_bytes,
        now_ms: Callable[[], int] = unix_ms,
        leadership_id: int = 0,
    ) -> None:
        self._path, self._backup_passphrase = path, backup_passphrase
        servers = list(signal_servers)
        self._signal = signal or (lambda: SignalClient(servers, random=random))
        self._transport = transport or TcpTransport
        self._random, self._now_ms = random, now_ms
        self._leadership_id = leadership_id
        self._profile: Profile | None = None
        self._stack: AsyncExitStack | None = None
        self._services: HostServices | None = None

    async def __aenter__(self) -> Services:
        signal, transport = self._signal(), self._transport()  # Before the profile, which they would leave locked.
        try:
            profile = Profile.open(self._path, write_sealed=sealed_writer(self._path, self._backup_passphrase))
        except ProfileLockedError as error:
            raise _explain(error, self._path) from None
        async with AsyncExitStack() as stack:
            peer = await stack.enter_async_context(
                open_peer(
                    profile,
                    signal=signal,
                    transport=transport,
                    random=self._random,
                    now_ms=self._now_ms,
                    leadership_id=self._leadership_id,
                )
            )
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            services = self._make(peer, tasks)
            stack.callback(services.system.closed)
            self._stack, self._services, self._profile = stack.pop_all(), services, profile
        return services

    def lead(self, leadership_id: int) -> None:
        """Go on under a higher leadership: a new leader has taken over this host instead of starting another.

        Raises:
            FencedError: A host with a higher one has had the profile.
        """
        self._leadership_id = max(self._leadership_id, leadership_id)
        if self._profile is not None:
            self._profile.database.lead(leadership_id)

    def _make(self, peer: Peer, tasks: anyio.abc.TaskGroup) -> HostServices:
        return HostServices(
            system=SystemServiceHost(self._path, self._now_ms),
            network=NetworkServiceHost(peer),
            identity=IdentityServiceHost(peer, tasks),
            devices=DevicesServiceHost(peer, tasks),
            contacts=ContactsServiceHost(peer, tasks),
            invitations=InvitationsServiceHost(peer),
            spaces=SpacesServiceHost(peer, tasks),
            data=DataServiceHost(peer),
            query=QueryServiceHost(peer),
            history=HistoryServiceHost(peer),
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        stack, self._stack = self._stack, None
        services, self._services, self._profile = self._services, None, None
        assert stack is not None, "closed once for each time it was opened"
        assert services is not None
        try:
            return await stack.__aexit__(kind, error, trace)
        finally:
            if services.system.reset_wanted and self._path is not None:
                reset_profile(self._path)

    def __repr__(self) -> str:
        return f"<LocalServices {'in memory' if self._path is None else self._path}>"
