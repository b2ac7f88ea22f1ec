"""Who of a space's members is online, as each announces over gossip."""

from collections.abc import Callable
from typing import final

import anyio
from msgspec import Struct

from dxos.aio import Changes
from dxos.errors import PeerError
from dxos.keys import PublicKey
from dxos.limits import PRESENCE_ANNOUNCE_S, PRESENCE_OFFLINE_S, PRESENCE_PEERS_MAX
from dxos.spaces.gossip import Gossip
from dxos.wire import from_key, pack_any, to_key, unpack_any
from dxos.wire.proto.gossip_pb2 import GossipMessage
from dxos.wire.proto.presence_pb2 import PeerState

_CHANNEL = "dxos.mesh.presence.Presence"


class _Seen(Struct):
    identity_key: PublicKey
    until: float  # Time on the event loop's clock at which it counts as offline.


@final
class Presence:
    """Which identities are online, this one aside.

    A directly connected peer is online while its connection lives; one that is heard of through others, while it goes
    on announcing itself. What others announce is their word: presence is a courtesy, not a proof.

    Args:
        gossip: How it is announced.
        identity_key: Of this peer.
        peer_id: This device.
        changed: Called whenever somebody came or went.
    """

    def __init__(
        self, gossip: Gossip, *, identity_key: PublicKey, peer_id: PublicKey, changed: Callable[[], None]
    ) -> None:
        self._gossip, self._identity_key, self._peer_id, self._changed = gossip, identity_key, peer_id, changed
        self._connected: dict[PublicKey, PublicKey] = {}  # Identity by device.
        self._heard: dict[PublicKey, _Seen] = {}  # By device.
        self._announce = Changes()

    @property
    def online(self) -> frozenset[PublicKey]:
        """The identities that are online."""
        return frozenset(self._connected.values()) | {seen.identity_key for seen in self._heard.values()}

    def connected(self, device_key: PublicKey, identity_key: PublicKey) -> None:
        """A device proved itself on a direct connection."""
        self._connected[device_key] = identity_key
        self._changed()
        self._announce.notify()

    def disconnected(self, device_key: PublicKey) -> None:
        """That connection ended."""
        self._connected.pop(device_key, None)
        self._heard.pop(device_key, None)
        self._changed()
        self._announce.notify()

    async def run(self) -> None:
        """Announce this device, and forget those that fell silent."""
        hearing = self._gossip.subscribe(_CHANNEL, self._hear)
        new_neighbour = self._gossip.neighbour_added.subscribe(lambda _: self._announce.notify())
        try:
            while True:
                self._gossip.post(_CHANNEL, pack_any(self._state()))
                announce_at = anyio.current_time() + PRESENCE_ANNOUNCE_S
                wake_at = min([announce_at, *(seen.until for seen in self._heard.values())])
                with anyio.CancelScope(deadline=wake_at):
                    await self._announce.wait()
                self._forget(anyio.current_time())
        finally:
            hearing.unsubscribe()
            new_neighbour.unsubscribe()
            self._heard.clear()

    def _state(self) -> PeerState:
        return PeerState(
            connections=[to_key(device_key) for device_key in self._connected],
            identity_key=to_key(self._identity_key),
            peer_id=to_key(self._peer_id),
        )

    def _hear(self, message: GossipMessage) -> None:
        try:
            state = unpack_any(message.payload)
        except PeerError:
            return
        device_key = from_key(message.peer_id)
        if not isinstance(state, PeerState) or device_key == self._peer_id or device_key in self._connected:
            return
        if device_key not in self._heard and len(self._heard) >= PRESENCE_PEERS_MAX:
            return
        is_new = device_key not in self._heard
        self._heard[device_key] = _Seen(from_key(state.identity_key), anyio.current_time() + PRESENCE_OFFLINE_S)
        if is_new:
            self._changed()

    def _forget(self, now: float) -> None:
        gone = [device_key for device_key, seen in self._heard.items() if seen.until <= now]
        for device_key in gone:
            del self._heard[device_key]
        if gone:
            self._changed()
