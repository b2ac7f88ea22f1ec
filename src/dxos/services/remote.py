"""A host in another process, as services: proxies that survive a change of host.

    connect ─▶ LINKED ── stream ends, or the host is silent ──▶ waiting for `connect` ─▶ LINKED ─▶ …
                 ▲ streams are followed again, then calls are made again              │
                 └────────────────────────────────────────────────────────────────────┘

Invariants
1. A call ends once: with its answer, with an error of the host, or, if nobody can know whether it was done and it must
   not be done twice, with BrokenError. Calls made while no host is there wait.
2. Streams are followed again before any call is made to a new host. A stream of states never tells the same state
   twice in a row; a stream of changes tells that some may have been `missed`.
3. Updates of one space are made one after the other, each with a receipt: a host that has applied one answers it only.
   Receipts are kept for a day, so an update is not sent again after that.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, cast, final

import anyio
from anyio.abc import ByteStream, TaskGroup
from msgspec import Struct

from dxos import aio
from dxos.aio import Changes, Listeners, Opener
from dxos.errors import BrokenError, ClosedError, DxosError, PeerError, ProtocolError
from dxos.limits import (
    HOST_HEARTBEAT_S,
    HOST_SILENCE_S_MAX,
    RECEIPT_AGE_S_MAX,
    RECONNECT_S_MAX,
    RECONNECT_S_MIN,
    SESSION_PIECE_BYTES,
)
from dxos.services import contract
from dxos.services.codec import codec_of
from dxos.services.contract import Edit, Next, ObjectState, Receipt, Services, SystemStatus
from dxos.services.methods import Method, Repeat, Stream, methods_of
from dxos.services.port import BYTES, ERROR, FIRST, ITEMS, PROGRESS, REST, UPLOAD, VALUE, Port
from dxos.teleport.rpc import Answered, Ended, Event, State
from dxos.wire.proto import values_pb2

_log = logging.getLogger("dxos.client")
_ERRORS: Final = codec_of(DxosError)
_GOODBYE_S: Final = 1.0  # What the host has to answer a goodbye.

Connect = Callable[[], Awaitable[ByteStream]]


class _LinkLostError(Exception):
    """The session ended before the answer."""


@final
class _Services(Struct, frozen=True):
    system: contract.SystemService
    network: contract.NetworkService
    identity: contract.IdentityService
    devices: contract.DevicesService
    contacts: contract.ContactsService
    invitations: contract.InvitationsService
    spaces: contract.SpacesService
    data: contract.DataService
    query: contract.QueryService
    history: contract.HistoryService
    logging: contract.LoggingService
    devtools: contract.DevtoolsHost


@final
class RemoteServices:
    """A `ServicesProvider` for a host in another process.

    Args:
        connect: Waits until there is a host, and gives a stream that is connected to it; called again whenever that
            stream has ended. What it raises ends the block.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._stack: AsyncExitStack | None = None
        self._link: _Link | None = None
        self._linked = Changes()
        self._streams: list[_Followed] = []
        self._status: SystemStatus | None = None
        self._told: SystemStatus | None = None  # What subscribers know; None also before the first status.
        self._statuses: Listeners[SystemStatus | None] = Listeners()
        self._closing = False
        # Above what an earlier object may have used under the same client's id.
        self._sequence = time.time_ns()

    # --- Opening and closing ------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Services:
        assert self._stack is None, "opened once for each time it is closed"
        self._closing, self._status, self._told = False, None, None
        self._streams, self._opener = [], Opener()
        services = _Services(
            system=cast(contract.SystemService, _System(self)),
            network=cast(contract.NetworkService, _Proxy(self, "network")),
            identity=cast(contract.IdentityService, _Proxy(self, "identity")),
            devices=cast(contract.DevicesService, _Proxy(self, "devices")),
            contacts=cast(contract.ContactsService, _Proxy(self, "contacts")),
            invitations=cast(contract.InvitationsService, _Proxy(self, "invitations")),
            spaces=cast(contract.SpacesService, _Proxy(self, "spaces")),
            data=cast(contract.DataService, _Data(self)),
            query=cast(contract.QueryService, _Proxy(self, "query")),
            history=cast(contract.HistoryService, _Proxy(self, "history")),
            logging=cast(contract.LoggingService, _Proxy(self, "logging")),
            devtools=cast(contract.DevtoolsHost, _Proxy(self, "devtools")),
        )
        method = methods_of("system")["query_status"]
        status = _Followed(method, method.arguments.pack(()), self._receive_status, None)
        self._streams.append(status)
        async with AsyncExitStack() as stack:
            stack.enter_context(aio.unwrap_group())
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            # Until there is a first host, failing to connect is an error of opening.
            stream = await self._connect()
            tasks.start_soon(self._run, stream, tasks)
            stack.push_async_callback(self._say_goodbye)
            self._stack = stack.pop_all()
        return services

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        stack, self._stack = self._stack, None
        assert stack is not None, "closed once for each time it was opened"
        return await stack.__aexit__(kind, error, trace)

    async def _say_goodbye(self) -> None:
        self._closing = True
        self._linked.notify()
        self._streams.clear()
        if self._link is not None:
            with anyio.move_on_after(_GOODBYE_S):
                await self._link.say_goodbye()

    async def _run(self, stream: ByteStream, tasks: TaskGroup) -> None:
        pause_s = 0.0
        while True:
            link, began = _Link(stream), anyio.current_time()
            try:
                with aio.unwrap_group():
                    async with anyio.create_task_group() as inside:
                        inside.start_soon(self._watch, link)
                        for one in tuple(self._streams):
                            one.begin(link)
                        self._link = link
                        self._linked.notify()
                        await link.port.run()
                        inside.cancel_scope.cancel()
            except PeerError as error:
                _log.warning("The session with the host was ended: %s", error)
            finally:
                self._link = None
            if self._closing:
                return
            self._status = self._streams[0].last = None  # A new host says anew that it works.
            self._tell(None)
            # A session that ends as soon as it begins must not keep this process busy.
            is_short = anyio.current_time() - began < RECONNECT_S_MAX
            before_s, pause_s = pause_s, min(max(2 * pause_s, RECONNECT_S_MIN), RECONNECT_S_MAX) if is_short else 0.0
            if before_s < pause_s == RECONNECT_S_MAX:
                _log.warning("Each session with the host ends as soon as it begins; the host's log says why.")
            await anyio.sleep(pause_s)
            stream = await self._connect()
            for one in self._streams:
                one.again = True

    async def _watch(self, link: _Link) -> None:
        """Say that the host's status is unknown while nothing is heard of it."""
        last = anyio.current_time()
        while True:
            await anyio.sleep(HOST_HEARTBEAT_S / 2)
            now = anyio.current_time()
            if now - last > HOST_HEARTBEAT_S:
                link.port.heard_at = now  # It was this process that did not run; what the host said meanwhile waits.
            last = now
            silent = now - link.port.heard_at > HOST_SILENCE_S_MAX
            self._tell(None if silent else self._status)

    # --- Status -------------------------------------------------------------------------------------------------------

    def follow_status(self, next: Next[SystemStatus | None]) -> contract.Subscription:
        """See `SystemService.query_status`."""
        subscription = self._statuses.subscribe(next)
        if self._told is not None:
            next(self._told)
        return subscription

    def _receive_status(self, status: SystemStatus | None) -> None:
        before, self._status = self._status, status
        self._tell(status)
        if status is SystemStatus.ACTIVE and before is SystemStatus.INACTIVE:
            for one in tuple(self._streams):
                if one.missed is not None:
                    one.missed()

    def _tell(self, status: SystemStatus | None) -> None:
        if status is not self._told:
            self._told = status
            self._statuses.emit(status)

    # --- Calls and streams --------------------------------------------------------------------------------------------

    def next_sequence(self) -> int:
        """The number of the next update."""
        self._sequence += 1
        return self._sequence

    async def call(self, method: Method, values: tuple[Any, ...], progress: Next[Any] | None) -> Any:
        """Make a call, again if need be."""
        self._opener.check()
        content, asked_at = method.arguments.pack(values), math.inf
        while True:
            link = await self._wait_link()
            if method.repeat is Repeat.RECEIPT and time.time() - asked_at > RECEIPT_AGE_S_MAX:
                raise _unknown(method)  # By now the host may have forgotten that it was done.
            asked_at = min(asked_at, time.time())
            try:
                return await link.call(method, content, progress)
            except _LinkLostError:
                if method.repeat is Repeat.NEVER:
                    raise _unknown(method) from None

    async def _wait_link(self) -> _Link:
        while True:
            if self._closing:
                raise ClosedError("The client was closed.")
            link = self._link
            if link is not None and not link.is_over:
                return link
            await self._linked.wait()

    def follow(
        self, method: Method, values: tuple[Any, ...], next: Next[Any], missed: Callable[[], None] | None
    ) -> contract.Subscription:
        """Follow a stream, on every host there will be."""
        self._opener.check()
        stream = _Followed(method, method.arguments.pack(values), next, missed)
        self._streams.append(stream)
        if self._link is not None and not self._link.is_over:
            stream.begin(self._link)

        def end() -> None:
            stream.end()
            if stream in self._streams:
                self._streams.remove(stream)

        return aio.Subscription(end)

    def __repr__(self) -> str:
        return f"<RemoteServices {'connected' if self._link is not None else 'waiting'} {len(self._streams)} streams>"


def _unknown(method: Method) -> BrokenError:
    return BrokenError(
        f"The host ended during {method.attribute}, and whether it was done is unknown: look, and call it again if "
        "need be."
    )


@final
class _Link:
    """One session, for as long as its stream lasts."""

    def __init__(self, stream: ByteStream) -> None:
        self.port = Port(stream, self._handle)
        self._sinks: dict[int, Callable[[Answered | Ended], None]] = {}
        self._uploading = anyio.Lock()

    @property
    def is_over(self) -> bool:
        """Whether nothing can be asked any more."""
        return self.port.rpc.state in (State.CLOSING, State.CLOSED)

    def _handle(self, event: Event) -> None:
        match event:
            case Answered(number):
                sink = self._sinks.get(number)
                if sink is not None:
                    sink(event)
            case Ended(number):
                sink = self._sinks.pop(number, None)
                if sink is not None:
                    sink(event)

    async def say_goodbye(self) -> None:
        """End the session in order."""
        self.port.close()
        await self.port.over.wait()

    def send(self, name: str, payload: values_pb2.Any, sink: Callable[[Answered | Ended], None], **more: bool) -> int:
        """Ask for something; the sink gets what comes of it."""
        number = self.port.rpc.call(name, payload, **more)
        self._sinks[number] = sink
        self.port.flush()
        return number

    def cancel(self, number: int) -> None:
        """Want no more of it."""
        if self._sinks.pop(number, None) is not None:
            self.port.rpc.cancel(number)
            self.port.flush()

    async def call(self, method: Method, content: bytes, progress: Next[Any] | None) -> Any:
        """Make a call and wait for its answer; cancelling cancels it at the host.

        Raises:
            _LinkLostError: The session ended before.
        """
        answer = _Answer(method, progress)
        try:
            if len(content) > SESSION_PIECE_BYTES:
                async with self._uploading:
                    rest = await self._upload(content)
                    number = self._ask(method, REST, rest, answer)
            else:
                number = self._ask(method, VALUE, content, answer)
        except BrokenError:
            raise _LinkLostError from None
        try:
            await answer.done.wait()
        except BaseException:
            self.cancel(number)
            raise
        return answer.get()

    def _ask(self, method: Method, kind: str, content: bytes, answer: _Answer) -> int:
        return self.send(method.name, values_pb2.Any(type_url=kind, value=content), answer.receive, stream=True)

    async def _upload(self, content: bytes) -> bytes:
        """Hand over all but the last piece; other calls may be made meanwhile."""
        start = 0
        try:
            while len(content) - start > SESSION_PIECE_BYTES:
                await self._hand_over(BYTES if start else FIRST, content[start : start + SESSION_PIECE_BYTES])
                start += SESSION_PIECE_BYTES
        except BaseException:
            if not self.is_over:
                self.send(UPLOAD, values_pb2.Any(type_url=FIRST), _ignore)  # The host need not keep what it has.
            raise
        return content[start:]

    async def _hand_over(self, kind: str, piece: bytes) -> None:
        taken = anyio.Event()
        outcome: list[Answered | Ended] = []

        def sink(event: Answered | Ended) -> None:
            outcome.append(event)
            taken.set()

        number = self.send(UPLOAD, values_pb2.Any(type_url=kind, value=piece), sink)
        await taken.wait()
        self._sinks.pop(number, None)
        if isinstance(outcome[0], Ended):
            raise _LinkLostError


def _ignore(event: Answered | Ended) -> None:
    pass


@final
class _Answer:
    """What comes back from one call."""

    def __init__(self, method: Method, progress: Next[Any] | None) -> None:
        self._method, self._progress = method, progress
        self.done = anyio.Event()
        self._items: list[Any] = []
        self._bytes = bytearray()
        self._value: Any = None
        self._error: Exception | None = None

    def receive(self, event: Answered | Ended) -> None:
        """Take the next message."""
        if self.done.is_set():
            return
        try:
            if isinstance(event, Ended):
                self._error = event.error or ProtocolError("The host ended a call without an answer.")
                if isinstance(self._error, BrokenError):
                    self._error = _LinkLostError()
                self.done.set()
            else:
                self._take(event.payload)
        except DxosError as error:
            self._error = error
            self.done.set()

    def _take(self, payload: values_pb2.Any) -> None:
        match payload.type_url:
            case kind if kind == PROGRESS:
                if self._progress is not None:
                    self._progress(self._method.item.unpack(payload.value))
            case kind if kind == ITEMS:
                self._items += self._method.result.unpack(self._whole(payload.value))
            case kind if kind == BYTES:
                self._bytes += payload.value
            case kind if kind == VALUE:
                self._value = self._method.result.unpack(self._whole(payload.value))
                self.done.set()
            case kind if kind == ERROR:
                raise cast(DxosError, _ERRORS.unpack(payload.value))
            case other:
                raise ProtocolError(f"An answer of a kind unknown here: {other:.40}.")

    def _whole(self, rest: bytes) -> bytes:
        if not self._bytes:
            return rest
        content, self._bytes = bytes(self._bytes) + rest, bytearray()
        return content

    def get(self) -> Any:
        """The answer, or what is raised instead."""
        if self._error is not None:
            raise self._error
        if self._items:
            return type(self._value)([*self._items, *self._value])
        return self._value


@final
class _Followed(Struct, eq=False):
    """One stream, over all hosts."""

    method: Method
    content: bytes
    next: Next[Any]
    missed: Callable[[], None] | None
    again: bool = False  # Whether it was followed on an earlier host.
    last: bytes | None = None  # The last state, as it came.
    link: _Link | None = None
    number: int = -1
    active: bool = True

    def begin(self, link: _Link) -> None:
        """Ask this host."""
        self.link = link

        def sink(event: Answered | Ended) -> None:
            if self.active and self.link is link:
                self._receive(event)

        self.number = link.send(self.method.name, values_pb2.Any(type_url=VALUE, value=self.content), sink, stream=True)
        if self.again and self.missed is not None:
            self.missed()

    def _receive(self, event: Answered | Ended) -> None:
        if isinstance(event, Ended):
            return  # The link is gone, or the host has said why before.
        payload = event.payload
        if payload.type_url == ERROR:
            error = _ERRORS.unpack(payload.value)
            _log.warning("The host does not tell %s: %s", self.method.attribute, error)
            return
        if self.method.stream is Stream.STATES:
            if payload.value == self.last:
                return
            self.last = payload.value
        self.next(self.method.item.unpack(payload.value))

    def end(self) -> None:
        """Follow nothing any more."""
        self.active = False
        if self.link is not None:
            self.link.cancel(self.number)
            self.link = None


class _Proxy:
    """The methods of one service, as the contract has them."""

    def __init__(self, remote: RemoteServices, service: str) -> None:
        self._remote, self._service = remote, service

    def __getattr__(self, name: str) -> Any:
        method = methods_of(self._service).get(name)
        if method is None:
            raise AttributeError(name)
        made = self._make(method)
        setattr(self, name, made)  # The next time it is found without this.
        return made

    def _make(self, method: Method) -> Callable[..., Any]:
        remote = self._remote

        if method.stream is not None:

            def follow(*args: Any, **kwargs: Any) -> contract.Subscription:
                args, next_ = _take_next(args, kwargs)
                missed = kwargs.pop("missed", None)
                return remote.follow(method, method.bind(*args, **kwargs), next_, missed)

            return follow

        async def call(*args: Any, **kwargs: Any) -> Any:
            next_ = None
            if method.has_progress:
                args, next_ = _take_next(args, kwargs)
            return await remote.call(method, method.bind(*args, **kwargs), next_)

        return call

    def __repr__(self) -> str:
        return f"<_Proxy {self._service}>"


def _take_next(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Next[Any]]:
    """The callback is the last of the positional arguments, as in all of the contract."""
    if "next" in kwargs:
        return args, kwargs.pop("next")
    return args[:-1], args[-1]


@final
class _System(_Proxy):
    def __init__(self, remote: RemoteServices) -> None:
        super().__init__(remote, "system")

    def query_status(self, next: Next[SystemStatus | None]) -> contract.Subscription:
        return self._remote.follow_status(next)


@final
class _Data(_Proxy):
    def __init__(self, remote: RemoteServices) -> None:
        super().__init__(remote, "data")
        self._turns: dict[str, anyio.Lock] = {}

    async def update(
        self, space_id: str, edits: tuple[Edit, ...], *, receipt: Receipt | None = None, step: int | None = None
    ) -> tuple[ObjectState, ...]:
        async with self._turns.setdefault(space_id, anyio.Lock()):
            method = methods_of("data")["update"]
            receipt = Receipt("", self._remote.next_sequence())  # The host knows whose session it is.
            values = (space_id, edits, receipt, step)
            return cast(tuple[ObjectState, ...], await self._remote.call(method, values, None))

    def forget(self, client_id: str) -> None:
        """The end of the session says it."""
