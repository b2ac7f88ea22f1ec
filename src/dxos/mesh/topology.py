"""Which peers of a swarm to connect to: pure rules, asked again whenever the swarm has changed.

    FullyConnected    everyone with everyone: tests, and swarms known to be small
    Mmst              spaces: a few near peers each, and a ring through all, so that the swarm is in one piece
    InvitationHost    one guest at a time
    InvitationGuest   accepts everyone, offers to nobody

An object belongs to one swarm: it remembers what it did.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, final

from msgspec import Struct

from dxos.keys import PublicKey
from dxos.limits import MMST_ORIGINATE_MAX, MMST_PEERS_MAX, MMST_SAMPLE_PEERS, MMST_UPDATE_S, SWARM_PEERS_MAX


class View(Struct, frozen=True):
    """A swarm as a topology sees it."""

    local: PublicKey
    connected: frozenset[PublicKey]  # Connected, or about to be.
    candidates: frozenset[PublicKey]  # Announced, not connected, and not in the pause after a failure.


class Changes(Struct, frozen=True):
    """What a topology wants."""

    connect: tuple[PublicKey, ...] = ()
    disconnect: tuple[PublicKey, ...] = ()


class Topology(Protocol):
    """Rules for one swarm."""

    def decide(self, view: View, *, now: float, random: Callable[[int], bytes]) -> Changes:
        """What to change; the caller does it at once, and asks again at `deadline` or when the swarm has changed."""
        ...

    def accepts(self, view: View, remote: PublicKey) -> bool:
        """Whether to take this peer's offer."""
        ...

    @property
    def deadline(self) -> float | None:
        """When `decide` may want what it was too early for; None if only a change of the swarm matters."""
        ...


@final
class FullyConnected:
    """Everyone with everyone."""

    deadline = None

    def decide(self, view: View, *, now: float, random: Callable[[int], bytes]) -> Changes:
        """Connect to all."""
        return Changes(connect=tuple(sorted(view.candidates)))

    def accepts(self, view: View, remote: PublicKey) -> bool:
        """Always."""
        return True


@final
class InvitationGuest:
    """Waits for hosts; a host that is refused would not ask again, so nobody is refused."""

    deadline = None

    def decide(self, view: View, *, now: float, random: Callable[[int], bytes]) -> Changes:
        """Nothing: only hosts offer."""
        return Changes()

    def accepts(self, view: View, remote: PublicKey) -> bool:
        """Always."""
        return True


@final
class InvitationHost:
    """One guest at a time; the one that was tried longest ago is next, so a bad guest does not keep others out."""

    deadline = None

    def __init__(self) -> None:
        self._tried: dict[PublicKey, int] = {}  # When each was tried, counted; the longest ago first.
        self._tries = 0

    def decide(self, view: View, *, now: float, random: Callable[[int], bytes]) -> Changes:
        """Offer to one guest unless one is being served."""
        if view.connected or not view.candidates:
            return Changes()
        guest = min(view.candidates, key=lambda remote: (self._tried.get(remote, 0), remote))
        self._tries += 1
        self._tried.pop(guest, None)
        self._tried[guest] = self._tries
        if len(self._tried) > SWARM_PEERS_MAX:
            del self._tried[next(iter(self._tried))]
        return Changes(connect=(guest,))

    def accepts(self, view: View, remote: PublicKey) -> bool:
        """Take an offer while no guest is served: it comes from another host of the same invitation."""
        return not view.connected


@final
class Mmst:
    """A few connections each, to the nearest peers by XOR, after 0.8.3's "minimum spanning tree" topology.

    Two things are ours. The first ORIGINATE_MAX connections are made at once and only further changes are rationed, so
    that two peers meet without waiting. And one connection goes to the next peer in the order of keys: nearest peers
    alone can fall apart into groups that never hear of each other, a ring through all cannot.
    """

    def __init__(
        self,
        *,
        originate_max: int = MMST_ORIGINATE_MAX,
        peers_max: int = MMST_PEERS_MAX,
        sample_peers: int = MMST_SAMPLE_PEERS,
    ) -> None:
        assert 1 <= originate_max <= peers_max <= sample_peers
        self._originate_max, self._peers_max, self._sample_peers = originate_max, peers_max, sample_peers
        self._changed_at: deque[float] = deque(maxlen=originate_max)  # The latest changes, oldest first.
        self._rationed = False

    @property
    def deadline(self) -> float | None:
        """When the next change is allowed, if one is wanted."""
        return self._changed_at[0] + MMST_UPDATE_S if self._rationed else None

    def decide(self, view: View, *, now: float, random: Callable[[int], bytes]) -> Changes:
        """Connect up to `originate_max`, or drop what is over `peers_max`."""
        self._rationed = False
        if len(view.connected) > self._peers_max:
            ring = ring_neighbours(view.local, view.connected)
            spare = [remote for remote in nearest(view.local, view.connected) if remote not in ring]
            return Changes(disconnect=self._ration(spare[-1:], now))
        successor = ring_successor(view.local, view.connected | view.candidates)
        wanted = [successor] if successor is not None and successor in view.candidates else []
        missing = self._originate_max - len(view.connected)
        if missing > 0:
            sample = _sample(view.candidates, self._sample_peers, random)
            wanted += [remote for remote in nearest(view.local, sample) if remote not in wanted]
            wanted = wanted[:missing]
        if not view.connected and wanted:
            self._changed_at.append(now)  # Alone: any company is urgent, and pauses after failures ration enough.
            return Changes(connect=tuple(wanted[:1]) + self._ration(wanted[1:], now))
        return Changes(connect=self._ration(wanted, now))

    def accepts(self, view: View, remote: PublicKey) -> bool:
        """Take offers up to `peers_max`; a neighbour on the ring is always welcome."""
        if remote in view.connected:
            return True
        if len(view.connected) < self._peers_max:
            return True
        known = view.connected | view.candidates | {remote}
        return len(view.connected) < self._peers_max + 2 and remote in ring_neighbours(view.local, known)

    def _ration(self, wanted: Sequence[PublicKey], now: float) -> tuple[PublicKey, ...]:
        granted: list[PublicKey] = []
        for remote in wanted:
            if len(self._changed_at) == self._originate_max and now < self._changed_at[0] + MMST_UPDATE_S:
                self._rationed = True
                break
            self._changed_at.append(now)
            granted.append(remote)
        return tuple(granted)


def nearest(local: PublicKey, remotes: frozenset[PublicKey]) -> list[PublicKey]:
    """Peers by growing XOR distance; a shorter key counts as followed by zeros."""
    width = max((len(remote) for remote in remotes | {local}), default=0)

    def distance(remote: PublicKey) -> int:
        return int.from_bytes(bytes(local).ljust(width, b"\0"), "big") ^ int.from_bytes(
            bytes(remote).ljust(width, b"\0"), "big"
        )

    return sorted(remotes, key=distance)


def ring_successor(local: PublicKey, remotes: frozenset[PublicKey]) -> PublicKey | None:
    """The peer with the next higher key, or the lowest of all."""
    return min(remotes, key=lambda remote: (remote < local, remote), default=None)


def ring_neighbours(local: PublicKey, remotes: frozenset[PublicKey]) -> frozenset[PublicKey]:
    """The next and the previous peer on the ring."""
    successor = ring_successor(local, remotes)
    if successor is None:
        return frozenset()
    predecessor = max(remotes, key=lambda remote: (remote < local, remote))
    return frozenset((successor, predecessor))


def _sample(remotes: frozenset[PublicKey], count: int, random: Callable[[int], bytes]) -> frozenset[PublicKey]:
    if len(remotes) <= count:
        return remotes
    salt = random(16)
    return frozenset(sorted(remotes, key=lambda remote: hashlib.blake2b(bytes(remote), key=salt).digest())[:count])
