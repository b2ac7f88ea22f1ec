import random

import pytest

from dxos.errors import LimitError, PeerError, ProtocolError, RemoteError
from dxos.keys import PublicKey
from dxos.limits import RPC_CALLS_MAX, SIGNAL_READY_TIMEOUT_S
from dxos.mesh.signal import PeerAvailable, PeerLeft, Received
from dxos.mesh.signal_session import SignalSession
from dxos.wire import decode, encode, pack_any
from dxos.wire.proto import rpc_pb2, signal_pb2, values_pb2

TOPIC, OTHER, ALICE, BOB = (PublicKey(letter * 32) for letter in (b"t", b"u", b"a", b"b"))
PAYLOAD = values_pb2.Any(type_url="x", value=b"hi")


def said(session: SignalSession) -> list[str]:
    messages = [decode(rpc_pb2.RpcMessage, frame) for frame in session.take_frames()]
    return [message.request.method.rpartition(".")[2] or f"close {message.stream_close.id}" for message in messages]


def answer(number: int, **content: object) -> bytes:
    response = rpc_pb2.Response(id=number, **content)  # type: ignore[arg-type]
    return encode(rpc_pb2.RpcMessage(response=response))


def test_messages_are_received_from_the_first_topic_to_the_last() -> None:
    session = SignalSession()
    session.match([(TOPIC, ALICE), (OTHER, ALICE)], now=0.0)
    assert said(session) == ["ReceiveMessages", "Join", "Join"]
    session.match([(OTHER, ALICE)], now=0.0)
    assert said(session) == ["close 1"]
    session.match([], now=0.0)
    assert said(session) == ["close 2", "close 0"]


def test_events_carry_their_topic() -> None:
    session = SignalSession()
    session.join(TOPIC, ALICE, now=0.0)
    arrived = signal_pb2.SwarmEvent(peer_available=signal_pb2.SwarmEvent.PeerAvailable(peer=bytes(BOB)))
    left = signal_pb2.SwarmEvent(peer_left=signal_pb2.SwarmEvent.PeerLeft(peer=bytes(BOB)))
    message = signal_pb2.Message(author=bytes(BOB), recipient=bytes(ALICE), payload=PAYLOAD)
    assert session.receive(answer(1, payload=pack_any(arrived))) == [PeerAvailable(TOPIC, BOB)]
    assert session.receive(answer(1, payload=pack_any(left))) == [PeerLeft(TOPIC, BOB)]
    assert session.receive(answer(0, payload=pack_any(message))) == [Received(BOB, ALICE, PAYLOAD)]


def test_a_stream_that_is_not_confirmed_in_time_is_an_error() -> None:
    session = SignalSession()
    session.join(TOPIC, ALICE, now=1.0)
    assert session.deadline == 1.0 + SIGNAL_READY_TIMEOUT_S
    session.receive(answer(0, stream_ready=True))
    session.check(5.9)
    with pytest.raises(ProtocolError):
        session.check(6.0)
    session.receive(answer(1, stream_ready=True))
    session.check(100.0)
    assert session.deadline is None


def test_a_stream_that_the_server_ends_or_refuses_closes_the_socket() -> None:
    for content, error in (({"close": True}, ProtocolError), ({"error": rpc_pb2.Error(message="no")}, RemoteError)):
        session = SignalSession()
        session.join(TOPIC, ALICE, now=0.0)
        with pytest.raises(error):
            session.receive(answer(1, **content))


def test_answers_to_what_was_closed_are_ignored() -> None:
    session = SignalSession()
    session.join(TOPIC, ALICE, now=0.0)
    session.leave(TOPIC, ALICE)
    assert session.receive(answer(1, stream_ready=True)) == []
    assert session.receive(answer(99, close=True)) == []


def test_a_message_for_somebody_else_is_an_error() -> None:
    session = SignalSession()
    session.join(TOPIC, ALICE, now=0.0)
    message = signal_pb2.Message(author=bytes(BOB), recipient=bytes(BOB), payload=PAYLOAD)
    with pytest.raises(ProtocolError):
        session.receive(answer(0, payload=pack_any(message)))


def test_messages_that_the_server_does_not_confirm_are_limited() -> None:
    session = SignalSession()
    for _ in range(RPC_CALLS_MAX):
        session.send(ALICE, BOB, PAYLOAD)
    with pytest.raises(LimitError):
        session.send(ALICE, BOB, PAYLOAD)
    session.receive(answer(0, error=rpc_pb2.Error(message="busy")))
    session.send(ALICE, BOB, PAYLOAD)


def test_whatever_arrives_only_peer_errors_come_out() -> None:
    source = random.Random(2)
    event = signal_pb2.SwarmEvent(peer_available=signal_pb2.SwarmEvent.PeerAvailable(peer=bytes(BOB)))
    good = answer(1, payload=pack_any(event))
    for _ in range(3_000):
        session = SignalSession()
        session.join(TOPIC, ALICE, now=0.0)
        frame = bytearray(good)
        for _ in range(source.randrange(1, 6)):
            frame[source.randrange(len(frame))] = source.randrange(256)
        try:
            session.receive(bytes(frame))
        except PeerError:
            continue
