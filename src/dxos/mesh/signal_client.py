"""Signalling over websockets: several servers at once, each reconnected for as long as the client runs.

What is joined is kept here and not in a socket, so that each new socket joins it again. A peer is available while any
server says so. Those a lost server had announced stay until it is back and has had time to announce them again: a
restarted server must not make everyone leave.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, final

import anyio
import anyio.abc
import anyio.lowlevel

from dxos.errors import BrokenError, ConfigError, DxosError, LimitError, SignalError, UsageError
from dxos.keys import PublicKey
from dxos.limits import (
    SIGNAL_PING_S,
    SIGNAL_READY_TIMEOUT_S,
    SIGNAL_RETRY_S_MAX,
    SIGNAL_RETRY_S_MIN,
    SIGNAL_SOCKET_IDLE_S_MAX,
    SIGNAL_SWARMS_PER_SOCKET_MAX,
)
from dxos.mesh.backoff import Backoff
from dxos.mesh.signal import PeerAvailable, PeerLeft, SignalEvent, SignalState, SignalStatus
from dxos.mesh.signal_session import SignalSession
from dxos.wire.proto import values_pb2

# Imported where a server is configured: a peer that stays alone need not wait for the library.
if TYPE_CHECKING:
    from dxos.mesh.websocket import WebSocket

PING = "__ping__"


@final
class SignalClient:
    """Implements `Signal` over websocket servers.

    Args:
        servers: `ws://` or `wss://` addresses; none is allowed and means nobody is ever found.
        random: Source of random bytes, to spread reconnections.

    Raises:
        ConfigError: An address that is no websocket address, or one given twice.
    """

    def __init__(self, servers: Sequence[str], *, random: Callable[[int], bytes]) -> None:
        if servers:
            from dxos.mesh.websocket import check_address

            for server in servers:
                check_address(server)
        if len(set(servers)) != len(servers):
            raise ConfigError("A signalling server is configured twice.")
        self._joined: dict[tuple[PublicKey, PublicKey], None] = {}
        self._on_event: list[Callable[[SignalEvent], None]] = []
        self._on_status: list[Callable[[], None]] = []
        self._servers = [_Server(server, self, random) for server in servers]

    def __repr__(self) -> str:
        return f"<SignalClient {[server.status.state.name for server in self._servers]} joined={len(self._joined)}>"

    @property
    def statuses(self) -> tuple[SignalStatus, ...]:
        """One for each server, in the order given."""
        return tuple(server.status for server in self._servers)

    def listen(self, on_event: Callable[[SignalEvent], None]) -> Callable[[], None]:
        """See `Signal.listen`."""
        self._on_event.append(on_event)
        return lambda: self._on_event.remove(on_event)

    def subscribe(self, on_status: Callable[[], None]) -> Callable[[], None]:
        """See `Signal.subscribe`."""
        self._on_status.append(on_status)
        return lambda: self._on_status.remove(on_status)

    def join(self, topic: PublicKey, peer: PublicKey) -> None:
        """See `Signal.join`.

        Raises:
            UsageError: More swarms than one socket may join.
        """
        if (topic, peer) in self._joined:
            return
        if len(self._joined) >= SIGNAL_SWARMS_PER_SOCKET_MAX:
            raise UsageError("Too many swarms for signalling.", swarms_max=SIGNAL_SWARMS_PER_SOCKET_MAX)
        self._joined[topic, peer] = None
        for server in self._servers:
            server.reconcile()

    def leave(self, topic: PublicKey, peer: PublicKey) -> None:
        """See `Signal.leave`."""
        self._joined.pop((topic, peer), None)
        for server in self._servers:
            server.forget(topic)
            server.reconcile()

    async def send(self, author: PublicKey, recipient: PublicKey, payload: values_pb2.Any) -> None:
        """Send by every connected server, since only some of them may know the recipient.

        Raises:
            SignalError: No server is connected, or none takes messages fast enough.
        """
        await anyio.lowlevel.checkpoint()
        if not sum([server.send(author, recipient, payload) for server in self._servers]):
            raise SignalError("No signalling server is connected.")

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the servers connected until cancelled; see `Signal.run`."""
        async with anyio.create_task_group() as tasks:
            for server in self._servers:
                tasks.start_soon(server.run)
            task_status.started()
            await anyio.sleep_forever()

    @property
    def joined(self) -> tuple[tuple[PublicKey, PublicKey], ...]:
        """(topic, peer) pairs that each new socket joins."""
        return tuple(self._joined)

    def report(self, source: _Server, event: SignalEvent) -> None:
        """Pass on what one server said, unless another one contradicts it."""
        if isinstance(event, PeerLeft) and any(
            server.announces(event.topic, event.peer) for server in self._servers if server is not source
        ):
            return
        for on_event in tuple(self._on_event):
            on_event(event)

    def report_status(self) -> None:
        """Tell the observers that a server's state has changed."""
        for on_status in tuple(self._on_status):
            on_status()


@final
class _Server:
    """One server: the loop that keeps a socket to it, and what it has announced."""

    def __init__(self, address: str, client: SignalClient, random: Callable[[int], bytes]) -> None:
        self.status = SignalStatus(address, SignalState.CLOSED)
        self._client = client
        self._backoff = Backoff(SIGNAL_RETRY_S_MIN, SIGNAL_RETRY_S_MAX, random=random)
        self._announced: dict[tuple[PublicKey, PublicKey], int] = {}  # (topic, remote) to the socket that said so.
        self._sockets = 0
        self._session: SignalSession | None = None
        self._changed = anyio.Event()

    def announces(self, topic: PublicKey, peer: PublicKey) -> bool:
        """Tell whether this server has said that a peer is there, and not that it left."""
        return (topic, peer) in self._announced

    def forget(self, topic: PublicKey) -> None:
        """Drop what was announced in a swarm that we left."""
        for pair in [pair for pair in self._announced if pair[0] == topic]:
            del self._announced[pair]

    def reconcile(self) -> None:
        """Join and leave on the open socket, if any, until it matches what the client has joined."""
        if self._session is not None:
            self._session.match(self._client.joined, anyio.current_time())
            self._changed.set()

    def send(self, author: PublicKey, recipient: PublicKey, payload: values_pb2.Any) -> bool:
        """Queue a message; False if there is no socket, or the server confirms too slowly."""
        if self._session is None:
            return False
        try:
            self._session.send(author, recipient, payload)
        except LimitError:
            return False
        self._changed.set()
        return True

    async def run(self) -> None:
        """Keep a socket open until cancelled."""
        self._show(SignalState.CONNECTING)
        try:
            while True:
                try:
                    await self._connect()
                except* DxosError as errors:
                    self._show(SignalState.ERROR, str(_first(errors)))
                await anyio.sleep(self._backoff.next_pause())
                self._show(SignalState.RECONNECTING, self.status.error)
        finally:
            self._show(SignalState.CLOSED)

    async def _connect(self) -> None:
        from dxos.mesh.websocket import open_websocket

        websocket = await open_websocket(self.status.server)
        try:
            async with anyio.create_task_group() as tasks:
                self._sockets += 1
                self._session = SignalSession()
                self._session.match(self._client.joined, anyio.current_time())
                self._show(SignalState.CONNECTED)
                tasks.start_soon(self._write, websocket, self._session)
                tasks.start_soon(self._drop_stale, self._sockets)
                tasks.start_soon(self._ping, websocket)
                await self._read(websocket, self._session)
        finally:
            self._session = None
            await websocket.aclose()

    async def _read(self, websocket: WebSocket, session: SignalSession) -> None:
        while True:
            frame = await websocket.receive()
            if isinstance(frame, bytes):
                for event in session.receive(frame):
                    self._backoff.reset()  # Only a server that answers sensibly is worth a quick retry.
                    self._note(event)
                    self._client.report(self, event)

    def _note(self, event: SignalEvent) -> None:
        if isinstance(event, PeerAvailable):
            self._announced[event.topic, event.peer] = self._sockets
        elif isinstance(event, PeerLeft):
            self._announced.pop((event.topic, event.peer), None)

    async def _write(self, websocket: WebSocket, session: SignalSession) -> None:
        while True:
            self._changed = anyio.Event()  # Renewed before looking, so no frame is missed.
            for frame in session.take_frames():
                await websocket.send(frame)
            session.check(anyio.current_time())
            with anyio.CancelScope(deadline=math.inf if session.deadline is None else session.deadline):
                await self._changed.wait()

    async def _drop_stale(self, socket: int) -> None:
        """Report who left while the server was away, once it has had time to say who is there."""
        await anyio.sleep(SIGNAL_READY_TIMEOUT_S)
        for (topic, peer), said in list(self._announced.items()):
            if said != socket:
                del self._announced[topic, peer]
                self._client.report(self, PeerLeft(topic, peer))

    async def _ping(self, websocket: WebSocket) -> None:
        while True:
            await anyio.sleep(SIGNAL_PING_S)
            await websocket.send(PING)  # For 0.8.3's server; nobody answers it.
            await websocket.ping()  # Every websocket server answers this.
            silent_s = anyio.current_time() - websocket.heard_at
            if silent_s >= SIGNAL_SOCKET_IDLE_S_MAX:
                raise BrokenError("The signalling server went silent.", silent_s=silent_s)

    def _show(self, state: SignalState, error: str | None = None) -> None:
        self.status = SignalStatus(self.status.server, state, error)
        self._client.report_status()


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
