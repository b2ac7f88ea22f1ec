"""Who comes in by the loopback address: tokens that admit once, and the connections that show them.

    WAITING ─right token─▶ ADMITTED;  ─too many wrong ones, silence, gone, crowded out─▶ TURNED_AWAY

Invariants
1. A token admits one connection, once, within LOOPBACK_TOKEN_S of its offer.
2. What a connection shows or leaves out has no effect on any other one, nor on a token that it does not know.
3. Of too many that wait, the oldest is turned away: whoever has a token shows it at once.
"""

import hmac
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import final

from msgspec import Struct

from dxos.limits import (
    LOOPBACK_SHOW_S,
    LOOPBACK_TOKEN_BYTES,
    LOOPBACK_TOKEN_S,
    LOOPBACK_TRIES_MAX,
    LOOPBACK_WAITING_MAX,
)


class State(Enum):
    """Where one connection is."""

    WAITING = "waiting"
    ADMITTED = "admitted"
    TURNED_AWAY = "turned away"


TRANSITIONS = {
    (State.WAITING, "wrong"): State.WAITING,
    (State.WAITING, "admit"): State.ADMITTED,
    (State.WAITING, "turn away"): State.TURNED_AWAY,
}


@final
class Admit(Struct, frozen=True):
    """This connection is the one that the offer was made for."""

    connection: int
    offer: int


@final
class TurnAway(Struct, frozen=True):
    """Close this connection."""

    connection: int


@final
class Expired(Struct, frozen=True):
    """Nobody came for this offer."""

    offer: int


Action = Admit | TurnAway | Expired


@dataclass(slots=True)
class _Connection:
    until: float
    state: State = State.WAITING
    shown: bytearray = field(default_factory=bytearray, repr=False)
    tries_count: int = 0


@final
class Doorkeeper:
    """One door; `actions` is what to do, in order, and the driver empties it."""

    def __init__(self) -> None:
        self.actions: deque[Action] = deque()
        self._offers: dict[int, tuple[bytes, float]] = {}  # Tokens and their ends, by number.
        self._connections: dict[int, _Connection] = {}  # Those that wait, the oldest first.

    def __repr__(self) -> str:
        return f"<Doorkeeper offers={len(self._offers)} waiting={len(self._connections)}>"

    def offer(self, number: int, token: bytes, now: float) -> None:
        """Let in who shows this.

        Args:
            number: Of the offer, never used before.
            token: LOOPBACK_TOKEN_BYTES of randomness.
            now: Seconds.
        """
        assert len(token) == LOOPBACK_TOKEN_BYTES, "as many as are read"
        self._offers[number] = token, now + LOOPBACK_TOKEN_S

    def revoke(self, number: int) -> None:
        """Let nobody in for this any more."""
        self._offers.pop(number, None)

    def connected(self, number: int, now: float) -> None:
        """Somebody is at the door.

        Args:
            number: Of the connection, never used before.
            now: Seconds.
        """
        if len(self._connections) >= LOOPBACK_WAITING_MAX:
            self._turn_away(next(iter(self._connections)))
        self._connections[number] = _Connection(now + LOOPBACK_SHOW_S)

    def wanted(self, number: int) -> int:
        """How many bytes may be read from a connection: what follows a token belongs to the session."""
        found = self._connections.get(number)
        return 0 if found is None else LOOPBACK_TOKEN_BYTES - len(found.shown)

    def receive(self, number: int, untrusted: bytes, now: float) -> None:
        """Take some bytes of a connection, at most as many as are wanted."""
        found = self._connections.get(number)
        if found is None:
            return
        found.shown += untrusted
        if len(found.shown) < LOOPBACK_TOKEN_BYTES:
            return
        offer = self._match(bytes(found.shown), now)
        found.shown.clear()
        if offer is not None:
            del self._offers[offer], self._connections[number]
            found.state = TRANSITIONS[found.state, "admit"]
            self.actions.append(Admit(number, offer))
            return
        found.state = TRANSITIONS[found.state, "wrong"]
        found.tries_count += 1
        if found.tries_count >= LOOPBACK_TRIES_MAX:
            self._turn_away(number)

    def ended(self, number: int) -> None:
        """A connection broke or was closed by the other side."""
        if number in self._connections:
            self._turn_away(number)

    def next_timer(self) -> float | None:
        """When `handle_timer` has something to do."""
        times = [until for _, until in self._offers.values()]
        return min([*times, *(one.until for one in self._connections.values())], default=None)

    def handle_timer(self, now: float) -> None:
        """Withdraw offers that are old, and turn away who shows nothing."""
        for number in [one for one, (_, until) in self._offers.items() if now >= until]:
            del self._offers[number]
            self.actions.append(Expired(number))
        for number in [one for one, item in self._connections.items() if now >= item.until]:
            self._turn_away(number)

    def _match(self, shown: bytes, now: float) -> int | None:
        found = None
        for number, (token, until) in self._offers.items():  # All of them, for as long as ever.
            if hmac.compare_digest(token, shown) and now < until:
                found = number
        return found

    def _turn_away(self, number: int) -> None:
        found = self._connections.pop(number)
        found.state = TRANSITIONS[found.state, "turn away"]
        self.actions.append(TurnAway(number))
