"""The messages of a hypercore replication stream, and the frames they travel in.

A frame is `varint(length) varint(channel << 4 | kind) body`; a length of zero is a ping. Each stream replicates one
feed, so the channel is always 1. Bodies are protobuf; which fields 0.8.3 writes is part of the vectors.
"""

from collections.abc import Iterator
from typing import Any, final

from google.protobuf.message import Message as Body
from msgspec import Struct
from msgspec.structs import fields

from dxos.errors import DecodeError, LimitError, ProtocolError
from dxos.feed.merkle import Node
from dxos.feed.varint import peek_varint, read_varint, write_varint
from dxos.limits import FEED_FRAME_BYTES_MAX
from dxos.wire import decode
from dxos.wire.proto import hypercore_pb2 as pb

CHANNEL = 1
PING = b"\x00"
_NODES = "nodes"


@final
class Open(Struct, frozen=True):
    """The first message: which feed this stream is about."""

    discovery_key: bytes  # 32 bytes.
    capability: bytes | None = None  # Proof of knowing the key; 0.8.3 sends none.


@final
class Options(Struct, frozen=True):
    """What the sender supports; nothing here depends on it."""

    ack: bool | None = None


@final
class Status(Struct, frozen=True):
    """Whether the sender still wants to send and receive; told for information."""

    uploading: bool | None = None
    downloading: bool | None = None


@final
class Have(Struct, frozen=True):
    """Blocks that the sender can send."""

    start: int  # First block.
    length: int | None = None  # Blocks from `start` on; 1 if missing.
    bitfield: bytes | None = None  # Run-length coded; which of these blocks. All if missing.


@final
class Unhave(Struct, frozen=True):
    """Blocks that the sender cannot send, although it said so or was asked."""

    start: int
    length: int | None = None  # 1 if missing.


@final
class Want(Struct, frozen=True):
    """Where the sender wants to hear of blocks."""

    start: int  # Multiple of 8192.
    length: int | None = None  # Multiple of 8192; to the end if missing.


@final
class Unwant(Struct, frozen=True):
    """Where it no longer does."""

    start: int
    length: int | None = None


@final
class Request(Struct, frozen=True):
    """Ask for a block."""

    index: int
    bytes: int = 0  # Ask by position in the feed's bytes instead; not supported here.
    hash: bool = False  # Ask for the proof alone; we send the block as well, which is always accepted.
    nodes: int = 0  # Which nodes of the proof the sender has already; 0 asks for a complete proof.


@final
class Cancel(Struct, frozen=True):
    """Take a request back."""

    index: int
    bytes: int = 0
    hash: bool = False


@final
class Data(Struct, frozen=True):
    """A block and its proof."""

    index: int
    value: bytes | None = None  # Missing in the answer to a request for hashes.
    nodes: tuple[Node, ...] = ()
    signature: bytes | None = None  # 64 bytes.


@final
class Close(Struct, frozen=True):
    """The sender is done with this feed."""

    discovery_key: bytes | None = None


@final
class Extension(Struct, frozen=True):
    """An application's own message; ignored."""

    body: bytes


Message = Open | Options | Status | Have | Unhave | Want | Unwant | Request | Cancel | Data | Close | Extension

EXTENSION = 15
_BODIES: dict[int, tuple[type[Any], type[Body]]] = {
    0: (Open, pb.Open),
    1: (Options, pb.Options),
    2: (Status, pb.Status),
    3: (Have, pb.Have),
    4: (Unhave, pb.Unhave),
    5: (Want, pb.Want),
    6: (Unwant, pb.Unwant),
    7: (Request, pb.Request),
    8: (Cancel, pb.Cancel),
    9: (Data, pb.Data),
    10: (Close, pb.Close),
}
_KINDS = {message: (kind, body) for kind, (message, body) in _BODIES.items()}


def encode_frame(message: Message) -> bytes:
    """Return the frame of a message; fields that are None are not written, zeros are."""
    if isinstance(message, Extension):
        return _frame(EXTENSION, message.body)
    kind, body_type = _KINDS[type(message)]
    body = body_type()
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if name == _NODES and isinstance(message, Data):
            for node in message.nodes:
                getattr(body, _NODES).add(index=node.index, hash=node.hash, size=node.size)
        elif value is not None:
            setattr(body, name, value)
    return _frame(kind, body.SerializeToString(deterministic=True))


def _frame(kind: int, body: bytes) -> bytes:
    content = write_varint(CHANNEL << 4 | kind) + body
    return write_varint(len(content)) + content


def decode_body(kind: int, untrusted: bytes) -> Message:
    """Parse the body of a frame.

    Raises:
        DecodeError: Not such a message, or a field that it needs is missing.
        ProtocolError: No such kind of message.
    """
    if kind == EXTENSION:
        return Extension(untrusted)
    if kind not in _BODIES:
        raise ProtocolError("A feed message of a kind unknown here.", kind=kind)
    message_type, body_type = _BODIES[kind]
    body = decode(body_type, untrusted, bytes_max=FEED_FRAME_BYTES_MAX)
    values: dict[str, object] = {}
    for field in fields(message_type):
        if field.name == _NODES and message_type is Data:
            nodes = getattr(body, _NODES)
            values[_NODES] = tuple(Node(node.index, node.hash, node.size) for node in nodes)
        elif body.HasField(field.name):
            values[field.name] = getattr(body, field.name)
        elif field.required:
            raise DecodeError(f"{message_type.__name__} lacks {field.name}")
    message: Message = message_type(**values)
    return message


@final
class FrameReader:
    """Cuts a stream of bytes into messages."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, untrusted: bytes) -> None:
        """Add what arrived; take the messages out by iterating before more is added."""
        self._buffer += untrusted

    def __iter__(self) -> Iterator[Message]:
        """Yield every complete message, pings left out.

        Raises:
            DecodeError, ProtocolError: As of `decode_body`.
            LimitError: A frame is announced that is longer than FEED_FRAME_BYTES_MAX.
        """
        at = 0
        try:
            while (found := peek_varint(self._buffer, at)) is not None:
                length, start = found
                if length > FEED_FRAME_BYTES_MAX:
                    raise LimitError("A feed frame is too long.", bytes=length, bytes_max=FEED_FRAME_BYTES_MAX)
                if start + length > len(self._buffer):
                    break
                at = start + length
                if length:
                    frame = bytes(self._buffer[start:at])
                    header, body_at = read_varint(frame, 0)
                    if header >> 4 != CHANNEL:
                        raise ProtocolError("A feed frame on a channel that is not open.", channel=header >> 4)
                    yield decode_body(header & 0xF, frame[body_at:])
        finally:
            del self._buffer[:at]
