"""Replicate the documents of shared spaces with one peer: automerge-repo's protocol and ECHO's collections.

    connected ─▶ collection-query ─▶ collection-state ─▶ for each document that differs: sync … sync

The driver calls an input (`receive`, `document_changed`, …), then `evaluate` until it returns nothing, and sends what
it returns. Inputs only change state; `evaluate` alone decides what to say.

1. Nothing of a document that no shared space holds is said to the peer, not even that it exists.
2. A document is written under the space that it names in its access map, and never moves to another.
3. What a peer without the right to write changes stays in a copy of its own, which ends with the connection.
4. A document that the peer is known to lack, or to have as we had it, travels in one message and is answered by one.
5. A peer of 0.8.3 that goes over to a new root gets documents that it lacks afterwards: `dxos.echo.crossing`.
6. Once both sides told each other the same heads, nothing is sent, and no state is kept but those heads.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, final

from dxos.echo import messages, sync_message
from dxos.echo.crossing import Crossings
from dxos.echo.document import Document, Heads, SyncState
from dxos.echo.layout import space_key_of
from dxos.echo.messages import Collection, CollectionQuery, CollectionState, Ignored, Message, Sync, Unavailable
from dxos.errors import CorruptionError, DecodeError, LimitError, ProtocolError
from dxos.keys import PublicKey
from dxos.limits import (
    COLLECTION_QUERY_S,
    DOCUMENTS_PER_SPACE_MAX,
    SYNC_ANSWERS_MAX,
    SYNC_BATCH_BYTES,
    SYNC_PENDING_DOCUMENTS_MAX,
    SYNC_REFUSED_DOCUMENTS_MAX,
    SYNC_RETRY_S,
)


@final
@dataclass(frozen=True, slots=True)
class DocumentEntry:
    """What an index knows of a document without loading it."""

    space_id: str
    heads: Heads


class DocumentSource(Protocol):
    """The documents of this peer."""

    def entry(self, document_id: str) -> DocumentEntry | None:
        """The index's entry, or None where there is no such document."""

    def documents(self, space_id: str) -> Mapping[str, Heads]:
        """The heads of every document of a space."""

    def reclaimed(self, document_id: str) -> Heads | None:
        """The heads that a document had when it was given up, at which it is not wanted back; None where it was not."""

    def unknown(self, theirs: Mapping[str, Heads]) -> list[str]:
        """Those documents that are neither here nor were given up as a peer has them, with heads."""

    def load(self, document_id: str) -> Document:
        """The document, for reading and for receiving changes.

        Raises:
            CorruptionError: Its bytes are damaged.
        """

    def received(self, document_id: str, space_id: str, document: Document, before: Heads) -> None:
        """Keep what a peer changed: all that `document` has since `before`, which is empty for a new document."""

    def discard(self, document_id: str) -> None:
        """Forget the loaded document: what it holds was refused, or it is poisoned."""


@final
@dataclass(frozen=True, slots=True)
class SharedSpace:
    """A space that this peer and the remote one are members of."""

    space_id: str
    space_key: PublicKey
    root_document_id: str | None = None  # None while unknown; the peer may tell.
    remote_may_write: bool = True  # False for a READER.
    earlier_root_ids: tuple[str, ...] = ()  # Of epochs before the present one.


@final
@dataclass(frozen=True, slots=True)
class DocumentReceived:
    """The peer's changes were handed to the source."""

    document_id: str
    space_id: str
    new: bool  # The document was not there before.


@final
@dataclass(frozen=True, slots=True)
class DocumentUnavailable:
    """The peer does not have, or does not share, a document that we asked for."""

    document_id: str


@final
@dataclass(frozen=True, slots=True)
class DocumentRefused:
    """The peer asked for, or sent, a document that belongs to no shared space."""

    document_id: str


@final
@dataclass(frozen=True, slots=True)
class WriteRefused:
    """The peer sent changes without the right to write."""

    document_id: str
    space_id: str


@final
@dataclass(frozen=True, slots=True)
class DocumentFailed:
    """A document of ours cannot be used: its bytes are damaged."""

    document_id: str


@final
@dataclass(frozen=True, slots=True)
class RootAnnounced:
    """The peer names the root document of a space whose root we do not know; a claim, not a proof."""

    space_id: str
    document_id: str


@final
@dataclass(frozen=True, slots=True)
class CollectionCompared:
    """The peer's list of a space's documents arrived."""

    space_id: str
    different: int  # Documents that one side lacks or that differ.
    missing: tuple[str, ...] = ()  # Those of them that are not here yet.


Event = (
    DocumentReceived
    | DocumentUnavailable
    | DocumentRefused
    | WriteRefused
    | DocumentFailed
    | RootAnnounced
    | CollectionCompared
)


@dataclass(slots=True)
class _Copy:
    """What is known of the peer's copy of one document."""

    remote: Heads | None = None  # As the peer told, or as we know since both agreed; None: unknown.
    remote_known: bool = False  # Those heads are of our document as it is or once was.
    told: Heads | None = None  # Our heads as last told to the peer.
    state: SyncState | None = None  # While the two are being made equal.
    since: float = 0.0  # When that began.
    pending: Document | None = None  # A document that the peer sends and the source does not have yet.
    refused: Document | None = None  # Our document with what the peer changed without the right to.


@final
class RepoSession:
    """One connection to one peer; see the module.

    Args:
        own_id: Our automerge-repo peer id.
        peer_id: The remote one, as it announced.
        source: Our documents.
    """

    def __init__(self, *, own_id: str, peer_id: str, source: DocumentSource) -> None:
        self._own_id, self._peer_id, self._source = own_id, peer_id, source
        self._spaces: dict[str, SharedSpace] = {}
        self._query_at: dict[str, float] = {}
        self._copies: dict[str, _Copy] = {}
        self._syncing: dict[str, None] = {}  # Documents that are being made equal: those whose copy has a state.
        self._due: dict[str, None] = {}  # Documents to say something about, in order.
        self._crossings = Crossings()
        self._waiting: dict[str, dict[str, None]] = {}  # Documents due once the peer is at the root, by space.
        self._answers: deque[Unavailable | CollectionQuery | Collection] = deque()
        self._wanted: dict[str, None] = {}  # Documents that the peer has and should send by itself.
        self._progress_at = 0.0
        self._pending_count = self._refused_count = 0
        self._events: list[Event] = []

    @property
    def wake_at(self) -> float | None:
        """When `evaluate` has something to say though no input came; None: never."""
        times = list(self._query_at.values())
        if self._wanted:
            times.append(self._progress_at + SYNC_RETRY_S)
        times += [self._crossings.free_at(space_id) for space_id in self._waiting]
        return min(times, default=None)

    @property
    def in_sync(self) -> bool:
        """Whether there is nothing left to send and nothing is awaited."""
        return not (self._due or self._answers or self._wanted or self._syncing or self._waiting)

    def share(self, space: SharedSpace, *, now: float) -> None:
        """Share a space, or change how it is shared; the peer is asked for its documents at once."""
        self._spaces[space.space_id] = space
        self._query_at[space.space_id] = now

    def unshare(self, space_id: str) -> None:
        """Share a space no longer; messages about its documents are refused from now on."""
        self._spaces.pop(space_id, None)
        self._query_at.pop(space_id, None)
        self._crossings.forget(space_id)
        self._waiting.pop(space_id, None)
        for document_id in [*self._copies]:
            entry = self._source.entry(document_id)
            if entry is not None and entry.space_id == space_id:
                self._forget(document_id)

    def document_changed(self, document_id: str) -> None:
        """A document of ours has new heads, whoever changed it."""
        self._due[document_id] = None

    def documents_added(self, document_ids: Iterable[str]) -> None:
        """Documents were made here, so that the peer cannot have them."""
        for document_id in document_ids:
            copy = self._copy(document_id)
            copy.remote = () if copy.remote is None else copy.remote
            self._due[document_id] = None

    def find(self, document_id: str) -> None:
        """Ask the peer for a document that we lack; its answer is DocumentReceived or DocumentUnavailable."""
        self._due[document_id] = None

    def receive(self, untrusted: bytes, *, now: float) -> list[Event]:
        """Take in one message.

        Raises:
            DecodeError: It does not parse; close the connection.
            LimitError: It is more than is allowed; close the connection.
            ProtocolError: The peer moves a document between spaces; close the connection.
        """
        return self.take_in(messages.decode(untrusted), now=now)

    def take_in(self, message: Message, *, now: float) -> list[Event]:
        """The same for a message that was decoded elsewhere, because it is long.

        Raises:
            PeerError: As `receive`.
        """
        self._handle(message, now)
        events, self._events = self._events, []
        return events

    def evaluate(self, *, now: float, batch_bytes: int = SYNC_BATCH_BYTES) -> list[bytes]:
        """What to send now, about that many bytes; call again, after sending it, until it is empty."""
        self._evaluate_timers(now)
        out: list[bytes] = []
        size = 0
        while size < batch_bytes:
            message = self._next_message(now)
            if message is None:
                break
            out.append(messages.encode(message, sender=self._own_id, target=self._peer_id))
            size += len(out[-1])
        return out

    def take_events(self) -> list[Event]:
        """What `evaluate` found out since the last call; `receive` returns its own."""
        events, self._events = self._events, []
        return events

    def _evaluate_timers(self, now: float) -> None:
        for space_id, query_at in self._query_at.items():
            if now >= query_at:
                root_id = self._spaces[space_id].root_document_id
                self._answers.append(CollectionQuery(Collection(space_id, root_id)))
                self._query_at[space_id] = now + COLLECTION_QUERY_S
        for space in self._spaces.values():
            is_first = not space.earlier_root_ids
            self._crossings.evaluate(space.space_id, space.root_document_id, self._has, now, is_first=is_first)
        for space_id in [one for one in self._waiting if now >= self._crossings.free_at(one)]:
            self._due |= self._waiting.pop(space_id)
        if self._wanted and now >= self._progress_at + SYNC_RETRY_S:
            # The peer heard that we lack these and did not send them: ask for each.
            room = SYNC_PENDING_DOCUMENTS_MAX - self._pending_count
            for document_id in [*itertools.islice(self._wanted, room)]:
                del self._wanted[document_id]
                self._due[document_id] = None
            self._progress_at = now

    def _next_message(self, now: float) -> Sync | Unavailable | CollectionQuery | CollectionState | None:
        if self._answers:
            answer = self._answers.popleft()
            return self._state_of(answer) if isinstance(answer, Collection) else answer
        while self._due:
            document_id = next(iter(self._due))
            del self._due[document_id]
            message = self._say(document_id, now)
            if message is not None:
                return message
        return None

    def _state_of(self, collection: Collection) -> CollectionState:
        shared = collection.space_id in self._spaces
        return CollectionState(collection, self._source.documents(collection.space_id) if shared else {})

    def _say(self, document_id: str, now: float) -> Sync | None:
        """What there is to say about one document, or None."""
        entry = self._source.entry(document_id)
        if entry is None:
            return self._request(document_id, now)
        if entry.space_id not in self._spaces:
            return None
        copy = self._copy(document_id)
        if not copy.remote and self._must_wait(document_id, entry.space_id, now):
            self._waiting.setdefault(entry.space_id, {})[document_id] = None
            return None
        if copy.pending is not None:
            # Another peer was faster; what this one sent so far is not needed.
            self._unpend(copy)
            self._settle(document_id, copy)
        if copy.state is None and copy.refused is None and copy.remote == entry.heads:
            return self._tell_position(document_id, copy, entry.heads)
        try:
            document = self._source.load(document_id)
            if copy.refused is not None:
                copy.refused.merge(document)
                document = copy.refused
            return self._sync(document_id, copy, document, now)
        except CorruptionError:
            self._fail(document_id)
            return None

    def _must_wait(self, document_id: str, space_id: str, now: float) -> bool:
        """Whether a document that the peer lacks is not for it yet."""
        space = self._spaces[space_id]
        is_root = document_id == space.root_document_id or document_id in space.earlier_root_ids
        return not is_root and now < self._crossings.free_at(space_id)

    def _sync(self, document_id: str, copy: _Copy, document: Document, now: float) -> Sync | None:
        heads = document.heads
        fresh = copy.state is None
        state = self._begin(document_id, copy, now)
        # Unless the peer told heads that we may not have, we know what it lacks.
        if fresh and copy.remote is not None and (copy.remote_known or not copy.remote):
            document.assume_peer_has(state, copy.remote)
        data = document.generate_sync_message(state)
        if copy.remote == heads:
            self._settle(document_id, copy)
        if data is None:
            return None
        copy.told = heads
        return Sync(document_id, data)

    def _tell_position(self, document_id: str, copy: _Copy, heads: Heads) -> Sync | None:
        """Tell a peer that has what we have that we have it, unless it knows; needs no document."""
        if copy.told == heads:
            return None
        copy.told = heads
        return Sync(document_id, sync_message.encode_position(heads))

    def _request(self, document_id: str, now: float) -> Sync | None:
        copy = self._copy(document_id)
        if copy.pending is None and self._pending_count == SYNC_PENDING_DOCUMENTS_MAX:
            self._want(document_id, now)
            return None
        document = self._pend(copy)
        data = document.generate_sync_message(self._begin(document_id, copy, now))
        return None if data is None else Sync(document_id, data, request=not document.heads)

    def _handle(self, message: Message, now: float) -> None:
        match message:
            case Sync():
                self._receive_sync(message, now)
            case Unavailable(document_id):
                self._receive_unavailable(document_id)
            case CollectionQuery(collection):
                self._hear_of(collection)
                if collection.space_id in self._spaces:
                    self._crossings.hear_query(collection)
                if collection not in self._answers:
                    self._answer(collection)
            case CollectionState(collection, documents):
                self._hear_of(collection)
                self._compare(collection, documents, now)
            case Ignored():
                pass

    def _receive_unavailable(self, document_id: str) -> None:
        copy = self._copies.get(document_id)
        if copy is None:
            return
        if self._source.entry(document_id) is None:
            self._forget(document_id)
            self._events.append(DocumentUnavailable(document_id))
        else:
            self._settle(document_id, copy)  # The next comparison of the collections tries again.

    def _hear_of(self, collection: Collection) -> None:
        space, root_id = self._spaces.get(collection.space_id), collection.root_document_id
        if space is not None and root_id is not None and space.root_document_id is None:
            self._events.append(RootAnnounced(space.space_id, root_id))

    def _compare(self, collection: Collection, theirs: Mapping[str, Heads], now: float) -> None:
        if collection.space_id not in self._spaces:
            return
        ours = self._source.documents(collection.space_id)
        different = 0
        for document_id, heads in ours.items():
            remote = theirs.get(document_id, ())
            copy = self._copies.get(document_id)
            if copy is not None and copy.state is not None and now < copy.since + COLLECTION_QUERY_S:
                different += 1
                continue  # The list is older than what is under way.
            copy = copy or self._copy(document_id)
            if copy.refused is not None:
                continue  # The two never become equal.
            self._settle(document_id, copy)
            copy.remote, copy.remote_known = remote, remote == heads
            if remote != heads:
                self._due[document_id] = None
                different += 1
        missing = self._source.unknown({one: heads for one, heads in theirs.items() if heads and one not in ours})
        for document_id in missing:
            self._want(document_id, now)
        self._events.append(CollectionCompared(collection.space_id, different + len(missing), tuple(missing)))

    def _has(self, document_id: str) -> bool:
        return self._source.entry(document_id) is not None

    def _receive_sync(self, message: Sync, now: float) -> None:
        header = sync_message.parse(message.data)
        document_id = message.document_id
        entry = self._source.entry(document_id)
        if entry is None:
            self._receive_unknown(message, header, now)
        elif entry.space_id not in self._spaces:
            self._refuse(document_id)
        else:
            copy = self._copy(document_id)
            settled = header.heads == entry.heads and not header.changes_count and not header.need
            if settled and copy.refused is None:
                self._settle(document_id, copy)
                copy.remote, copy.remote_known = header.heads, True
                self._due[document_id] = None
                return
            try:
                self._receive_known(message, header, entry, copy, now)
            except CorruptionError:
                self._fail(document_id)

    def _receive_known(
        self, message: Sync, header: sync_message.SyncMessage, entry: DocumentEntry, copy: _Copy, now: float
    ) -> None:
        document_id, space = message.document_id, self._spaces[entry.space_id]
        state = self._begin(document_id, copy, now)
        document = self._source.load(document_id)
        self._due[document_id] = None
        copy.remote, copy.remote_known = header.heads, header.heads == entry.heads
        if copy.refused is not None or (header.changes_count and not space.remote_may_write):
            self._receive_refused(message, document, copy, space)
            return
        self._apply(document_id, document, state, message.data)
        if document.heads == entry.heads:
            return
        if space_key_of(document) != space.space_key:
            self._source.discard(document_id)
            raise ProtocolError("A peer moved a document to another space.", document_id=document_id)
        copy.remote_known = header.heads == document.heads
        self._source.received(document_id, space.space_id, document, entry.heads)
        self._arrived(document_id, space.space_id, new=False, now=now)

    def _receive_refused(self, message: Sync, document: Document, copy: _Copy, space: SharedSpace) -> None:
        """Take changes that must not be taken into a copy of the peer's own, so that reading goes on."""
        scratch = copy.refused or document.fork()
        scratch.merge(document)
        before = scratch.heads
        assert copy.state is not None
        scratch.receive_sync_message(copy.state, message.data)
        if scratch.heads == before:
            return
        if copy.refused is None:
            self._refused_count += 1
            if self._refused_count > SYNC_REFUSED_DOCUMENTS_MAX:
                raise LimitError("A reader changed too many documents.", count=self._refused_count)
            copy.refused = scratch
        self._events.append(WriteRefused(message.document_id, space.space_id))

    def _receive_unknown(self, message: Sync, header: sync_message.SyncMessage, now: float) -> None:
        document_id = message.document_id
        if not header.heads:
            self._answer(Unavailable(document_id))  # The peer has nothing of it either.
            return
        if self._source.reclaimed(document_id) == header.heads:
            self._forget(document_id)
            self._answer(Unavailable(document_id))
            return
        if not any(space.remote_may_write for space in self._spaces.values()):
            self._refuse(document_id)
            return
        copy = self._copy(document_id)
        state = self._begin(document_id, copy, now)
        document = self._pend(copy)
        self._apply(document_id, document, state, message.data)
        self._due[document_id] = None
        copy.remote, copy.remote_known = header.heads, header.heads == document.heads
        if not document.heads:
            return  # So far it was announced only; the answer asks for its changes.
        key = space_key_of(document)
        space = next((space for space in self._spaces.values() if space.space_key == key), None)
        if space is None:
            self._refuse(document_id)
        elif not space.remote_may_write:
            self._refuse(document_id, silently=True)
            self._events.append(WriteRefused(document_id, space.space_id))
        else:
            self._unpend(copy)
            self._source.received(document_id, space.space_id, document, ())
            self._arrived(document_id, space.space_id, new=True, now=now)

    def _apply(self, document_id: str, document: Document, state: SyncState, untrusted: bytes) -> None:
        try:
            document.receive_sync_message(state, untrusted)
        except DecodeError:
            self._source.discard(document_id)
            raise

    def _arrived(self, document_id: str, space_id: str, *, new: bool, now: float) -> None:
        self._progress_at = now
        self._wanted.pop(document_id, None)
        self._events.append(DocumentReceived(document_id, space_id, new=new))

    def _refuse(self, document_id: str, *, silently: bool = False) -> None:
        """Say of a document that it is unavailable, whether it does not exist or is not shared."""
        self._forget(document_id)
        self._answer(Unavailable(document_id))
        if not silently:
            self._events.append(DocumentRefused(document_id))

    def _answer(self, answer: Unavailable | Collection) -> None:
        if len(self._answers) >= SYNC_ANSWERS_MAX:
            raise LimitError("A peer asks for more than it reads.", count=len(self._answers))
        self._answers.append(answer)

    def _want(self, document_id: str, now: float) -> None:
        if not self._wanted:
            self._progress_at = now
        if len(self._wanted) >= DOCUMENTS_PER_SPACE_MAX:
            raise LimitError("A peer announced too many documents.", count=len(self._wanted))
        self._wanted[document_id] = None

    def _fail(self, document_id: str) -> None:
        self._source.discard(document_id)
        self._forget(document_id)
        self._events.append(DocumentFailed(document_id))

    def _copy(self, document_id: str) -> _Copy:
        copy = self._copies.get(document_id)
        if copy is None:
            copy = self._copies[document_id] = _Copy()
        return copy

    def _begin(self, document_id: str, copy: _Copy, now: float) -> SyncState:
        """The state of making this document equal, new where nothing is under way."""
        if copy.state is None:
            copy.state, copy.since = SyncState(), now
            self._syncing[document_id] = None
        return copy.state

    def _settle(self, document_id: str, copy: _Copy) -> None:
        """Nothing is under way for this document any more."""
        copy.state = None
        self._syncing.pop(document_id, None)

    def _pend(self, copy: _Copy) -> Document:
        if copy.pending is None:
            self._pending_count += 1
            if self._pending_count > SYNC_PENDING_DOCUMENTS_MAX:
                raise LimitError("A peer announced too many documents.", count=self._pending_count)
            copy.pending = Document.create()
        return copy.pending

    def _unpend(self, copy: _Copy) -> None:
        copy.pending = None
        self._pending_count -= 1

    def _forget(self, document_id: str) -> None:
        copy = self._copies.pop(document_id, None)
        if copy is not None:
            self._pending_count -= copy.pending is not None
            self._refused_count -= copy.refused is not None
        self._due.pop(document_id, None)
        self._wanted.pop(document_id, None)
        self._syncing.pop(document_id, None)

    def __repr__(self) -> str:
        return (
            f"<RepoSession peer={self._peer_id[:13]} spaces={len(self._spaces)} "
            f"due={len(self._due)} wanted={len(self._wanted)}>"
        )
