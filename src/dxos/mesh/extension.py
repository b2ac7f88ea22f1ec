"""What is spoken on a connection: an extension's handlers, and the channel of calls between its two sides.

Requests start in the order they came. One worker takes them one after the other; as soon as a handler waits, the next
worker goes on with the queue, so a handler that never waits costs no task of its own.
"""

import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, final

import anyio
from google.protobuf.message import Message
from msgspec import Struct

from dxos.errors import BrokenError, DxosError, LimitError
from dxos.keys import PublicKey
from dxos.limits import RPC_TIMEOUT_S, STREAM_VALUES_MAX
from dxos.mesh.outlet import Outlet
from dxos.mesh.raw_stream import RawStream
from dxos.teleport import rpc
from dxos.wire import decode

if TYPE_CHECKING:
    from dxos.mesh.connection import Connection

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)
StartSoon = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]
OpenRaw = Callable[[str, str, str | None], RawStream]


@final
class Serve(Struct, Generic[M], frozen=True):
    """How one method is served: with one answer."""

    request: type[M]
    function: Callable[[M], Awaitable[Message]]


@final
class ServeStream(Struct, Generic[M], frozen=True):
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

    def __init__(self, forget: Callable[[int], None], number: int, response: type[M]) -> None:
        self._forget, self._number, self._response = forget, number, response
        self._items: deque[bytes] = deque()
        self._changed = anyio.Event()
        self._ready = anyio.Event()
        self._ended = False
        self._error: DxosError | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._forget(self._number)

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

    def ready(self) -> None:
        """The peer has begun; for the channel to call, as are the next two."""
        self._ready.set()

    def put(self, payload: bytes) -> None:
        """An answer has arrived."""
        if len(self._items) >= STREAM_VALUES_MAX:
            self._forget(self._number)
            self.end(LimitError("A stream was not read fast enough.", values_max=STREAM_VALUES_MAX))
        else:
            self._items.append(payload)
            self._ready.set()
            self._changed.set()

    def end(self, error: DxosError | None) -> None:
        """No more answers will come."""
        self._ended, self._error = True, error
        self._ready.set()
        self._changed.set()


@final
class ExtensionChannel:
    """The calls of one extension of one connection."""

    def __init__(
        self, connection: "Connection", extension: Extension, outlet: Outlet, start_soon: StartSoon, open_raw: OpenRaw
    ) -> None:
        self.connection = connection
        self.extension = extension
        self.name = extension.name
        self.is_open = False  # Whether both sides have opened it.
        self._outlet, self._start_soon, self._open_raw = outlet, start_soon, open_raw
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
        deadline = anyio.current_time() + timeout_s
        await self.wait_turn(deadline)
        number = self._outlet.session.call(self.name, method, request, deadline=deadline)
        waiter = self._waiters[number] = _Waiter()
        self._outlet.wake()
        try:
            await waiter.done.wait()
        except BaseException:
            if self._waiters.pop(number, None) is not None:
                self._outlet.session.cancel(self.name, number)
            raise
        if waiter.error is not None:
            raise waiter.error
        return decode(response, waiter.payload)

    async def call_stream(
        self, method: str, request: Message, response: type[M], *, timeout_s: float = RPC_TIMEOUT_S
    ) -> RemoteStream[M]:
        """Ask for a stream of answers; `timeout_s` is for its beginning. Errors come while reading, as in `call`."""
        deadline = anyio.current_time() + timeout_s
        await self.wait_turn(deadline)
        number = self._outlet.session.call(self.name, method, request, deadline=deadline, stream=True)
        stream = self._streams[number] = RemoteStream(self._forget_stream, number, response)
        self._outlet.wake()
        return stream

    def open_raw(self, tag: str, content_type: str | None = None) -> "RawStream":
        """Open a stream of bytes beside the calls; the peer must open the same tag. What is sent before waits.

        Raises:
            UsageError: The tag is open already.
            BrokenError: The connection is closed.
        """
        return self._open_raw(self.name, tag, content_type)

    async def wait_turn(self, deadline: float) -> None:
        """Wait until a call would be sent at once; several that wait may go on in any order.

        Raises:
            DeadlineError: The deadline passed.
            BrokenError: The connection was lost.
        """
        peer = self._outlet.session.peer_of(self.name)
        if self._outlet.must_wait(self.name, peer.calls_count):
            await self._outlet.wait_room(self.name, deadline=deadline, calls_count=lambda: peer.calls_count)

    def _forget_stream(self, number: int) -> None:
        if self._streams.pop(number, None) is not None:
            self._outlet.session.cancel(self.name, number)
            self._outlet.wake()

    def handle(self, event: rpc.Event) -> None:
        """Take an event of this extension; for the connection to call."""
        match event:
            case rpc.Requested():
                self._requests.append(event)
                self._engage_worker()
            case rpc.Answered(number, payload):
                if (waiter := self._waiters.pop(number, None)) is not None:
                    waiter.payload = payload.value
                    waiter.done.set()
                elif (stream := self._streams.get(number)) is not None:
                    stream.put(payload.value)
            case rpc.Ended(number, error):
                if (waiter := self._waiters.pop(number, None)) is not None:
                    waiter.error = error
                    waiter.done.set()
                elif (stream := self._streams.pop(number, None)) is not None:
                    stream.end(error)
            case rpc.StreamReady(number):
                if (stream := self._streams.get(number)) is not None:
                    stream.ready()
            case rpc.StreamStopped(number):
                if (scope := self._serving.get(number)) is not None:
                    scope.cancel()
            case rpc.Opened():
                self.is_open = True
                self._start_soon(self._run_opened)
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
            self._start_soon(self._work)

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
        session = self._outlet.session
        handler = self._handlers.get(request.method)
        try:
            if isinstance(handler, Serve) and not request.stream:
                answer = await handler.function(decode(handler.request, request.payload.value))
                if self._outlet.must_wait(self.name):
                    await self._outlet.wait_room(self.name)
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
        self._outlet.wake()

    async def _serve_stream(self, request: rpc.Requested, handler: ServeStream[Any]) -> None:
        session, number = self._outlet.session, request.id
        with anyio.CancelScope() as scope:
            self._serving[number] = scope
            try:
                items = handler.function(decode(handler.request, request.payload.value))
                session.send_ready(self.name, number)
                self._outlet.wake()
                async for item in items:
                    if self._outlet.must_wait(self.name):
                        await self._outlet.wait_room(self.name)
                    session.send_item(self.name, number, item)
                    self._outlet.wake()
                session.end(self.name, number)
            finally:
                del self._serving[number]

    def _fail(self, request: rpc.Requested, name: str, message: str) -> None:
        try:
            self._outlet.session.fail(self.name, request.id, name, message)
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
            self.connection.close_nowait(BrokenError("An extension failed; see the log."))


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
