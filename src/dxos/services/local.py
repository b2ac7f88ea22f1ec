"""The host in the same process: every call of the contract is a direct call."""

import itertools
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, final

import anyio
from anyio.abc import TaskGroup, TaskStatus
from msgspec import Struct

from dxos.aio import unwrap_group
from dxos.errors import ProfileLockedError, StorageFullError, UsageError
from dxos.mesh.signal import Signal
from dxos.mesh.signal_client import SignalClient
from dxos.mesh.tcp import TcpTransport
from dxos.mesh.transport import Transport
from dxos.services.contract import Services, SystemStatus
from dxos.services.data import DataServiceHost, QueryServiceHost
from dxos.services.halo import ContactsServiceHost, DevicesServiceHost, IdentityServiceHost
from dxos.services.history import HistoryServiceHost
from dxos.services.invitations import InvitationsServiceHost
from dxos.services.looking import DevtoolsServiceHost, LoggingServiceHost
from dxos.services.spaces import SpacesServiceHost
from dxos.services.switch import Switch
from dxos.services.system import NetworkServiceHost, SystemServiceHost
from dxos.spaces.peer import Peer, open_peer
from dxos.store.backup import sealed_writer
from dxos.store.profile import Profile, reset_profile


@final
class HostServices(Struct, frozen=True):
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
    logging: LoggingServiceHost
    devtools: DevtoolsServiceHost


_VERSION_BITS: Final = 40  # Of the versions of objects that one host tells.


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
        self._servers = servers = list(signal_servers)
        self._signal = signal or (lambda: SignalClient(servers, random=random))
        self._transport = transport or TcpTransport
        self._random, self._now_ms = random, now_ms
        self._leadership_id = leadership_id
        self._led_id = 0  # Under which this host had the profile last.
        self._versions = itertools.count((leadership_id << _VERSION_BITS) + 1)
        self._profile: Profile | None = None
        self._stack: AsyncExitStack | None = None
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Services:
        self._system = SystemServiceHost(self._path, self._now_ms, self._describe, self._set_active)
        self._switch = Switch(self._system)
        self._turn = anyio.Lock()
        async with AsyncExitStack() as stack:
            stack.enter_context(unwrap_group())
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            await self._open()
            self._stack = stack.pop_all()
        return self._switch

    async def _open(self) -> None:
        self._stop, self._closed = anyio.Event(), anyio.Event()
        assert self._tasks is not None
        await self._tasks.start(self._run)

    async def _run(self, *, task_status: TaskStatus[None]) -> None:
        """Hold the profile open; in a task, because whoever closes it need not be who opened it."""
        try:
            signal, transport = self._signal(), self._transport()  # Before the profile, which they would leave locked.
            try:
                profile = Profile.open(self._path, write_sealed=sealed_writer(self._path, self._backup_passphrase))
            except ProfileLockedError as error:
                raise _explain(error, self._path) from None
            async with (
                open_peer(
                    profile,
                    signal=signal,
                    transport=transport,
                    random=self._random,
                    now_ms=self._now_ms,
                    leadership_id=self._leadership_id,
                    leads_again=self._leadership_id == self._led_id,
                    versions=self._versions,
                ) as peer,
                anyio.create_task_group() as tasks,
            ):
                self._profile = profile
                if self._leadership_id:
                    self.lead(self._leadership_id)  # Which may have grown while it was opened.
                self._switch.turn_on(self._make(peer, tasks))
                self._system.tell(SystemStatus.ACTIVE)
                try:
                    task_status.started()
                    await self._stop.wait()
                finally:
                    self._profile, self._led_id = None, self._leadership_id
                    self._switch.turn_off()
                    self._system.tell(SystemStatus.INACTIVE)
                tasks.cancel_scope.cancel()
        finally:
            self._closed.set()

    async def _set_active(self, active: bool) -> None:
        if self._path is None:
            raise UsageError("A profile in memory would be lost if its host became inactive.")
        async with self._turn:
            if active and not self._switch.is_on:
                await self._open()
            elif not active and self._switch.is_on:
                self._stop.set()
                await self._closed.wait()

    def _describe(self) -> dict[str, Any]:
        return {
            "path": None if self._path is None else str(self._path),
            "signaling": list(self._servers),
            "leadership_id": self._leadership_id,
        }

    @property
    def switch(self) -> Switch:
        """What this gives, while it is open."""
        return self._switch

    def lead(self, leadership_id: int) -> None:
        """Go on under a higher leadership: a new leader has taken over this host instead of starting another.

        Raises:
            FencedError: A host with a higher one has had the profile.
        """
        self._leadership_id = max(self._leadership_id, leadership_id)
        if self._profile is not None:
            with suppress(StorageFullError):  # What is written next, when there is room, notes it.
                self._profile.database.lead(leadership_id)

    def _make(self, peer: Peer, tasks: TaskGroup) -> HostServices:
        return HostServices(
            system=self._system,
            network=NetworkServiceHost(peer),
            identity=IdentityServiceHost(peer, tasks),
            devices=DevicesServiceHost(peer, tasks),
            contacts=ContactsServiceHost(peer, tasks),
            invitations=InvitationsServiceHost(peer),
            spaces=SpacesServiceHost(peer, tasks),
            data=DataServiceHost(peer),
            query=QueryServiceHost(peer),
            history=HistoryServiceHost(peer),
            logging=LoggingServiceHost(),
            devtools=DevtoolsServiceHost(peer),
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        stack, self._stack = self._stack, None
        assert stack is not None, "closed once for each time it was opened"
        self._stop.set()
        try:
            return await stack.__aexit__(kind, error, trace)
        finally:
            if self._system.reset_wanted and self._path is not None:
                try:
                    reset_profile(self._path)
                except ProfileLockedError:
                    if not self._system.is_marked_for_reset:  # Or who was quicker has emptied it.
                        raise

    def __repr__(self) -> str:
        return f"<LocalServices {'in memory' if self._path is None else self._path}>"
