"""One swarm as a machine: who is there, who offers to whom, and which sessions a transport is to open or close.

                 ┌────────────────────── an offer of theirs ─────────────────────┐
                 │                                                               ▼
    KNOWN ──▶ WAITING ──▶ OFFERING ──accepted──▶ CONNECTING ──opened──▶ CONNECTED    INVITED ──▶ CONNECTING
      ▲                      └──refused, no answer──┐ └──time-out──┐        │ dropped
      └──────────────────── after a pause ──────────┴──────────────┴── CLOSING (until the transport has let go)

Invariants
1. A remote has one state, so at most one session: a transport is told to open one only when the one before is closed.
   What is open is known by its remote: the session id is the offerer's choice, and two remotes may choose the same.
2. Glare, two offers that cross: the offer of the lower key stands. The higher key drops its own and accepts; the lower
   refuses. The higher key also waits OFFER_DELAY_S before it offers, so that this is rare.
3. A session that is connected is never given up for an offer: anybody can write one in anybody's name, and a peer that
   truly lost its half is noticed by the heartbeats above.
4. At most CONNECTING_MAX sessions are between offer and connection, over all swarms that share a limiter.
5. A barred remote is refused and not offered to.

Inputs change state and queue actions; `evaluate` decides what else to do, and `take_actions` hands the actions over.
"""

import math
from collections.abc import Callable, Mapping
from typing import final

from msgspec import Struct
from msgspec.structs import replace

from dxos.errors import DecodeError, LimitError
from dxos.keys import PublicKey
from dxos.limits import (
    CONNECT_RETRY_S_MAX,
    CONNECT_RETRY_S_MIN,
    CONNECTING_MAX,
    CONNECTION_STABLE_S,
    OFFER_DELAY_S,
    OFFER_TIMEOUT_S,
    SWARM_PEERS_MAX,
    TRANSPORT_CONNECT_TIMEOUT_S,
    TRANSPORT_SIGNALS_MAX,
)
from dxos.mesh.backoff import Backoff
from dxos.mesh.topology import Topology, View
from dxos.wire import Json, from_struct, to_key, to_struct
from dxos.wire.proto import swarm_pb2

_ID_BYTES = 32
_ID_BYTES_MAX = 128


# --- States: what is known of one remote ------------------------------------------------------------------------------


class Known(Struct, frozen=True):
    """No session."""

    available_at: float  # Before then it is not offered to.


class Waiting(Struct, frozen=True):
    """An offer is due."""

    offer_at: float


class Offering(Struct, frozen=True):
    """An offer is sent."""

    session: PublicKey
    message_id: PublicKey
    deadline: float


class Invited(Struct, frozen=True):
    """An offer has come, and waits for the limiter."""

    session: PublicKey
    message_id: PublicKey
    deadline: float


class Connecting(Struct, frozen=True):
    """A transport opens the session."""

    session: PublicKey
    initiator: bool
    deadline: float


class Connected(Struct, frozen=True):
    """The session is open."""

    session: PublicKey
    initiator: bool
    since: float


class Closing(Struct, frozen=True):
    """A transport was told to close the session; `invited` is the offer to take up then."""

    session: PublicKey
    invited: Invited | None


State = Known | Waiting | Offering | Invited | Connecting | Connected | Closing

TRANSITIONS: Mapping[type, frozenset[type]] = {
    Known: frozenset((Known, Waiting, Invited)),
    Waiting: frozenset((Known, Offering, Invited)),
    Offering: frozenset((Known, Invited, Connecting)),
    Invited: frozenset((Known, Invited, Connecting)),
    Connecting: frozenset((Connected, Closing, Known)),
    Connected: frozenset((Closing, Known)),
    Closing: frozenset((Closing, Known, Invited)),
}


# --- Actions ----------------------------------------------------------------------------------------------------------


class Send(Struct, frozen=True):
    """Send this reliably; if it cannot be delivered, call `undelivered(remote, session)`."""

    remote: PublicKey
    message: swarm_pb2.SwarmMessage
    session: PublicKey


class Open(Struct, frozen=True):
    """Open a session; then call `opened`, and in the end `closed`, in any case."""

    remote: PublicKey
    session: PublicKey
    initiator: bool


class Close(Struct, frozen=True):
    """Close a session that was opened; then call `closed`."""

    remote: PublicKey
    session: PublicKey


class Withdraw(Struct, frozen=True):
    """Stop sending the offer of a session, if it is still being sent."""

    session: PublicKey


class Signalled(Struct, frozen=True):
    """A payload for the transport of an open session."""

    remote: PublicKey
    session: PublicKey
    payload: Mapping[str, Json]


Action = Send | Open | Close | Withdraw | Signalled


@final
class ConnectionLimiter:
    """How many sessions may be in the making, over all swarms.

    Args:
        on_free: Called when a place is free again that somebody has asked for in vain.
        connecting_max: Places.
    """

    def __init__(self, on_free: Callable[[], None] = lambda: None, *, connecting_max: int = CONNECTING_MAX) -> None:
        self._on_free, self._max = on_free, connecting_max
        self._holders: set[object] = set()
        self._starved = False

    def __repr__(self) -> str:
        return f"<ConnectionLimiter {len(self._holders)} of {self._max}>"

    def take(self, holder: object) -> bool:
        """Ask for a place; whoever has one keeps it."""
        if len(self._holders) >= self._max and holder not in self._holders:
            self._starved = True
            return False
        self._holders.add(holder)
        return True

    def release(self, holder: object) -> None:
        """Give a place back; twice is fine."""
        if holder in self._holders:
            self._holders.remove(holder)
            if self._starved:
                self._starved = False
                self._on_free()


class _Remote(Struct, eq=False):
    state: State
    backoff: Backoff
    announced: bool = False


@final
class SwarmMachine:
    """One topic and one local peer.

    Args:
        topic: Names the swarm.
        local: Our peer key.
        topology: Decides whom to connect to; made for this swarm.
        limiter: Shared by all swarms of a network.
        random: Source of random bytes, for ids and pauses.
    """

    def __init__(
        self,
        *,
        topic: PublicKey,
        local: PublicKey,
        topology: Topology,
        limiter: ConnectionLimiter,
        random: Callable[[int], bytes],
    ) -> None:
        self.topic, self.local = topic, local
        self._topology, self._limiter, self._random = topology, limiter, random
        self._remotes: dict[PublicKey, _Remote] = {}
        self._barred: set[PublicKey] = set()
        self._actions: list[Action] = []
        self._evaluated_at = -math.inf

    def __repr__(self) -> str:
        return f"<SwarmMachine {self.topic.truncate()} peers={len(self._remotes)} connected={len(self.connected)}>"

    @property
    def peers(self) -> frozenset[PublicKey]:
        """Remotes that are announced, or that we have to do with."""
        return frozenset(self._remotes)

    @property
    def connected(self) -> frozenset[PublicKey]:
        """Remotes with an open session."""
        return frozenset(remote for remote, item in self._remotes.items() if isinstance(item.state, Connected))

    def state(self, remote: PublicKey) -> State | None:
        """What is known of a remote."""
        item = self._remotes.get(remote)
        return None if item is None else item.state

    @property
    def states(self) -> dict[PublicKey, State]:
        """Every remote and what is known of it, by key."""
        return {remote: self._remotes[remote].state for remote in sorted(self._remotes)}

    def take_actions(self) -> list[Action]:
        """What is to be done, in order."""
        actions, self._actions = self._actions, []
        return actions

    # --- Inputs -----------------------------------------------------------------------------------------------------

    def peer_available(self, remote: PublicKey, now: float) -> None:
        """Signalling says that a peer is here; said again, it is worth a quick retry."""
        item = self._meet(remote, now)
        if item is not None:
            item.announced = True
            if isinstance(item.state, Known):
                item.backoff.reset()
                item.state = Known(now)

    def peer_left(self, remote: PublicKey) -> None:
        """Signalling says that a peer is gone; a session that is under way or open may yet do well."""
        item = self._remotes.get(remote)
        if item is not None:
            item.announced = False
            if isinstance(item.state, Known | Waiting):
                del self._remotes[remote]

    def receive(self, remote: PublicKey, message: swarm_pb2.SwarmMessage, now: float) -> None:
        """Take a message that somebody sent in this remote's name.

        Raises:
            PeerError: It makes no sense; nothing has changed.
        """
        if remote == self.local or message.topic.data != bytes(self.topic):
            return
        session = _id(message.session_id.data)
        match message.data.WhichOneof("payload"):
            case "offer":
                self._offer(remote, session, _id(message.message_id.data), now)
            case "answer":
                self._answer(remote, message.data.answer, now)
            case "signal":
                self._signals(remote, session, [message.data.signal], now)
            case "signal_batch":
                self._signals(remote, session, list(message.data.signal_batch.signals), now)

    def undelivered(self, remote: PublicKey, session: PublicKey, now: float) -> None:
        """A message of a session could not be delivered: without it the session cannot come about."""
        item = self._remotes.get(remote)
        if item is None:
            return
        match item.state:
            case Offering(offered) if offered == session:
                self._fail(remote, item, now)
            case Connecting(current) if current == session:
                self._close(remote, item)

    def signal(self, remote: PublicKey, session: PublicKey, payload: Mapping[str, Json]) -> None:
        """The session's transport has something to tell the other end's."""
        signal = swarm_pb2.Signal(payload=to_struct(payload))
        data = swarm_pb2.MessageData(signal_batch=swarm_pb2.SignalBatch(signals=[signal]))
        self._send(remote, session, data, self._new_id())

    def opened(self, remote: PublicKey, session: PublicKey, now: float) -> None:
        """The session's transport is connected."""
        item = self._remotes.get(remote)
        if item is not None and isinstance(item.state, Connecting) and item.state.session == session:
            self._move(item, Connected(session, item.state.initiator, now))

    def closed(self, remote: PublicKey, session: PublicKey, now: float) -> None:
        """The session's transport is gone, whoever wanted it."""
        item = self._remotes.get(remote)
        if item is None:
            return
        match item.state:
            case Connected(current, _, since) if current == session:
                if now - since >= CONNECTION_STABLE_S:
                    item.backoff.reset()
                self._fail(remote, item, now)
            case Connecting(current) if current == session:
                self._fail(remote, item, now)
            case Closing(current, Invited() as invited) if current == session and remote not in self._barred:
                self._move(item, replace(invited, deadline=now + OFFER_TIMEOUT_S))
            case Closing(current) if current == session:
                self._fail(remote, item, now)

    def disconnect(self, remote: PublicKey, now: float) -> None:
        """Drop whatever there is with a remote; it may be connected again after a pause."""
        item = self._remotes.get(remote)
        if item is not None:
            self._drop(remote, item, now)

    def bar(self, remote: PublicKey, now: float) -> None:
        """Drop a remote, and have nothing to do with it from now on."""
        self._barred.add(remote)
        self.disconnect(remote, now)

    def unbar(self, remote: PublicKey) -> None:
        """Take `bar` back."""
        self._barred.discard(remote)

    def stop(self, now: float) -> None:
        """Drop everything, as after losing the network; what is announced must be announced again."""
        for remote, item in list(self._remotes.items()):
            item.announced = False
            self._drop(remote, item, now)

    # --- Decisions ----------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `evaluate` has something to do, if nothing happens before."""
        times = [_deadline(item) for item in self._remotes.values()] + [self._topology.deadline]
        # What was due at the last evaluation waits for something else: the limiter, or the topology.
        return min((time for time in times if time is not None and time > self._evaluated_at), default=None)

    def evaluate(self, now: float) -> None:
        """Let what is overdue fail, then do what the topology wants and what the limiter allows."""
        self._evaluated_at = now
        for remote, item in list(self._remotes.items()):
            match item.state:
                case Offering(deadline=deadline) | Invited(deadline=deadline) if now >= deadline:
                    self._fail(remote, item, now)
                case Connecting(deadline=deadline) if now >= deadline:
                    self._close(remote, item)
        changes = self._topology.decide(self._view(now), now=now, random=self._random)
        for remote in changes.disconnect:
            self.disconnect(remote, now)
        for remote in changes.connect:
            delay_s = OFFER_DELAY_S if self.local > remote else 0.0
            self._move(self._remotes[remote], Waiting(now + delay_s))
        for remote, item in list(self._remotes.items()):
            match item.state:
                case Waiting(offer_at) if now >= offer_at:
                    self._start_offer(remote, item, now)
                case Invited(session, message_id):
                    if self._limiter.take(item):
                        self._send_answer(remote, session, message_id, accept=True)
                        self._open(remote, item, session, initiator=False, now=now)

    def _view(self, now: float) -> View:
        active, candidates = set(), set()
        for remote, item in self._remotes.items():
            if not isinstance(item.state, Known):
                active.add(remote)
            elif item.announced and now >= item.state.available_at and remote not in self._barred:
                candidates.add(remote)
        return View(self.local, frozenset(active), frozenset(candidates))

    def _start_offer(self, remote: PublicKey, item: _Remote, now: float) -> None:
        session, message_id = self._new_id(), self._new_id()
        if not self._limiter.take(item):
            return
        self._move(item, Offering(session, message_id, now + OFFER_TIMEOUT_S))
        self._send(remote, session, swarm_pb2.MessageData(offer=swarm_pb2.Offer()), message_id)

    def _offer(self, remote: PublicKey, session: PublicKey, message_id: PublicKey, now: float) -> None:
        item = self._meet(remote, now)
        if item is None or remote in self._barred or not self._topology.accepts(self._view(now), remote):
            self._send_answer(remote, session, message_id, accept=False)
            return
        invited = Invited(session, message_id, now + OFFER_TIMEOUT_S)
        match item.state:
            case Invited(known) | Connecting(known) | Connected(known) if known == session:
                pass  # A copy of the offer that was taken.
            case Known() | Waiting() | Invited():
                self._move(item, invited)
            case Offering() if self.local > remote:
                self._move(item, invited)
            case Connecting(initiator=initiator) if not initiator or self.local > remote:
                self._close(remote, item, invited)
            case Closing(closing):
                self._move(item, Closing(closing, invited))
            case _:
                self._send_answer(remote, session, message_id, accept=False)

    def _answer(self, remote: PublicKey, answer: swarm_pb2.Answer, now: float) -> None:
        item = self._remotes.get(remote)
        if item is None or not isinstance(item.state, Offering):
            return
        if answer.offer_message_id.data != bytes(item.state.message_id):
            return  # To an offer that was given up.
        if answer.accept:
            self._open(remote, item, item.state.session, initiator=True, now=now)
        else:
            self._fail(remote, item, now)

    def _signals(self, remote: PublicKey, session: PublicKey, signals: list[swarm_pb2.Signal], now: float) -> None:
        if len(signals) > TRANSPORT_SIGNALS_MAX:
            raise LimitError("Too many signals in one message.", signals_max=TRANSPORT_SIGNALS_MAX)
        item = self._remotes.get(remote)
        if item is None:
            return
        payloads = [from_struct(signal.payload) for signal in signals]
        match item.state:
            case Offering(offered) if offered == session:
                # They have begun, so they have accepted; the answer was lost or is late.
                self._open(remote, item, session, initiator=True, now=now)
            case Connecting(current) | Connected(current) if current == session:
                pass
            case _:
                return  # Of a session that is over.
        self._actions += [Signalled(remote, session, payload) for payload in payloads]

    # --- Moves --------------------------------------------------------------------------------------------------------

    def _meet(self, remote: PublicKey, now: float) -> _Remote | None:
        item = self._remotes.get(remote)
        if item is None and remote != self.local and len(self._remotes) < SWARM_PEERS_MAX:
            backoff = Backoff(CONNECT_RETRY_S_MIN, CONNECT_RETRY_S_MAX, random=self._random)
            item = self._remotes[remote] = _Remote(Known(now), backoff)
        return item

    def _move(self, item: _Remote, state: State) -> None:
        assert type(state) in TRANSITIONS[type(item.state)], f"{item.state} to {state}"
        if isinstance(item.state, Offering | Connecting) and not isinstance(state, Connecting):
            self._limiter.release(item)
        if isinstance(item.state, Offering) and not isinstance(state, Connecting):
            self._actions.append(Withdraw(item.state.session))
        item.state = state

    def _open(self, remote: PublicKey, item: _Remote, session: PublicKey, *, initiator: bool, now: float) -> None:
        self._move(item, Connecting(session, initiator, now + TRANSPORT_CONNECT_TIMEOUT_S))
        self._actions.append(Open(remote, session, initiator))

    def _close(self, remote: PublicKey, item: _Remote, invited: Invited | None = None) -> None:
        """Have the transport let go; `closed` follows."""
        assert isinstance(item.state, Connecting | Connected)
        session = item.state.session
        self._move(item, Closing(session, invited))
        self._actions.append(Close(remote, session))

    def _fail(self, remote: PublicKey, item: _Remote, now: float) -> None:
        """Back to Known after a pause, or forgotten if nobody announces it."""
        self._move(item, Known(now + item.backoff.next_pause()))
        if not item.announced:
            del self._remotes[remote]

    def _drop(self, remote: PublicKey, item: _Remote, now: float) -> None:
        match item.state:
            case Connecting() | Connected():
                self._close(remote, item)
            case Closing(session):
                self._move(item, Closing(session, None))
            case _:
                self._fail(remote, item, now)

    def _send_answer(self, remote: PublicKey, session: PublicKey, message_id: PublicKey, *, accept: bool) -> None:
        answer = swarm_pb2.Answer(accept=accept, offer_message_id=to_key(message_id))
        self._send(remote, session, swarm_pb2.MessageData(answer=answer), self._new_id())

    def _send(self, remote: PublicKey, session: PublicKey, data: swarm_pb2.MessageData, message_id: PublicKey) -> None:
        message = swarm_pb2.SwarmMessage(
            topic=to_key(self.topic), session_id=to_key(session), data=data, message_id=to_key(message_id)
        )
        self._actions.append(Send(remote, message, session))

    def _new_id(self) -> PublicKey:
        return PublicKey(self._random(_ID_BYTES))


def _deadline(item: _Remote) -> float | None:
    match item.state:
        case Known(available_at):
            return available_at if item.announced else None
        case Waiting(offer_at):
            return offer_at
        case Offering(deadline=deadline) | Invited(deadline=deadline) | Connecting(deadline=deadline):
            return deadline
    return None


def _id(untrusted: bytes) -> PublicKey:
    if not 1 <= len(untrusted) <= _ID_BYTES_MAX:
        raise DecodeError("An id of impossible length.", bytes=len(untrusted))
    return PublicKey(untrusted)
