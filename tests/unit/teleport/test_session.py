"""Two sessions with the bytes handed over by hand."""

import pytest
from google.protobuf.empty_pb2 import Empty

from dxos.errors import BrokenError, DeadlineError, LimitError, ProtocolError, UsageError
from dxos.limits import CONTROL_HEARTBEAT_S, CONTROL_IDLE_S_MAX, EXTENSIONS_MAX, RPC_OPEN_TIMEOUT_S
from dxos.teleport import rpc
from dxos.teleport.session import (
    CONTROL,
    REGISTER,
    Event,
    ExtensionEvent,
    RawOpened,
    RawReceived,
    Session,
    SessionClosed,
    SessionOpened,
    State,
)
from dxos.wire.proto import control_pb2


def exchange(alice: Session, bob: Session, *, now: float = 0.0) -> tuple[list[Event], list[Event]]:
    to_alice: list[Event] = []
    to_bob: list[Event] = []
    while True:
        there, back = alice.data_to_send(1 << 20), bob.data_to_send(1 << 20)
        if not there and not back:
            return to_alice, to_bob
        to_bob += bob.receive(there, now=now)
        to_alice += alice.receive(back, now=now)


def open_pair(*names: str) -> tuple[Session, Session]:
    alice, bob = Session(now=0.0), Session(now=0.0)
    for session in (alice, bob):
        for name in names:
            session.add_extension(name, now=0.0)
    exchange(alice, bob)
    assert alice.state is bob.state is State.OPEN
    return alice, bob


def test_both_sides_open_and_say_so() -> None:
    assert exchange(Session(now=0.0), Session(now=0.0)) == ([SessionOpened()], [SessionOpened()])


def test_an_extension_opens_once_both_have_it() -> None:
    alice, bob = open_pair()
    alice.add_extension("a", now=0.0)
    assert exchange(alice, bob) == ([], [])
    assert bob.remote_extensions == {"a"}
    bob.add_extension("a", now=0.0)
    opened = ExtensionEvent("a", rpc.Opened())
    assert exchange(alice, bob) == ([opened], [opened])
    assert alice.is_open("a")


@pytest.mark.parametrize("name", ["a", "", "a/b", "x" * 1_000, CONTROL])
def test_a_name_is_registered_once_and_has_no_slash(name: str) -> None:
    alice, _ = open_pair("a")
    with pytest.raises(UsageError):
        alice.add_extension(name, now=0.0)


def test_a_peer_that_registers_twice_or_too_often_breaks_the_protocol() -> None:
    request = control_pb2.RegisterExtensionRequest(name="a")
    alice, bob = open_pair("a")
    alice.call(CONTROL, REGISTER, request)
    with pytest.raises(ProtocolError):
        exchange(alice, bob)
    alice, bob = open_pair()
    for number in range(EXTENSIONS_MAX + 1):
        alice.add_extension(f"extension {number}", now=0.0)
    with pytest.raises(LimitError):
        exchange(alice, bob)


def test_a_raw_channel_carries_bytes_once_both_have_opened_it() -> None:
    alice, bob = open_pair("a")
    ours, events = alice.open_raw("a", "feed")
    assert events == []
    exchange(alice, bob)
    theirs, events = bob.open_raw("a", "feed")
    assert events == [RawOpened(theirs)]
    alice.send_raw(ours, b"block")
    assert exchange(alice, bob) == ([RawOpened(ours)], [RawReceived(theirs, b"block")])
    with pytest.raises(UsageError):
        alice.open_raw("a", "rpc")


def test_heartbeats_are_sent_and_answered() -> None:
    alice, bob = open_pair()
    now = 0.0
    for _ in range(100):
        now += CONTROL_HEARTBEAT_S
        assert alice.timer_at is not None
        assert alice.timer_at <= now
        alice.handle_timer(now=now, now_ms=1_000)
        bob.handle_timer(now=now, now_ms=1_000)
        exchange(alice, bob, now=now)
    assert alice.state is bob.state is State.OPEN


def test_heartbeats_without_answer_end_the_session() -> None:
    alice, _ = open_pair()
    now = 0.0
    while alice.state is State.OPEN:
        assert alice.timer_at is not None
        now = max(now, alice.timer_at)
        alice.handle_timer(now=now, now_ms=0)
    assert now == CONTROL_IDLE_S_MAX
    assert isinstance(alice.error, DeadlineError)
    assert alice.timer_at is None


def test_a_peer_that_never_opens_is_given_up() -> None:
    session = Session(now=0.0)
    assert session.timer_at == RPC_OPEN_TIMEOUT_S
    session.handle_timer(now=RPC_OPEN_TIMEOUT_S, now_ms=0)
    assert session.state is State.CLOSING


def test_the_end_in_order_is_no_error_and_fails_open_calls() -> None:
    alice, bob = open_pair("a")
    number = bob.call("a", "x.Y.Z", Empty())
    events = alice.close()
    assert events == [ExtensionEvent("a", rpc.Closed())]
    to_alice, to_bob = exchange(alice, bob)
    assert to_alice[-1] == to_bob[-1] == SessionClosed(None)
    failed = [e.event for e in to_bob if isinstance(e, ExtensionEvent) and isinstance(e.event, rpc.Ended)]
    assert [event.id for event in failed] == [number]
    with pytest.raises(BrokenError):
        alice.add_extension("b", now=0.0)
    assert alice.close() == [] == alice.link_lost()


def test_the_reason_of_an_end_reaches_the_other_side() -> None:
    alice, bob = open_pair("a")
    alice.close(ProtocolError("you speak nonsense"))
    closed = exchange(alice, bob)[1][-1]
    assert isinstance(closed, SessionClosed)
    assert isinstance(closed.error, BrokenError)
    assert closed.error.detail == {"reason": "you speak nonsense"}


def test_a_lost_link_is_the_last_event() -> None:
    alice, _ = open_pair("a")
    events = alice.link_lost()
    assert events[0] == ExtensionEvent("a", rpc.Closed())
    assert isinstance(events[-1], SessionClosed)
    assert isinstance(events[-1].error, BrokenError)


def test_an_unknown_method_of_the_control_extension_is_answered_with_an_error() -> None:
    alice, bob = open_pair()
    alice.call(CONTROL, f"{CONTROL}.ControlService.Nothing", Empty())
    exchange(alice, bob)
    assert alice.peer_of(CONTROL).calls_count == 0


def test_the_repr_is_one_line() -> None:
    assert repr(open_pair("a")[0]) == f"<Session open extensions=['a', '{CONTROL}']>"
