"""What a transport is given and what it must do: turn one agreed session into a stream of bytes."""

from collections.abc import Callable, Mapping
from typing import Protocol, final

import anyio
import anyio.abc

from dxos.errors import LimitError
from dxos.keys import PublicKey
from dxos.limits import TRANSPORT_SIGNALS_MAX
from dxos.wire import Json

Payload = Mapping[str, Json]


@final
class Link:
    """One session between two peers that have agreed on it, and a slow way to pass small JSON objects between them.

    Attributes:
        topic: The swarm.
        local: Our peer key.
        remote: Theirs; not proven.
        session: Random, the same on both sides.
        initiator: Whether we made the offer.
    """

    def __init__(
        self,
        *,
        topic: PublicKey,
        local: PublicKey,
        remote: PublicKey,
        session: PublicKey,
        initiator: bool,
        send: Callable[[Payload], None],
    ) -> None:
        self.topic, self.local, self.remote = topic, local, remote
        self.session, self.initiator = session, initiator
        self._send = send
        self._incoming: list[Payload] = []
        self._changed = anyio.Event()
        self._overflowed = False

    def __repr__(self) -> str:
        return f"<Link {self.session.truncate()} to {self.remote.truncate()} initiator={self.initiator}>"

    def send_signal(self, payload: Payload) -> None:
        """Pass a JSON object to the other side's transport; delivered once or the session fails, in any order."""
        self._send(payload)

    async def receive_signal(self) -> Payload:
        """Return the next object of the other side's transport; it may hold anything. Cancelling loses nothing.

        Raises:
            LimitError: More came than a transport could want.
        """
        while not self._incoming:
            if self._overflowed:
                raise LimitError("Too many signals.", signals_max=TRANSPORT_SIGNALS_MAX)
            self._changed = anyio.Event()
            await self._changed.wait()
        return self._incoming.pop(0)

    def deliver_nowait(self, payload: Payload) -> None:
        """Hand over what the other side sent."""
        if len(self._incoming) >= TRANSPORT_SIGNALS_MAX:
            self._overflowed = True
        else:
            self._incoming.append(payload)
        self._changed.set()


class Transport(Protocol):
    """A way to connect two peers."""

    async def connect(self, link: Link) -> anyio.abc.ByteStream:
        """Connect both sides of a link; each side calls this once, and gets its end of the stream.

        Raises:
            LinkError: It cannot be done.
            PeerError: The other side's signals make no sense.

        Cancelling gives everything up.
        """
        ...
