"""Calls between two peers over one channel: requests, answers, errors and streams, served and made by both.

    OPENING ──acknowledged──▶ OPEN ──close──▶ CLOSING
       │                       │                 │ closed
       └────────closed─────────┴──────closed─────┴──▶ CLOSED

Both send `open` until it is acknowledged, and answer every `open`; the first acknowledgement opens the peer, which then
sends one of its own, as the other may wait for it. Requests are served while still OPENING. `bye` is answered by `bye`.

Invariants
1. Each call ends exactly once: with its answer, an error, its deadline, or the end of the channel.
2. Calls made before the peer is open wait here, in order.
3. Answers to calls that are over, or never were, are ignored, as 0.8.3 does.
"""

from collections import deque
from enum import Enum
from typing import final

from google.protobuf.message import Message
from msgspec import Struct

from dxos.errors import BrokenError, DeadlineError, DxosError, LimitError, ProtocolError, RemoteError, UsageError
from dxos.limits import (
    MESSAGE_BYTES_MAX,
    METHOD_CHARS_MAX,
    REASON_CHARS_MAX,
    RPC_CALLS_MAX,
    RPC_CALLS_READ_MAX,
    RPC_OPEN_RETRY_S,
    RPC_OPEN_RETRY_S_MAX,
)
from dxos.wire import decode, encode, pack_any
from dxos.wire.proto import rpc_pb2, values_pb2

_ID_MAX = 0x7FFF_FFFF
PAYLOAD_BYTES_MAX = MESSAGE_BYTES_MAX - 4_096  # So that its envelopes fit as well.


# Of the fields that `Envelope` writes by itself: number << 3 | 2, or 0 for the id; see rpc.proto.
_RESPONSE_TAG, _ID_TAG, _PAYLOAD_TAG = b"\x12", b"\x08", b"\x12"


class State(Enum):
    """Where the channel is."""

    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"  # Our `bye` is sent.
    CLOSED = "closed"


TRANSITIONS = {
    (State.OPENING, "acknowledged"): State.OPEN,
    (State.OPENING, "closed"): State.CLOSED,
    (State.OPEN, "close"): State.CLOSING,
    (State.OPEN, "closed"): State.CLOSED,
    (State.CLOSING, "closed"): State.CLOSED,
}


@final
class Opened(Struct, frozen=True):
    """The peer acknowledged us."""


@final
class Requested(Struct, frozen=True):
    """The peer calls; `respond` or `fail` it, or for a stream `send_ready`, `send_item`, `end`."""

    id: int  # The peer's number of the call.
    method: str  # `package.Service.Method`; at most METHOD_CHARS_MAX.
    payload: values_pb2.Any  # May hold an authentication code.
    stream: bool

    def __repr__(self) -> str:
        return f"Requested(id={self.id}, method={self.method!r}, stream={self.stream})"


@final
class StreamStopped(Struct, frozen=True):
    """The peer reads our stream no more."""

    id: int


@final
class Answered(Struct, frozen=True):
    """The answer to a call of ours, which is over; or one item of a stream, which goes on."""

    id: int
    payload: values_pb2.Any

    def __repr__(self) -> str:
        return f"Answered(id={self.id})"


@final
class StreamReady(Struct, frozen=True):
    """The peer has begun the stream we asked for."""

    id: int


@final
class Ended(Struct, frozen=True):
    """A call of ours is over without an answer, or a stream has ended."""

    id: int
    error: DxosError | None  # None for a stream that ended in order.


@final
class Closed(Struct, frozen=True):
    """The channel is over; the last event."""

    in_order: bool = False  # Whether the peer said goodbye.


Event = Opened | Requested | StreamStopped | Answered | StreamReady | Ended | Closed


class _Call(Struct, frozen=True):
    deadline: float | None  # Seconds, on the caller's clock.
    stream: bool


@final
class Envelope:
    """A payload that is encoded once and sent any number of times, as the same item of several streams."""

    __slots__ = ("encoded",)

    def __init__(self, type_url: str, value: bytes) -> None:
        packed = values_pb2.Any(type_url=type_url, value=value).SerializeToString()
        if len(value) > PAYLOAD_BYTES_MAX:
            raise UsageError("A message is too long.", bytes=len(value), bytes_max=PAYLOAD_BYTES_MAX)
        self.encoded = _PAYLOAD_TAG + _varint(len(packed)) + packed  # The field `payload` of a response.


@final
class RpcPeer:
    """One end of a channel of calls; `outgoing` is what to send, in order, and the caller empties it.

    Args:
        handshake: Without it the peer is open at once, and `open` is neither sent nor answered.
        calls_max: How many calls of the other side may be unanswered, and how many of its streams open.
    """

    def __init__(self, *, handshake: bool = True, calls_max: int = RPC_CALLS_MAX) -> None:
        self.state = State.OPENING
        self.outgoing: deque[bytes] = deque()
        self._handshake, self._calls_max = handshake, calls_max
        self._calls: dict[int, _Call] = {}  # Ours, unanswered.
        self._served: set[int] = set()  # Theirs, unanswered.
        self._streams: set[int] = set()  # Theirs, that we have not ended.
        self._waiting: list[tuple[int, bytes]] = []  # Requests made before the peer was open.
        self._id_next = 0
        self._retry_at: float | None = None
        self._retry_s = RPC_OPEN_RETRY_S

    def __repr__(self) -> str:
        served_count = len(self._served) + len(self._streams)
        return f"<RpcPeer {self.state.value} calls={len(self._calls)} served={served_count}>"

    @property
    def calls_count(self) -> int:
        """Our unanswered calls and open streams."""
        return len(self._calls)

    @property
    def is_busy(self) -> bool:
        """Whether so many of the peer's calls are unanswered that no more should be read for now."""
        return len(self._served) >= RPC_CALLS_READ_MAX

    # --- Ours -------------------------------------------------------------------------------------------------------

    def start(self, *, now: float) -> list[Event]:
        """Begin; once the other end can hear."""
        if not self._handshake:
            return self._open()
        self._send(rpc_pb2.RpcMessage(open=True))
        self._retry_at = now + self._retry_s
        return []

    def call(self, method: str, payload: Message, *, deadline: float | None = None, stream: bool = False) -> int:
        """Call the peer; returns the number that events of this call carry.

        Args:
            method: `package.Service.Method`.
            payload: The request; in an envelope already, or it is put into one.
            deadline: When to give up, on the clock of `now`; a stream's deadline counts until its first event.
            stream: Whether the answer is a stream.

        Raises:
            BrokenError: The channel is closing or closed.
            UsageError: The request is too long.
        """
        if self.state in (State.CLOSING, State.CLOSED):
            raise BrokenError("The connection is closed.")
        number = self._id_next
        request = rpc_pb2.Request(id=number, method=method, payload=_pack(payload), stream=stream)
        self._id_next = (number + 1) & _ID_MAX
        self._calls[number] = _Call(deadline, stream)
        message = encode(rpc_pb2.RpcMessage(request=request))
        if self.state is State.OPEN:
            self.outgoing.append(message)
        else:
            self._waiting.append((number, message))
        return number

    def cancel(self, number: int) -> None:
        """Give up a call or stop reading a stream; no event of it follows. Unknown numbers are ignored."""
        call = self._calls.pop(number, None)
        if call is None:
            return
        unsent = len(self._waiting)
        self._waiting = [entry for entry in self._waiting if entry[0] != number]
        if call.stream and self.state is State.OPEN and len(self._waiting) == unsent:
            self._send(rpc_pb2.RpcMessage(stream_close=rpc_pb2.StreamClose(id=number)))

    def respond(self, number: int, payload: Message) -> None:
        """Answer a call of the peer; ignored if that is over.

        Raises:
            UsageError: The answer is too long.
        """
        if number in self._served:
            self._response(rpc_pb2.Response(id=number, payload=_pack(payload)))
            self._served.discard(number)

    def fail(self, number: int, name: str, message: str) -> None:
        """Answer a call or stream of the peer with an error; ignored if that is over."""
        if number in self._served or number in self._streams:
            self._served.discard(number)
            self._streams.discard(number)
            self._respond_error(number, name, message)

    def send_ready(self, number: int) -> None:
        """Say that a stream the peer asked for has begun; ignored if that is over."""
        if number in self._streams:
            self._response(rpc_pb2.Response(id=number, stream_ready=True))

    def send_item(self, number: int, payload: Message) -> None:
        """Send an item of a stream the peer asked for; ignored if that is over.

        Raises:
            UsageError: The item is too long.
        """
        if number in self._streams:
            self._response(rpc_pb2.Response(id=number, payload=_pack(payload)))

    def send_envelope(self, number: int, item: Envelope) -> None:
        """Send an item of a stream the peer asked for, at the least cost; ignored if that is over."""
        if number in self._streams:
            response = _ID_TAG + _varint(number) + item.encoded
            self.outgoing.append(_RESPONSE_TAG + _varint(len(response)) + response)

    def end(self, number: int) -> None:
        """End a stream the peer asked for; ignored if that is over."""
        if number in self._streams:
            self._streams.discard(number)
            self._response(rpc_pb2.Response(id=number, close=True))

    def close(self) -> list[Event]:
        """Say goodbye and fail our calls; the peer's answer makes it CLOSED."""
        if self.state in (State.CLOSING, State.CLOSED):
            return []
        if self.state is State.OPENING or not self._handshake:
            return self.abort()
        self._move("close")
        self._send(rpc_pb2.RpcMessage(bye=rpc_pb2.Bye()))
        return self._fail_calls()

    def abort(self) -> list[Event]:
        """The channel is gone: fail our calls."""
        return self._close(in_order=False)

    def _close(self, *, in_order: bool) -> list[Event]:
        if self.state is State.CLOSED:
            return []
        self._move("closed")
        self._retry_at = None
        self._served.clear()
        self._streams.clear()
        return [*self._fail_calls(), Closed(in_order)]

    # --- Time -------------------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """When `handle_timer` has something to do."""
        times = [call.deadline for call in self._calls.values() if call.deadline is not None]
        if self._retry_at is not None:
            times.append(self._retry_at)
        return min(times, default=None)

    def handle_timer(self, *, now: float) -> list[Event]:
        """Send `open` again, and give up calls that are late."""
        if self._retry_at is not None and now >= self._retry_at:
            self._send(rpc_pb2.RpcMessage(open=True))
            self._retry_s = min(2 * self._retry_s, RPC_OPEN_RETRY_S_MAX)
            self._retry_at = now + self._retry_s
        late = [n for n, call in self._calls.items() if call.deadline is not None and now >= call.deadline]
        for number in late:
            self.cancel(number)
        return [Ended(number, DeadlineError("The peer did not answer in time.")) for number in late]

    # --- Theirs -----------------------------------------------------------------------------------------------------

    def receive(self, untrusted: bytes) -> list[Event]:
        """Take one message.

        Raises:
            PeerError: A message that does not parse, breaks a limit, or makes no sense.
        """
        message = decode(rpc_pb2.RpcMessage, untrusted)
        match message.WhichOneof("content"):
            case "request":
                return self._request(message.request)
            case "response":
                return self._answer(message.response)
            case "open":
                if self._handshake and self.state is not State.CLOSED:
                    self._send(rpc_pb2.RpcMessage(open_ack=True))
                return []
            case "open_ack":
                return self._acknowledged()
            case "stream_close":
                if message.stream_close.id in self._streams:
                    self._streams.discard(message.stream_close.id)
                    return [StreamStopped(message.stream_close.id)]
                return []
            case "bye":
                if self.state in (State.OPENING, State.OPEN):
                    self._send(rpc_pb2.RpcMessage(bye=rpc_pb2.Bye()))
                return self._close(in_order=True)
        raise ProtocolError("A message of a kind unknown here.")

    def _request(self, request: rpc_pb2.Request) -> list[Event]:
        if self.state in (State.CLOSING, State.CLOSED):
            self._respond_error(request.id, "RpcClosedError", "the channel is closed")
            return []
        if request.id in self._served or request.id in self._streams:
            raise ProtocolError("Two calls with one number.")
        if max(len(self._served), len(self._streams)) >= self._calls_max:
            raise LimitError("Too many unanswered calls.", calls_max=self._calls_max)
        if len(request.method) > METHOD_CHARS_MAX:
            raise LimitError("The name of a method is too long.", chars_max=METHOD_CHARS_MAX)
        (self._streams if request.stream else self._served).add(request.id)
        return [Requested(request.id, request.method, request.payload, request.stream)]

    def _answer(self, response: rpc_pb2.Response) -> list[Event]:
        call = self._calls.get(response.id)
        if call is None:
            return []
        match response.WhichOneof("content"), call.stream:
            case "payload", False:
                del self._calls[response.id]
                return [Answered(response.id, response.payload)]
            case "payload", True:
                self._touch(response.id)
                return [Answered(response.id, response.payload)]
            case "stream_ready", True:
                self._touch(response.id)
                return [StreamReady(response.id)]
            case "close", True:
                del self._calls[response.id]
                return [Ended(response.id, None)]
            case "error", _:
                del self._calls[response.id]
                error = response.error
                name, text = (error.name or "Error")[:REASON_CHARS_MAX], error.message[:REASON_CHARS_MAX]
                return [Ended(response.id, RemoteError(text or name, name=name))]
        raise ProtocolError("An answer that does not fit its call.")

    def _acknowledged(self) -> list[Event]:
        if self.state is not State.OPENING or not self._handshake or self._retry_at is None:
            return []
        self._send(rpc_pb2.RpcMessage(open_ack=True))
        return self._open()

    # --- Both -------------------------------------------------------------------------------------------------------

    def _open(self) -> list[Event]:
        self._move("acknowledged")
        self._retry_at = None
        self.outgoing.extend(message for _, message in self._waiting)
        self._waiting.clear()
        return [Opened()]

    def _touch(self, number: int) -> None:
        # The stream has begun; from here on it may be silent as long as it likes.
        if self._calls[number].deadline is not None:
            self._calls[number] = _Call(None, stream=True)

    def _fail_calls(self) -> list[Event]:
        numbers = list(self._calls)
        self._calls.clear()
        self._waiting.clear()
        return [Ended(number, BrokenError("The connection was closed.")) for number in numbers]

    def _respond_error(self, number: int, name: str, message: str) -> None:
        error = rpc_pb2.Error(name=name, message=message[:REASON_CHARS_MAX])
        self._response(rpc_pb2.Response(id=number, error=error))

    def _response(self, response: rpc_pb2.Response) -> None:
        self._send(rpc_pb2.RpcMessage(response=response))

    def _send(self, message: rpc_pb2.RpcMessage) -> None:
        self.outgoing.append(encode(message))

    def _move(self, event: str) -> None:
        self.state = TRANSITIONS[self.state, event]


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _pack(payload: Message) -> values_pb2.Any:
    packed = payload if isinstance(payload, values_pb2.Any) else pack_any(payload, dot=True)
    if len(packed.value) > PAYLOAD_BYTES_MAX:
        raise UsageError("A message is too long.", bytes=len(packed.value), bytes_max=PAYLOAD_BYTES_MAX)
    return packed
