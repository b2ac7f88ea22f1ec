"""Keeps one feed in step with one peer: the hypercore 9 stream, as a machine without I/O.

    OPENING ──opened──▶ OPEN ──closed──▶ CLOSED
       └────────────closed──────────────────┘

Both sides say which feed they mean (Open), then each may fetch (Want → Have → Request → Data) and serve, and tells of
new blocks at once (Have). What arrives only changes state; `data_to_send` is the one place that decides what goes out,
and makes it when there is room for it, so a peer that asks much and reads little costs no memory.

Invariants
1. A block is stored only after its proof was checked, and only if it was asked for.
2. At most FEED_REQUESTS_MAX requests are unanswered, lowest index first.
3. Without leave to upload, nothing about the feed's content goes out, not even its length.
4. A peer that breaks the rules ends this machine: every later call raises the same error.

No encryption and no handshake: those are the business of the layers below. Source: behaviour of hypercore 9.12.
"""

from collections import deque
from enum import Enum
from typing import final

from msgspec import Struct

from dxos.errors import LimitError, PeerError, ProtocolError
from dxos.feed.bitfield import Bitfield, decode_runs, encode_runs
from dxos.feed.log import Log
from dxos.feed.messages import (
    PING,
    Cancel,
    Close,
    Data,
    Extension,
    FrameReader,
    Have,
    Message,
    Open,
    Options,
    Request,
    Status,
    Unhave,
    Unwant,
    Want,
    encode_frame,
)
from dxos.keys.ids import discovery_key, hypercore_key
from dxos.limits import (
    FEED_BITFIELDS_MAX,
    FEED_BLOCKS_MAX,
    FEED_IDLE_S_MAX,
    FEED_PING_S,
    FEED_REQUESTS_MAX,
    FEED_SEND_BYTES,
    FEED_UPLOADS_MAX,
    FEED_WANT_BLOCKS,
)

WANT_UNIT_BLOCKS = 8_192  # 0.8.3: a Want covers whole pages of its bitfield.


class State(Enum):
    """Where a stream is."""

    OPENING = "opening"  # Our Open is sent, theirs is not here.
    OPEN = "open"
    CLOSED = "closed"


TRANSITIONS = {
    (State.OPENING, "opened"): State.OPEN,
    (State.OPENING, "closed"): State.CLOSED,
    (State.OPEN, "closed"): State.CLOSED,
}


class CloseReason(Enum):
    """Why a stream ended without an error."""

    LOCAL = "local"  # `close` was called.
    REMOTE = "remote"  # The peer sent Close.
    IDLE = "idle"  # The peer was silent for FEED_IDLE_S_MAX seconds.


@final
class Opened(Struct, frozen=True):
    """The peer speaks of the same feed."""


@final
class Downloaded(Struct, frozen=True):
    """A block was verified and stored."""

    index: int


@final
class RemoteHave(Struct, frozen=True):
    """The peer has more blocks than it had told before."""

    length: int  # One more than the highest index it claims; a claim, not a proof.


@final
class Closed(Struct, frozen=True):
    """The stream is over; the last event."""

    reason: CloseReason


Event = Opened | Downloaded | RemoteHave | Closed


@final
class Replication:
    """One feed and one peer.

    Args:
        log: The feed; several machines may share it.
        now: Seconds on any clock that does not go back, the same for all calls.
        download: Whether to fetch blocks.
        upload: Whether to serve blocks; False for a peer not authenticated yet, see `permit_upload`.
    """

    def __init__(self, log: Log, *, now: float, download: bool = True, upload: bool = True) -> None:
        self.state = State.OPENING
        self.remote_length = 0
        self._log, self._download, self._upload = log, download, upload
        self._discovery_key = discovery_key(hypercore_key(log.key))
        self._reader = FrameReader()
        self._failure: PeerError | None = None
        self._ping_at, self._idle_at = now + FEED_PING_S, now + FEED_IDLE_S_MAX
        self._out = bytearray(encode_frame(Open(self._discovery_key)))
        # Downloading.
        self._want_due = False
        self._told = False  # The peer has answered our Want.
        self._bitfields_count = 0  # A bitfield of ten bytes can take 100 microseconds to read; one answers each Want.
        self._wanted = Bitfield()  # Blocks to ask for: the peer has them, we do not.
        self._requested: set[int] = set()
        self._cancelled: list[int] = []
        # Uploading.
        self._remote_want: Want | None = None
        self._answer_due = False
        self._news: deque[tuple[int, int]] = deque()  # Ranges of new blocks to tell of, each as start and end.
        self._uploads: dict[int, None] = {}  # Indexes asked for, in order.

    @property
    def next_deadline(self) -> float | None:
        """When `advance` must be called at the latest, in seconds; None once closed."""
        return None if self.state is State.CLOSED else min(self._ping_at, self._idle_at)

    @property
    def is_synced(self) -> bool:
        """Whether everything the peer has told of is here."""
        return self._told and not self._requested and not self._wanted

    def receive(self, untrusted: bytes, now: float) -> list[Event]:
        """Take bytes from the peer.

        Returns:
            What happened, in order. If the peer breaks the rules after something happened, that is returned and the
            error is raised by the next call of any method: nothing that was stored goes unreported.

        Raises:
            PeerError: DecodeError, ProtocolError, LimitError or ProofError: drop the peer.
            StorageError: A block could not be stored; the machine is of no further use.
        """
        self._raise_failure()
        events: list[Event] = []
        if self.state is State.CLOSED:
            return events
        self._idle_at = now + FEED_IDLE_S_MAX
        self._reader.feed(untrusted)
        try:
            for message in self._reader:
                self._handle(message, events)
                if events and isinstance(events[-1], Closed):
                    break
        except PeerError as error:
            self._failure = error
            self._move("closed")
            if not events:
                raise
        return events

    def advance(self, now: float) -> list[Event]:
        """Let time pass: send a ping, or give the peer up."""
        self._raise_failure()
        if self.state is State.CLOSED:
            return []
        if now >= self._idle_at:
            self._move("closed")
            return [Closed(CloseReason.IDLE)]
        if now >= self._ping_at:
            self._ping_at = now + FEED_PING_S
            if not self._out:
                self._out += PING
        return []

    def local_append(self, index: int, count: int = 1) -> None:
        """Say that blocks are in the log that did not come through this machine: written here or by another peer."""
        self._wanted.discard(index, index + count)
        for each in self._requested.intersection(range(index, index + count)):
            self._requested.discard(each)
            self._cancelled.append(each)
        if self._remote_want is None or self._answer_due:
            return  # The answer to a Want tells of all blocks.
        start = self._news.pop()[0] if self._news and self._news[-1][1] == index else index
        self._news.append((start, index + count))

    def permit_upload(self) -> None:
        """Serve from now on, and answer what the peer asked for before."""
        if not self._upload:
            self._upload, self._answer_due = True, self._remote_want is not None

    def close(self) -> None:
        """End the stream; `data_to_send` still has the message that tells the peer."""
        if self.state is not State.CLOSED:
            self._move("closed")
            self._out += encode_frame(Close(self._discovery_key))

    def data_to_send(self) -> bytes:
        """Return the next bytes for the peer, a few hundred kilobytes at most, b"" if there are none.

        Call it again until it returns b"", after every call of another method.

        Raises:
            PeerError: As of `receive`.
            StorageError: A block could not be read.
        """
        self._raise_failure()
        if self.state is State.OPEN:
            self._evaluate()
        data = bytes(self._out)
        self._out.clear()
        return data

    # --- What arrives -------------------------------------------------------------------------------------------------

    def _handle(self, message: Message, events: list[Event]) -> None:
        if (self.state is State.OPENING) != isinstance(message, Open):
            raise ProtocolError(f"{type(message).__name__} is out of order.", state=self.state.value)
        match message:
            case Open(discovery_key=key):
                if key != self._discovery_key:
                    raise ProtocolError("The peer opened another feed.")
                self._move("opened")
                self._want_due = self._download
                events.append(Opened())
            case Want():
                _check_range(message.start, message.length)
                if message.start % WANT_UNIT_BLOCKS or (message.length or 0) % WANT_UNIT_BLOCKS:
                    raise ProtocolError("A Want that covers no whole pages.")
                self._remote_want, self._answer_due = message, self._upload
                self._news.clear()
            case Unwant():
                self._remote_want, self._answer_due = None, False
                self._news.clear()
            case Have():
                self._on_have(message, events)
            case Unhave():
                start, end = _check_range(message.start, message.length)
                self._wanted.discard(start, end)
                self._requested.difference_update([each for each in self._requested if start <= each < end])
            case Request():
                _check_range(message.index, None)
                if self._upload:
                    self._uploads[message.index] = None
                    if len(self._uploads) > FEED_UPLOADS_MAX:
                        raise LimitError("Too many requests for blocks.", count_max=FEED_UPLOADS_MAX)
            case Cancel():
                self._uploads.pop(message.index, None)
            case Data():
                self._on_data(message, events)
            case Close():
                self._move("closed")
                events.append(Closed(CloseReason.REMOTE))
            case Options() | Status() | Extension():
                pass  # For information, and nothing here depends on them.

    def _on_have(self, have: Have, events: list[Event]) -> None:
        start, end = _check_range(have.start, have.length)
        bits = b""
        if have.bitfield is not None:
            if start % 8:
                raise ProtocolError("A bitfield that starts within a byte.")
            self._bitfields_count += 1
            if self._bitfields_count > FEED_BITFIELDS_MAX:
                raise LimitError("Too many bitfields on a stream.", count_max=FEED_BITFIELDS_MAX)
            bits = decode_runs(have.bitfield, bytes_max=FEED_WANT_BLOCKS // 8)[: (FEED_BLOCKS_MAX - start) // 8]
            end = start + Bitfield(bits).end()
        self._told = True
        if end > max(start, self.remote_length):
            self.remote_length = end
            events.append(RemoteHave(end))
        if not self._download:
            return
        if have.bitfield is None:
            self._wanted.add(max(start, self._log.contiguous), end)
        else:
            self._wanted.merge(bits.rstrip(b"\x00"), start)
            self._wanted.discard(0, self._log.contiguous)
        for each in self._requested:
            if start <= each < end:
                self._wanted.discard(each, each + 1)

    def _on_data(self, data: Data, events: list[Event]) -> None:
        if data.index not in self._requested:
            return  # It crossed our Cancel; stored or not, nothing depends on it.
        if data.value is None or data.signature is None:
            raise ProtocolError("A block came without its data or signature.", index=data.index)
        self._requested.discard(data.index)
        if self._log.put_proof(data.index, data.value, data.nodes, data.signature):
            events.append(Downloaded(data.index))

    # --- What goes out ------------------------------------------------------------------------------------------------

    def _evaluate(self) -> None:
        if self._want_due:
            self._want_due = False
            self._send(Want(0, FEED_WANT_BLOCKS))
        if self._answer_due and self._remote_want is not None:
            self._answer_due = False
            self._send_have(self._remote_want)
        while self._news:
            start, end = self._news.popleft()
            if self._upload:
                self._send(Have(start, end - start if end - start > 1 else None))
        for index in self._cancelled:
            self._send(Cancel(index))
        self._cancelled.clear()
        self._send_requests()
        while self._uploads and len(self._out) < FEED_SEND_BYTES:
            index = next(iter(self._uploads))
            del self._uploads[index]
            self._send_block(index)

    def _send_requests(self) -> None:
        while len(self._requested) < FEED_REQUESTS_MAX and (index := self._wanted.first()) is not None:
            self._wanted.discard(index, index + 1)
            if not self._log.has(index):
                self._requested.add(index)
                self._send(Request(index))

    def _send_block(self, index: int) -> None:
        proof = self._log.proof(index)
        if proof is None:
            self._send(Unhave(index, 1))
        else:
            self._send(Data(index, proof.data, proof.nodes, proof.signature))

    def _send_have(self, want: Want) -> None:
        """Answer a Want as 0.8.3 does: the last block, so that the length is known, then all blocks as a bitfield."""
        log = self._log
        ours = Bitfield()
        ours.add(0, log.contiguous)
        for index in range(log.contiguous, log.length):  # Empty unless blocks came out of order.
            if log.has(index):
                ours.add(index, index + 1)
        if end := ours.end():
            self._send(Have(end - 1))
        length = FEED_WANT_BLOCKS if want.length is None else want.length
        bits = bytes(ours)[want.start // 8 : (want.start + length) // 8]
        self._send(Have(want.start, length, encode_runs(bits)))

    def _send(self, message: Message) -> None:
        self._out += encode_frame(message)

    # --- State --------------------------------------------------------------------------------------------------------

    def _move(self, event: str) -> None:
        self.state = TRANSITIONS[self.state, event]

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def __repr__(self) -> str:
        progress = f"{self._log.contiguous}/{self.remote_length}"
        return f"<Replication {self._log.key.truncate()} {self.state.value} {progress}>"


def _check_range(start: int, length: int | None) -> tuple[int, int]:
    """Return start and end of a range of blocks; a missing length is 1, and what is beyond the longest feed is cut."""
    if start >= FEED_BLOCKS_MAX:
        raise LimitError("A block is too far.", index=start, index_max=FEED_BLOCKS_MAX - 1)
    return start, min(start + (1 if length is None else length), FEED_BLOCKS_MAX)
