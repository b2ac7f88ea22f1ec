"""`WorkerServices`: services from a worker process that all clients of a profile share.

    application's event loop                     thread "dxos leader"
    WorkerServices ── RemoteServices             election, following; while it leads: coordinator, worker
         ▲ port ◀───────── Handover ◀────────────── port, error, end
         └═══════════════ calls, directly ═══════════════▶ worker

The event loop is asyncio's or trio's; the thread has one of its own, so an application that blocks its own does not
look frozen to other processes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, final

import anyio
from anyio.abc import ByteStream

from dxos.aio import Opener
from dxos.errors import ClosedError, DxosError
from dxos.limits import CLIENT_DESCRIPTORS_MIN, WORKER_CLOSE_S
from dxos.services.contract import ConnectionState, NetworkStatus, Services, Subscription
from dxos.services.remote import RemoteServices
from dxos.store.files import check_descriptors
from dxos.worker.places import Places, open_places
from dxos.worker.ports import stream_of
from dxos.worker.settings import Settings
from dxos.worker.thread import Ended, Event, LeaderThread, Port, Trace

_log = logging.getLogger("dxos.worker")


@final
class WorkerServices:
    """A `ServicesProvider` whose host is a process that all clients of the profile share.

    Args:
        path: Folder of the profile, on a disk of this machine.
        signal_servers: WebSocket URLs of signalling servers; those of the client that starts the worker count.
        backup_passphrase: Seals the copy of the database that is kept from before a migration; of the same client.
        agent_idle_s: Have an agent take part too, which stays for so long when nobody else does; None: have none.
        trace: Called with each message that this process sends or receives to share the profile: who, to whom, what.
    """

    def __init__(
        self,
        path: Path,
        signal_servers: Sequence[str] = (),
        *,
        backup_passphrase: str | None = None,
        agent_idle_s: float | None = None,
        trace: Trace | None = None,
    ) -> None:
        self._path, self._trace = path, trace
        self._settings = Settings(tuple(signal_servers), backup_passphrase)
        self._agent_idle_s = agent_idle_s
        self._session: _Session | None = None

    async def __aenter__(self) -> Services:
        if self._session is not None and self._session.is_parents:
            self._session = None  # What is open is the parent's.
        assert self._session is None, "opened once for each time it is closed"
        if self._agent_idle_s is not None:
            from dxos.worker.agent import ensure_agent  # Most clients need none, and start faster without.

            await ensure_agent(self._path, self._settings, idle_s=self._agent_idle_s)
        check_descriptors(CLIENT_DESCRIPTORS_MIN, "share the profile with other processes")
        session = _Session(open_places(self._path), self._settings, self._trace)
        try:
            services = await session.open()
        except BaseException as error:
            await session.close(type(error), error, error.__traceback__)
            raise
        self._session = session
        return services

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        session, self._session = self._session, None
        assert session is not None, "closed once for each time it was opened"
        return await session.close(kind, error, trace)

    def diagnostics(self) -> Mapping[str, Any]:
        """What this process does for the others: its leadership, worker, and session; for people and `dx status`."""
        return {} if self._session is None else self._session.thread.diagnostics()

    def __repr__(self) -> str:
        return f"<WorkerServices {self._path} {'closed' if self._session is None else 'open'}>"


@final
class _Session:
    """From opening a provider to closing it."""

    def __init__(self, places: Places, settings: Settings, trace: Trace | None) -> None:
        self._opener, self._settings = Opener(), settings
        self._handover = Handover()
        self._comparing: Subscription | None = None
        self._is_compared = False
        self._stream: PortStream | None = None
        self._ended = self._is_leaving = False
        self.thread = LeaderThread(places, settings, f"client-{secrets.token_hex(8)}", self._handover.put, trace)
        self._remote = RemoteServices(self._connect)
        self._is_remote_open = False
        _sessions.add(self)

    @property
    def is_parents(self) -> bool:
        """Whether the process that opened it has forked this one."""
        return self._opener.is_parent

    async def open(self) -> Services:
        """Find a session, and speak the contract over it."""
        self.thread.start()
        services = await self._remote.__aenter__()
        self._is_remote_open = True
        self._comparing = services.network.query_status(self._compare)
        return services

    def _compare(self, status: NetworkStatus) -> None:
        """Say so, once, if this client's settings are not those that the worker was started with."""
        if status.swarm is not ConnectionState.ONLINE:
            return
        if self._comparing is not None:
            self._comparing.unsubscribe()
        theirs, ours = {one.server for one in status.signaling}, set(self._settings.signal_servers)
        if theirs != ours and not self._is_compared:
            _log.warning(
                "The process that shares this profile first set other signalling servers, which stay: %s, and not %s.",
                ", ".join(sorted(theirs)) or "none",
                ", ".join(sorted(ours)) or "none",
            )
        self._is_compared = True

    async def close(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """End the session and leave, in order; nothing, in the child of a fork."""
        if self.is_parents:
            return None
        try:
            if not self._is_remote_open:
                return None
            return await self._remote.__aexit__(kind, error, trace)
        finally:
            with anyio.CancelScope(shield=True):
                await self._leave()

    async def _leave(self) -> None:
        self._is_leaving = True
        with anyio.move_on_after(WORKER_CLOSE_S):
            # The last client's session ends when the worker has let go of the storage.
            if self._stream is not None:
                await self._stream.wait_end()
        self.thread.stop()
        with anyio.move_on_after(2 * WORKER_CLOSE_S):
            while not self._ended:
                self._receive(await self._handover.get())
        if self._stream is not None:
            await self._stream.close()
        self._handover.close()
        _sessions.discard(self)

    async def _connect(self) -> ByteStream:
        """A stream to the worker; waits until there is one, which may take as long as it likes."""
        self._opener.check()
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await stream.close()
            self.thread.port_ended(stream.attempt)
        while True:
            event = await self._handover.get()
            if isinstance(event, Port):
                return await self._take(event)
            self._receive(event)

    async def _take(self, port: Port) -> PortStream:
        connection = socket.socket(fileno=port.descriptor)
        connection.setblocking(False)
        stream = self._stream = PortStream(await stream_of(connection), connection, port.attempt)
        return stream

    def _receive(self, event: Event) -> None:
        match event:
            case Port(descriptor):
                os.close(descriptor)  # It came too late.
            case Ended(error):
                self._ended = True
                if not self._is_leaving:
                    raise error or ClosedError("The client was closed.")
                if error is not None:
                    _log.error("The thread that shares the profile failed: %r", error)
            case DxosError() if not self._is_leaving:
                raise event  # Before the first session; later the thread goes on trying.

    def abandon(self) -> None:
        """In the child of a fork: let go of what is the parent's, or nobody would notice the parent's end."""
        self._handover.close()
        self.thread.abandon()
        if self._stream is not None:
            self._stream.abandon()


@final
class Handover:
    """Events from a thread to an event loop of any kind, which nothing that the loop does can hold up."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)

    def put(self, event: Event) -> None:
        """In the thread."""
        self._events.append(event)
        with contextlib.suppress(OSError):  # Full: it is awake. Closed: nobody waits.
            self._wake.send(b"\0")

    async def get(self) -> Event:
        """In the event loop.

        Cancelling loses nothing.
        """
        while not self._events:
            await anyio.wait_readable(self._woken)
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4_096)
        return self._events.popleft()

    def close(self) -> None:
        """Close what is left."""
        self._woken.close()
        self._wake.close()
        while self._events:
            event = self._events.popleft()
            if isinstance(event, Port):
                os.close(event.descriptor)


@final
class PortStream(ByteStream):
    """A session's port: bytes to and from the worker. `aclose` only says that nothing more is sent; then `close`."""

    def __init__(self, stream: ByteStream, connection: socket.socket, attempt: int) -> None:
        self.attempt: Final = attempt
        self._stream, self._socket = stream, connection
        self._opener = Opener()

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Some bytes.

        Raises:
            EndOfStream: The worker has ended, or this session.
        """
        self._opener.check()
        return await self._stream.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        """Send all bytes."""
        self._opener.check()
        await self._stream.send(item)

    async def send_eof(self) -> None:
        """Say that nothing more is sent."""
        with contextlib.suppress(OSError, anyio.ClosedResourceError):
            self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Say that nothing more is sent; `wait_end` and `close` do the rest."""
        await self.send_eof()

    async def wait_end(self) -> None:
        """Wait until the worker has closed its end, which the last session's is when the storage is let go of."""
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                await self._stream.receive()

    async def close(self) -> None:
        """Close the descriptor."""
        with anyio.CancelScope(shield=True):
            await self._stream.aclose()

    def abandon(self) -> None:
        """Close the descriptor and nothing else."""
        with contextlib.suppress(OSError):
            os.close(self._socket.detach())


_sessions: weakref.WeakSet[_Session] = weakref.WeakSet()


def _abandon_all() -> None:
    for session in list(_sessions):
        session.abandon()


os.register_at_fork(after_in_child=_abandon_all)
