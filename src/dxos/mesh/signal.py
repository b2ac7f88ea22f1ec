"""What the network asks of signalling: who is in a swarm, and single messages between peers, sometimes lost."""

from collections.abc import Callable
from enum import Enum
from typing import Protocol

import anyio.abc
from msgspec import Struct

from dxos.keys import PublicKey
from dxos.wire.proto import values_pb2


class SignalState(Enum):
    """How one signalling server is doing; the numbers are 0.8.3's."""

    CONNECTING = 0
    RECONNECTING = 1
    CONNECTED = 2
    DISCONNECTED = 3
    ERROR = 4
    CLOSED = 5


class SignalStatus(Struct, frozen=True):
    """One signalling server as observers see it."""

    server: str  # Its address.
    state: SignalState
    error: str | None = None  # Why the last attempt failed; None while all is well.


class PeerAvailable(Struct, frozen=True):
    """A peer is in a swarm; said again after each reconnection, and also of ourselves."""

    topic: PublicKey
    peer: PublicKey


class PeerLeft(Struct, frozen=True):
    """A peer has left a swarm, or its socket was lost."""

    topic: PublicKey
    peer: PublicKey


class Received(Struct, frozen=True):
    """A message for one of our peer keys; nothing proves who its author is."""

    author: PublicKey
    recipient: PublicKey
    payload: values_pb2.Any


SignalEvent = PeerAvailable | PeerLeft | Received


class Signal(Protocol):
    """A signalling network. Topics may be joined before and while it runs; every `run` announces them anew."""

    @property
    def statuses(self) -> tuple[SignalStatus, ...]:
        """One for each server, in the order they were configured."""
        ...

    def listen(self, on_event: Callable[[SignalEvent], None]) -> Callable[[], None]:
        """Call `on_event` for each event, in order; returns what ends this. The callback must not wait or raise."""
        ...

    def subscribe(self, on_status: Callable[[], None]) -> Callable[[], None]:
        """Call `on_status` whenever `statuses` has changed; returns what ends this."""
        ...

    def join(self, topic: PublicKey, peer: PublicKey) -> None:
        """Announce `peer` in `topic`, now and after each reconnection, and receive its messages."""
        ...

    def leave(self, topic: PublicKey, peer: PublicKey) -> None:
        """Take `join` back; a topic that was not joined is no error."""
        ...

    async def send(self, author: PublicKey, recipient: PublicKey, payload: values_pb2.Any) -> None:
        """Hand one message to the network, which may lose it.

        Raises:
            SignalError: No server is connected.
        """
        ...

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the servers connected until cancelled; may be run again afterwards."""
        ...
