"""Ports where no descriptor can be handed over: a connection to the worker by the loopback address, and a token.

    worker   Door.offer ─▶ Ticket ── session, provide-port ──▶ client
    client   enter: connect, token ──▶ worker: admitted ── answer ──▶ client: it is the worker

The ticket goes the way that a descriptor would go, over sockets that only this user reaches. Both halves of it are used
once: the token proves the client to the worker, and the answer the worker to the client, as the number of the port of
a worker that has died may be another program's by then.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import socket
import time
from dataclasses import dataclass, field
from typing import Final, final

from dxos.errors import DxosError, LinkError
from dxos.limits import LINK_BACKLOG_MAX, LOOPBACK_SHOW_S, LOOPBACK_TOKEN_BYTES
from dxos.store.files import map_os_error
from dxos.worker import doorkeeper
from dxos.worker.doorkeeper import Doorkeeper
from dxos.worker.places import accept

_log = logging.getLogger("dxos.worker")
_CROWDED_S: Final = 0.1  # How long somebody waits for whom no descriptor is left, until that is tried again.
ADDRESS: Final = "127.0.0.1"


@final
@dataclass(frozen=True, slots=True)
class Ticket:
    """What a client needs to come in once."""

    number: int
    port: int
    token: bytes = field(repr=False)
    answer: bytes = field(repr=False)


@final
class Door:
    """The worker's side, for one event loop."""

    def __init__(self) -> None:
        self._machine = Doorkeeper()
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, tuple[Ticket, asyncio.Future[socket.socket | None]]] = {}
        self._connections: dict[int, socket.socket] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._offers_count = self._connections_count = 0
        self._listener = socket.create_server((ADDRESS, 0), backlog=LINK_BACKLOG_MAX)
        self._listener.setblocking(False)
        self._port: int = self._listener.getsockname()[1]
        self._listen()

    def offer(self) -> Ticket:
        """A ticket for one client; then `wait` for it."""
        self._offers_count += 1
        token, answer = secrets.token_bytes(LOOPBACK_TOKEN_BYTES), secrets.token_bytes(LOOPBACK_TOKEN_BYTES)
        ticket = Ticket(self._offers_count, self._port, token, answer)
        self._waiting[ticket.number] = ticket, self._loop.create_future()
        self._machine.offer(ticket.number, token, time.monotonic())
        self._act()
        return ticket

    async def wait(self, ticket: Ticket) -> socket.socket | None:
        """The connection of whoever has the ticket; None if nobody comes in time. Cancelling withdraws the ticket."""
        _, admitted = self._waiting[ticket.number]
        try:
            return await admitted
        except asyncio.CancelledError:
            found = None if admitted.cancelled() else admitted.result()
            if found is not None:
                found.close()  # It came in at the last moment.
            raise
        finally:
            self._waiting.pop(ticket.number, None)
            self._machine.revoke(ticket.number)
            self._act()

    def close(self) -> None:
        """Let nobody in any more."""
        self._loop.remove_reader(self._listener)
        self._listener.close()
        if self._timer is not None:
            self._timer.cancel()
        for number in list(self._connections):
            self._take(number).close()

    def __repr__(self) -> str:
        return f"<Door {self._machine!r}>"

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        while True:
            try:
                connection = accept(self._listener)
            except DxosError as error:
                _log.warning("%s", error)
                self._loop.remove_reader(self._listener)
                self._loop.call_later(_CROWDED_S, self._listen)
                return
            if connection is None:
                return
            _set_up(connection)
            self._connections_count += 1
            number = self._connections_count
            self._connections[number] = connection
            self._loop.add_reader(connection, self._read, number)
            self._machine.connected(number, time.monotonic())
            self._act()

    def _read(self, number: int) -> None:
        try:
            data = self._connections[number].recv(self._machine.wanted(number))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._machine.receive(number, data, time.monotonic())
        else:
            self._machine.ended(number)
        self._act()

    def _wake(self) -> None:
        self._timer = None
        self._machine.handle_timer(time.monotonic())
        self._act()

    def _act(self) -> None:
        while self._machine.actions:
            match self._machine.actions.popleft():
                case doorkeeper.Admit(number, offer):
                    self._admit(self._take(number), offer)
                case doorkeeper.TurnAway(number):
                    self._take(number).close()
                case doorkeeper.Expired(offer):
                    self._decide(offer, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._machine.next_timer()
        if at is not None:
            self._timer = self._loop.call_later(max(0.0, at - time.monotonic()), self._wake)

    def _admit(self, connection: socket.socket, offer: int) -> None:
        try:
            connection.send(self._waiting[offer][0].answer)  # It fits: nothing was sent there before.
        except OSError:
            connection.close()
            self._decide(offer, None)
        else:
            self._decide(offer, connection)

    def _decide(self, offer: int, connection: socket.socket | None) -> None:
        _, admitted = self._waiting.pop(offer)
        if not admitted.done():
            admitted.set_result(connection)
        elif connection is not None:
            connection.close()

    def _take(self, number: int) -> socket.socket:
        connection = self._connections.pop(number)
        self._loop.remove_reader(connection)
        return connection


def _set_up(connection: socket.socket) -> None:
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # A call waits for no other one.


async def enter(port: int, token: str, answer: str) -> socket.socket:
    """The client's side: a connection to the worker that made this offer.

    Args:
        port: Of the worker, at the loopback address.
        token: Of the ticket, as it travels: in hexadecimal digits.
        answer: What the worker answers, likewise.

    Raises:
        LinkError: Nobody listens there, or not the worker, or the token is used or old.
        StorageAccessError: Too many files are open.
    """
    loop = asyncio.get_running_loop()
    try:
        connection = socket.socket(socket.AF_INET)
    except OSError as error:
        raise map_os_error(error, "connect to the worker") from error
    _set_up(connection)
    try:
        async with asyncio.timeout(LOOPBACK_SHOW_S):
            await loop.sock_connect(connection, (ADDRESS, port))
            await loop.sock_sendall(connection, bytes.fromhex(token))
            found = b""
            while len(found) < LOOPBACK_TOKEN_BYTES:
                piece = await loop.sock_recv(connection, LOOPBACK_TOKEN_BYTES - len(found))
                if not piece:
                    raise LinkError("The worker did not let this process in.")
                found += piece
        if not hmac.compare_digest(found, bytes.fromhex(answer)):
            raise LinkError("What listens at the worker's port is not the worker.")
    except (OSError, OverflowError, ValueError) as error:
        connection.close()
        raise LinkError("The worker's port cannot be reached by the loopback address.", port=port) from error
    except BaseException:
        connection.close()
        raise
    return connection
