"""Runs one connection to a peer: a stream of bytes below, extensions with calls and channels above.

    stream ──▶ _read ──▶ Session ──▶ events ──▶ workers (handlers), waiting calls, raw streams
    stream ◀── _write ◀── Session ◀── answers, calls, raw streams

Invariants
1. One reader and one writer; whatever was queued while the writer was busy goes out in its next write.
2. Requests of one extension start in the order they came; a handler that waits lets the next one start.
3. The reader never runs a handler. It stops reading while too much of what the peer sent is not dealt with.
4. Whatever a peer sends ends this connection at most; `error` then says why.
"""

import logging
from collections.abc import Callable, Coroutine
from typing import Any, final

import anyio
from anyio.abc import ByteStream, TaskGroup

from dxos.errors import BrokenError, DxosError, LinkError, PeerError, UsageError
from dxos.keys import PublicKey
from dxos.limits import CONNECTION_CLOSE_S_MAX, CONNECTION_READ_BYTES, CONNECTION_WRITE_BYTES, RAW_READ_BYTES_MAX
from dxos.mesh.extension import Extension, ExtensionChannel, RemoteStream, Serve, ServeStream
from dxos.mesh.outlet import Outlet
from dxos.mesh.raw_stream import RawStream
from dxos.teleport import rpc
from dxos.teleport.session import (
    Event,
    ExtensionEvent,
    RawOpened,
    RawReceived,
    Session,
    SessionClosed,
    SessionOpened,
)

__all__ = ["Connection", "Extension", "ExtensionChannel", "RawStream", "RemoteStream", "Serve", "ServeStream"]

log = logging.getLogger(__name__)


@final
class Connection:
    """One connection to one peer; make it, add extensions, then `await run()` in a task of its own.

    Args:
        stream: Bytes to and from the peer; closed when `run` ends.
        local_key: Our key in the swarm.
        remote_key: The peer's, as signalling told it.
        initiator: Whether we made the offer.
        now_ms: Milliseconds since 1970, for time stamps.

    Attributes:
        closed: Set when everything is over.
        error: Why it ended; None while it runs, and when either side ended it in order.
    """

    def __init__(
        self,
        stream: ByteStream,
        *,
        local_key: PublicKey,
        remote_key: PublicKey,
        initiator: bool,
        now_ms: Callable[[], int],
    ) -> None:
        self.local_key, self.remote_key, self.initiator = local_key, remote_key, initiator
        self.closed = anyio.Event()
        self.error: DxosError | None = None
        self._stream = stream
        self._now_ms = now_ms
        self._outlet = Outlet(Session(now=anyio.current_time()))
        self._channels: dict[str, ExtensionChannel] = {}
        self._raw: dict[int, RawStream] = {}
        self._ended = anyio.Event()  # Nothing more will be read or written.
        self._work: TaskGroup | None = None
        self._early: list[Callable[[], Coroutine[Any, Any, None]]] = []

    def __repr__(self) -> str:
        role = "initiator" if self.initiator else "acceptor"
        return f"<Connection {self.local_key.truncate()}→{self.remote_key.truncate()} {role} {self.state}>"

    @property
    def state(self) -> str:
        """`opening`, `open`, `closing` or `closed`."""
        return "closed" if self.closed.is_set() else self._outlet.session.state.value

    @property
    def is_closing(self) -> bool:
        """Whether the end has begun, or is over."""
        return self._outlet.closing.is_set()

    @property
    def remote_extensions(self) -> frozenset[str]:
        """Names the peer has registered so far."""
        return frozenset(self._outlet.session.remote_extensions)

    def add_extension(self, extension: Extension) -> ExtensionChannel:
        """Register an extension, before or while running; its channel may be called at once.

        Raises:
            UsageError: One of that name is registered already.
            BrokenError: The connection is closed.
        """
        if extension.name in self._channels:
            raise UsageError("This extension is registered already.", extension=extension.name)
        channel = ExtensionChannel(self, extension, self._outlet, self._start_soon, self._open_raw)
        events = self._outlet.session.add_extension(extension.name, now=anyio.current_time())
        self._channels[extension.name] = channel
        self._dispatch(events)
        self._outlet.wake()
        return channel

    def channel(self, name: str) -> ExtensionChannel | None:
        """The channel of an extension added here."""
        return self._channels.get(name)

    def close_nowait(self, error: DxosError | None = None) -> None:
        """Begin to end the connection; `error` is kept, and its message told to the peer. Idempotent."""
        self._dispatch(self._outlet.session.close(error))
        self._outlet.wake()

    async def aclose(self) -> None:
        """End the connection in order and wait until `run` is done. Not from inside its own extensions or handlers."""
        self.close_nowait()
        await self.closed.wait()

    async def run(self) -> None:
        """Run until the connection is over, then close the stream; never raises an error of the tree.

        Cancelling:
            Drops the connection at once.
        """
        assert not self.closed.is_set(), "a connection runs once"
        try:
            async with anyio.create_task_group() as streams:
                streams.start_soon(self._read)
                streams.start_soon(self._write)
                streams.start_soon(self._tick)
                async with anyio.create_task_group() as self._work:
                    for start in self._early:
                        self._work.start_soon(start)
                    self._early.clear()
                    await self._outlet.closing.wait()
                    self._work.cancel_scope.cancel()
                with anyio.move_on_after(CONNECTION_CLOSE_S_MAX):
                    await self._ended.wait()
                streams.cancel_scope.cancel()
        finally:
            self._outlet.closing.set()
            self._dispatch(self._outlet.session.link_lost())
            for raw in list(self._raw.values()):
                raw.end()
            self._outlet.notify_room()
            with anyio.CancelScope(shield=True), anyio.move_on_after(CONNECTION_CLOSE_S_MAX):
                await anyio.aclose_forcefully(self._stream)
            self.closed.set()

    # --- Tasks ------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while not self._ended.is_set():
            while self._is_congested():
                self._outlet.eased = anyio.Event()
                await self._outlet.eased.wait()
            try:
                untrusted = await self._stream.receive(CONNECTION_READ_BYTES)
            except anyio.EndOfStream:
                self._lose(BrokenError("The peer closed the link."))
                return
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                self._lose(BrokenError("The link to the peer was lost."))
                return
            try:
                events = self._outlet.session.receive(untrusted, now=anyio.current_time())
            except PeerError as error:
                log.info("%r misbehaved: %s", self, error)
                self.close_nowait(error)
                return  # The rest of what it sends has no meaning any more.
            except BrokenError as error:  # So much waits to be sent that not even an acknowledgement has room.
                self.close_nowait(error)
                return
            self._dispatch(events)
            self._outlet.wake()

    async def _write(self) -> None:
        while True:
            data = self._outlet.session.data_to_send(CONNECTION_WRITE_BYTES)
            if not data:
                if self._session_is_done():
                    self._ended.set()
                    return
                self._outlet.sendable = anyio.Event()
                await self._outlet.sendable.wait()
                continue
            try:
                await self._stream.send(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                self._lose(BrokenError("The link to the peer was lost."))
                return
            self._outlet.notify_room()

    async def _tick(self) -> None:
        while True:
            self._outlet.timer_target = self._outlet.session.timer_at
            self._outlet.timer_changed = anyio.Event()
            if self._outlet.timer_target is None:
                await self._outlet.timer_changed.wait()
                continue
            with anyio.move_on_after(self._outlet.timer_target - anyio.current_time()) as waiting:
                await self._outlet.timer_changed.wait()
            if waiting.cancelled_caught:
                self._outlet.timer_target = None
                self._dispatch(self._outlet.session.handle_timer(now=anyio.current_time(), now_ms=self._now_ms()))
                self._outlet.wake()

    # --- Inside -----------------------------------------------------------------------------------------------------

    def _dispatch(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case ExtensionEvent(name, inner):
                    self._channels[name].handle(inner)
                    if isinstance(inner, rpc.Ended | rpc.Answered):
                        self._outlet.notify_room()
                case RawReceived(channel, data):
                    if (raw := self._raw.get(channel)) is not None:
                        raw.put(data)
                case RawOpened(channel):
                    if (raw := self._raw.get(channel)) is not None:
                        raw.opened()
                case SessionClosed(error):
                    if not self._outlet.closing.is_set():
                        self.error = error
                    self._outlet.closing.set()
                case SessionOpened():
                    pass
        if self._outlet.session.is_closing and not self._outlet.closing.is_set():
            self.error = self._outlet.session.error
            self._outlet.closing.set()
            self._outlet.notify_room()

    def _is_congested(self) -> bool:
        if self._outlet.raw_bytes >= RAW_READ_BYTES_MAX:
            return True
        return any(self._outlet.session.peer_of(name).is_busy for name in self._channels)

    def _session_is_done(self) -> bool:
        # After a fault there is no point in waiting for the peer's answer to our end.
        return self._outlet.session.is_closed or isinstance(self._outlet.session.error, PeerError | LinkError)

    def _lose(self, error: DxosError) -> None:
        self._dispatch(self._outlet.session.link_lost(error))
        self._outlet.closing.set()
        self._ended.set()

    def _start_soon(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._outlet.closing.is_set():
            return
        if self._work is None:
            self._early.append(function)
        else:
            self._work.start_soon(function)

    def _open_raw(self, name: str, tag: str, content_type: str | None) -> RawStream:
        channel, events = self._outlet.session.open_raw(name, tag, content_type)
        raw = self._raw[channel] = RawStream(self._outlet, lambda number: self._raw.pop(number, None), channel, tag)
        self._dispatch(events)
        self._outlet.wake()
        return raw
