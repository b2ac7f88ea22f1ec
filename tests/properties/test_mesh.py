"""Whatever signalling brings, in whatever order, a swarm machine stays whole and raises nothing but peer errors."""

import contextlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from dxos.errors import PeerError
from dxos.keys import PublicKey
from dxos.limits import CONNECTING_MAX
from dxos.mesh.swarm import Close, Closing, Connected, Connecting, ConnectionLimiter, Open, SwarmMachine
from dxos.mesh.topology import FullyConnected, InvitationGuest, InvitationHost, Mmst
from dxos.wire import decode, to_key
from dxos.wire.proto import swarm_pb2

TOPIC = PublicKey(b"t" * 32)
KEYS = [PublicKey(bytes([number]) * 32) for number in range(5)]
LOCAL = KEYS[2]

remotes = st.sampled_from(KEYS)
ids = st.sampled_from([bytes([number]) * 32 for number in range(4)] + [b"", b"x" * 200])
kinds = st.sampled_from(["offer", "accept", "refuse", "signal", "nothing"])
steps = st.one_of(
    st.tuples(st.just("available"), remotes),
    st.tuples(st.just("left"), remotes),
    st.tuples(st.just("message"), remotes, kinds, ids, ids),
    st.tuples(st.just("opened"), remotes),
    st.tuples(st.just("closed"), remotes),
    st.tuples(st.just("undelivered"), remotes),
    st.tuples(st.just("disconnect"), remotes),
    st.tuples(st.just("bar"), remotes),
    st.tuples(st.just("unbar"), remotes),
    st.tuples(st.just("stop")),
    st.tuples(st.just("pass"), st.floats(0.0, 40.0)),
)
topologies = st.sampled_from([FullyConnected, InvitationGuest, InvitationHost, Mmst])


def make_message(kind: str, session: bytes, message_id: bytes) -> swarm_pb2.SwarmMessage:
    data = swarm_pb2.MessageData()
    match kind:
        case "offer":
            data.offer.SetInParent()
        case "accept" | "refuse":
            data.answer.accept = kind == "accept"
            data.answer.offer_message_id.data = message_id
        case "signal":
            data.signal.payload.SetInParent()
    message = swarm_pb2.SwarmMessage(topic=to_key(TOPIC), data=data)
    message.session_id.data, message.message_id.data = session, message_id
    return message


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=60), topologies)
def test_a_swarm_opens_and_closes_each_session_once(
    history: list[tuple[object, ...]], topology: type[FullyConnected] | type[Mmst]
) -> None:
    machine = SwarmMachine(
        topic=TOPIC,
        local=LOCAL,
        topology=topology(),
        limiter=ConnectionLimiter(),
        random=random.Random(0).randbytes,
    )
    now = 0.0
    held: dict[PublicKey, PublicKey] = {}  # Remote to session: what a driver has open.
    for step in history:
        session = next((held[key] for key in KEYS if key in step and key in held), PublicKey(b"none"))
        match step:
            case ("available", PublicKey() as remote):
                machine.peer_available(remote, now)
            case ("left", PublicKey() as remote):
                machine.peer_left(remote)
            case ("message", PublicKey() as remote, str() as kind, bytes() as session_id, bytes() as message_id):
                with contextlib.suppress(PeerError):
                    machine.receive(remote, make_message(kind, session_id, message_id), now)
            case ("opened", PublicKey() as remote):
                machine.opened(remote, session, now)
            case ("closed", PublicKey() as remote):
                held.pop(remote, None)
                machine.closed(remote, session, now)
            case ("undelivered", PublicKey() as remote):
                machine.undelivered(remote, session, now)
            case ("disconnect", PublicKey() as remote):
                machine.disconnect(remote, now)
            case ("bar", PublicKey() as remote):
                machine.bar(remote, now)
            case ("unbar", PublicKey() as remote):
                machine.unbar(remote)
            case ("stop",):
                machine.stop(now)
            case ("pass", float() as pause_s):
                now += pause_s
        machine.evaluate(now)
        for action in machine.take_actions():
            match action:
                case Open(remote, session):
                    assert remote not in held, "one session for each remote"
                    held[remote] = session
                case Close(remote, session):
                    assert held[remote] == session
        states = machine.states
        assert LOCAL not in states
        busy = {key: s.session for key, s in states.items() if isinstance(s, Connecting | Connected | Closing)}
        assert busy == held, "what the machine believes is what the driver holds"
        assert sum(isinstance(state, Connecting) for state in states.values()) <= CONNECTING_MAX
        assert machine.deadline is None or machine.deadline > now


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_swarm_message_raise_peer_errors_only(untrusted: bytes) -> None:
    machine = SwarmMachine(
        topic=TOPIC, local=LOCAL, topology=Mmst(), limiter=ConnectionLimiter(), random=random.Random(0).randbytes
    )
    with contextlib.suppress(PeerError):
        message = decode(swarm_pb2.SwarmMessage, untrusted)
        message.topic.data = bytes(TOPIC)
        machine.receive(KEYS[0], message, 0.0)
