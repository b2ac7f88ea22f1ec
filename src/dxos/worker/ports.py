"""A session's socket as a byte stream of asyncio, at the least cost: a turn of the event loop only for what must wait.

A call is two messages, and AnyIO's own stream takes two turns and two changes of what is waited for with each: together
a third of what a call takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from typing import Final, final

import anyio
from anyio.abc import ByteStream, SocketStream, UNIXSocketStream

_READ_BYTES: Final = 256 * 1024
_AHEAD_BYTES_MAX: Final = 1024 * 1024  # What is read before anybody wants it.


async def stream_of(connection: socket.socket) -> ByteStream:
    """A port as a stream of the event loop that runs, whichever it is; its socket belongs to the stream."""
    with contextlib.suppress(RuntimeError):  # No loop of asyncio, then; and without a task, it is another's host.
        if asyncio.current_task() is not None:
            return SocketPort(connection)
    # A kind of stream for each kind of socket, and each looks at what it is given.
    kind = SocketStream if connection.family == socket.AF_INET else UNIXSocketStream
    return await kind.from_socket(connection)


@final
class SocketPort(ByteStream):
    """One end of a session, for the asyncio loop that runs.

    Args:
        connection: Connected; closed by `aclose`.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._chunks: deque[bytes] = deque()
        self._ahead_bytes = 0
        self._over = self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._is_reading = True
        self._loop.add_reader(connection, self._read)

    async def receive(self, max_bytes: int = _READ_BYTES) -> bytes:
        """Some bytes, at once if there are any.

        Raises:
            EndOfStream: The other end has closed, or is gone.
            ClosedResourceError: This one has.
        """
        while not self._chunks:
            if self._closed:
                raise anyio.ClosedResourceError
            if self._over:
                raise anyio.EndOfStream
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        chunk = self._chunks.popleft()
        if len(chunk) > max_bytes:
            self._chunks.appendleft(chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        self._ahead_bytes -= len(chunk)
        if not self._is_reading and not self._over and self._ahead_bytes < _AHEAD_BYTES_MAX:
            self._is_reading = True
            self._loop.add_reader(self._socket, self._read)
        return chunk

    async def send(self, item: bytes) -> None:
        """Send all bytes, at once if there is room.

        Raises:
            BrokenResourceError: The other end is gone.
            ClosedResourceError: This one is.
        """
        view = memoryview(item)
        while view:
            if self._closed:
                raise anyio.ClosedResourceError
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await self._wait_writable()
            except OSError as error:
                raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        """Say that nothing more is sent."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Close the socket. Closing twice is no error."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._writable.set()
            self._wake()

    async def _wait_writable(self) -> None:
        writable = asyncio.Event()
        self._writable = writable  # Set by the end too.
        self._loop.add_writer(self._socket, writable.set)
        try:
            await writable.wait()
        finally:
            if not self._closed:
                self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            chunk = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if chunk:
            self._chunks.append(chunk)
            self._ahead_bytes += len(chunk)
        else:
            self._over = True
        if self._over or self._ahead_bytes >= _AHEAD_BYTES_MAX:
            self._is_reading = False
            self._loop.remove_reader(self._socket)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __repr__(self) -> str:
        return f"<SocketPort {'closed' if self._closed else 'open'} {self._ahead_bytes} bytes unread>"
