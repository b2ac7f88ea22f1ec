"""Messages that travel from member to member while they are connected, and are kept by nobody.

Whoever receives one for the first time hands it to its listeners and passes it on to every neighbour but the one it
came from, so members that are not connected to each other hear it too.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import anyio.lowlevel
from google.protobuf.empty_pb2 import Empty

from dxos.aio import Changes, Listeners, Subscription
from dxos.errors import DxosError, InvalidValueError, LimitError
from dxos.keys import PublicKey
from dxos.limits import (
    GOSSIP_BYTES_MAX,
    GOSSIP_CHANNEL_CHARS_MAX,
    GOSSIP_ID_BYTES_MAX,
    GOSSIP_IDS_REMEMBERED_MAX,
    GOSSIP_QUEUE_MAX,
)
from dxos.mesh.connection import Extension, ExtensionChannel, Serve
from dxos.wire import from_key, to_key, to_timestamp
from dxos.wire.proto.gossip_pb2 import GossipMessage
from dxos.wire.proto.values_pb2 import Any as PackedAny

_METHOD = "dxos.mesh.teleport.gossip.GossipService.Announce"
_ID_BYTES = 32


@final
class GossipExtension(Extension):
    """The extension of one connection."""

    name: ClassVar[str] = "dxos.mesh.teleport.gossip"

    def __init__(self, gossip: "Gossip") -> None:
        self._gossip = gossip
        self._queue: deque[GossipMessage] = deque()
        self._queued = Changes()

    @property
    def handlers(self) -> Mapping[str, Serve[Any]]:
        return {_METHOD: Serve(GossipMessage, self._announced)}

    async def _announced(self, message: GossipMessage) -> Empty:
        self._gossip.receive(message, source=self)
        return Empty()

    async def opened(self, channel: ExtensionChannel) -> None:
        self._gossip.neighbours.append(self)
        try:
            self._gossip.neighbour_added.emit(channel.remote_key)
            while True:
                while not self._queue:
                    await self._queued.wait()
                try:
                    await channel.call(_METHOD, self._queue.popleft(), Empty)
                except DxosError:
                    # A peer that cannot take one message may take the next; a lost link cancels this task.
                    await anyio.lowlevel.checkpoint()
        finally:
            self._gossip.neighbours.remove(self)

    def send(self, message: GossipMessage) -> None:
        """Queue a message; a neighbour that is too slow misses some."""
        if len(self._queue) < GOSSIP_QUEUE_MAX:
            self._queue.append(message)
            self._queued.notify()


@final
class Gossip:
    """The messages of one space.

    Args:
        peer_id: This device.
        random: Gives that many random bytes.
        now_ms: Unix time in milliseconds.
    """

    def __init__(self, *, peer_id: PublicKey, random: Callable[[int], bytes], now_ms: Callable[[], int]) -> None:
        self._peer_id, self._random, self._now_ms = peer_id, random, now_ms
        self.neighbours: list[GossipExtension] = []
        self.neighbour_added: Listeners[PublicKey] = Listeners()
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._channels: dict[str, Listeners[GossipMessage]] = {}

    def extension(self) -> GossipExtension:
        """What to add to a connection whose peer is authenticated."""
        return GossipExtension(self)

    def post(self, channel: str, payload: PackedAny) -> None:
        """Send to whoever is connected; this peer's own listeners do not hear it.

        Raises:
            InvalidValueError: Larger than the limits allow.
        """
        message = GossipMessage(
            peer_id=to_key(self._peer_id),
            channel_id=channel,
            message_id=to_key(PublicKey(self._random(_ID_BYTES))),
            timestamp=to_timestamp(self._now_ms()),
            payload=payload,
        )
        if message.ByteSize() > GOSSIP_BYTES_MAX or len(channel) > GOSSIP_CHANNEL_CHARS_MAX:
            raise InvalidValueError("The message is too large.", bytes_max=GOSSIP_BYTES_MAX)
        self._remember(message.message_id.data)
        self._pass_on(message, source=None)

    def subscribe(self, channel: str, next: Callable[[GossipMessage], None]) -> Subscription:
        """Hear what others post to a channel."""
        listeners = self._channels.setdefault(channel, Listeners())
        inner = listeners.subscribe(next)

        def end() -> None:
            inner.unsubscribe()
            if not len(listeners):
                self._channels.pop(channel, None)

        return Subscription(end)

    def receive(self, untrusted: GossipMessage, *, source: GossipExtension) -> None:
        """Take in what a neighbour announced.

        Raises:
            LimitError: Larger than the limits allow.
        """
        if untrusted.ByteSize() > GOSSIP_BYTES_MAX or len(untrusted.channel_id) > GOSSIP_CHANNEL_CHARS_MAX:
            raise LimitError("A message is too large.", bytes_max=GOSSIP_BYTES_MAX)
        if not 0 < len(untrusted.message_id.data) <= GOSSIP_ID_BYTES_MAX:
            raise LimitError("A message's id is empty or too long.", bytes_max=GOSSIP_ID_BYTES_MAX)
        if untrusted.message_id.data in self._seen or from_key(untrusted.peer_id) == self._peer_id:
            return
        self._remember(untrusted.message_id.data)
        listeners = self._channels.get(untrusted.channel_id)
        if listeners is not None:
            listeners.emit(untrusted)
        self._pass_on(untrusted, source=source)

    def _pass_on(self, message: GossipMessage, *, source: GossipExtension | None) -> None:
        for neighbour in self.neighbours:
            if neighbour is not source:
                neighbour.send(message)

    def _remember(self, message_id: bytes) -> None:
        self._seen[message_id] = None
        while len(self._seen) > GOSSIP_IDS_REMEMBERED_MAX:
            self._seen.popitem(last=False)
