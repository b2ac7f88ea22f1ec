import random

import pytest

from dxos.errors import DecodeError, LimitError, PeerError, ProtocolError
from dxos.limits import (
    SIGNAL_QUEUE_FRAMES_MAX,
    SIGNAL_REQUESTS_BURST_MAX,
    SIGNAL_REQUESTS_PER_S_MAX,
)
from dxos.mesh.signal_server import SignalServer, Socket
from dxos.wire import decode, encode, from_timestamp, pack_any
from dxos.wire.proto import rpc_pb2, signal_pb2, values_pb2

TOPIC, ALICE, BOB = b"t" * 32, b"a" * 65, b"b" * 65


def make_server(log: list[str] | None = None) -> SignalServer:
    return SignalServer(wake=lambda _: None, on_event=None if log is None else log.append)


def request(method: str, number: int, payload: signal_pb2.JoinRequest | signal_pb2.Message) -> bytes:
    call = rpc_pb2.Request(id=number, method=f"dxos.mesh.signal.Signal.{method}", payload=pack_any(payload))
    return encode(rpc_pb2.RpcMessage(request=call))


def join(server: SignalServer, socket: Socket, peer: bytes, number: int = 0, topic: bytes = TOPIC) -> None:
    payload = signal_pb2.JoinRequest(swarm=topic, peer=peer)
    server.receive(socket, request("Join", number, payload), now=0.0, now_ms=1_700_000_000_123)


def listen(server: SignalServer, socket: Socket, peer: bytes, number: int = 1) -> None:
    call = rpc_pb2.Request(
        id=number,
        method="dxos.mesh.signal.Signal.ReceiveMessages",
        payload=pack_any(signal_pb2.ReceptionRequest(peer=peer)),
    )
    server.receive(socket, encode(rpc_pb2.RpcMessage(request=call)), now=0.0, now_ms=0)


def send(server: SignalServer, socket: Socket, author: bytes, recipient: bytes) -> None:
    message = signal_pb2.Message(author=author, recipient=recipient, payload=values_pb2.Any(type_url="x", value=b"hi"))
    server.receive(socket, request("SendMessage", 9, message), now=0.0, now_ms=0)


def said(socket: Socket) -> list[str]:
    """What a client was told, and forget it."""
    lines = []
    for frame in socket.frames:
        response = decode(rpc_pb2.RpcMessage, frame).response
        kind = response.WhichOneof("content") or ""
        if response.payload.type_url.endswith("SwarmEvent"):
            event = decode(signal_pb2.SwarmEvent, response.payload.value)
            name = event.WhichOneof("event") or ""
            lines.append(f"{name} {getattr(event, name).peer[:1].decode()}")
        elif response.payload.type_url.endswith("Message"):
            lines.append("message")
        else:
            lines.append(kind)
    socket.frames.clear()
    return lines


def test_a_joiner_hears_of_those_present_of_itself_and_of_later_ones() -> None:
    log: list[str] = []
    server = make_server(log)
    alice, bob = server.open(0.0), server.open(0.0)
    join(server, alice, ALICE)
    assert said(alice) == ["stream_ready", "peer_available a"]
    join(server, bob, BOB)
    assert said(bob) == ["stream_ready", "peer_available a", "peer_available b"]
    assert said(alice) == ["peer_available b"]
    server.close(bob)
    assert said(alice) == ["peer_left b"]
    assert log == [
        "61616161 joined 74747474: 1 peers",
        "62626262 joined 74747474: 2 peers",
        "62626262 left 74747474: 1 peers",
    ]
    server.close(alice)
    assert repr(server) == "<SignalServer sockets=0 swarms=0 peers=0>"


def test_the_time_of_an_arrival_is_told() -> None:
    server = make_server()
    alice = server.open(0.0)
    join(server, alice, ALICE)
    response = decode(rpc_pb2.RpcMessage, alice.frames[1]).response
    event = decode(signal_pb2.SwarmEvent, response.payload.value)
    assert from_timestamp(event.peer_available.since) == 1_700_000_000_123


def test_a_peer_with_two_sockets_leaves_with_the_last() -> None:
    server = make_server()
    alice, first, second = server.open(0.0), server.open(0.0), server.open(0.0)
    join(server, alice, ALICE)
    join(server, first, BOB)
    join(server, second, BOB)
    assert said(alice) == ["stream_ready", "peer_available a", "peer_available b"]
    server.close(first)
    assert said(alice) == []
    server.close(second)
    assert said(alice) == ["peer_left b"]


def test_a_message_reaches_its_recipient_only() -> None:
    server = make_server()
    alice, bob = server.open(0.0), server.open(0.0)
    listen(server, alice, ALICE)
    listen(server, bob, BOB)
    said(alice), said(bob)
    send(server, alice, ALICE, BOB)
    assert said(bob) == ["message"]
    assert said(alice) == ["payload"], "the empty answer"
    send(server, alice, ALICE, b"nobody")
    assert said(alice) == ["payload"]


def test_closing_a_stream_ends_it() -> None:
    server = make_server()
    alice, bob = server.open(0.0), server.open(0.0)
    join(server, alice, ALICE)
    join(server, bob, BOB, 4)
    listen(server, bob, BOB, 5)
    said(alice)
    for number in (4, 5, 5, 77):
        close = rpc_pb2.RpcMessage(stream_close=rpc_pb2.StreamClose(id=number))
        server.receive(bob, encode(close), now=0.0, now_ms=0)
    assert said(alice) == ["peer_left b"]
    said(bob)
    send(server, alice, ALICE, BOB)
    assert said(bob) == []


def test_pings_and_handshakes_are_ignored_and_unknown_methods_refused() -> None:
    server = make_server()
    alice = server.open(0.0)
    server.receive(alice, "__ping__", now=0.0, now_ms=0)
    server.receive(alice, encode(rpc_pb2.RpcMessage(open=True)), now=0.0, now_ms=0)
    assert said(alice) == []
    server.receive(alice, request("Explode", 0, signal_pb2.JoinRequest()), now=0.0, now_ms=0)
    assert said(alice) == ["error"]


def test_a_request_number_that_is_in_use_is_refused() -> None:
    server = make_server()
    alice = server.open(0.0)
    join(server, alice, ALICE)
    with pytest.raises(ProtocolError):
        join(server, alice, ALICE)


@pytest.mark.parametrize("key", [b"", b"x" * 129])
def test_keys_of_impossible_length_are_refused(key: bytes) -> None:
    server = make_server()
    alice = server.open(0.0)
    with pytest.raises(DecodeError):
        join(server, alice, key)
    with pytest.raises(DecodeError):
        join(server, alice, ALICE, topic=key)
    with pytest.raises(DecodeError):
        send(server, alice, ALICE, key)


def test_a_flood_is_refused_and_a_steady_client_is_not() -> None:
    server = make_server()
    steady, flood = server.open(0.0), server.open(0.0)
    for step in range(2 * SIGNAL_REQUESTS_BURST_MAX):
        server.receive(steady, "__ping__", now=step / SIGNAL_REQUESTS_PER_S_MAX, now_ms=0)
    for _ in range(SIGNAL_REQUESTS_BURST_MAX):
        server.receive(flood, "__ping__", now=0.0, now_ms=0)
    with pytest.raises(LimitError):
        server.receive(flood, "__ping__", now=0.0, now_ms=0)


def test_sockets_and_peers_are_limited() -> None:
    server = SignalServer(wake=lambda _: None, sockets_max=2, peers_max=3)
    first, second = server.open(0.0), server.open(0.0)
    with pytest.raises(LimitError):
        server.open(0.0)
    for number in range(3):
        join(server, first, bytes([number]), number)
    with pytest.raises(LimitError):
        join(server, second, BOB)
    join(server, second, bytes([0]))


def test_a_client_that_does_not_read_overflows_and_the_others_still_hear() -> None:
    server = make_server()
    slow, quick = server.open(0.0), server.open(0.0)
    listen(server, slow, ALICE)
    listen(server, quick, ALICE)
    sender = server.open(0.0)
    for _ in range(SIGNAL_QUEUE_FRAMES_MAX):
        send(server, sender, BOB, ALICE)
        quick.frames.clear()
        sender.frames.clear()
    assert slow.overflowed
    assert not quick.overflowed


def test_whatever_arrives_only_peer_errors_come_out() -> None:
    source, server = random.Random(1), make_server()
    good = request("Join", 3, signal_pb2.JoinRequest(swarm=TOPIC, peer=ALICE))
    for _ in range(3_000):
        socket = server.open(0.0)
        frame = bytearray(good)
        for _ in range(source.randrange(1, 6)):
            frame[source.randrange(len(frame))] = source.randrange(256)
        try:
            server.receive(socket, bytes(frame[: source.randrange(len(frame) + 1)]), now=0.0, now_ms=0)
        except PeerError:
            pass
        finally:
            server.close(socket)
    assert server.stats.peers == 0
