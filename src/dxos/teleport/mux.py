"""Many channels over one byte stream: chunks of messages, fairly interleaved.

    OPEN ──close──▶ CLOSING ──closed──▶ CLOSED
      └─────────────closed───────────────┘

A frame holds `varint(channel) [varint(message length), in a message's first chunk] chunk`; the channel there is the
sender's number. A whole message is a `Command`. Each side opens a channel by telling its own number and the tag; two
opens with one tag make a channel. Data names the *receiver's* number, so it waits until the other open has come.

Invariants
1. Commands about channels (number 0) go before all data; the other channels take turns, one chunk each.
2. Chunks of one message are never out of order, nor mixed with another message of the same channel.
3. What the peer makes us hold is bounded: channels, message length, bytes of unfinished messages.

The wire cannot close one channel; `drop_channel` forgets it here and ignores what still arrives for it.
"""

from collections import deque
from enum import Enum
from typing import final

from msgspec import Struct, field

from dxos.errors import BrokenError, DecodeError, LimitError, ProtocolError, UsageError
from dxos.limits import (
    CHANNEL_BUFFER_BYTES_MAX,
    CHANNELS_MAX,
    CHUNK_BYTES_MAX,
    EARLY_DATA_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    REASON_CHARS_MAX,
    TAG_CHARS_MAX,
)
from dxos.teleport.framer import FrameReader, encode_frame
from dxos.wire import decode, encode
from dxos.wire.proto import muxer_pb2

RPC_CONTENT_TYPE = 'application/x-protobuf; messageType="dxos.rpc.Message"'
_SYSTEM = 0
_COMMAND_BYTES_EXTRA = 32  # What a Data command adds to its data, at most.
_NUMBER_MAX = 0x7FFF_FFFF
_VARINT_BITS_MAX = 35


class State(Enum):
    """Where the whole stream is."""

    OPEN = "open"
    CLOSING = "closing"  # Our Close is queued or sent, theirs is not here.
    CLOSED = "closed"


TRANSITIONS = {
    (State.OPEN, "close"): State.CLOSING,
    (State.OPEN, "closed"): State.CLOSED,
    (State.CLOSING, "closed"): State.CLOSED,
}


@final
class ChannelOpened(Struct, frozen=True):
    """Both sides have opened the channel."""

    channel: int  # Our number.
    tag: str


@final
class DataReceived(Struct, frozen=True):
    """One whole message of a channel."""

    channel: int  # Our number.
    data: bytes  # At most MESSAGE_BYTES_MAX; of a call it may hold an authentication code.

    def __repr__(self) -> str:
        return f"DataReceived(channel={self.channel})"


@final
class PeerClosed(Struct, frozen=True):
    """The peer ends the connection in order, or answers our end; the last event."""

    reason: str  # What it says; at most 512 characters; may be empty.


Event = ChannelOpened | DataReceived | PeerClosed


class _Channel(Struct):
    number: int
    tag: str
    remote: int | None = None  # The peer's number, from its open.
    opened: bool = False  # Whether we opened it.
    early: list[bytes] = field(default_factory=list)  # Sent before the peer's open.
    queue: deque[bytes] = field(default_factory=deque)  # Encoded commands.
    offset: int = 0  # Bytes of the first one that are sent.
    queued_bytes: int = 0  # Early and encoded, not yet taken by `data_to_send`.


class _Partial(Struct):
    length: int
    data: bytearray


@final
class Mux:
    """One end of a multiplexed stream.

    `receive` raises PeerError (DecodeError, ProtocolError, LimitError) for what a peer must not send; the stream is
    then of no further use.
    """

    def __init__(self) -> None:
        self.state = State.OPEN
        self._frames = FrameReader()
        self._system = _Channel(_SYSTEM, "")
        self._channels: dict[int, _Channel] = {}
        self._by_tag: dict[str, _Channel] = {}
        self._turns: deque[_Channel] = deque()  # Channels with something queued, but the system's.
        self._partials: dict[int, _Partial] = {}
        self._partial_bytes = 0
        self._number_next = 1
        self._last: bytes | None = None  # Our Close, until everything else has gone out.
        self.queued_bytes = 0  # Of all channels.

    def __repr__(self) -> str:
        return f"<Mux {self.state.value} channels={len(self._channels)} queued_bytes={self.queued_bytes}>"

    # --- Ours -------------------------------------------------------------------------------------------------------

    def open_channel(self, tag: str, content_type: str | None = None) -> tuple[int, list[Event]]:
        """Open our end; returns our number, and ChannelOpened at once if the peer was first.

        Raises:
            UsageError: Opened already, or too many channels.
        """
        channel = self._by_tag.get(tag)
        if channel is None:
            if len(self._channels) >= CHANNELS_MAX:
                raise UsageError("This connection has too many channels.", channels_max=CHANNELS_MAX)
            channel = self._add(tag)
        elif channel.opened:
            raise UsageError("This channel is open already.", tag=tag)
        channel.opened = True
        command = muxer_pb2.OpenChannel(id=channel.number, tag=tag)
        if content_type is not None:
            command.content_type = content_type
        self._enqueue(self._system, encode(muxer_pb2.Command(open_channel=command)))
        return channel.number, [] if channel.remote is None else [ChannelOpened(channel.number, tag)]

    def drop_channel(self, number: int) -> None:
        """Forget a channel: what is queued still goes out, and what arrives for it is ignored."""
        channel = self._channels.pop(number, None)
        if channel is not None:
            del self._by_tag[channel.tag]

    def send(self, number: int, data: bytes) -> None:
        """Queue one message.

        Raises:
            UsageError: Too long, or no such channel.
            BrokenError: The stream is closing; or more is queued than the limits allow.
        """
        if self.state is not State.OPEN:
            raise BrokenError("The connection is closing.")
        channel = self._channels.get(number)
        if channel is None:
            raise UsageError("This channel is not open.", channel=number)
        if len(data) > MESSAGE_BYTES_MAX - _COMMAND_BYTES_EXTRA:
            raise UsageError("A message is too long.", bytes=len(data), bytes_max=MESSAGE_BYTES_MAX)
        if channel.remote is None:
            if channel.queued_bytes + len(data) > EARLY_DATA_BYTES_MAX:
                raise BrokenError("The peer has not opened this channel, and too much waits for it.")
            channel.early.append(data)
            channel.queued_bytes += len(data)
            self.queued_bytes += len(data)
        else:
            if self.queued_bytes + len(data) > CHANNEL_BUFFER_BYTES_MAX:
                raise BrokenError("Too much waits to be sent.", bytes_max=CHANNEL_BUFFER_BYTES_MAX)
            self._enqueue(channel, _data_command(channel.remote, data))

    def close(self, reason: str = "", *, discard: bool = False) -> None:
        """End the connection once what is queued has gone out, or at once with `discard`. Idempotent."""
        if self.state is not State.OPEN:
            return
        self._move("close")
        self._enqueue_close(reason, discard=discard)

    def data_to_send(self, bytes_max: int) -> bytes:
        """Bytes for the stream, whole frames, a little more than `bytes_max` at most; empty if nothing is queued."""
        if not self._system.queue and not self._turns and self._last is None:
            return b""
        parts: list[bytes] = []
        size = 0
        while size < bytes_max:
            if self._system.queue:
                frame = self._next_frame(self._system)
            elif self._turns:
                channel = self._turns.popleft()
                frame = self._next_frame(channel)
                if channel.queue:
                    self._turns.append(channel)
            elif self._last is not None:
                # Commands overtake data, so this one waits until there is none.
                self._enqueue(self._system, self._last)
                self._last = None
                continue
            else:
                break
            parts.append(frame)
            size += len(frame)
        return b"".join(parts)

    def queued_bytes_of(self, number: int) -> int:
        """Bytes of one channel that wait to be sent; 0 for a channel that was dropped."""
        channel = self._channels.get(number)
        return 0 if channel is None else channel.queued_bytes

    # --- Theirs -----------------------------------------------------------------------------------------------------

    def receive(self, untrusted: bytes) -> list[Event]:
        """Take bytes of the stream; return what happened.

        Raises:
            PeerError: Bytes that break the protocol or a limit.
        """
        events: list[Event] = []
        for frame in self._frames.receive(untrusted):
            if self.state is State.CLOSED:
                break  # Whatever follows the end means nothing.
            message = self._reassemble(frame)
            if message is not None:
                self._command(decode(muxer_pb2.Command, message), events)
        return events

    def _reassemble(self, frame: bytes) -> bytes | None:
        number, start = _read_varint(frame, 0)
        partial = self._partials.get(number)
        if partial is None:
            length, start = _read_varint(frame, start)
            if length > MESSAGE_BYTES_MAX:
                raise LimitError("A message is too long.", bytes=length, bytes_max=MESSAGE_BYTES_MAX)
            size = len(frame) - start
            if size == length:
                return frame[start:]
            if size > length:
                raise ProtocolError("A chunk is longer than its message.")
            if size == 0:
                raise ProtocolError("An empty chunk.")
            if len(self._partials) > CHANNELS_MAX:
                raise LimitError("Too many unfinished messages.", messages_max=CHANNELS_MAX)
            partial = self._partials[number] = _Partial(length, bytearray())
        size = len(frame) - start
        if size == 0:
            raise ProtocolError("An empty chunk.")
        self._partial_bytes += size
        if self._partial_bytes > CHANNEL_BUFFER_BYTES_MAX:
            raise LimitError("Too many bytes of unfinished messages.", bytes_max=CHANNEL_BUFFER_BYTES_MAX)
        partial.data += memoryview(frame)[start:]
        if len(partial.data) < partial.length:
            return None
        if len(partial.data) > partial.length:
            raise ProtocolError("The chunks are longer than their message.")
        self._partial_bytes -= partial.length
        del self._partials[number]
        return bytes(partial.data)

    def _command(self, command: muxer_pb2.Command, events: list[Event]) -> None:
        match command.WhichOneof("payload"):
            case "data":
                number = command.data.channel_id
                channel = self._channels.get(number)
                if channel is not None and channel.opened:
                    events.append(DataReceived(number, command.data.data))
                elif channel is not None or not 0 < number < self._number_next:
                    raise ProtocolError("Data for a channel that was never opened.", channel=number)
            case "open_channel":
                self._remote_open(command.open_channel, events)
            case "close" | "destroy" as kind:
                message = command.close if kind == "close" else command.destroy
                if self.state is State.OPEN:
                    self._enqueue_close("received peer close", discard=True)
                self._move("closed")
                events.append(PeerClosed(message.error[:REASON_CHARS_MAX]))
            case _:
                raise ProtocolError("A command of a kind unknown here.")

    def _remote_open(self, command: muxer_pb2.OpenChannel, events: list[Event]) -> None:
        if not 0 < command.id <= _NUMBER_MAX:
            raise ProtocolError("A channel's number is positive.", channel=command.id)
        if len(command.tag) > TAG_CHARS_MAX:
            raise LimitError("The tag of a channel is too long.", chars_max=TAG_CHARS_MAX)
        channel = self._by_tag.get(command.tag)
        if channel is None:
            if len(self._channels) >= CHANNELS_MAX:
                raise LimitError("Too many channels.", channels_max=CHANNELS_MAX)
            channel = self._add(command.tag)
        elif channel.remote is not None:
            raise ProtocolError("A channel was opened twice.")
        channel.remote = command.id
        early, channel.early = channel.early, []
        for data in early:
            channel.queued_bytes -= len(data)
            self.queued_bytes -= len(data)
            self._enqueue(channel, _data_command(command.id, data))
        if channel.opened:
            events.append(ChannelOpened(channel.number, channel.tag))

    # --- Both -------------------------------------------------------------------------------------------------------

    def _add(self, tag: str) -> _Channel:
        channel = _Channel(self._number_next, tag)
        self._number_next += 1
        self._channels[channel.number] = self._by_tag[tag] = channel
        return channel

    def _enqueue(self, channel: _Channel, command: bytes) -> None:
        if not channel.queue and channel is not self._system:
            self._turns.append(channel)
        channel.queue.append(command)
        channel.queued_bytes += len(command)
        self.queued_bytes += len(command)

    def _enqueue_close(self, reason: str, *, discard: bool) -> None:
        close = muxer_pb2.Close(error=reason[:REASON_CHARS_MAX]) if reason else muxer_pb2.Close()
        self._last = encode(muxer_pb2.Command(close=close))
        if discard:
            self._turns.clear()
            self.queued_bytes = self._system.queued_bytes

    def _next_frame(self, channel: _Channel) -> bytes:
        message, offset = channel.queue[0], channel.offset
        chunk = message[offset : offset + CHUNK_BYTES_MAX]
        header = _varint(channel.number) + _varint(len(message)) if offset == 0 else _varint(channel.number)
        if offset + len(chunk) == len(message):
            channel.queue.popleft()
            channel.offset = 0
        else:
            channel.offset += len(chunk)
        channel.queued_bytes -= len(chunk)
        self.queued_bytes -= len(chunk)
        return encode_frame(header + chunk)

    def _move(self, event: str) -> None:
        self.state = TRANSITIONS[self.state, event]


def _data_command(number: int, data: bytes) -> bytes:
    # Written by hand: this is the one message of every call, and the library would copy the data twice more.
    body = b"\x08" + _varint(number) + b"\x12" + _varint(len(data))
    return b"\x12" + _varint(len(body) + len(data)) + body + data


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, start: int) -> tuple[int, int]:
    number = shift = 0
    for index in range(start, len(data)):
        byte = data[index]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number > _NUMBER_MAX:
                break
            return number, index + 1
        shift += 7
        if shift >= _VARINT_BITS_MAX:
            break
    raise DecodeError("A number of a chunk does not parse.")
