"""Peers that replicate over lists, for the tests of `dxos.echo`: a source in memory and a wire between two sessions."""

from collections import deque
from collections.abc import Iterator, Mapping

from dxos.echo.document import Document, Heads
from dxos.echo.layout import ObjectStructure, make_object_document, make_root, materialize
from dxos.echo.repo import DocumentEntry, Event, RepoSession, SharedSpace
from dxos.echo.rows import ObjectRow
from dxos.errors import CorruptionError
from dxos.keys import PublicKey
from dxos.keys.ids import document_id, make_object_id, space_id

SPACE_KEY = PublicKey(b"\4" + bytes(range(64)))
OTHER_KEY = PublicKey(b"\4" + bytes(64))
SPACE, OTHER = space_id(SPACE_KEY), space_id(OTHER_KEY)


def make_document_id(number: int) -> str:
    """A valid document id."""
    return document_id(number.to_bytes(6, "big") + b"\x40\0\x80" + bytes(7))


def object_id(number: int) -> str:
    """A valid object id."""
    return make_object_id(number, bytes(10))


class MemorySource:
    """Documents in a dict."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[str, bytes]] = {}
        self.index: dict[str, DocumentEntry] = {}
        self.cache: dict[str, Document] = {}
        self.loads = 0
        self.damaged: set[str] = set()
        self.given_up: dict[str, Heads] = {}
        self.sessions: list[RepoSession] = []

    def add(self, id_: str, document: Document, space: str = SPACE) -> None:
        self._keep(id_, space, document)
        for session in self.sessions:
            session.documents_added([id_])

    def changed(self, id_: str) -> None:
        self._keep(id_, self.index[id_].space_id, self.cache[id_])
        for session in self.sessions:
            session.document_changed(id_)

    def _keep(self, id_: str, space: str, document: Document) -> None:
        self.held[id_] = space, document.save()
        self.index[id_] = DocumentEntry(space, document.heads)
        self.cache[id_] = document

    def forget_cache(self) -> None:
        self.cache.clear()

    def rows(self) -> dict[str, list[ObjectRow]]:
        return {id_: materialize(self.load(id_)) for id_ in sorted(self.index)}

    # What a session asks for.

    def entry(self, document_id: str) -> DocumentEntry | None:
        return self.index.get(document_id)

    def documents(self, space_id: str) -> Mapping[str, Heads]:
        return dict(self.each_heads(space_id))

    def each_heads(self, space_id: str) -> Iterator[tuple[str, Heads]]:
        return ((id_, entry.heads) for id_, entry in tuple(self.index.items()) if entry.space_id == space_id)

    def reclaimed(self, document_id: str) -> Heads | None:
        return self.given_up.get(document_id)

    def unknown(self, theirs: Mapping[str, Heads]) -> list[str]:
        return [one for one, heads in theirs.items() if one not in self.index and self.given_up.get(one) != heads]

    def is_loaded(self, document_id: str) -> bool:
        return document_id in self.cache

    def load(self, document_id: str) -> Document:
        if document_id in self.damaged:
            raise CorruptionError("damaged")
        if document_id not in self.cache:
            self.loads += 1
            self.cache[document_id] = Document.load(self.held[document_id][1])
        return self.cache[document_id]

    def received(self, document_id: str, space_id: str, document: Document, before: Heads) -> None:
        # Only what changed is kept, as a store does it, so that a wrong `before` shows.
        old = self.held[document_id][1] if before else b""
        joined = Document.load(old + b"".join(document.changes_since(before)))
        assert joined.heads == document.heads
        self._keep(document_id, space_id, document)
        self.held[document_id] = space_id, joined.save()
        for session in self.sessions:
            session.document_changed(document_id)

    def discard(self, document_id: str) -> None:
        self.cache.pop(document_id, None)


class Wire:
    """Two sessions and the messages under way between them."""

    def __init__(
        self,
        one: MemorySource,
        other: MemorySource,
        *,
        spaces: tuple[SharedSpace, ...] = (SharedSpace(SPACE, SPACE_KEY),),
        other_spaces: tuple[SharedSpace, ...] | None = None,
    ) -> None:
        self.sources = one, other
        self.sessions = (
            RepoSession(own_id="host-one", peer_id="host-other", source=one),
            RepoSession(own_id="host-other", peer_id="host-one", source=other),
        )
        self.queues: tuple[deque[bytes], deque[bytes]] = (deque(), deque())  # To one, to the other.
        self.events: tuple[list[Event], list[Event]] = ([], [])
        self.count = 0
        self.size = 0
        self.now = 0.0
        for source, session, shared in zip(self.sources, self.sessions, (spaces, other_spaces or spaces), strict=True):
            source.sessions.append(session)
            for space in shared:
                session.share(space, now=self.now)

    def send(self, side: int) -> None:
        """Put what a side has to say on the wire."""
        session = self.sessions[side]
        while (batch := session.evaluate(now=self.now)) or session.has_more:
            self.queues[1 - side].extend(batch)
            self.count += len(batch)
            self.size += sum(map(len, batch))
        self.events[side].extend(session.take_events())

    def deliver(self, side: int) -> None:
        """Give a side the next message for it, if there is one."""
        if self.queues[side]:
            self.events[side].extend(self.sessions[side].receive(self.queues[side].popleft(), now=self.now))

    def settle(self, *, rounds_max: int = 100_000) -> None:
        """Deliver until nothing is said any more."""
        for _ in range(rounds_max):
            for side in (0, 1):
                self.send(side)
            if not any(self.queues):
                return
            for side in (0, 1):
                self.deliver(side)
        raise AssertionError("the two never stop talking")

    def close(self) -> None:
        for source, session in zip(self.sources, self.sessions, strict=True):
            source.sessions.remove(session)


def fill(source: MemorySource, count: int, *, first: int = 1, key: PublicKey = SPACE_KEY, space: str = SPACE) -> None:
    """Add documents of one small object each."""
    for number in range(first, first + count):
        data = {"title": f"Milk {number}", "done": False, "tags": ["dairy"], "shop": {"aisle": 3}}
        source.add(make_document_id(number), make_object_document(key, object_id(number), ObjectStructure(data)), space)


def make_root_in(source: MemorySource, number: int = 0) -> str:
    """Add a root document and return its id."""
    root = Document.create()
    make_root(SPACE_KEY, root)
    source.add(make_document_id(number), root)
    return make_document_id(number)
