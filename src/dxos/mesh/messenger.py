"""Reliable messages over signalling that loses and repeats: acknowledge every copy, deliver one, send again until told.

    send ──▶ copies at 0, 1, 3 and 7 s ──acknowledged──▶ done
                                       └──10 s────────▶ given up

Invariants
1. A message is delivered at most once while its id is among the MESSAGE_IDS_REMEMBERED_MAX latest.
2. Every copy is acknowledged, also a repeated one, because the acknowledgement before may have been lost.
3. Only the recipient's acknowledgement ends the sending.
"""

import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import final

import anyio
from google.protobuf.message import Message
from msgspec import Struct

from dxos.errors import DeadlineError, PeerError, SignalError
from dxos.keys import PublicKey
from dxos.limits import MESSAGE_IDS_REMEMBERED_MAX, MESSAGE_RETRY_S, MESSAGE_TIMEOUT_S, MESSAGES_PENDING_MAX
from dxos.mesh.signal import Received, Signal, SignalEvent
from dxos.wire import decode, pack_any, to_key, type_name
from dxos.wire.proto import messaging_pb2, values_pb2

_RELIABLE = type_name(messaging_pb2.ReliablePayload)
_ACKNOWLEDGEMENT = type_name(messaging_pb2.Acknowledgement)
_ID_BYTES = 32


class Transmit(Struct, frozen=True):
    """Hand this to signalling."""

    author: PublicKey
    recipient: PublicKey
    payload: values_pb2.Any


class Delivered(Struct, frozen=True):
    """A message that arrived for the first time."""

    author: PublicKey
    recipient: PublicKey
    payload: values_pb2.Any


class Acknowledged(Struct, frozen=True):
    """The recipient has the message."""

    message_id: bytes


class GaveUp(Struct, frozen=True):
    """Nobody acknowledged the message in MESSAGE_TIMEOUT_S."""

    message_id: bytes


Output = Transmit | Delivered | Acknowledged | GaveUp


class _Pending(Struct):
    transmit: Transmit
    next_at: float  # When another copy is due.
    pause_s: float  # From that copy to the one after it.
    give_up_at: float


@final
class MessengerMachine:
    """The rules, without a clock or a network."""

    def __init__(self) -> None:
        self._pending: dict[bytes, _Pending] = {}
        self._seen: dict[tuple[PublicKey, bytes], None] = {}  # Oldest first.

    def __repr__(self) -> str:
        return f"<MessengerMachine pending={len(self._pending)} seen={len(self._seen)}>"

    @property
    def deadline(self) -> float | None:
        """When `tick` has something to do."""
        return min((min(item.next_at, item.give_up_at) for item in self._pending.values()), default=None)

    def send(
        self, author: PublicKey, recipient: PublicKey, payload: values_pb2.Any, *, message_id: bytes, now: float
    ) -> list[Output]:
        """Begin to send a message.

        Args:
            message_id: 32 random bytes.

        Raises:
            SignalError: Too many are on their way.
        """
        assert len(message_id) == _ID_BYTES
        assert message_id not in self._pending
        if len(self._pending) >= MESSAGES_PENDING_MAX:
            raise SignalError("Too many messages wait to be acknowledged.", messages_max=MESSAGES_PENDING_MAX)
        reliable = messaging_pb2.ReliablePayload(message_id=to_key(PublicKey(message_id)), payload=payload)
        transmit = Transmit(author, recipient, pack_any(reliable))
        self._pending[message_id] = _Pending(
            transmit, now + MESSAGE_RETRY_S, 2.0 * MESSAGE_RETRY_S, now + MESSAGE_TIMEOUT_S
        )
        return [transmit]

    def cancel(self, message_id: bytes) -> None:
        """Send no more copies of a message; one that is done is no error."""
        self._pending.pop(message_id, None)

    def receive(self, author: PublicKey, recipient: PublicKey, payload: values_pb2.Any) -> list[Output]:
        """Take what signalling delivered; anything that is no reliable message is ignored.

        Raises:
            PeerError: It does not parse. Ignore it: anybody may send anything in anybody's name.
        """
        match payload.type_url:
            case name if name == _RELIABLE:
                reliable = decode(messaging_pb2.ReliablePayload, payload.value)
                return self._take(author, recipient, reliable)
            case name if name == _ACKNOWLEDGEMENT:
                message_id = decode(messaging_pb2.Acknowledgement, payload.value).message_id.data
                pending = self._pending.get(message_id)
                if pending is not None and pending.transmit.recipient == author:
                    del self._pending[message_id]
                    return [Acknowledged(message_id)]
        return []

    def _take(self, author: PublicKey, recipient: PublicKey, reliable: messaging_pb2.ReliablePayload) -> list[Output]:
        acknowledgement = messaging_pb2.Acknowledgement(message_id=reliable.message_id)
        outputs: list[Output] = [Transmit(recipient, author, pack_any(acknowledgement))]
        key = (author, reliable.message_id.data)
        if key not in self._seen:
            self._seen[key] = None
            if len(self._seen) > MESSAGE_IDS_REMEMBERED_MAX:
                del self._seen[next(iter(self._seen))]
            outputs.append(Delivered(author, recipient, reliable.payload))
        return outputs

    def tick(self, now: float) -> list[Output]:
        """Send the copies that are due, and give up what took too long."""
        outputs: list[Output] = []
        for message_id, pending in list(self._pending.items()):
            if now >= pending.give_up_at:
                del self._pending[message_id]
                outputs.append(GaveUp(message_id))
            elif now >= pending.next_at:
                pending.next_at, pending.pause_s = now + pending.pause_s, 2.0 * pending.pause_s
                outputs.append(pending.transmit)
        return outputs


class _Waiter(Struct):
    done: anyio.Event
    acknowledged: bool = False


@final
class Messenger:
    """Drives the machine over a `Signal`.

    Args:
        signal: What carries the copies.
        random: Source of random bytes, for message ids.
        on_message: Is given each message once; must not wait or raise.
    """

    def __init__(
        self, signal: Signal, *, random: Callable[[int], bytes], on_message: Callable[[Delivered], None]
    ) -> None:
        self._signal, self._random, self._on_message = signal, random, on_message
        self._machine = MessengerMachine()
        self._waiters: dict[bytes, _Waiter] = {}
        self._outbox: deque[Transmit] = deque(maxlen=MESSAGES_PENDING_MAX)  # What is lost here is sent again.
        self._changed = anyio.Event()

    def __repr__(self) -> str:
        return f"<Messenger waiting={len(self._waiters)}>"

    async def send(self, author: PublicKey, recipient: PublicKey, message: Message) -> None:
        """Send a message and wait until its recipient has it; `run` must be running.

        Raises:
            DeadlineError: Not acknowledged within MESSAGE_TIMEOUT_S.
            SignalError: Too many messages are on their way.

        Cancelling stops the sending; the message may have arrived.
        """
        message_id, waiter = self._random(_ID_BYTES), _Waiter(anyio.Event())
        payload, now = pack_any(message), anyio.current_time()
        outputs = self._machine.send(author, recipient, payload, message_id=message_id, now=now)
        self._waiters[message_id] = waiter
        try:
            self._act(outputs)
            await waiter.done.wait()
        finally:
            del self._waiters[message_id]
            self._machine.cancel(message_id)
        if not waiter.acknowledged:
            raise DeadlineError("The peer did not acknowledge a message.", timeout_s=MESSAGE_TIMEOUT_S)

    async def run(self) -> None:
        """Send and receive until cancelled; a signalling network that is down only delays."""
        stop_listening = self._signal.listen(self._receive)
        try:
            while True:
                self._changed = anyio.Event()  # Renewed before looking, so nothing is missed.
                self._act(self._machine.tick(anyio.current_time()))
                while self._outbox:
                    copy = self._outbox.popleft()
                    with suppress(SignalError):  # As if the network had lost it: another copy follows.
                        await self._signal.send(copy.author, copy.recipient, copy.payload)
                deadline = self._machine.deadline
                with anyio.CancelScope(deadline=math.inf if deadline is None else deadline):
                    await self._changed.wait()
        finally:
            stop_listening()

    def _receive(self, event: SignalEvent) -> None:
        if isinstance(event, Received):
            with suppress(PeerError):  # Its author hides behind a key that is not proven: nobody to close.
                self._act(self._machine.receive(event.author, event.recipient, event.payload))

    def _act(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Transmit():
                    self._outbox.append(output)
                    self._changed.set()
                case Delivered():
                    self._on_message(output)
                case Acknowledged(message_id) | GaveUp(message_id):
                    if (waiter := self._waiters.get(message_id)) is not None:
                        waiter.acknowledged = isinstance(output, Acknowledged)
                        waiter.done.set()
