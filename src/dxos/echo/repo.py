"""Replicate the documents of shared spaces with one peer: automerge-repo's protocol and ECHO's collections.

    connected ─▶ collection-query ─▶ collection-state ─▶ for each document that differs: sync … sync

The driver calls an input (`receive`, `document_changed`, …), then `evaluate` until it returns nothing and `has_more` is
false, and sends what it returns. Inputs only change state; `evaluate` alone decides what to say. Lists of a space's
documents are made and compared in pieces, one for each call, so that no call takes long.

1. Nothing of a document that no shared space holds is said to the peer, not even that it exists.
2. A document is written under the space that it names in its access map, and never moves to another.
3. What a peer without the right to write changes stays in a copy of its own, which ends with the connection.
4. A document that the peer is known to lack, or to have as we had it, travels in one message and is answered by one.
5. A peer of 0.8.3 that goes over to a new root gets documents that it lacks afterwards: `dxos.echo.crossing`.
6. Once both sides told each other the same heads, nothing is sent, and no state is kept but those heads.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol, final

from msgspec import Struct, field

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
    SYNC_DECLINED_S,
    SYNC_LOOKS_MAX,
    SYNC_PENDING_DOCUMENTS_MAX,
    SYNC_REFUSED_DOCUMENTS_MAX,
    SYNC_RETRY_S,
)


@final
class DocumentEntry(Struct, frozen=True):
    """What an index knows of a document without loading it."""

    space_id: str
    heads: Heads


class DocumentSource(Protocol):
    """The documents of this peer."""

    def entry(self, document_id: str) -> DocumentEntry | None:
        """The index's entry, or None where there is no such document."""

    def each_heads(self, space_id: str) -> Iterator[tuple[str, Heads]]:
        """Every document of a space with its heads; what changes before the last is asked for may be told or not."""

    def reclaimed(self, document_id: str) -> Heads | None:
        """The heads that a document had when it was given up, at which it is not wanted back; None where it was not."""

    def unknown(self, theirs: Mapping[str, Heads]) -> list[str]:
        """Those documents that are neither here nor were given up as a peer has them, with heads."""

    def is_loaded(self, document_id: str) -> bool:
        """Whether `load` takes no time."""

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
class SharedSpace(Struct, frozen=True):
    """A space that this peer and the remote one are members of."""

    space_id: str
    space_key: PublicKey
    root_document_id: str | None = None  # None while unknown; the peer may tell.
    remote_may_write: bool = True  # False for a READER.
    earlier_root_ids: tuple[str, ...] = ()  # Of epochs before the present one.


@final
class DocumentReceived(Struct, frozen=True):
    """The peer's changes were handed to the source."""

    document_id: str
    space_id: str
    new: bool  # The document was not there before.


@final
class DocumentUnavailable(Struct, frozen=True):
    """The peer does not have, or does not share, a document that we asked for."""

    document_id: str


@final
class DocumentRefused(Struct, frozen=True):
    """The peer asked for, or sent, a document that belongs to no shared space."""

    document_id: str


@final
class WriteRefused(Struct, frozen=True):
    """The peer sent changes without the right to write."""

    document_id: str
    space_id: str


@final
class DocumentFailed(Struct, frozen=True):
    """A document of ours cannot be used: its bytes are damaged."""

    document_id: str


@final
class RootAnnounced(Struct, frozen=True):
    """The peer names the root document of a space whose root we do not know; a claim, not a proof."""

    space_id: str
    document_id: str


@final
class CollectionCompared(Struct, frozen=True):
    """The peer's list of a space's documents arrived."""

    space_id: str
    different: int  # Documents that one side lacks or that differ.
    missing: tuple[str, ...] = ()  # Those of them that are not here yet.


_ENDED: Final = object()
Event = (
    DocumentReceived
    | DocumentUnavailable
    | DocumentRefused
    | WriteRefused
    | DocumentFailed
    | RootAnnounced
    | CollectionCompared
)


class _Copy(Struct):
    """What is known of the peer's copy of one document."""

    space_id: str | None = None  # Of our document, once that was looked at.
    remote: Heads | None = None  # As the peer told, or as we know since both agreed; None: unknown.
    remote_known: bool = False  # Those heads are of our document as it is or once was.
    told: Heads | None = None  # Our heads as last told to the peer.
    state: SyncState | None = None  # While the two are being made equal.
    since: float = 0.0  # When that began.
    pending: Document | None = None  # A document that the peer sends and the source does not have yet.
    refused: Document | None = None  # Our document with what the peer changed without the right to.
    declined: Heads | None = None  # Our heads when the peer last would not have our document.


class _List(Struct):
    """The answer to a query for a collection, while it is being made."""

    collection: Collection
    rest: Iterator[tuple[str, Heads]]  # Those of our documents that are not in it yet.
    documents: dict[str, Heads] = field(default_factory=dict)


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
        self._roots: set[str] = set()  # Of the shared spaces, earlier ones too.
        self._looks_left = SYNC_LOOKS_MAX  # Documents that may still be looked at in this turn.
        self._crossings = Crossings()
        self._waiting: dict[str, dict[str, None]] = {}  # Documents due once the peer is at the root, by space.
        self._gone: dict[str, None] = {}  # Documents given up while the peer waits for what we say of them.
        self._answers: deque[Unavailable | CollectionQuery | Collection] = deque()
        self._list: _List | None = None  # The answer that is being made.
        self._comparisons: dict[str, Iterator[None]] = {}  # The peer's latest lists, by space, until they are compared.
        self._heard: set[str] = set()  # Documents of which the peer spoke since: of them those lists are old.
        self._wanted: dict[str, None] = {}  # Documents that the peer has and should send by itself.
        self._compared: set[str] = set()  # Spaces of which the peer has told what it has.
        self._declined: set[str] = set()  # Spaces of which the peer would not have a document: not yet, it seems.
        self._listed: set[str] = set()  # Spaces of which the peer has listed documents: it does share those.
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
        """Whether the peer has told what it has, there is nothing left to send, and nothing is awaited."""
        if self._declined or len(self._compared) < len(self._spaces):
            return False
        return not (self.has_more or self._wanted or self._syncing or self._waiting)

    @property
    def has_more(self) -> bool:
        """Whether `evaluate` is to be called again at once, though it returned nothing."""
        return bool(self._due or self._gone or self._answers or self._list or self._comparisons)

    def share(self, space: SharedSpace, *, now: float) -> None:
        """Share a space, or change how it is shared; the peer is asked for its documents at once."""
        self._spaces[space.space_id] = space
        self._query_at[space.space_id] = now
        self._note_roots()

    def unshare(self, space_id: str) -> None:
        """Share a space no longer; messages about its documents are refused from now on."""
        self._spaces.pop(space_id, None)
        self._query_at.pop(space_id, None)
        self._note_roots()
        self._crossings.forget(space_id)
        self._waiting.pop(space_id, None)
        self._comparisons.pop(space_id, None)
        self._compared.discard(space_id)
        self._declined.discard(space_id)
        self._listed.discard(space_id)
        for document_id in [one for one, copy in self._copies.items() if copy.space_id == space_id]:
            self._forget(document_id)

    def _note_roots(self) -> None:
        roots = ((space.root_document_id, *space.earlier_root_ids) for space in self._spaces.values())
        self._roots = {one for ids in roots for one in ids if one is not None}

    def document_changed(self, document_id: str) -> None:
        """A document of ours has new heads, whoever changed it."""
        self._due[document_id] = None

    def documents_added(self, document_ids: Iterable[str]) -> None:
        """Documents were made here, so that the peer cannot have them."""
        for document_id in document_ids:
            copy = self._copy(document_id)
            copy.remote = () if copy.remote is None else copy.remote
            self._due[document_id] = None

    def documents_given_up(self, document_ids: Iterable[str]) -> None:
        """Documents of ours are no more, and nothing is expected of them."""
        for document_id in document_ids:
            copy = self._copies.get(document_id)
            if copy is not None and (copy.state is not None or document_id in self._due):
                self._gone[document_id] = None
            self._forget(document_id)

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
        """What to send now, about that many bytes; call again, after sending it, until it is empty.

        Raises:
            LimitError: The peer lists more than is allowed; close the connection.
        """
        self._evaluate_timers(now)
        self._compare_more()
        out: list[bytes] = []
        size = 0
        self._looks_left = SYNC_LOOKS_MAX
        while size < batch_bytes:
            if out and self._is_root_next():
                break  # A message of a large root takes a turn of its own.
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
        if self._list is None and self._answers:
            answer = self._answers.popleft()
            if not isinstance(answer, Collection):
                return answer
            shared = answer.space_id in self._spaces
            self._list = _List(answer, self._source.each_heads(answer.space_id) if shared else iter(()))
        if self._list is not None:
            return self._list_more(self._list)
        if self._gone:
            gone, _ = self._gone.popitem()
            return Unavailable(gone)
        while self._due and self._looks_left > 0:
            document_id = next(iter(self._due))
            if document_id in self._roots and self._load_first(document_id):
                return None
            del self._due[document_id]
            self._looks_left -= 1
            message = self._say(document_id, now)
            if message is not None:
                return message
        return None

    def _is_root_next(self) -> bool:
        return next(iter(self._due), None) in self._roots

    def _load_first(self, root_id: str) -> bool:
        """Load a root that is to be said, which takes long if it is large; whether that was to be done."""
        if self._source.is_loaded(root_id) or not self._has(root_id):
            return False
        with contextlib.suppress(CorruptionError):  # Said of it when it is used.
            self._source.load(root_id)
        return self._source.is_loaded(root_id)

    def _list_more(self, made: _List) -> CollectionState | None:
        """Add to the list of our documents; the list once it is whole."""
        size = len(made.documents)
        made.documents.update(itertools.islice(made.rest, self._looks_left))
        self._looks_left -= len(made.documents) - size
        if self._looks_left <= 0:
            return None
        self._list = None
        return CollectionState(made.collection, made.documents if made.collection.space_id in self._spaces else {})

    def _say(self, document_id: str, now: float) -> Sync | None:
        """What there is to say about one document, or None."""
        entry = self._source.entry(document_id)
        if entry is None:
            return self._request(document_id, now)
        if entry.space_id not in self._spaces:
            return None
        copy = self._copy(document_id, entry.space_id)
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
                self._receive_unavailable(document_id, now)
            case CollectionQuery(collection):
                self._hear_of(collection)
                if collection.space_id in self._spaces:
                    self._crossings.hear_query(collection)
                if collection.space_id in self._declined:  # The peer may have come to share the space just now.
                    self._query_at[collection.space_id] = now
                if collection not in self._answers:
                    self._answer(collection)
            case CollectionState(collection, documents):
                self._hear_of(collection)
                self._begin_comparison(collection.space_id, documents, now)
            case Ignored():
                pass

    def _receive_unavailable(self, document_id: str, now: float) -> None:
        copy = self._copies.get(document_id)
        if copy is None:
            return
        entry = self._source.entry(document_id)
        if entry is None:
            self._forget(document_id)
            self._events.append(DocumentUnavailable(document_id))
            return
        self._settle(document_id, copy)  # The next comparison of the collections tries again.
        # The peer had it as it is, or a list had it offered anew: it was given up there, and nothing comes of waiting.
        is_final = copy.remote == entry.heads or (copy.declined == entry.heads and entry.space_id in self._listed)
        copy.declined = entry.heads
        if is_final:
            return
        if entry.space_id in self._spaces and entry.space_id not in self._declined:
            # It does not share the space yet, or has given the document up, as this peer may do soon.
            self._declined.add(entry.space_id)
            self._query_at[entry.space_id] = min(self._query_at[entry.space_id], now + SYNC_DECLINED_S)

    def _hear_of(self, collection: Collection) -> None:
        space, root_id = self._spaces.get(collection.space_id), collection.root_document_id
        if space is not None and root_id is not None and space.root_document_id is None:
            self._events.append(RootAnnounced(space.space_id, root_id))

    def _begin_comparison(self, space_id: str, theirs: Mapping[str, Heads], now: float) -> None:
        if space_id not in self._spaces:
            return
        if not self._comparisons:
            self._heard.clear()
        self._declined.discard(space_id)
        if theirs:
            self._listed.add(space_id)
        # A newer list takes the place of an older one.
        self._comparisons[space_id] = self._compare(space_id, theirs, now)
        if len(self._comparisons) == 1:
            self._compare_more()

    def _compare_more(self) -> None:
        space_id = next(iter(self._comparisons), None)
        if space_id is not None and next(self._comparisons[space_id], _ENDED) is _ENDED:
            del self._comparisons[space_id]

    def _compare(self, space_id: str, theirs: Mapping[str, Heads], now: float) -> Iterator[None]:
        """Find out what differs, a piece of the two lists at a time."""
        different, only_theirs = 0, dict(theirs)
        ours = self._source.each_heads(space_id)
        while piece := [*itertools.islice(ours, SYNC_LOOKS_MAX)]:
            for document_id, heads in piece:
                different += self._compare_one(document_id, space_id, heads, only_theirs.pop(document_id, ()), now)
            if len(piece) == SYNC_LOOKS_MAX:
                yield
        missing: list[str] = []
        announced = ((one, heads) for one, heads in only_theirs.items() if heads)
        while wanted := dict(itertools.islice(announced, SYNC_LOOKS_MAX)):
            unknown = self._source.unknown(wanted)
            for document_id in unknown:
                self._want(document_id, now)
            missing += unknown
            if len(wanted) == SYNC_LOOKS_MAX:
                yield
        self._compared.add(space_id)
        self._events.append(CollectionCompared(space_id, different + len(missing), tuple(missing)))

    def _compare_one(self, document_id: str, space_id: str, heads: Heads, remote: Heads, now: float) -> bool:
        """Take note of what a list says of a document of ours; whether it differs."""
        copy = self._copies.get(document_id)
        is_under_way = copy is not None and copy.state is not None and now < copy.since + COLLECTION_QUERY_S
        if is_under_way or document_id in self._heard:
            return True  # The list is older.
        copy = copy or self._copy(document_id)
        if copy.refused is not None:
            return False  # The two never become equal.
        self._settle(document_id, copy)
        copy.space_id, copy.remote, copy.remote_known = space_id, remote, remote == heads
        if remote == heads:
            return False
        self._due[document_id] = None
        return True

    def _has(self, document_id: str) -> bool:
        return self._source.entry(document_id) is not None

    def _receive_sync(self, message: Sync, now: float) -> None:
        header = sync_message.parse(message.data)
        document_id = message.document_id
        if self._comparisons:
            self._heard.add(document_id)
        entry = self._source.entry(document_id)
        if entry is None:
            self._receive_unknown(message, header, now)
        elif entry.space_id not in self._spaces:
            self._refuse(document_id)
        else:
            copy = self._copy(document_id, entry.space_id)
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
            copy.space_id = space.space_id
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

    def _copy(self, document_id: str, space_id: str | None = None) -> _Copy:
        copy = self._copies.get(document_id)
        if copy is None:
            copy = self._copies[document_id] = _Copy()
        copy.space_id = space_id or copy.space_id
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
