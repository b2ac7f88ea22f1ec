"""What the mesh asks of a transport: to turn an accepted offer into a stream of bytes to one peer."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from anyio.abc import ByteStream

from dxos.keys import PublicKey
from dxos.wire import Json

SendSignal = Callable[[Mapping[str, Json]], Awaitable[None]]


class Attempt(Protocol):
    """One connection being made; both sides of an accepted offer hold one."""

    async def connect(self) -> ByteStream:
        """Wait for the stream; called once. Cancelling releases whatever the attempt holds.

        The stream raises anyio's EndOfStream, BrokenResourceError and ClosedResourceError, nothing else.

        Raises:
            TransportError: The transport cannot, or must not, reach what the peer signalled.
        """
        ...

    def receive_signal(self, untrusted: Mapping[str, Json]) -> None:
        """Take a signal of the other side's attempt; before or during `connect`.

        Raises:
            PeerError: It makes no sense to this transport.
        """
        ...


class Transport(Protocol):
    """A way to reach peers."""

    def attempt(
        self, *, topic: PublicKey, local: PublicKey, remote: PublicKey, initiator: bool, send_signal: SendSignal
    ) -> Attempt:
        """Prepare one connection; does nothing yet.

        Args:
            topic: The swarm it belongs to.
            local: Our key in that swarm.
            remote: The peer's key in that swarm.
            initiator: Whether we made the offer.
            send_signal: Hands a signal to the other side's attempt, by way of the signalling server.
        """
        ...
