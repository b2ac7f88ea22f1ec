"""One connection as a machine: the control extension, which extensions both sides have, and their channels.

    OPENING ──opened──▶ OPEN ──close──▶ CLOSING
       │                 │                 │ closed
       └─────closed──────┴─────closed──────┴──▶ CLOSED

The control channel opens first. On it each side registers the names of its extensions and sends heartbeats. When both
know a name, each opens `<name>/rpc`; an extension the peer lacks is never opened. Raw channels `<name>/<tag>` carry
bytes that are no calls, such as a feed's.

Invariants
1. A call to an extension that is not open yet waits for it, or for its deadline.
2. If no heartbeat is answered for CONTROL_IDLE_S_MAX, the session is over.
3. After Closed nothing happens and nothing is sent but what was queued before it.
"""

from enum import Enum
from typing import final

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from msgspec import Struct

from dxos.errors import BrokenError, DeadlineError, DxosError, LimitError, PeerError, ProtocolError, UsageError
from dxos.limits import (
    CONTROL_HEARTBEAT_S,
    CONTROL_IDLE_S_MAX,
    EXTENSION_NAME_CHARS_MAX,
    EXTENSIONS_MAX,
    RPC_OPEN_TIMEOUT_S,
)
from dxos.teleport import rpc
from dxos.teleport.mux import RPC_CONTENT_TYPE, ChannelOpened, DataReceived, Mux, PeerClosed
from dxos.teleport.mux import Event as MuxEvent
from dxos.teleport.rpc import RpcPeer
from dxos.wire import decode, to_timestamp
from dxos.wire.proto import control_pb2

CONTROL = "dxos.mesh.teleport.control"
REGISTER = f"{CONTROL}.ControlService.RegisterExtension"
HEARTBEAT = f"{CONTROL}.ControlService.Heartbeat"
_RPC_TAG = "rpc"


class State(Enum):
    """Where the session is."""

    OPENING = "opening"  # The peer has not opened the control channel.
    OPEN = "open"
    CLOSING = "closing"  # Our end is said or queued, the peer's is not here.
    CLOSED = "closed"


TRANSITIONS = {
    (State.OPENING, "opened"): State.OPEN,
    (State.OPENING, "close"): State.CLOSING,
    (State.OPENING, "closed"): State.CLOSED,
    (State.OPEN, "close"): State.CLOSING,
    (State.OPEN, "closed"): State.CLOSED,
    (State.CLOSING, "closed"): State.CLOSED,
}


@final
class SessionOpened(Struct, frozen=True):
    """The peer speaks this protocol."""


@final
class ExtensionEvent(Struct, frozen=True):
    """Something happened on an extension's channel of calls."""

    name: str
    event: rpc.Event


@final
class RawOpened(Struct, frozen=True):
    """Both sides have opened a raw channel."""

    channel: int


@final
class RawReceived(Struct, frozen=True):
    """Bytes of a raw channel; the peer's messages are parts of one stream."""

    channel: int
    data: bytes


@final
class SessionClosed(Struct, frozen=True):
    """The session is over; the last event."""

    error: DxosError | None  # None when either side ended it in order.


Event = SessionOpened | ExtensionEvent | RawOpened | RawReceived | SessionClosed


class _Extension(Struct):
    name: str
    peer: RpcPeer
    channel: int | None = None  # Its number, once we have opened it.


@final
class Session:
    """One end of a connection.

    `timer_at` is when `handle_timer` is due: never later than that, perhaps earlier; None when nothing is due.

    Args:
        now: Seconds; the same clock as in all calls.
    """

    def __init__(self, *, now: float) -> None:
        self.state = State.OPENING
        self.timer_at: float | None = None
        self.remote_extensions: set[str] = set()
        self._mux = Mux()
        self._control = _Extension(CONTROL, RpcPeer())
        self._extensions: dict[str, _Extension] = {CONTROL: self._control}
        self._by_channel: dict[int, _Extension] = {}
        self._raw: set[int] = set()
        self.error: DxosError | None = None  # Why it ended, once it is closing; None if in order.
        self._answered_at = now  # The last time the peer showed life, on the control channel.
        self._open_by: float | None = now + RPC_OPEN_TIMEOUT_S
        self._heartbeat_at: float | None = None
        self._soon(self._open_by)
        self._open_extension(self._control, [], now=now)

    def __repr__(self) -> str:
        names = sorted(name for name, extension in self._extensions.items() if extension.channel is not None)
        return f"<Session {self.state.value} extensions={names}>"

    @property
    def is_closing(self) -> bool:
        """Whether the end has begun, or is over."""
        return self.state in (State.CLOSING, State.CLOSED)

    @property
    def is_closed(self) -> bool:
        """Whether it is over; our last words may still wait in `data_to_send`."""
        return self.state is State.CLOSED

    # --- Ours -------------------------------------------------------------------------------------------------------

    def add_extension(self, name: str, *, now: float) -> list[Event]:
        """Register an extension with the peer, and open it once both have it.

        Raises:
            UsageError: Registered already, or no name of an extension.
            BrokenError: The session is closing or closed.
        """
        self._require_live()
        if name in self._extensions:
            raise UsageError("This extension is registered already.", extension=name)
        if not name or "/" in name or len(name) > EXTENSION_NAME_CHARS_MAX:
            raise UsageError("An extension's name has no slash and a bounded length.", extension=name)
        events: list[Event] = []
        extension = self._extensions[name] = _Extension(name, RpcPeer())
        self._call(self._control, REGISTER, control_pb2.RegisterExtensionRequest(name=name), deadline=None)
        if name in self.remote_extensions:
            self._open_extension(extension, events, now=now)
        return events

    def call(
        self, name: str, method: str, payload: Message, *, deadline: float | None = None, stream: bool = False
    ) -> int:
        """Call the peer's extension; see `RpcPeer.call`."""
        self._require_live()
        return self._call(self._extensions[name], method, payload, deadline=deadline, stream=stream)

    def cancel(self, name: str, number: int) -> None:
        """Give up a call or stop reading a stream."""
        self._extensions[name].peer.cancel(number)
        self._flush(self._extensions[name])

    def respond(self, name: str, number: int, payload: Message) -> None:
        """Answer a call."""
        self._extensions[name].peer.respond(number, payload)
        self._flush(self._extensions[name])

    def fail(self, name: str, number: int, error: str, message: str) -> None:
        """Answer a call or stream with an error."""
        self._extensions[name].peer.fail(number, error, message)
        self._flush(self._extensions[name])

    def send_ready(self, name: str, number: int) -> None:
        """Say that a stream has begun."""
        self._extensions[name].peer.send_ready(number)
        self._flush(self._extensions[name])

    def send_item(self, name: str, number: int, payload: Message) -> None:
        """Send an item of a stream."""
        self._extensions[name].peer.send_item(number, payload)
        self._flush(self._extensions[name])

    def end(self, name: str, number: int) -> None:
        """End a stream in order."""
        self._extensions[name].peer.end(number)
        self._flush(self._extensions[name])

    def peer_of(self, name: str) -> RpcPeer:
        """The calls of an extension, to read their counts."""
        return self._extensions[name].peer

    def is_open(self, name: str) -> bool:
        """Whether both sides have opened the extension."""
        return self._extensions[name].peer.state is rpc.State.OPEN

    def open_raw(self, name: str, tag: str, content_type: str | None = None) -> tuple[int, list[Event]]:
        """Open a channel `<name>/<tag>`; returns its number, and RawOpened at once if the peer was first.

        Raises:
            UsageError: Open already, no name of a channel, or too many channels.
            BrokenError: The session is closing or closed.
        """
        self._require_live()
        if not tag or "/" in tag or tag == _RPC_TAG:
            raise UsageError("A raw channel's tag has no slash, and is not the one of calls.", tag=tag)
        channel, opened = self._mux.open_channel(f"{name}/{tag}", content_type)
        self._raw.add(channel)
        return channel, [RawOpened(channel)] if opened else []

    def send_raw(self, channel: int, data: bytes) -> None:
        """Queue bytes on a raw channel.

        Raises:
            BrokenError: The session is closing or closed, or too much waits.
        """
        self._mux.send(channel, data)

    def close_raw(self, channel: int) -> None:
        """Forget a raw channel; the peer is not told, as the wire has no word for it."""
        self._raw.discard(channel)
        self._mux.drop_channel(channel)

    def queued_bytes_of(self, name_or_channel: str | int) -> int:
        """Bytes that wait to be sent for an extension's calls or on a raw channel."""
        if isinstance(name_or_channel, int):
            return self._mux.queued_bytes_of(name_or_channel)
        channel = self._extensions[name_or_channel].channel
        return 0 if channel is None else self._mux.queued_bytes_of(channel)

    @property
    def queued_bytes(self) -> int:
        """All bytes that wait to be sent."""
        return self._mux.queued_bytes

    def data_to_send(self, bytes_max: int) -> bytes:
        """Bytes for the stream; empty if there are none."""
        return self._mux.data_to_send(bytes_max)

    def close(self, error: DxosError | None = None) -> list[Event]:
        """End the session: in order, or because of `error`, whose message the peer is told."""
        if self.is_closing:
            return []
        self._move("close")
        self.error = error
        self.timer_at = self._heartbeat_at = self._open_by = None
        self._mux.close(str(error) if error is not None else "", discard=isinstance(error, PeerError))
        return self._abort_peers()

    def link_lost(self, error: DxosError | None = None) -> list[Event]:
        """The stream has ended or failed; nothing can be sent any more."""
        if self.state is State.CLOSED:
            return []
        if self.state is not State.CLOSING:
            self.error = error or BrokenError("The link to the peer was lost.")
        return self._closed()

    # --- Time -------------------------------------------------------------------------------------------------------

    def handle_timer(self, *, now: float, now_ms: int) -> list[Event]:
        """Send heartbeats and retries, give up what is late; renews `timer_at`."""
        if self.is_closing:
            return []
        if self._open_by is not None and now >= self._open_by:
            return self.close(DeadlineError("The peer did not open the control channel in time."))
        if self._heartbeat_at is not None and now - self._answered_at >= CONTROL_IDLE_S_MAX:
            return self.close(DeadlineError("The peer answered no heartbeat.", idle_s=CONTROL_IDLE_S_MAX))
        if self._heartbeat_at is not None and now >= self._heartbeat_at:
            self._heartbeat_at = now + CONTROL_HEARTBEAT_S
            if self._control.peer.state is rpc.State.OPEN:
                request = control_pb2.ControlHeartbeatRequest(request_timestamp=to_timestamp(now_ms))
                self._call(self._control, HEARTBEAT, request, deadline=now + CONTROL_IDLE_S_MAX)
        events: list[Event] = []
        for extension in self._extensions.values():
            for event in extension.peer.handle_timer(now=now):
                if extension is not self._control:
                    events.append(ExtensionEvent(extension.name, event))
            self._flush(extension)
        self.timer_at = None
        for at in (self._open_by, self._heartbeat_at, *(e.peer.next_timer() for e in self._extensions.values())):
            self._soon(at)
        if self._heartbeat_at is not None:
            self._soon(self._answered_at + CONTROL_IDLE_S_MAX)
        return events

    # --- Theirs -----------------------------------------------------------------------------------------------------

    def receive(self, untrusted: bytes, *, now: float) -> list[Event]:
        """Take bytes of the stream. After a PeerError the caller gives it to `close`.

        Raises:
            PeerError: Bytes that break the protocol or a limit; the events before them are lost.
        """
        events: list[Event] = []
        for event in self._mux.receive(untrusted):
            self._handle(event, events, now=now)
        return events

    def _handle(self, event: MuxEvent, events: list[Event], *, now: float) -> None:
        match event:
            case DataReceived(channel, data):
                extension = self._by_channel.get(channel)
                if extension is None:
                    if channel in self._raw:
                        events.append(RawReceived(channel, data))
                elif self.state is not State.CLOSED:
                    self._on_calls(extension, extension.peer.receive(data), events, now=now)
                    self._flush(extension)
            case ChannelOpened(channel, _):
                self._channel_opened(channel, events, now=now)
            case PeerClosed(reason):
                if self.state is not State.CLOSED:
                    if self.state is not State.CLOSING and reason:
                        self.error = BrokenError(f"The peer closed the connection: {reason}", reason=reason)
                    events.extend(self._closed())

    def _channel_opened(self, channel: int, events: list[Event], *, now: float) -> None:
        extension = self._by_channel.get(channel)
        if extension is None:
            events.append(RawOpened(channel))
        else:
            self._on_calls(extension, extension.peer.start(now=now), events, now=now)
            self._soon(extension.peer.next_timer())
            self._flush(extension)

    def _on_calls(self, extension: _Extension, happened: list[rpc.Event], events: list[Event], *, now: float) -> None:
        for event in happened:
            if extension is self._control:
                self._on_control(event, events, now=now)
            else:
                events.append(ExtensionEvent(extension.name, event))

    def _on_control(self, event: rpc.Event, events: list[Event], *, now: float) -> None:
        match event:
            case rpc.Opened() if self.state is State.OPENING:
                self._move("opened")
                self._open_by, self._answered_at, self._heartbeat_at = None, now, now + CONTROL_HEARTBEAT_S
                self._soon(self._heartbeat_at)
                events.append(SessionOpened())
            case rpc.Answered():
                self._answered_at = now
            case rpc.Requested(number, method, payload, False) if method == REGISTER:
                name = decode(control_pb2.RegisterExtensionRequest, payload.value).name
                self._control.peer.respond(number, Empty())
                self._registered(name, events, now=now)
            case rpc.Requested(number, method, payload, False) if method == HEARTBEAT:
                request = decode(control_pb2.ControlHeartbeatRequest, payload.value)
                answer = control_pb2.ControlHeartbeatResponse(request_timestamp=request.request_timestamp)
                self._control.peer.respond(number, answer)
            case rpc.Requested(number):
                self._control.peer.fail(number, "ProtocolError", "no such method")

    def _registered(self, name: str, events: list[Event], *, now: float) -> None:
        if name in self.remote_extensions:
            raise ProtocolError("The peer registered an extension twice.")
        if len(self.remote_extensions) >= EXTENSIONS_MAX or len(name) > EXTENSION_NAME_CHARS_MAX:
            raise LimitError("Too many extensions, or the name of one is too long.", extensions_max=EXTENSIONS_MAX)
        self.remote_extensions.add(name)
        extension = self._extensions.get(name)
        if extension is not None and extension is not self._control and not self.is_closing:
            try:
                self._open_extension(extension, events, now=now)
            except UsageError:
                raise LimitError("The peer opened too many channels.") from None

    # --- Both -------------------------------------------------------------------------------------------------------

    def _open_extension(self, extension: _Extension, events: list[Event], *, now: float) -> None:
        tag = f"{extension.name}/{_RPC_TAG}"
        extension.channel, opened = self._mux.open_channel(tag, RPC_CONTENT_TYPE)
        self._by_channel[extension.channel] = extension
        if opened:
            self._channel_opened(extension.channel, events, now=now)

    def _call(
        self,
        extension: _Extension,
        method: str,
        payload: Message,
        *,
        deadline: float | None,
        stream: bool = False,
    ) -> int:
        number = extension.peer.call(method, payload, deadline=deadline, stream=stream)
        self._soon(deadline)
        self._flush(extension)
        return number

    def _flush(self, extension: _Extension) -> None:
        outgoing = extension.peer.outgoing
        if extension.channel is None or not outgoing:
            return
        if self.is_closing:
            outgoing.clear()
        while outgoing:
            self._mux.send(extension.channel, outgoing.popleft())

    def _soon(self, at: float | None) -> None:
        if at is not None and (self.timer_at is None or at < self.timer_at):
            self.timer_at = at

    def _require_live(self) -> None:
        if self.is_closing:
            raise BrokenError("The connection is closed.")

    def _abort_peers(self) -> list[Event]:
        return [
            ExtensionEvent(extension.name, event)
            for extension in self._extensions.values()
            for event in extension.peer.abort()
            if extension is not self._control
        ]

    def _closed(self) -> list[Event]:
        self._move("closed")
        self.timer_at = self._heartbeat_at = self._open_by = None
        return [*self._abort_peers(), SessionClosed(self.error)]

    def _move(self, event: str) -> None:
        self.state = TRANSITIONS[self.state, event]
