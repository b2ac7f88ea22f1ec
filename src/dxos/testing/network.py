"""An in-memory network: signalling that delays, loses and repeats as its seed says, and links without sockets."""

import heapq
import math
import random
from collections.abc import Callable
from typing import final

import anyio
import anyio.abc
import anyio.lowlevel

from dxos.errors import ProtocolError, SignalError
from dxos.keys import PublicKey
from dxos.mesh.memory import MemoryStream, memory_links
from dxos.mesh.signal import PeerAvailable, PeerLeft, Received, SignalEvent, SignalState, SignalStatus
from dxos.mesh.transport import Link
from dxos.wire.proto import values_pb2


@final
class MemoryNetwork:
    """What the peers of one test share.

    Args:
        seed: The same seed gives the same delays, losses and repetitions.
        latency_s: Seconds each signalling event travels, at most; at least half of it.
        loss: Part of the messages between peers that are lost, 0.0 to below 1.0; swarm events never are.
        repeats: Part of the messages that arrive twice.
        link_latency_s: Seconds that bytes on a connection travel.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        latency_s: float = 0.0,
        loss: float = 0.0,
        repeats: float = 0.0,
        link_latency_s: float = 0.0,
    ) -> None:
        assert 0.0 <= loss < 1.0
        assert 0.0 <= repeats <= 1.0
        self._random = random.Random(seed)
        self._latency_s, self._loss, self._repeats = latency_s, loss, repeats
        self.link_latency_s = link_latency_s
        self.offered: dict[int, tuple[MemoryStream, anyio.Event]] = {}  # Ends not taken yet.
        self.streams: list[tuple[PublicKey, PublicKey, MemoryStream]] = []  # (local, remote, local's end), ever opened.
        self._swarms: dict[PublicKey, dict[PublicKey, MemorySignal]] = {}
        self.is_up = True

    def __repr__(self) -> str:
        return f"<MemoryNetwork swarms={len(self._swarms)} streams={len(self.streams)}>"

    def random_bytes(self, count: int) -> bytes:
        """Random bytes from the seed, as `Network(random=...)` takes them."""
        return self._random.randbytes(count)

    def signal(self) -> "MemorySignal":
        """A new peer's signalling."""
        return MemorySignal(self)

    def transport(self) -> "MemoryTransport":
        """A new peer's transport."""
        return MemoryTransport(self)

    def cut(self, one: PublicKey, other: PublicKey) -> int:
        """Pull the cable of all connections between two peers, without an error; returns how many there were."""
        ends = [end for local, remote, end in self.streams if (local, remote) == (one, other)]
        for end in ends:
            end.cut()
        return len(ends)

    def reset(self, one: PublicKey, other: PublicKey) -> int:
        """Break all connections between two peers; returns how many there were."""
        ends = [end for local, remote, end in self.streams if (local, remote) == (one, other)]
        for end in ends:
            end.reset()
        return len(ends)

    def enter(self, topic: PublicKey, peer: PublicKey, signal: "MemorySignal") -> None:
        """Announce a peer."""
        swarm = self._swarms.setdefault(topic, {})
        for other in [*swarm, peer]:
            signal.schedule(PeerAvailable(topic, other), self._delay(), ordered=True)
        for other_signal in swarm.values():
            other_signal.schedule(PeerAvailable(topic, peer), self._delay(), ordered=True)
        swarm[peer] = signal

    def exit(self, topic: PublicKey, peer: PublicKey) -> None:
        """Announce that a peer left."""
        swarm = self._swarms.get(topic, {})
        if swarm.pop(peer, None) is not None:
            for other_signal in swarm.values():
                other_signal.schedule(PeerLeft(topic, peer), self._delay(), ordered=True)

    def send(self, message: Received) -> None:
        """Carry a message, or lose it."""
        receivers = {
            id(signal): signal
            for swarm in self._swarms.values()
            for peer, signal in swarm.items()
            if peer == message.recipient
        }
        for signal in receivers.values():
            for _ in range(1 + (self._random.random() < self._repeats)):
                if self._random.random() >= self._loss:
                    signal.schedule(message, self._delay(), ordered=False)

    def _delay(self) -> float:
        return self._latency_s * self._random.uniform(0.5, 1.0)


@final
class MemorySignal:
    """Implements `Signal` on a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self._joined: dict[tuple[PublicKey, PublicKey], None] = {}
        self._on_event: list[Callable[[SignalEvent], None]] = []
        self._on_status: list[Callable[[], None]] = []
        self._due: list[tuple[float, int, SignalEvent]] = []
        self._ordered_at = -math.inf
        self._count = 0
        self._running = False
        self._changed = anyio.Event()

    def __repr__(self) -> str:
        return f"<MemorySignal joined={len(self._joined)} due={len(self._due)}>"

    @property
    def statuses(self) -> tuple[SignalStatus, ...]:
        """One server, connected while it runs."""
        return (SignalStatus("memory", SignalState.CONNECTED if self._running else SignalState.CLOSED),)

    def listen(self, on_event: Callable[[SignalEvent], None]) -> Callable[[], None]:
        """See `Signal.listen`."""
        self._on_event.append(on_event)
        return lambda: self._on_event.remove(on_event)

    def subscribe(self, on_status: Callable[[], None]) -> Callable[[], None]:
        """See `Signal.subscribe`."""
        self._on_status.append(on_status)
        return lambda: self._on_status.remove(on_status)

    def join(self, topic: PublicKey, peer: PublicKey) -> None:
        """See `Signal.join`."""
        if (topic, peer) not in self._joined:
            self._joined[topic, peer] = None
            if self._running:
                self._network.enter(topic, peer, self)

    def leave(self, topic: PublicKey, peer: PublicKey) -> None:
        """See `Signal.leave`."""
        if (topic, peer) in self._joined:
            del self._joined[topic, peer]
            self._network.exit(topic, peer)

    async def send(self, author: PublicKey, recipient: PublicKey, payload: values_pb2.Any) -> None:
        """See `Signal.send`."""
        await anyio.lowlevel.checkpoint()
        if not self._running or not self._network.is_up:
            raise SignalError("No signalling server is connected.")
        self._network.send(Received(author, recipient, payload))

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """See `Signal.run`."""
        self._set_running(True)
        for topic, peer in self._joined:
            self._network.enter(topic, peer, self)
        task_status.started()
        try:
            while True:
                self._changed = anyio.Event()
                while self._due and self._due[0][0] <= anyio.current_time():
                    _, _, event = heapq.heappop(self._due)
                    for on_event in tuple(self._on_event):
                        on_event(event)
                with anyio.CancelScope(deadline=self._due[0][0] if self._due else math.inf):
                    await self._changed.wait()
        finally:
            for topic, peer in self._joined:
                self._network.exit(topic, peer)
            self._due.clear()
            self._set_running(False)

    def schedule(self, event: SignalEvent, delay_s: float, *, ordered: bool) -> None:
        """Have an event arrive later; ordered ones after each other, as on one socket."""
        at = anyio.current_time() + delay_s
        if ordered:
            at = self._ordered_at = max(at, self._ordered_at)
        self._count += 1
        heapq.heappush(self._due, (at, self._count, event))
        self._changed.set()

    def _set_running(self, running: bool) -> None:
        self._running = running
        for on_status in tuple(self._on_status):
            on_status()


@final
class MemoryTransport:
    """Implements `Transport` on a `MemoryNetwork`: the initiator signals a number, the other takes that link's end."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network

    def __repr__(self) -> str:
        return "<MemoryTransport>"

    async def connect(self, link: Link) -> anyio.abc.ByteStream:
        """See `Transport.connect`."""
        network = self._network
        if link.initiator:
            near, far = memory_links(latency_s=network.link_latency_s)
            number, taken = len(network.streams) + len(network.offered), anyio.Event()
            while number in network.offered:
                number += 1
            network.offered[number] = (far, taken)
            link.send_signal({"memory": number})
            try:
                await taken.wait()
            finally:
                network.offered.pop(number, None)
        else:
            number_signalled = (await link.receive_signal()).get("memory")
            if not isinstance(number_signalled, int) or number_signalled not in network.offered:
                raise ProtocolError("The peer signalled no link.")
            near, taken = network.offered.pop(number_signalled)
            taken.set()
        network.streams.append((link.local, link.remote, near))
        return near
