"""Two ends of a channel of calls joined by lists, and every message in every state."""

from collections.abc import Callable

import pytest
from google.protobuf.empty_pb2 import Empty

from dxos.errors import BrokenError, DeadlineError, LimitError, ProtocolError, RemoteError, UsageError
from dxos.limits import RPC_CALLS_MAX, RPC_CALLS_READ_MAX, RPC_OPEN_RETRY_S
from dxos.teleport.rpc import (
    PAYLOAD_BYTES_MAX,
    TRANSITIONS,
    Answered,
    Closed,
    Ended,
    Envelope,
    Event,
    Opened,
    Requested,
    RpcPeer,
    State,
    StreamReady,
    StreamStopped,
)
from dxos.wire import encode, pack_any
from dxos.wire.proto import automerge_pb2, rpc_pb2, values_pb2

METHOD = "dxos.mesh.teleport.automerge.AutomergeReplicatorService.SendSyncMessage"
REQUEST = automerge_pb2.SyncMessage(payload=b"hello")


def exchange(alice: RpcPeer, bob: RpcPeer, *, now: float = 0.0) -> tuple[list[Event], list[Event]]:
    """Deliver everything; returns what happened to alice and to bob."""
    to_alice: list[Event] = []
    to_bob: list[Event] = []
    while alice.outgoing or bob.outgoing:
        if alice.outgoing:
            to_bob += bob.receive(alice.outgoing.popleft())
        if bob.outgoing:
            to_alice += alice.receive(bob.outgoing.popleft())
    return to_alice, to_bob


def open_pair() -> tuple[RpcPeer, RpcPeer]:
    alice, bob = RpcPeer(), RpcPeer()
    alice.start(now=0.0)
    bob.start(now=0.0)
    assert exchange(alice, bob) == ([Opened()], [Opened()])
    return alice, bob


def test_both_open_though_one_starts_later() -> None:
    alice, bob = RpcPeer(), RpcPeer()
    alice.start(now=0.0)
    alice.outgoing.clear()  # Nobody heard.
    bob.start(now=1.0)
    assert alice.next_timer() == RPC_OPEN_RETRY_S
    alice.handle_timer(now=RPC_OPEN_RETRY_S)
    assert exchange(alice, bob) == ([Opened()], [Opened()])
    assert alice.next_timer() is None is bob.next_timer()


def test_a_call_made_before_the_peer_is_open_waits() -> None:
    alice, bob = RpcPeer(), RpcPeer()
    number = alice.call(METHOD, REQUEST)
    assert not alice.outgoing
    alice.start(now=0.0)
    bob.start(now=0.0)
    _, to_bob = exchange(alice, bob)
    assert [event.id for event in to_bob if isinstance(event, Requested)] == [number]


def test_an_answer_ends_its_call() -> None:
    alice, bob = open_pair()
    number = alice.call(METHOD, REQUEST, deadline=3.0)
    assert exchange(alice, bob)[1] == [Requested(number, METHOD, pack_any(REQUEST, dot=True), False)]
    bob.respond(number, Empty())
    assert exchange(alice, bob)[0] == [Answered(number, pack_any(Empty(), dot=True))]
    assert alice.calls_count == 0
    bob.respond(number, Empty())
    assert not bob.outgoing


def test_calls_go_both_ways_with_the_same_numbers() -> None:
    alice, bob = open_pair()
    assert alice.call(METHOD, REQUEST) == bob.call(METHOD, REQUEST) == 0
    to_alice, to_bob = exchange(alice, bob)
    assert [type(event) for event in (*to_alice, *to_bob)] == [Requested, Requested]


def test_an_error_ends_its_call() -> None:
    alice, bob = open_pair()
    number = alice.call(METHOD, REQUEST)
    exchange(alice, bob)
    bob.fail(number, "NotAllowedError", "no")
    (ended,) = exchange(alice, bob)[0]
    assert isinstance(ended, Ended)
    assert isinstance(ended.error, RemoteError)
    assert (str(ended.error), ended.error.detail) == ("no", {"name": "NotAllowedError"})


def test_a_late_call_ends_with_a_deadline_and_its_answer_is_ignored() -> None:
    alice, bob = open_pair()
    number = alice.call(METHOD, REQUEST, deadline=3.0)
    exchange(alice, bob)
    assert alice.next_timer() == 3.0
    assert alice.handle_timer(now=2.9) == []
    (ended,) = alice.handle_timer(now=3.0)
    assert isinstance(ended, Ended)
    assert isinstance(ended.error, DeadlineError)
    bob.respond(number, Empty())
    assert exchange(alice, bob) == ([], [])


def test_a_stream_gives_ready_items_and_its_end() -> None:
    alice, bob = open_pair()
    number = alice.call(METHOD, REQUEST, stream=True, deadline=3.0)
    exchange(alice, bob)
    bob.send_ready(number)
    bob.send_item(number, REQUEST)
    bob.end(number)
    item = Answered(number, pack_any(REQUEST, dot=True))
    assert exchange(alice, bob)[0] == [StreamReady(number), item, Ended(number, None)]


def test_a_stream_that_has_begun_may_be_silent() -> None:
    alice, bob = open_pair()
    number = alice.call(METHOD, REQUEST, stream=True, deadline=3.0)
    exchange(alice, bob)
    bob.send_ready(number)
    exchange(alice, bob)
    assert alice.next_timer() is None


def test_stopping_a_stream_tells_the_peer_once() -> None:
    alice, bob = open_pair()
    number = alice.call(METHOD, REQUEST, stream=True)
    exchange(alice, bob)
    alice.cancel(number)
    alice.cancel(number)
    assert exchange(alice, bob)[1] == [StreamStopped(number)]
    bob.send_item(number, REQUEST)
    bob.end(number)
    assert not bob.outgoing


def test_goodbye_is_answered_and_fails_the_calls_of_both() -> None:
    alice, bob = open_pair()
    alice.call(METHOD, REQUEST)
    bob.call(METHOD, REQUEST)
    (ours,) = alice.close()
    assert isinstance(ours, Ended)
    assert isinstance(ours.error, BrokenError)
    to_alice, to_bob = exchange(alice, bob)
    assert to_alice[-1] == to_bob[-1] == Closed(in_order=True)
    assert alice.state is bob.state is State.CLOSED
    with pytest.raises(BrokenError):
        alice.call(METHOD, REQUEST)
    assert alice.close() == [] == alice.abort()


def test_a_peer_without_handshake_is_open_at_once() -> None:
    peer = RpcPeer(handshake=False)
    assert peer.start(now=0.0) == [Opened()]
    assert not peer.outgoing
    assert peer.receive(encode(rpc_pb2.RpcMessage(open=True))) == []
    assert not peer.outgoing


def test_a_message_that_is_too_long_is_refused_before_it_is_a_call() -> None:
    alice, _ = open_pair()
    with pytest.raises(UsageError):
        alice.call(METHOD, automerge_pb2.SyncMessage(payload=bytes(PAYLOAD_BYTES_MAX)))
    assert alice.calls_count == 0


def test_too_many_unanswered_calls_are_an_error() -> None:
    _, bob = open_pair()
    for number in range(RPC_CALLS_MAX):
        assert bob.is_busy is (number >= RPC_CALLS_READ_MAX)
        bob.receive(request_of(number))
    with pytest.raises(LimitError):
        bob.receive(request_of(RPC_CALLS_MAX))


# --- Every message in every state ------------------------------------------------------------------------------------


def request_of(number: int, *, stream: bool = False, method: str = METHOD) -> bytes:
    request = rpc_pb2.Request(id=number, method=method, payload=pack_any(REQUEST, dot=True), stream=stream)
    return encode(rpc_pb2.RpcMessage(request=request))


def response_of(**content: object) -> bytes:
    return encode(rpc_pb2.RpcMessage(response=rpc_pb2.Response(id=0, **content)))  # type: ignore[arg-type]


def in_state(state: State) -> RpcPeer:
    peer = RpcPeer()
    peer.start(now=0.0)
    if state is State.OPEN:
        peer.receive(encode(rpc_pb2.RpcMessage(open_ack=True)))
        assert peer.call(METHOD, REQUEST) == 0
    elif state is State.CLOSING:
        peer.receive(encode(rpc_pb2.RpcMessage(open_ack=True)))
        peer.close()
    elif state is State.CLOSED:
        peer.abort()
    assert peer.state is state
    peer.outgoing.clear()
    return peer


MESSAGES: dict[str, Callable[[], bytes]] = {
    "request": lambda: request_of(7),
    "payload": lambda: response_of(payload=pack_any(Empty(), dot=True)),
    "error": lambda: response_of(error=rpc_pb2.Error(message="no")),
    "open": lambda: encode(rpc_pb2.RpcMessage(open=True)),
    "open_ack": lambda: encode(rpc_pb2.RpcMessage(open_ack=True)),
    "stream_close": lambda: encode(rpc_pb2.RpcMessage(stream_close=rpc_pb2.StreamClose(id=7))),
    "bye": lambda: encode(rpc_pb2.RpcMessage(bye=rpc_pb2.Bye())),
}
# What happens, what is sent, and the state after; what is not listed changes and says nothing.
OUTCOMES: dict[tuple[State, str], tuple[list[str], list[str], State]] = {
    (State.OPENING, "request"): (["Requested"], [], State.OPENING),
    (State.OPENING, "open"): ([], ["open_ack"], State.OPENING),
    (State.OPENING, "open_ack"): (["Opened"], ["open_ack"], State.OPEN),
    (State.OPENING, "bye"): (["Closed"], ["bye"], State.CLOSED),
    (State.OPEN, "request"): (["Requested"], [], State.OPEN),
    (State.OPEN, "payload"): (["Answered"], [], State.OPEN),
    (State.OPEN, "error"): (["Ended"], [], State.OPEN),
    (State.OPEN, "open"): ([], ["open_ack"], State.OPEN),
    (State.OPEN, "bye"): (["Ended", "Closed"], ["bye"], State.CLOSED),
    (State.CLOSING, "request"): ([], ["response"], State.CLOSING),
    (State.CLOSING, "open"): ([], ["open_ack"], State.CLOSING),
    (State.CLOSING, "bye"): (["Closed"], [], State.CLOSED),
    (State.CLOSED, "request"): ([], ["response"], State.CLOSED),
}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("name", list(MESSAGES))
def test_every_message_in_every_state(state: State, name: str) -> None:
    peer = in_state(state)
    events = peer.receive(MESSAGES[name]())
    sent = [rpc_pb2.RpcMessage.FromString(data).WhichOneof("content") for data in peer.outgoing]
    assert ([type(event).__name__ for event in events], sent, peer.state) == OUTCOMES.get(
        (state, name), ([], [], state)
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        response_of(stream_ready=True),
        response_of(close=True),
        response_of(),
        request_of(7),
    ],
    ids=["nothing", "ready of no stream", "end of no stream", "empty answer", "repeated number"],
)
def test_what_makes_no_sense_is_an_error(data: bytes) -> None:
    peer = in_state(State.OPEN)
    peer.receive(request_of(7))
    with pytest.raises(ProtocolError):
        peer.receive(data)
    assert peer.state is State.OPEN


def test_the_table_leaves_no_closed_state() -> None:
    assert not any(state is State.CLOSED for state, _ in TRANSITIONS)


def test_the_repr_is_one_line() -> None:
    assert repr(in_state(State.OPEN)) == "<RpcPeer open calls=1 served=0>"


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 0x7FFF_FFFF])
@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 20_000])
def test_an_envelope_is_sent_as_the_same_bytes_as_a_message(number: int, size: int) -> None:
    peers = []
    for _ in range(2):
        peer = RpcPeer(handshake=False)
        peer.start(now=0.0)
        request = rpc_pb2.Request(id=number, method="a.B", payload=values_pb2.Any(), stream=True)
        peer.receive(rpc_pb2.RpcMessage(request=request).SerializeToString())
        peers.append(peer)
    value = bytes(size)
    peers[0].send_item(number, values_pb2.Any(type_url="dxos.value", value=value))
    peers[1].send_envelope(number, Envelope("dxos.value", value))
    received = [rpc_pb2.RpcMessage.FromString(peer.outgoing[-1]) for peer in peers]
    assert received[0] == received[1]
