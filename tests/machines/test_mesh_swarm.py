"""Swarm machines joined by a list that delays, reorders, repeats and loses, on a clock that is only a number."""

import heapq
import random
from dataclasses import dataclass, field

import pytest

from dxos.keys import PublicKey
from dxos.limits import CONNECTING_MAX, OFFER_DELAY_S, OFFER_TIMEOUT_S, TRANSPORT_CONNECT_TIMEOUT_S
from dxos.mesh.swarm import (
    TRANSITIONS,
    Close,
    Closing,
    Connected,
    Connecting,
    ConnectionLimiter,
    Invited,
    Known,
    Offering,
    Open,
    Send,
    Signalled,
    SwarmMachine,
    Waiting,
)
from dxos.mesh.topology import FullyConnected, InvitationGuest, InvitationHost, Mmst, Topology
from dxos.wire import to_key
from dxos.wire.proto import swarm_pb2

TOPIC = PublicKey(b"t" * 32)
ALICE, BOB = PublicKey(b"a" * 65), PublicKey(b"b" * 65)  # Alice has the lower key.


@dataclass
class World:
    """Machines, what is on its way between them, and the sessions that both ends have opened."""

    seed: int = 0
    delay_s: float = 0.2
    loss: float = 0.0
    repeats: float = 0.0
    refused: float = 0.0  # Part of the sessions whose transport fails.
    now: float = 0.0
    machines: dict[PublicKey, SwarmMachine] = field(default_factory=dict)
    half_open: dict[PublicKey, PublicKey] = field(default_factory=dict)  # Session to the end that has opened it.
    opened: set[tuple[PublicKey, PublicKey, PublicKey]] = field(default_factory=set)  # (local, remote, session).

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.queue: list[tuple[float, int, object]] = []
        self.count = 0

    def add(self, key: PublicKey, topology: Topology) -> SwarmMachine:
        machine = SwarmMachine(
            topic=TOPIC,
            local=key,
            topology=topology,
            limiter=ConnectionLimiter(),
            random=self.random.randbytes,
        )
        for other in self.machines.values():
            self.later(("available", other, key))
            self.later(("available", machine, other.local))
        self.machines[key] = machine
        return machine

    def later(self, event: object, delay_s: float | None = None) -> None:
        self.count += 1
        delay_s = self.random.uniform(0.0, self.delay_s) if delay_s is None else delay_s
        heapq.heappush(self.queue, (self.now + delay_s, self.count, event))

    def run(self, until: float) -> None:
        self.settle()
        while True:
            times = [machine.deadline for machine in self.machines.values()] + [
                self.queue[0][0] if self.queue else None
            ]
            next_at = min((time for time in times if time is not None), default=until)
            if next_at >= until:
                self.now = until
                return
            self.now = max(self.now, next_at)
            while self.queue and self.queue[0][0] <= self.now:
                self.happen(heapq.heappop(self.queue)[2])
            self.settle()

    def settle(self) -> None:
        for machine in self.machines.values():
            machine.evaluate(self.now)
            for action in machine.take_actions():
                self.act(machine, action)
            for remote, state in machine.states.items():
                assert isinstance(state, Connected) == ((machine.local, remote, session_of(state)) in self.opened)

    def act(self, machine: SwarmMachine, action: object) -> None:
        match action:
            case Send(remote, message):
                # The messenger repeats for 10 s, so a loss is a long delay, and at worst a failure.
                if self.random.random() < self.loss * self.loss:
                    self.later(("undelivered", machine, remote, action.session), 10.0)
                    return
                extra_s = self.random.choice([1.0, 3.0, 7.0]) if self.random.random() < self.loss else 0.0
                for _ in range(1 + (self.random.random() < self.repeats)):
                    delay_s = extra_s + self.random.uniform(0.0, self.delay_s)
                    self.later(("message", self.machines[remote], machine.local, message), delay_s)
            case Open(remote, session):
                if self.random.random() < self.refused:
                    self.later(("closed", machine, remote, session))
                elif session in self.half_open:
                    self.later(("both", session, self.half_open.pop(session), machine.local), 0.01)
                else:
                    self.half_open[session] = machine.local
            case Close(_, session):
                if self.half_open.get(session) == machine.local:
                    del self.half_open[session]
                self.hang_up(machine, session)
            case Signalled():
                pass

    def happen(self, event: object) -> None:
        match event:
            case ("available", SwarmMachine() as machine, PublicKey() as remote):
                machine.peer_available(remote, self.now)
            case ("message", SwarmMachine() as machine, PublicKey() as author, swarm_pb2.SwarmMessage() as message):
                machine.receive(author, message, self.now)
            case ("undelivered", SwarmMachine() as machine, PublicKey() as remote, PublicKey() as session):
                machine.undelivered(remote, session, self.now)
            case ("closed", SwarmMachine() as machine, PublicKey() as remote, PublicKey() as session):
                machine.closed(remote, session, self.now)
            case ("both", PublicKey() as session, PublicKey() as one, PublicKey() as other):
                ends = [(one, other), (other, one)]
                if all(is_connecting(self.machines[local], remote, session) for local, remote in ends):
                    for local, remote in ends:
                        self.machines[local].opened(remote, session, self.now)
                        self.opened.add((local, remote, session))
                else:
                    for local, remote in ends:
                        self.machines[local].closed(remote, session, self.now)

    def hang_up(self, machine: SwarmMachine, session: PublicKey) -> None:
        remotes = [remote for remote, state in machine.states.items() if session_of(state) == session]
        for remote in remotes:
            self.later(("closed", machine, remote, session))
            other = self.machines[remote]
            self.later(("closed", other, machine.local, session))
            self.opened.discard((machine.local, remote, session))
            if (remote, machine.local, session) in self.opened:
                self.opened.discard((remote, machine.local, session))
                other.closed(machine.local, session, self.now)

    def pairs(self) -> set[frozenset[PublicKey]]:
        return {frozenset((local, remote)) for local, remote, _ in self.opened}


def session_of(state: object) -> PublicKey | None:
    return state.session if isinstance(state, Offering | Invited | Connecting | Connected | Closing) else None


def is_connecting(machine: SwarmMachine, remote: PublicKey, session: PublicKey) -> bool:
    state = machine.state(remote)
    return isinstance(state, Connecting) and state.session == session


def keys(count: int) -> list[PublicKey]:
    source = random.Random(7)
    return [PublicKey(b"\x04" + source.randbytes(64)) for _ in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_every_pair_of_eight_connects_exactly_once_whatever_signalling_does(seed: int) -> None:
    world = World(seed=seed, delay_s=0.5, loss=0.3, repeats=0.3, refused=0.1)
    for key in keys(8):
        world.add(key, FullyConnected())
    world.run(until=300.0)
    assert len(world.pairs()) == 8 * 7 / 2
    assert len(world.opened) == 8 * 7, "each end has one session for each remote"
    sessions = {session for _, _, session in world.opened}
    assert len(sessions) == 8 * 7 / 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_mmst_connects_a_swarm_in_one_piece(seed: int) -> None:
    world = World(seed=seed, delay_s=0.2)
    for key in keys(24):
        world.add(key, Mmst())
    world.run(until=120.0)
    reached, todo = set(), [keys(1)[0]]
    while todo:
        key = todo.pop()
        reached.add(key)
        todo += [remote for remote in world.machines[key].connected if remote not in reached]
    assert len(reached) == 24
    assert all(len(machine.connected) <= 12 for machine in world.machines.values())


@pytest.mark.parametrize("seed", range(20))
def test_offers_that_cross_make_one_session(seed: int) -> None:
    world = World(seed=seed, delay_s=0.3)
    world.add(ALICE, FullyConnected())
    world.add(BOB, FullyConnected())
    world.run(until=3.0)
    assert len(world.opened) == 2


def test_two_peers_of_a_space_meet_without_waiting() -> None:
    world = World(delay_s=0.0)
    world.add(ALICE, Mmst())
    world.add(BOB, Mmst())
    world.run(until=0.05)
    assert world.pairs() == {frozenset((ALICE, BOB))}


def test_a_host_serves_one_guest_at_a_time_and_then_the_next() -> None:
    world = World(delay_s=0.0)
    host, *guests = keys(4)
    world.add(host, InvitationHost())
    for guest in guests:
        world.add(guest, InvitationGuest())
    served = []
    for _ in guests:
        world.run(until=world.now + 40.0)
        (remote,) = world.machines[host].connected
        served.append(remote)
        world.machines[host].disconnect(remote, world.now)
    assert sorted(served) == sorted(guests)
    assert all(len(world.machines[guest].connected) == 0 for guest in guests if guest != served[-1])


# --- One machine, step by step ----------------------------------------------------------------------------------------


def offer(session: bytes = b"s" * 32, message_id: bytes = b"m" * 32) -> swarm_pb2.SwarmMessage:
    return message(swarm_pb2.MessageData(offer=swarm_pb2.Offer()), session, message_id)


def message(
    data: swarm_pb2.MessageData, session: bytes = b"s" * 32, message_id: bytes = b"m" * 32
) -> swarm_pb2.SwarmMessage:
    return swarm_pb2.SwarmMessage(
        topic=to_key(TOPIC),
        session_id=to_key(PublicKey(session)),
        data=data,
        message_id=to_key(PublicKey(message_id)),
    )


def make(local: PublicKey, topology: Topology | None = None, limiter: ConnectionLimiter | None = None) -> SwarmMachine:
    return SwarmMachine(
        topic=TOPIC,
        local=local,
        topology=topology or FullyConnected(),
        limiter=limiter or ConnectionLimiter(),
        random=random.Random(1).randbytes,
    )


def answers(machine: SwarmMachine) -> list[bool]:
    sent = [action.message.data for action in machine.take_actions() if isinstance(action, Send)]
    return [data.answer.accept for data in sent if data.HasField("answer")]


def offering(local: PublicKey, remote: PublicKey) -> SwarmMachine:
    machine = make(local)
    machine.peer_available(remote, 0.0)
    machine.evaluate(0.0)
    machine.evaluate(1.0)
    assert isinstance(machine.state(remote), Offering)
    machine.take_actions()
    return machine


def test_the_lower_key_refuses_a_crossing_offer() -> None:
    machine = offering(ALICE, BOB)
    machine.receive(BOB, offer(), 1.0)
    machine.evaluate(1.0)
    assert answers(machine) == [False]
    assert isinstance(machine.state(BOB), Offering)


def test_the_higher_key_gives_way_to_a_crossing_offer() -> None:
    machine = offering(BOB, ALICE)
    machine.receive(ALICE, offer(), 1.0)
    machine.evaluate(1.0)
    assert answers(machine) == [True]
    assert machine.state(ALICE) == Connecting(PublicKey(b"s" * 32), False, 1.0 + TRANSPORT_CONNECT_TIMEOUT_S)


def test_the_higher_key_waits_before_it_offers() -> None:
    machine = make(BOB)
    machine.peer_available(ALICE, 5.0)
    machine.evaluate(5.0)
    assert machine.state(ALICE) == Waiting(5.0 + OFFER_DELAY_S)
    assert machine.deadline == 5.0 + OFFER_DELAY_S
    assert machine.take_actions() == []


def test_an_offer_while_connected_is_refused_and_changes_nothing() -> None:
    machine = make(ALICE)
    machine.receive(BOB, offer(), 0.0)
    machine.evaluate(0.0)
    machine.opened(BOB, PublicKey(b"s" * 32), 1.0)
    machine.take_actions()
    machine.receive(BOB, offer(b"x" * 32, b"n" * 32), 2.0)
    machine.evaluate(2.0)
    assert answers(machine) == [False]
    assert isinstance(machine.state(BOB), Connected)


def test_an_offer_that_is_never_answered_ends_and_is_made_again() -> None:
    machine = offering(ALICE, BOB)
    assert machine.deadline is not None
    machine.evaluate(OFFER_TIMEOUT_S + 1.0)
    state = machine.state(BOB)
    assert isinstance(state, Known)
    machine.evaluate(state.available_at)
    assert isinstance(machine.state(BOB), Offering)


def test_a_signal_counts_as_the_answer_that_was_lost() -> None:
    machine = offering(ALICE, BOB)
    state = machine.state(BOB)
    assert isinstance(state, Offering)
    batch = swarm_pb2.SignalBatch(signals=[swarm_pb2.Signal()])
    machine.receive(BOB, message(swarm_pb2.MessageData(signal_batch=batch), bytes(state.session)), 1.0)
    assert [type(action) for action in machine.take_actions()] == [Open, Signalled]


def test_a_barred_remote_is_dropped_refused_and_not_offered_to() -> None:
    machine = make(ALICE)
    machine.peer_available(BOB, 0.0)
    machine.receive(BOB, offer(), 0.0)
    machine.evaluate(0.0)
    session = PublicKey(b"s" * 32)
    machine.opened(BOB, session, 0.0)
    machine.take_actions()
    machine.bar(BOB, 1.0)
    assert machine.take_actions() == [Close(BOB, session)]
    machine.closed(BOB, session, 1.0)
    machine.evaluate(100.0)
    assert machine.take_actions() == []
    machine.receive(BOB, offer(b"x" * 32), 100.0)
    assert answers(machine) == [False]
    machine.unbar(BOB)
    machine.evaluate(101.0)
    assert isinstance(machine.state(BOB), Offering)


def test_sessions_in_the_making_are_limited_and_the_rest_take_their_turn() -> None:
    limiter = ConnectionLimiter()
    machine = make(keys(1)[0], limiter=limiter)
    for index in range(30):
        machine.receive(PublicKey(bytes([index]) * 65), offer(bytes([index]) * 32, bytes([index]) * 32), 0.0)
    machine.evaluate(0.0)
    opens = [action for action in machine.take_actions() if isinstance(action, Open)]
    assert len(opens) == CONNECTING_MAX
    machine.opened(opens[0].remote, opens[0].session, 0.5)
    machine.evaluate(0.5)
    assert len([action for action in machine.take_actions() if isinstance(action, Open)]) == 1


def test_pauses_grow_with_failures_and_a_new_announcement_ends_them() -> None:
    machine, now, pauses = make(ALICE), 0.0, []
    machine.peer_available(BOB, now)
    for _ in range(8):
        machine.evaluate(now)
        state = machine.state(BOB)
        assert isinstance(state, Offering)
        machine.undelivered(BOB, state.session, now)
        state = machine.state(BOB)
        assert isinstance(state, Known)
        pauses.append(state.available_at - now)
        now = state.available_at
    assert pauses[-1] > 10 * pauses[0]
    assert max(pauses) <= 30.0
    machine.evaluate(now)
    machine.undelivered(BOB, getattr(machine.state(BOB), "session"), now)  # noqa: B009
    machine.peer_available(BOB, now)
    machine.evaluate(now)
    assert isinstance(machine.state(BOB), Offering)


def test_who_left_is_forgotten_unless_connected() -> None:
    machine = make(ALICE, InvitationGuest())
    machine.peer_available(BOB, 0.0)
    machine.peer_left(BOB)
    assert machine.peers == frozenset()
    machine.receive(BOB, offer(), 0.0)
    machine.evaluate(0.0)
    machine.opened(BOB, PublicKey(b"s" * 32), 0.0)
    machine.peer_left(BOB)
    assert machine.connected == {BOB}
    machine.closed(BOB, PublicKey(b"s" * 32), 60.0)
    assert machine.peers == frozenset()


def test_an_offer_that_comes_while_a_session_closes_is_taken_up_afterwards() -> None:
    machine = make(ALICE)
    machine.receive(BOB, offer(), 0.0)
    machine.evaluate(0.0)
    machine.receive(BOB, offer(b"x" * 32, b"n" * 32), 1.0)
    machine.evaluate(1.0)
    assert isinstance(machine.state(BOB), Closing)
    machine.closed(BOB, PublicKey(b"s" * 32), 2.0)
    machine.evaluate(2.0)
    assert isinstance(machine.state(BOB), Connecting)


def test_every_state_has_its_row_in_the_table() -> None:
    states = {Known, Waiting, Offering, Invited, Connecting, Connected, Closing}
    assert set(TRANSITIONS) == states
    assert set().union(*TRANSITIONS.values()) == states
