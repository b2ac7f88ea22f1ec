"""One end of a session between a client and a host: calls in frames on a byte stream.

A frame is a length of four bytes, big-endian, and one `RpcMessage`. Everything that one turn of the event loop has to
say leaves in one write. The stream is reliable and local, so nothing is sent twice; see `dxos.teleport.rpc` for the
calls themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final, final

import anyio
from anyio.abc import ByteStream

from dxos.aio import Changes
from dxos.errors import LimitError
from dxos.limits import (
    MESSAGE_BYTES_MAX,
    SESSION_CALLS_MAX,
    SESSION_PACE_S,
    SESSION_QUEUE_BYTES_MAX,
    SESSION_RECEIVE_BYTES,
    SESSION_SEND_BYTES,
)
from dxos.teleport.rpc import Event, RpcPeer, State

# What the envelope of a message says that it holds.
VALUE: Final = "dxos.value"  # Arguments, a value of a stream, or the answer, which is the last.
ITEMS: Final = "dxos.items"  # Some items of an answer that is a list; more come.
BYTES: Final = "dxos.bytes"  # Some bytes of a value or of items; more come, and what holds the last says what it is.
FIRST: Final = "dxos.first"  # The first bytes of long arguments, instead of all that came of others.
REST: Final = "dxos.rest"  # The last bytes of long arguments, with the call itself.
PROGRESS: Final = "dxos.progress"
ERROR: Final = "dxos.error"  # Why there is no answer, or the stream ends.
UPLOAD: Final = "dxos.client.services.Session.Upload"  # A call with some bytes of long arguments.

_LENGTH_BYTES: Final = 4
_GOODBYE_S: Final = 1.0  # What the last frames have to leave.


@final
class Port:
    """Drives one `RpcPeer` over one stream.

    Args:
        stream: Connected; closed when `run` returns.
        handle: Called with each event, in order.
        is_busy: Whether no more should be read for now; `resume` says when that is over.
    """

    def __init__(
        self,
        stream: ByteStream,
        handle: Callable[[Event], None],
        *,
        is_busy: Callable[[], bool] = lambda: False,
        queue_bytes_max: int = SESSION_QUEUE_BYTES_MAX,
    ) -> None:
        self.rpc = RpcPeer(calls_max=SESSION_CALLS_MAX)
        self.heard_at = anyio.current_time()  # Seconds on the event loop's clock.
        self._stream, self._handle, self._is_busy = stream, handle, is_busy
        self._queue_bytes_max = queue_bytes_max
        self._queue: list[bytes] = []  # Frames that wait to be sent, with their lengths.
        self._queued_bytes = 0
        self._under_way_bytes = 0
        self._to_send, self._urgent = anyio.Event(), anyio.Event()
        self._sent, self._resumed = Changes(), Changes()
        self._is_broken = False
        self.over = anyio.Event()  # `run` has returned.

    async def run(self) -> None:
        """Send and receive until the other side says goodbye, is gone, or `close`.

        Raises:
            PeerError: The other side broke the rules, or does not read what it asked for.
        """
        try:
            self._dispatch(self.rpc.start(now=0.0))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write)
                await self._read()
                with anyio.move_on_after(_GOODBYE_S):
                    await self._drained(0)
                tasks.cancel_scope.cancel()
        finally:
            self._dispatch(self.rpc.abort())
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(self._stream)
            self.over.set()

    @property
    def _is_closed(self) -> bool:
        return self.rpc.state is State.CLOSED

    def close(self) -> None:
        """Say goodbye; `run` ends when the other side has answered, or with its stream."""
        self._dispatch(self.rpc.close())
        self.flush()

    def flush(self, *, is_urgent: bool = True) -> None:
        """Have what the peer has to say be sent, in the next turn of the event loop.

        What is not urgent waits for what was sent less than SESSION_PACE_S ago: under load it goes with what comes
        next, as a write costs more than what it carries.

        Raises:
            LimitError: The other side does not read.
        """
        outgoing = self.rpc.outgoing
        if not outgoing:
            return
        while outgoing:
            message = outgoing.popleft()
            self._queue.append(len(message).to_bytes(_LENGTH_BYTES, "big"))
            self._queue.append(message)
            self._queued_bytes += len(message) + _LENGTH_BYTES
        if self._queued_bytes > self._queue_bytes_max:
            raise LimitError(
                "The other side of this session does not read what it asked for.", bytes_max=self._queue_bytes_max
            )
        self._to_send.set()
        if is_urgent:
            self._urgent.set()

    def resume(self) -> None:
        """Read on."""
        self._resumed.notify()

    async def wait_room(self) -> None:
        """Return when there is room for another piece of something long."""
        await self._drained(SESSION_SEND_BYTES)

    async def _drained(self, bytes_max: int) -> None:
        while self._queued_bytes + self._under_way_bytes > bytes_max and not self._is_broken:
            await self._sent.wait()

    async def _write(self) -> None:
        sent_at = -math.inf
        try:
            while True:
                await self._to_send.wait()
                wait_s = sent_at + SESSION_PACE_S - anyio.current_time()
                if wait_s > 0 and not self._urgent.is_set():
                    with anyio.move_on_after(wait_s):
                        await self._urgent.wait()
                self._to_send, self._urgent = anyio.Event(), anyio.Event()
                queue, self._queue = self._queue, []
                self._under_way_bytes, self._queued_bytes = self._queued_bytes, 0
                await self._stream.send(b"".join(queue))
                self._under_way_bytes = 0
                sent_at = anyio.current_time()
                self._sent.notify()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            self._is_broken = True  # The reader sees the end too.
            self._sent.notify()
            await self._stream.aclose()

    async def _read(self) -> None:
        buffer = bytearray()
        while not self._is_closed:
            try:
                buffer += await self._stream.receive(SESSION_RECEIVE_BYTES)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                return
            self.heard_at = anyio.current_time()
            start = 0
            while not self._is_closed and len(buffer) - start >= _LENGTH_BYTES:
                length = int.from_bytes(buffer[start : start + _LENGTH_BYTES], "big")
                if length > MESSAGE_BYTES_MAX:
                    raise LimitError("A frame of this session is too long.", bytes_max=MESSAGE_BYTES_MAX)
                end = start + _LENGTH_BYTES + length
                if end > len(buffer):
                    break
                self._dispatch(self.rpc.receive(bytes(memoryview(buffer)[start + _LENGTH_BYTES : end])))
                start = end
                while self._is_busy():
                    await self._resumed.wait()
            del buffer[:start]

    def _dispatch(self, events: Iterable[Event]) -> None:
        for event in events:
            self._handle(event)
        self.flush()

    def __repr__(self) -> str:
        return f"<Port {self.rpc!r} queued_bytes={self._queued_bytes}>"
