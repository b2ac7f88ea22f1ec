"""Channels over one stream, with the bytes handed over by hand."""

import pytest

from dxos.errors import BrokenError, DecodeError, LimitError, PeerError, ProtocolError, UsageError
from dxos.limits import CHANNELS_MAX, CHUNK_BYTES_MAX, EARLY_DATA_BYTES_MAX, MESSAGE_BYTES_MAX, TAG_CHARS_MAX
from dxos.teleport.framer import FrameReader, encode_frame
from dxos.teleport.mux import ChannelOpened, DataReceived, Event, Mux, PeerClosed, State
from dxos.wire import encode
from dxos.wire.proto import muxer_pb2


def deliver(source: Mux, target: Mux, bytes_max: int = 1 << 30) -> list[Event]:
    data = source.data_to_send(bytes_max)
    return target.receive(data) if data else []


def open_pair(*tags: str) -> tuple[Mux, Mux]:
    alice, bob = Mux(), Mux()
    for tag in tags:
        alice.open_channel(tag)
    for tag in reversed(tags):  # So that the two sides' numbers differ.
        bob.open_channel(tag)
    deliver(alice, bob)
    deliver(bob, alice)
    return alice, bob


def frame_of(command: muxer_pb2.Command, channel: int = 0) -> bytes:
    message = encode(command)
    assert len(message) < 0x80
    return encode_frame(bytes((channel, len(message))) + message)


def open_command(number: int, tag: str) -> muxer_pb2.Command:
    return muxer_pb2.Command(open_channel=muxer_pb2.OpenChannel(id=number, tag=tag))


def data_command(number: int) -> muxer_pb2.Command:
    return muxer_pb2.Command(data=muxer_pb2.Data(channel_id=number, data=b"x"))


def test_a_channel_is_open_when_both_sides_have_opened_it() -> None:
    alice, bob = Mux(), Mux()
    assert alice.open_channel("a/rpc") == (1, [])
    assert deliver(alice, bob) == []
    assert bob.open_channel("a/rpc") == (1, [ChannelOpened(1, "a/rpc")])
    assert deliver(bob, alice) == [ChannelOpened(1, "a/rpc")]


def test_data_is_addressed_by_the_receivers_number() -> None:
    alice, bob = open_pair("a", "b")
    alice.send(1, b"to a")
    assert deliver(alice, bob) == [DataReceived(2, b"to a")]


def test_data_sent_early_waits_for_the_peers_open_and_is_bounded() -> None:
    alice, bob = Mux(), Mux()
    alice.open_channel("a")
    alice.send(1, b"early")
    assert deliver(alice, bob) == []
    with pytest.raises(BrokenError):
        alice.send(1, bytes(EARLY_DATA_BYTES_MAX))
    bob.open_channel("a")
    deliver(bob, alice)
    assert deliver(alice, bob) == [DataReceived(1, b"early")]
    assert alice.queued_bytes == alice.queued_bytes_of(1) == 0


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES_MAX - 8, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, 250_000])
def test_a_message_is_cut_in_chunks_and_joined_again(size: int) -> None:
    alice, bob = open_pair("a")
    alice.send(1, bytes(size))
    data = alice.data_to_send(1 << 30)
    frames = FrameReader().receive(data)
    assert max(map(len, frames)) <= CHUNK_BYTES_MAX + 10
    assert bob.receive(data) == [DataReceived(1, bytes(size))]


def test_channels_take_turns() -> None:
    alice, _ = open_pair("a", "b")
    alice.send(1, bytes(5 * CHUNK_BYTES_MAX))
    alice.send(2, bytes(2 * CHUNK_BYTES_MAX))
    turns = [frame[0] for frame in FrameReader().receive(alice.data_to_send(1 << 30))]
    assert turns == [1, 2, 1, 2, 1, 2, 1, 1, 1]


def test_commands_overtake_data() -> None:
    alice, _ = open_pair("a")
    alice.send(1, bytes(3 * CHUNK_BYTES_MAX))
    alice.data_to_send(1)
    alice.open_channel("b")
    assert FrameReader().receive(alice.data_to_send(1))[0][0] == 0


def test_the_end_waits_for_what_is_queued() -> None:
    alice, bob = open_pair("a")
    alice.send(1, bytes(3 * CHUNK_BYTES_MAX))
    alice.close("that is all")
    events = deliver(alice, bob)
    assert [type(event) for event in events] == [DataReceived, PeerClosed]
    assert events[-1] == PeerClosed("that is all")
    assert deliver(bob, alice) == [PeerClosed("received peer close")]
    assert alice.state is bob.state is State.CLOSED
    with pytest.raises(BrokenError):
        alice.send(1, b"more")


def test_an_end_with_discard_does_not_wait() -> None:
    alice, bob = open_pair("a")
    alice.send(1, bytes(3 * CHUNK_BYTES_MAX))
    alice.close("enough", discard=True)
    alice.close("again")
    assert deliver(alice, bob) == [PeerClosed("enough")]


def test_nothing_is_received_after_the_end() -> None:
    alice, bob = open_pair("a")
    bob.close()
    deliver(bob, alice)
    assert alice.receive(frame_of(data_command(1))) == []


def test_a_dropped_channel_ignores_what_still_arrives() -> None:
    alice, bob = open_pair("a")
    bob.send(1, b"late")
    alice.drop_channel(1)
    assert deliver(bob, alice) == []
    with pytest.raises(UsageError):
        alice.send(1, b"x")
    assert alice.queued_bytes_of(1) == 0


def test_opening_twice_is_an_error_on_either_side() -> None:
    alice, bob = open_pair("a")
    with pytest.raises(UsageError):
        alice.open_channel("a")
    with pytest.raises(ProtocolError):
        bob.receive(frame_of(open_command(9, "a")))


@pytest.mark.parametrize(
    ("untrusted", "kind"),
    [
        (frame_of(data_command(1)), ProtocolError),  # Offered by the peer, never opened here.
        (frame_of(data_command(77)), ProtocolError),
        (frame_of(data_command(-1)), ProtocolError),
        (frame_of(open_command(0, "b")), ProtocolError),
        (frame_of(open_command(-5, "b")), ProtocolError),
        (frame_of(muxer_pb2.Command(), 1), ProtocolError),
        (encode_frame(b""), DecodeError),
        (encode_frame(b"\x01"), DecodeError),
        (encode_frame(b"\xff" * 9), DecodeError),
        (encode_frame(b"\x01\x05"), ProtocolError),
        (encode_frame(b"\x01\x01xx"), ProtocolError),
        (encode_frame(b"\x01\x02x") + encode_frame(b"\x01xx"), ProtocolError),
        (encode_frame(b"\x01\x02x") + encode_frame(b"\x01"), ProtocolError),
        (encode_frame(b"\x01\x02\xff\xff"), DecodeError),
        (encode_frame(b"\x01\xff\xff\xff\xff\x07x"), LimitError),
    ],
)
def test_what_breaks_the_protocol_is_an_error(untrusted: bytes, kind: type[PeerError]) -> None:
    mux = Mux()
    mux.receive(frame_of(open_command(3, "a")))
    with pytest.raises(kind):
        mux.receive(untrusted)


def test_channels_tags_and_unfinished_messages_are_bounded() -> None:
    mux = Mux()
    message = encode(open_command(1, "x" * (TAG_CHARS_MAX + 1)))
    header = bytes((0, len(message) & 0x7F | 0x80, len(message) >> 7))
    with pytest.raises(LimitError):
        mux.receive(encode_frame(header + message))
    for number in range(1, CHANNELS_MAX + 1):
        mux.receive(frame_of(open_command(number, f"tag {number}")))
    with pytest.raises(LimitError):
        mux.receive(frame_of(open_command(number + 1, "one more")))
    with pytest.raises(UsageError):
        mux.open_channel("one more")
    with pytest.raises(UsageError):
        mux.send(1, bytes(MESSAGE_BYTES_MAX))


def test_many_unfinished_messages_are_too_many() -> None:
    mux = Mux()
    beginnings = [encode_frame(bytes((n & 0x7F | 0x80, n >> 7)) + b"\x02x") for n in range(CHANNELS_MAX + 2)]
    mux.receive(b"".join(beginnings[:-1]))
    with pytest.raises(LimitError):
        mux.receive(beginnings[-1])


def test_the_repr_is_one_line() -> None:
    assert repr(open_pair("a")[0]) == "<Mux open channels=1 queued_bytes=0>"
