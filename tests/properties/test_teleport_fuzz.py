"""Whatever bytes a peer sends, nothing but a PeerError comes of it."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from dxos.errors import PeerError
from dxos.teleport.framer import FrameReader, encode_frame
from dxos.teleport.mux import Mux
from dxos.teleport.rpc import RpcPeer
from dxos.teleport.session import CONTROL, Session
from dxos.wire import encode
from dxos.wire.proto import control_pb2, muxer_pb2, rpc_pb2

NUMBERS = st.integers(-3, 6)
TEXTS = st.sampled_from(["", "a", "a/rpc", f"{CONTROL}/rpc", f"{CONTROL}.ControlService.Heartbeat"])
PAYLOADS = st.one_of(st.binary(max_size=12), st.just(encode(control_pb2.RegisterExtensionRequest(name="a"))))


@st.composite
def rpc_messages(draw: st.DrawFn) -> bytes:
    message = rpc_pb2.RpcMessage()
    match draw(st.sampled_from(["request", "response", "open", "open_ack", "stream_close", "bye", "none"])):
        case "request":
            method = draw(st.sampled_from([f"{CONTROL}.ControlService.RegisterExtension", "x", ""]))
            message.request.id, message.request.method = draw(NUMBERS), method
            message.request.payload.value, message.request.stream = draw(PAYLOADS), draw(st.booleans())
        case "response":
            message.response.id = draw(NUMBERS)
            match draw(st.sampled_from(["payload", "error", "close", "ready", "none"])):
                case "payload":
                    message.response.payload.value = draw(PAYLOADS)
                case "error":
                    message.response.error.message = draw(TEXTS)
                case "close":
                    message.response.close = draw(st.booleans())
                case "ready":
                    message.response.stream_ready = draw(st.booleans())
        case "open":
            message.open = draw(st.booleans())
        case "open_ack":
            message.open_ack = draw(st.booleans())
        case "stream_close":
            message.stream_close.id = draw(NUMBERS)
        case "bye":
            message.bye.SetInParent()
    return message.SerializeToString()


@st.composite
def commands(draw: st.DrawFn) -> bytes:
    command = muxer_pb2.Command()
    match draw(st.sampled_from(["open", "data", "data", "data", "close", "destroy", "none"])):
        case "open":
            command.open_channel.id, command.open_channel.tag = draw(NUMBERS), draw(TEXTS)
        case "data":
            command.data.channel_id = draw(NUMBERS)
            command.data.data = draw(st.one_of(rpc_messages(), st.binary(max_size=12)))
        case "close":
            command.close.error = draw(TEXTS)
        case "destroy":
            command.destroy.error = draw(TEXTS)
    return command.SerializeToString()


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    message = draw(commands())
    if draw(st.integers(0, 9)) == 0:
        return encode_frame(draw(st.binary(max_size=20)))
    header = bytes((draw(st.integers(0, 3)), len(message) & 0x7F))
    return encode_frame(header + message)


STREAMS = st.lists(st.one_of(frames(), frames(), frames(), st.binary(max_size=30)), max_size=10)


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_frames_of_any_bytes_join_to_the_bytes_they_came_from(parts: list[bytes]) -> None:
    reader = FrameReader()
    read = [frame for part in parts for frame in reader.receive(part)]
    joined = b"".join(map(encode_frame, read))
    assert b"".join(parts).startswith(joined)
    assert len(joined) + reader.pending_bytes == sum(map(len, parts))


@given(STREAMS)
def test_a_mux_raises_nothing_but_peer_errors(stream: list[bytes]) -> None:
    mux = Mux()
    mux.open_channel("a/rpc")
    with contextlib.suppress(PeerError):
        for part in stream:
            mux.receive(part)
            mux.data_to_send(1 << 20)


@given(st.lists(st.one_of(rpc_messages(), st.binary(max_size=20)), max_size=12), st.booleans())
def test_calls_raise_nothing_but_peer_errors(messages: list[bytes], started: bool) -> None:
    peer = RpcPeer()
    if started:
        peer.start(now=0.0)
    peer.call("x.Y.Z", control_pb2.RegisterExtensionRequest(name="a"), deadline=1.0)
    peer.call("x.Y.Z", control_pb2.RegisterExtensionRequest(name="a"), stream=True)
    for message in messages:
        with contextlib.suppress(PeerError):
            peer.receive(message)
    peer.handle_timer(now=2.0)


@given(STREAMS)
@settings(max_examples=200)
def test_a_session_raises_nothing_but_peer_errors(stream: list[bytes]) -> None:
    session, honest = Session(now=0.0), Session(now=0.0)
    session.add_extension("a", now=0.0)
    for _ in range(4):
        session.receive(honest.data_to_send(1 << 20), now=0.0)
        honest.receive(session.data_to_send(1 << 20), now=0.0)
    try:
        for part in stream:
            session.receive(part, now=1.0)
            session.data_to_send(1 << 20)
    except PeerError as error:
        session.close(error)
    session.handle_timer(now=20.0, now_ms=0)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 30_000)), max_size=12), st.integers(1, 40_000))
@settings(max_examples=50)
def test_messages_arrive_whole_and_in_order_on_each_channel(sent: list[tuple[int, int]], cut: int) -> None:
    alice, bob = Mux(), Mux()
    for tag in ("1", "2", "3"):
        alice.open_channel(tag)
        bob.open_channel(tag)
    bob.receive(alice.data_to_send(1 << 20))
    alice.receive(bob.data_to_send(1 << 20))
    for index, (channel, size) in enumerate(sent):
        alice.send(channel, bytes((index,)) * size)
    stream = alice.data_to_send(1 << 30)
    received: dict[int, list[bytes]] = {1: [], 2: [], 3: []}
    for start in range(0, len(stream), cut):
        for event in bob.receive(stream[start : start + cut]):
            received[event.channel].append(event.data)  # type: ignore[union-attr]
    for channel, messages in received.items():
        assert messages == [bytes((index,)) * size for index, (at, size) in enumerate(sent) if at == channel]
