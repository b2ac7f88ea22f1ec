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
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar, final

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, TaskGroup
from google.protobuf.message import Message

from dxos.errors import BrokenError, DeadlineError, DxosError, LimitError, LinkError, PeerError, UsageError
from dxos.keys import PublicKey
from dxos.limits import (
    CHANNEL_BUFFER_BYTES_MAX,
    CHANNEL_SEND_BYTES,
    CONNECTION_CLOSE_S_MAX,
    CONNECTION_READ_BYTES,
    CONNECTION_WRITE_BYTES,
    RAW_READ_BYTES_MAX,
    RPC_CALLS_READ_MAX,
    RPC_TIMEOUT_S,
    STREAM_VALUES_MAX,
)
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
from dxos.wire import decode

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)


@final
@dataclass(frozen=True, slots=True)
class Serve(Generic[M]):
    """How one method is served: with one answer."""

    request: type[M]
    function: Callable[[M], Awaitable[Message]]


@final
@dataclass(frozen=True, slots=True)
class ServeStream(Generic[M]):
    """How one method is served: with a stream of answers, until the iterator ends or the peer stops it."""

    request: type[M]
    function: Callable[[M], AsyncIterator[Message]]


class Extension:
    """One protocol spoken on a connection; an object belongs to one connection. Made for inheriting."""

    name: ClassVar[str]  # As registered with the peer; no slash.
    fatal: ClassVar[bool] = False  # Whether an error of `opened` or of a handler ends the connection.

    @property
    def handlers(self) -> Mapping[str, Serve[Any] | ServeStream[Any]]:
        """What the peer may call, by `package.Service.Method`; read once, by `add_extension`.

        An error of the tree becomes the caller's error, by class name and message; anything else is a bug, is logged,
        and reaches the caller without a word of detail. Handlers may run before `opened` does.
        """
        return {}

    async def opened(self, channel: "ExtensionChannel") -> None:
        """Runs once both sides have opened the extension; cancelled when the connection closes."""


@final
class _Waiter:
    """A call of ours: wakes its task once with the outcome."""

    __slots__ = ("done", "error", "payload")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.payload = b""
        self.error: DxosError | None = None


@final
class RemoteStream(Generic[M]):
    """The answers to a streaming call; iterate it inside `async with`, which stops the peer when left."""

    def __init__(self, channel: "ExtensionChannel", number: int, response: type[M]) -> None:
        self._channel, self._number, self._response = channel, number, response
        self._items: deque[bytes] = deque()
        self._changed = anyio.Event()
        self._ready = anyio.Event()
        self._ended = False
        self._error: DxosError | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._channel._forget_stream(self._number)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> M:
        """The next answer.

        Raises:
            RemoteError: The peer ended the stream with an error.
            DeadlineError: It did not begin in time.
            LimitError: It sent faster than we read, beyond STREAM_VALUES_MAX.
            BrokenError: The connection was lost.
        """
        while not self._items and not self._ended:
            self._changed = anyio.Event()
            await self._changed.wait()
        if self._items:
            return decode(self._response, self._items.popleft())
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def wait_ready(self) -> None:
        """Wait until the peer says that the stream has begun, or until it ends."""
        await self._ready.wait()

    def _put(self, payload: bytes) -> None:
        if len(self._items) >= STREAM_VALUES_MAX:
            self._channel._forget_stream(self._number)
            self._end(LimitError("a stream was not read fast enough", values_max=STREAM_VALUES_MAX))
        else:
            self._items.append(payload)
            self._ready.set()
            self._changed.set()

    def _end(self, error: DxosError | None) -> None:
        self._ended, self._error = True, error
        self._ready.set()
        self._changed.set()


@final
class ExtensionChannel:
    """The calls of one extension of one connection."""

    def __init__(self, connection: "Connection", extension: Extension) -> None:
        self.connection = connection
        self.extension = extension
        self.name = extension.name
        self.is_open = False  # Whether both sides have opened it.
        self._handlers = dict(extension.handlers)
        self._waiters: dict[int, _Waiter] = {}
        self._streams: dict[int, RemoteStream[Any]] = {}
        self._requests: deque[rpc.Requested] = deque()
        self._serving: dict[int, anyio.CancelScope] = {}  # Streams the peer reads.
        self._idle: deque[anyio.Event] = deque()  # Workers without a request.
        self._awake = 0  # Workers that were woken and have not begun.

    def __repr__(self) -> str:
        state = "open" if self.is_open else "waiting"
        return f"<ExtensionChannel {self.name} {state} calls={len(self._waiters)} requests={len(self._requests)}>"

    @property
    def initiator(self) -> bool:
        """Whether we made the offer for this connection."""
        return self.connection.initiator

    @property
    def local_key(self) -> PublicKey:
        """Our key in the swarm."""
        return self.connection.local_key

    @property
    def remote_key(self) -> PublicKey:
        """The peer's key in the swarm; not proven by anything here."""
        return self.connection.remote_key

    async def call(self, method: str, request: Message, response: type[M], *, timeout_s: float = RPC_TIMEOUT_S) -> M:
        """Call a method of the peer; waits for the extension to open and for room to send, within the time allowed.

        Args:
            method: `package.Service.Method`.
            request: Its request.
            response: What its answer is read as.
            timeout_s: Seconds until DeadlineError.

        Raises:
            RemoteError: The peer answered with an error.
            DeadlineError: No answer in time.
            DecodeError: The answer does not parse.
            BrokenError: The connection was lost.

        Cancelling:
            The peer may or may not have been called; the connection stays usable.
        """
        connection = self.connection
        deadline = anyio.current_time() + timeout_s
        if connection._must_wait(self.name, self._session_calls()):
            await connection._wait_for_room(self.name, deadline, self._session_calls)
        number = connection._session.call(self.name, method, request, deadline=deadline)
        waiter = self._waiters[number] = _Waiter()
        connection._wake()
        try:
            await waiter.done.wait()
        except BaseException:
            if self._waiters.pop(number, None) is not None:
                connection._session.cancel(self.name, number)
            raise
        if waiter.error is not None:
            raise waiter.error
        return decode(response, waiter.payload)

    async def call_stream(
        self, method: str, request: Message, response: type[M], *, timeout_s: float = RPC_TIMEOUT_S
    ) -> RemoteStream[M]:
        """Ask for a stream of answers; `timeout_s` is for its beginning. Errors come while reading, as in `call`."""
        connection = self.connection
        deadline = anyio.current_time() + timeout_s
        if connection._must_wait(self.name, self._session_calls()):
            await connection._wait_for_room(self.name, deadline, self._session_calls)
        number = connection._session.call(self.name, method, request, deadline=deadline, stream=True)
        stream = self._streams[number] = RemoteStream(self, number, response)
        connection._wake()
        return stream

    def open_raw(self, tag: str, content_type: str | None = None) -> "RawStream":
        """Open a stream of bytes beside the calls; the peer must open the same tag. What is sent before waits.

        Raises:
            UsageError: The tag is open already.
            BrokenError: The connection is closed.
        """
        return self.connection._open_raw(self.name, tag, content_type)

    def _session_calls(self) -> int:
        return self.connection._session.peer_of(self.name).calls_count

    def _forget_stream(self, number: int) -> None:
        if self._streams.pop(number, None) is not None:
            self.connection._session.cancel(self.name, number)
            self.connection._wake()

    def _handle(self, event: rpc.Event) -> None:
        match event:
            case rpc.Requested():
                self._requests.append(event)
                self._engage_worker()
            case rpc.Answered(number, payload):
                if (waiter := self._waiters.pop(number, None)) is not None:
                    waiter.payload = payload.value
                    waiter.done.set()
                elif (stream := self._streams.get(number)) is not None:
                    stream._put(payload.value)
            case rpc.Ended(number, error):
                if (waiter := self._waiters.pop(number, None)) is not None:
                    waiter.error = error
                    waiter.done.set()
                elif (stream := self._streams.pop(number, None)) is not None:
                    stream._end(error)
            case rpc.StreamReady(number):
                if (stream := self._streams.get(number)) is not None:
                    stream._ready.set()
            case rpc.StreamStopped(number):
                if (scope := self._serving.get(number)) is not None:
                    scope.cancel()
            case rpc.Opened():
                self.is_open = True
                self.connection._start_soon(self._run_opened)
            case rpc.Closed():
                self.is_open = False

    # --- Serving ----------------------------------------------------------------------------------------------------

    def _engage_worker(self) -> None:
        if self._awake or not self._requests:
            return
        self._awake = 1
        if self._idle:
            self._idle.popleft().set()
        else:
            self.connection._start_soon(self._work)

    async def _work(self) -> None:
        while True:
            self._awake = 0
            while self._requests:
                # A handler that waits hands the queue to the next worker; one that does not is followed by this one.
                await _Noticing(self._serve(self._requests.popleft()), self._engage_worker)
            if len(self._idle) >= 1:
                return
            wake = anyio.Event()
            self._idle.append(wake)
            await wake.wait()

    async def _serve(self, request: rpc.Requested) -> None:
        session = self.connection._session
        handler = self._handlers.get(request.method)
        try:
            if isinstance(handler, Serve) and not request.stream:
                answer = await handler.function(decode(handler.request, request.payload.value))
                if self.connection._must_wait(self.name, 0):
                    await self.connection._wait_for_room(self.name, None, None)
                session.respond(self.name, request.id, answer)
            elif isinstance(handler, ServeStream) and request.stream:
                await self._serve_stream(request, handler)
            else:
                session.fail(self.name, request.id, "UnknownMethodError", f"no such method: {request.method}")
        except DxosError as error:
            if isinstance(error, BrokenError) and self.connection.is_closing:
                return
            self._fail(request, type(error).__name__, str(error))
            if self.extension.fatal:
                self.connection.close_nowait(error)
        except Exception:
            log.exception("a handler of %s failed", request.method)
            self._fail(request, "Error", "internal error")
        self.connection._wake()

    async def _serve_stream(self, request: rpc.Requested, handler: ServeStream[Any]) -> None:
        session, number = self.connection._session, request.id
        with anyio.CancelScope() as scope:
            self._serving[number] = scope
            try:
                items = handler.function(decode(handler.request, request.payload.value))
                session.send_ready(self.name, number)
                self.connection._wake()
                async for item in items:
                    if self.connection._must_wait(self.name, 0):
                        await self.connection._wait_for_room(self.name, None, None)
                    session.send_item(self.name, number, item)
                    self.connection._wake()
                session.end(self.name, number)
            finally:
                del self._serving[number]

    def _fail(self, request: rpc.Requested, name: str, message: str) -> None:
        try:
            self.connection._session.fail(self.name, request.id, name, message)
        except BrokenError as error:
            self.connection.close_nowait(error)

    async def _run_opened(self) -> None:
        try:
            await self.extension.opened(self)
        except DxosError as error:
            if self.connection.is_closing:
                return
            log.info("extension %s of %s ended: %s", self.name, self.connection, error)
            if self.extension.fatal:
                self.connection.close_nowait(error)
        except Exception:
            log.exception("extension %s failed", self.name)
            self.connection.close_nowait(BrokenError("an extension failed; see the log"))


@final
class RawStream(ByteStream):
    """A stream of bytes between two extensions; errors are BrokenError, and EndOfStream once the connection closes."""

    def __init__(self, connection: "Connection", channel: int, tag: str) -> None:
        self.tag = tag
        self._connection, self._channel = connection, channel
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
        if self._connection._must_wait(self._channel, 0):
            await self._connection._wait_for_room(self._channel, None, None)
        self._connection._session.send_raw(self._channel, bytes(item))
        self._connection._wake()

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
        self._connection._raw_bytes -= len(chunk)
        self._connection._eased()
        return chunk

    async def send_eof(self) -> None:
        """Does nothing: the wire has no end of one channel."""

    async def aclose(self) -> None:
        """Forget the channel here; the peer is not told. Never waits; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._connection._raw.pop(self._channel, None)
        self._connection._raw_bytes -= self._size
        self._chunks.clear()
        self._size = 0
        self._connection._session.close_raw(self._channel)
        self._changed.set()
        self._is_open.set()
        self._connection._eased()

    def _put(self, data: bytes) -> None:
        if data:
            self._chunks.append(data)
            self._size += len(data)
            self._connection._raw_bytes += len(data)
            self._changed.set()

    def _end(self) -> None:
        self._ended = True
        self._changed.set()
        self._is_open.set()


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
        self._session = Session(now=anyio.current_time())
        self._channels: dict[str, ExtensionChannel] = {}
        self._raw: dict[int, RawStream] = {}
        self._raw_bytes = 0  # Received on raw streams and not read.
        self._sendable = anyio.Event()
        self._room = anyio.Event()  # Set whenever bytes went out or calls ended.
        self._ease = anyio.Event()  # Set whenever something the peer sent was dealt with.
        self._timer_changed = anyio.Event()
        self._timer_target: float | None = None
        self._closing = anyio.Event()
        self._ended = anyio.Event()  # Nothing more will be read or written.
        self._work: TaskGroup | None = None
        self._early: list[Callable[[], Coroutine[Any, Any, None]]] = []

    def __repr__(self) -> str:
        role = "initiator" if self.initiator else "acceptor"
        return f"<Connection {self.local_key.truncate()}→{self.remote_key.truncate()} {role} {self.state}>"

    @property
    def state(self) -> str:
        """`opening`, `open`, `closing` or `closed`."""
        return "closed" if self.closed.is_set() else self._session.state.value

    @property
    def is_closing(self) -> bool:
        """Whether the end has begun, or is over."""
        return self._closing.is_set()

    @property
    def remote_extensions(self) -> frozenset[str]:
        """Names the peer has registered so far."""
        return frozenset(self._session.remote_extensions)

    def add_extension(self, extension: Extension) -> ExtensionChannel:
        """Register an extension, before or while running; its channel may be called at once.

        Raises:
            UsageError: One of that name is registered already.
            BrokenError: The connection is closed.
        """
        if extension.name in self._channels:
            raise UsageError("this extension is registered already", extension=extension.name)
        channel = ExtensionChannel(self, extension)
        events = self._session.add_extension(extension.name, now=anyio.current_time())
        self._channels[extension.name] = channel
        self._dispatch(events)
        self._wake()
        return channel

    def channel(self, name: str) -> ExtensionChannel | None:
        """The channel of an extension added here."""
        return self._channels.get(name)

    def close_nowait(self, error: DxosError | None = None) -> None:
        """Begin to end the connection; `error` is kept, and its message told to the peer. Idempotent."""
        self._dispatch(self._session.close(error))
        self._wake()

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
                    await self._closing.wait()
                    self._work.cancel_scope.cancel()
                with anyio.move_on_after(CONNECTION_CLOSE_S_MAX):
                    await self._ended.wait()
                streams.cancel_scope.cancel()
        finally:
            self._closing.set()
            self._dispatch(self._session.link_lost())
            for raw in list(self._raw.values()):
                raw._end()
            self._room.set()
            with anyio.CancelScope(shield=True), anyio.move_on_after(CONNECTION_CLOSE_S_MAX):
                await anyio.aclose_forcefully(self._stream)
            self.closed.set()

    # --- Tasks ------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while not self._ended.is_set():
            while self._is_congested():
                self._ease = anyio.Event()
                await self._ease.wait()
            try:
                untrusted = await self._stream.receive(CONNECTION_READ_BYTES)
            except anyio.EndOfStream:
                self._lose(BrokenError("the peer closed the link"))
                return
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                self._lose(BrokenError("the link to the peer was lost"))
                return
            try:
                events = self._session.receive(untrusted, now=anyio.current_time())
            except PeerError as error:
                log.info("%r misbehaved: %s", self, error)
                self.close_nowait(error)
                return  # The rest of what it sends has no meaning any more.
            except BrokenError as error:  # So much waits to be sent that not even an acknowledgement has room.
                self.close_nowait(error)
                return
            self._dispatch(events)
            self._wake()

    async def _write(self) -> None:
        while True:
            data = self._session.data_to_send(CONNECTION_WRITE_BYTES)
            if not data:
                if self._session_is_done():
                    self._ended.set()
                    return
                self._sendable = anyio.Event()
                await self._sendable.wait()
                continue
            try:
                await self._stream.send(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                self._lose(BrokenError("the link to the peer was lost"))
                return
            self._notify_room()

    async def _tick(self) -> None:
        while True:
            self._timer_target = self._session.timer_at
            self._timer_changed = anyio.Event()
            if self._timer_target is None:
                await self._timer_changed.wait()
                continue
            with anyio.move_on_after(self._timer_target - anyio.current_time()) as waiting:
                await self._timer_changed.wait()
            if waiting.cancelled_caught:
                self._timer_target = None
                self._dispatch(self._session.handle_timer(now=anyio.current_time(), now_ms=self._now_ms()))
                self._wake()

    # --- Inside -----------------------------------------------------------------------------------------------------

    def _dispatch(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case ExtensionEvent(name, inner):
                    self._channels[name]._handle(inner)
                    if isinstance(inner, rpc.Ended | rpc.Answered):
                        self._notify_room()
                case RawReceived(channel, data):
                    if (raw := self._raw.get(channel)) is not None:
                        raw._put(data)
                case RawOpened(channel):
                    if (raw := self._raw.get(channel)) is not None:
                        raw._is_open.set()
                case SessionClosed(error):
                    if not self._closing.is_set():
                        self.error = error
                    self._closing.set()
                case SessionOpened():
                    pass
        if self._session.is_closing and not self._closing.is_set():
            self.error = self._session.error
            self._closing.set()

    def _wake(self) -> None:
        self._sendable.set()
        at = self._session.timer_at
        if at is not None and (self._timer_target is None or at < self._timer_target):
            self._timer_changed.set()
        self._eased()

    def _eased(self) -> None:
        if not self._ease.is_set():
            self._ease.set()

    def _notify_room(self) -> None:
        if not self._room.is_set():
            self._room.set()

    def _is_congested(self) -> bool:
        if self._raw_bytes >= RAW_READ_BYTES_MAX:
            return True
        return any(self._session.peer_of(name).is_busy for name in self._channels)

    def _must_wait(self, lane: str | int, calls_count: int) -> bool:
        session = self._session
        return (
            session.queued_bytes_of(lane) >= CHANNEL_SEND_BYTES
            or session.queued_bytes >= CHANNEL_BUFFER_BYTES_MAX // 2
            or calls_count >= RPC_CALLS_READ_MAX
        )

    async def _wait_for_room(
        self, lane: str | int, deadline: float | None, calls_count: Callable[[], int] | None
    ) -> None:
        with anyio.CancelScope(deadline=deadline if deadline is not None else float("inf")) as scope:
            while self._must_wait(lane, calls_count() if calls_count is not None else 0):
                if self.is_closing:
                    raise BrokenError("the connection is closed")
                if self._room.is_set():
                    self._room = anyio.Event()
                await self._room.wait()
        if scope.cancelled_caught:
            raise DeadlineError("the peer takes what we send too slowly")

    def _session_is_done(self) -> bool:
        # After a fault there is no point in waiting for the peer's answer to our end.
        return self._session.is_closed or isinstance(self._session.error, PeerError | LinkError)

    def _lose(self, error: DxosError) -> None:
        self._dispatch(self._session.link_lost(error))
        self._closing.set()
        self._ended.set()

    def _start_soon(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._closing.is_set():
            return
        if self._work is None:
            self._early.append(function)
        else:
            self._work.start_soon(function)

    def _open_raw(self, name: str, tag: str, content_type: str | None) -> RawStream:
        channel, events = self._session.open_raw(name, tag, content_type)
        raw = self._raw[channel] = RawStream(self, channel, tag)
        self._dispatch(events)
        self._wake()
        return raw


@final
class _Noticing(Generator[Any, Any, None]):
    """Awaits a coroutine, and says so once if it waits for anything."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits: Callable[[], None]) -> None:
        self._coroutine, self._waits = coroutine, waits
        self._noticed = False

    def __await__(self) -> Generator[Any, Any, None]:
        return self

    def send(self, value: Any) -> Any:
        """Run on to where it waits; StopIteration, its end, passes through."""
        trap = self._coroutine.send(value)
        if not self._noticed:
            self._noticed = True
            self._waits()
        return trap

    def throw(self, *error: Any) -> Any:
        """Run on with an error, such as a cancellation."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """End it."""
        self._coroutine.close()
