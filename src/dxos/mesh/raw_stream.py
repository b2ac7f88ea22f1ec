"""A stream of bytes beside the calls of a connection, such as one feed's replication."""

from collections import deque
from collections.abc import Callable
from typing import final

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream

from dxos.mesh.outlet import Outlet


@final
class RawStream(ByteStream):
    """A stream of bytes between two extensions; errors are BrokenError, and EndOfStream once the connection closes."""

    def __init__(self, outlet: Outlet, forget: Callable[[int], object], channel: int, tag: str) -> None:
        self.tag = tag
        self._outlet, self._forget, self._channel = outlet, forget, channel
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._changed = anyio.Event()
        self._closed = self._ended = False
        self._is_open = anyio.Event()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "ended" if self._ended else "open"
        return f"<RawStream {self.tag} {state} waiting_bytes={self._size}>"

    async def wait_open(self) -> None:
        """Wait until the peer has opened it too, or the connection closes."""
        await self._is_open.wait()

    async def send(self, item: bytes) -> None:
        """Queue bytes; waits while too many are queued. Cancelling sends all or nothing.

        Raises:
            BrokenError: The connection is closed.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise anyio.ClosedResourceError
        if self._outlet.must_wait(self._channel):
            await self._outlet.wait_room(self._channel)
        self._outlet.session.send_raw(self._channel, bytes(item))
        self._outlet.wake()

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Bytes that have arrived, at least one; waits for them. Cancelling loses nothing."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        while not self._chunks:
            if self._closed:
                raise anyio.ClosedResourceError
            if self._ended:
                raise anyio.EndOfStream
            self._changed = anyio.Event()
            await self._changed.wait()
        chunk = self._chunks.popleft()
        if len(chunk) > max_bytes:
            self._chunks.appendleft(chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        self._size -= len(chunk)
        self._outlet.raw_bytes -= len(chunk)
        self._outlet.eased.set()
        return chunk

    async def send_eof(self) -> None:
        """Does nothing: the wire has no end of one channel."""

    async def aclose(self) -> None:
        """Forget the channel here; the peer is not told. Never waits; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._forget(self._channel)
        self._outlet.raw_bytes -= self._size
        self._chunks.clear()
        self._size = 0
        self._outlet.session.close_raw(self._channel)
        self._changed.set()
        self._is_open.set()
        self._outlet.eased.set()

    def opened(self) -> None:
        """Both sides have opened the channel; for the connection to call, as are the next two."""
        self._is_open.set()

    def put(self, data: bytes) -> None:
        """Bytes have arrived."""
        if data:
            self._chunks.append(data)
            self._size += len(data)
            self._outlet.raw_bytes += len(data)
            self._changed.set()

    def end(self) -> None:
        """The connection is over."""
        self._ended = True
        self._changed.set()
        self._is_open.set()
