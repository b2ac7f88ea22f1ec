"""Pairs of byte streams in one process: with latency, bounded buffers, and ends that can be cut or reset."""

from collections import deque
from typing import final

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream

BUFFER_BYTES_MAX = 64 * 1024  # Of one direction, before its sender waits; much like a socket's.


class _Direction:
    """Bytes on their way from one end to the other."""

    def __init__(self, latency_s: float, buffer_bytes_max: int) -> None:
        self.latency_s = latency_s
        self.buffer_bytes_max = buffer_bytes_max
        self.chunks: deque[tuple[float, bytes]] = deque()  # When each arrives.
        self.size = 0
        self.ended = False  # The sender closed its end.
        self.abandoned = False  # The receiver closed its end.
        self.changed = anyio.Event()

    def notify(self) -> None:
        """Wake whoever waits for bytes, for room, or for the end."""
        self.changed.set()
        self.changed = anyio.Event()


@final
class MemoryStream(ByteStream):
    """One end of a link; made by `memory_links`.

    Errors are those of any anyio stream: EndOfStream after the other end closed, BrokenResourceError after a reset or
    when sending to a closed end, ClosedResourceError on a stream closed here.
    """

    def __init__(self, outgoing: _Direction, incoming: _Direction) -> None:
        self._outgoing, self._incoming = outgoing, incoming
        self._closed = self._broken = self._silent = False
        self._peer: MemoryStream | None = None

    def __repr__(self) -> str:
        state = "closed" if self._closed else "broken" if self._broken else "cut" if self._silent else "open"
        return f"<MemoryStream {state} incoming_bytes={self._incoming.size}>"

    async def send(self, item: bytes) -> None:
        """Hand over bytes; waits while the buffer is full. Cancelling may leave a part of them sent."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        rest = memoryview(item)
        way = self._outgoing
        while len(rest):
            self._check()
            if way.abandoned:
                raise anyio.BrokenResourceError
            if self._silent:
                return
            room = way.buffer_bytes_max - way.size
            if room <= 0:
                await way.changed.wait()
                continue
            part, rest = bytes(rest[:room]), rest[room:]
            way.chunks.append((anyio.current_time() + way.latency_s, part))
            way.size += len(part)
            way.notify()

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Take what has arrived, at least one byte; waits for it. Cancelling loses nothing."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        way = self._incoming
        while True:
            self._check()
            if way.chunks and not self._silent:
                at, part = way.chunks[0]
                if way.latency_s and (wait_s := at - anyio.current_time()) > 0:
                    with anyio.move_on_after(wait_s):
                        await way.changed.wait()
                    continue
                way.chunks.popleft()
                if len(part) > max_bytes:
                    way.chunks.appendleft((at, part[max_bytes:]))
                    part = part[:max_bytes]
                way.size -= len(part)
                way.notify()
                return part
            if way.ended and not self._silent:
                raise anyio.EndOfStream
            await way.changed.wait()

    async def send_eof(self) -> None:
        """Say that nothing follows; receiving goes on."""
        self._check()
        self._end()

    async def aclose(self) -> None:
        """Close this end: the other reads what is under way, then EndOfStream. Never waits; idempotent."""
        if not self._closed:
            self._closed = True
            self._incoming.abandoned = not self._silent
            self._end()
            self._incoming.notify()

    def cut(self) -> None:
        """Pull the cable: from now on both ends send into the void and receive nothing, without an error."""
        for end in (self, self._peer):
            if end is not None:
                end._silent = True
                end._incoming.notify()

    def reset(self) -> None:
        """Break the link: both ends raise BrokenResourceError from now on."""
        for end in (self, self._peer):
            if end is not None:
                end._broken = True
                end._incoming.notify()

    def _end(self) -> None:
        if not self._silent:
            self._outgoing.ended = True
        self._outgoing.notify()

    def _check(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError
        if self._broken:
            raise anyio.BrokenResourceError


def memory_links(
    *, latency_s: float = 0.0, buffer_bytes_max: int = BUFFER_BYTES_MAX
) -> tuple[MemoryStream, MemoryStream]:
    """Two ends of a new link.

    Args:
        latency_s: Seconds that bytes travel, in both directions.
        buffer_bytes_max: Bytes under way in one direction before its sender waits; at least 1.
    """
    there, back = _Direction(latency_s, buffer_bytes_max), _Direction(latency_s, buffer_bytes_max)
    one, other = MemoryStream(there, back), MemoryStream(back, there)
    one._peer, other._peer = other, one
    return one, other
