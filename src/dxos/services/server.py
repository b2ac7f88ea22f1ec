"""Serves the services of a host to one client, on one stream.

    serve ─▶ [Port: frames, calls] ─▶ arguments decoded ─▶ the service ─▶ result encoded, long ones in pieces
                └── ends: with its stream, at goodbye, or when the client breaks the rules; nobody else notices

What is told to many clients at once is encoded once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any, Final, final

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, TaskGroup
from msgspec.structs import replace

from dxos.aio import unwrap_group
from dxos.errors import DxosError, FencedError, LimitError, PeerError, ProtocolError, UsageError
from dxos.limits import (
    ARCHIVE_BYTES_MAX,
    HOST_HEARTBEAT_S,
    SESSION_PIECE_BYTES,
    SESSION_PIECE_ITEMS,
    SESSION_PIECE_ITEMS_FIRST,
    SESSION_READING_MAX,
    SESSION_RUNNING_MAX,
)
from dxos.services.codec import Codec, codec_of
from dxos.services.contract import Receipt, Services, Subscription
from dxos.services.methods import Method, Repeat, all_methods
from dxos.services.port import BYTES, ERROR, FIRST, ITEMS, PROGRESS, REST, UPLOAD, VALUE, Port
from dxos.teleport.rpc import Closed, Envelope, Event, Requested, StreamStopped
from dxos.wire.proto import values_pb2

_STATUS: Final = ("system", "query_status")
_READING: Final = frozenset(
    [
        ("data", "get"),
        *(("query", name) for name in ("execute", "count", "search", "explain")),
        *(("history", name) for name in ("revisions", "object_at", "space_at", "conflicts")),
    ]
)
_log = logging.getLogger(__name__)


async def serve(services: Services, stream: ByteStream, *, client_id: str) -> None:
    """Serve one client until it says goodbye, its stream ends, or it breaks the rules, which is logged.

    Args:
        services: Of a host that is open for as long.
        stream: Connected to the client; closed when this returns.
        client_id: Of the client, whatever session it is in: by it, an update that is sent again is known.

    Raises:
        FencedError: Another host has the profile; what the client had asked for last, it asks that one.
    """
    session = _Session(services, stream, client_id)
    try:
        with unwrap_group():
            await session.run()
        if session.fenced is not None:
            raise session.fenced
    except PeerError as error:
        _log.warning("The session of client %s was ended: %s", client_id, error)
    except FencedError:
        raise
    except Exception:  # noqa: BLE001 - The top of a task.
        # A bug that one client meets must not end the others.
        _log.exception("The session of client %s failed", client_id)


@final
class _Session:
    def __init__(self, services: Services, stream: ByteStream, client_id: str) -> None:
        self._services, self._client_id = services, client_id
        self._port = Port(stream, self._handle, is_busy=lambda: self._running >= SESSION_RUNNING_MAX)
        self._tasks: TaskGroup | None = None
        self._calls: dict[int, anyio.CancelScope] = {}
        self._streams: dict[int, Subscription] = {}
        self._running = 0
        self._reading = anyio.Semaphore(SESSION_READING_MAX)
        self._statuses: dict[int, Envelope] = {}  # What is told again as a sign of life.
        self._upload = bytearray()
        self.fenced: FencedError | None = None

    async def run(self) -> None:
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._beat)
                await self._port.run()
                self._tasks.cancel_scope.cancel()
        finally:
            for one in self._streams.values():
                one.unsubscribe()

    async def _beat(self) -> None:
        while True:
            await anyio.sleep(HOST_HEARTBEAT_S)
            for number, status in self._statuses.items():
                self._send(number, status)

    # --- Events -----------------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        match event:
            case Requested(number, name, payload, stream):
                self._request(number, name, payload, stream)
            case StreamStopped(number):
                self._stop(number)
            case Closed(in_order):
                if in_order:
                    with suppress(DxosError):  # An inactive host: receipts go with time as well.
                        self._services.data.forget(self._client_id)

    def _request(self, number: int, name: str, payload: values_pb2.Any, stream: bool) -> None:
        if name == UPLOAD:
            if payload.type_url == FIRST:
                self._upload = bytearray()
            if len(self._upload) + len(payload.value) > ARCHIVE_BYTES_MAX:
                raise LimitError("The arguments of a call are too long.", bytes_max=ARCHIVE_BYTES_MAX)
            self._upload += payload.value
            self._port.rpc.respond(number, values_pb2.Any(type_url=VALUE))
            return
        method = all_methods().get(name)
        if method is None or not stream:
            self._fail(number, ProtocolError(f"This host has no method {name:.80}."))
            return
        content = payload.value
        if payload.type_url == REST:
            content, self._upload = bytes(self._upload) + content, bytearray()
        values = method.arguments.unpack(content)
        if method.stream is not None:
            self._subscribe(number, method, values)
            return
        assert self._tasks is not None
        self._running += 1
        scope = self._calls[number] = anyio.CancelScope()
        self._tasks.start_soon(self._call, number, method, values, scope)

    def _stop(self, number: int) -> None:
        self._statuses.pop(number, None)
        found = self._streams.pop(number, None)
        if found is not None:
            found.unsubscribe()
        scope = self._calls.get(number)
        if scope is not None:
            scope.cancel()

    # --- Streams ----------------------------------------------------------------------------------------------------

    def _subscribe(self, number: int, method: Method, values: tuple[Any, ...]) -> None:
        codec, is_status = method.item, (method.service, method.attribute) == _STATUS

        def tell(value: Any) -> None:
            try:
                message = _encoded(codec, value)
            except UsageError as error:
                self._end(error)  # In its next session the client asks for what it missed, piece by piece.
                return
            if is_status:
                self._statuses[number] = message
            self._send(number, message)

        positional, keyword = method.split(values)
        if "missed" in method.hints:
            keyword["missed"] = lambda: None
        try:
            self._streams[number] = self._function(method)(*positional, tell, **keyword)
        except DxosError as error:
            self._fail(number, error)

    def _send(self, number: int, message: Envelope) -> None:
        self._port.rpc.send_envelope(number, message)
        self._flush(is_urgent=False)

    def _flush(self, *, is_urgent: bool = True) -> None:
        try:
            self._port.flush(is_urgent=is_urgent)
        except LimitError as error:
            self._end(error)

    def _end(self, error: DxosError) -> None:
        """End this session alone, in the middle of whatever the host is doing."""
        _log.warning("The session of client %s is ended: %s", self._client_id, error)
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()

    # --- Calls ------------------------------------------------------------------------------------------------------

    async def _call(self, number: int, method: Method, values: tuple[Any, ...], scope: anyio.CancelScope) -> None:
        try:
            with scope:
                positional, keyword = method.split(values)
                if method.has_progress:
                    positional.append(self._teller(number, method.item))
                if method.repeat is Repeat.RECEIPT and isinstance(keyword["receipt"], Receipt):
                    keyword["receipt"] = replace(keyword["receipt"], client_id=self._client_id)
                try:
                    # What only reads is work and no waiting, so more of it at once would be no faster.
                    async with self._reading if (method.service, method.attribute) in _READING else nullcontext():
                        result = await self._function(method)(*positional, **keyword)
                        await self._answer(number, method, result)
                except FencedError as error:
                    self.fenced = error  # No answer: it was not done, and the host that has the profile may do it.
                    self._end(error)
                except DxosError as error:
                    self._fail(number, error)
                except Exception as error:  # noqa: BLE001 - The top of a task.
                    # A bug in one call must not end the host.
                    _log.exception("%s failed", method.name)
                    self._fail(number, DxosError(f"The host failed in {method.attribute}: {type(error).__name__}."))
        finally:
            del self._calls[number]
            self._running -= 1
            self._port.resume()

    def _function(self, method: Method) -> Callable[..., Any]:
        return getattr(getattr(self._services, method.service), method.attribute)  # type: ignore[no-any-return]

    def _teller(self, number: int, codec: Codec) -> Callable[[Any], None]:
        return lambda value: self._send(number, Envelope(PROGRESS, codec.pack(value)))

    async def _answer(self, number: int, method: Method, result: Any) -> None:
        if method.is_list:
            first, count = 0, SESSION_PIECE_ITEMS_FIRST
            while len(result) - first > count:
                content = method.result.pack(result[first : first + count])
                await self._tell_long(number, ITEMS, content)
                first += count
                # As many of the next ones as are about one piece, as far as these can say.
                count = min(SESSION_PIECE_ITEMS, max(1, count * SESSION_PIECE_BYTES // len(content)))
                await anyio.lowlevel.checkpoint()
            result = result[first:]
        await self._tell_long(number, VALUE, method.result.pack(result))
        self._port.rpc.end(number)
        self._flush()

    async def _tell_long(self, number: int, kind: str, content: bytes) -> None:
        rpc, start = self._port.rpc, 0
        while len(content) - start > SESSION_PIECE_BYTES:
            rpc.send_envelope(number, Envelope(BYTES, content[start : start + SESSION_PIECE_BYTES]))
            start += SESSION_PIECE_BYTES
            self._flush()
            await self._port.wait_room()
        rpc.send_envelope(number, Envelope(kind, content[start:] if start else content))
        if kind == ITEMS:
            self._flush()
            await self._port.wait_room()

    def _fail(self, number: int, error: DxosError) -> None:
        self._port.rpc.send_envelope(number, Envelope(ERROR, _ERRORS.pack(error)))
        self._port.rpc.end(number)
        self._flush()


_ERRORS: Final = codec_of(DxosError)
_last: tuple[Codec | None, object, Envelope | None] = (None, None, None)


def _encoded(codec: Codec, value: object) -> Envelope:
    """The message that tells a value; made once for all sessions that hear the same one, one after the other."""
    global _last
    last_codec, last_value, envelope = _last
    if envelope is None or last_codec is not codec or last_value is not value:
        envelope = Envelope(VALUE, codec.pack(value))
        _last = codec, value, envelope
    return envelope
