"""The documents of all spaces of a profile: edited here, received from peers, kept on disk, shown as rows.

Reads come from rows. A document is loaded only to be edited or to sync a difference, and then stays in a bounded cache.
Whatever changes a document, its change chunks, its new heads and the rows of its objects are written in one
transaction, before anybody is told.

Invariants
1. Rows, heads and chunks on disk are of one state of the document.
2. A document in the cache equals the one on disk; where writing fails, it is dropped from the cache.
3. A document belongs to the space whose key it names, for ever: one that names no space known here is not kept.
4. One object is in one document: where two documents claim it, the one that the root links to has it.
5. A damaged row is made anew from its document. A damaged document is set aside, with its rows still readable, until a
   peer sends it again as a whole.
"""

import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar, final

from msgspec import Struct, field
from msgspec.structs import replace

from dxos.aio import Listeners, Pace, Subscription
from dxos.echo import edit, epoch, layout
from dxos.echo.document import Document, Heads
from dxos.echo.history import chunk_key, chunk_time_ms
from dxos.echo.layout import ObjectStructure
from dxos.echo.mutation import Mutation, SetDeleted
from dxos.echo.query import HasType, Query
from dxos.echo.repo import DocumentEntry
from dxos.echo.rows import ObjectRow, Path
from dxos.echo.schema import SCHEMA_TYPE
from dxos.errors import (
    CorruptionError,
    DecodeError,
    InvalidValueError,
    LimitError,
    ObjectNotFoundError,
    ProtocolError,
    SpaceNotFoundError,
)
from dxos.keys import PublicKey
from dxos.keys.ids import document_id, space_id
from dxos.limits import (
    DOCUMENT_BYTES_MAX,
    DOCUMENT_COMPACT_BYTES_MIN,
    DOCUMENTS_CACHED_MAX,
    DOCUMENTS_CHECKED_MAX,
    DOCUMENTS_CONTESTED_MAX,
    DOCUMENTS_PER_SPACE_MAX,
    RECEIPT_AGE_S_MAX,
)
from dxos.spaces.queries import to_condition, to_order
from dxos.store.documents import DocumentStore
from dxos.store.moments import Moment, MomentStore, Standing
from dxos.store.objects import ObjectRecord, ObjectStore, Plan
from dxos.store.profile import Profile
from dxos.store.receipts import ReceiptStore

T = TypeVar("T")
_log = logging.getLogger(__name__)
_UUID_BYTES = 16
_NO_PLACES: Mapping[str, str] = {}
_WHOLE_SPACE = ""  # Among the ids of objects that were made anew.
_IS_PROPERTIES = HasType(layout.PROPERTIES_TYPE.rpartition(":")[0])  # Of any version.


def unix_ms() -> int:
    """Now, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@final
class StoredObject(Struct, frozen=True):
    """One object as it is now."""

    row: ObjectRow
    version: int  # Grows with everything that changes or is read; for telling old news from new.
    heads: Heads  # Of its document.


@final
class ObjectEdit(Struct, frozen=True):
    """One object to create, or to change as it was at `base_heads`."""

    object_id: str
    create: ObjectRow | None = None
    mutations: tuple[Mutation, ...] = ()
    base_heads: Heads = ()


@final
class Reversal(Struct, frozen=True):
    """What edits are for that undo or redo own changes."""

    changes: tuple[Moment, ...]
    standing: Standing  # What becomes of those changes.
    document_id: str | None = None  # Of the one object that was asked for; None where it was the space.


@final
class _Cached(Struct):
    document: Document
    entry: DocumentEntry  # As on the disk; while a change is being made, `document` is ahead of it.


@final
class _SpaceDocuments(Struct):
    """One open space."""

    key: PublicKey
    root_id: str | None = None  # Of the current epoch's root document.
    properties_id: str | None = None  # The object inside the root that names the space.
    documents_count: int | None = None  # Roughly; counted when a peer first sends a new one.
    contested: dict[str, None] = field(default_factory=dict)  # Documents that lost an object to another, for now.


@final
class Documents:
    """Documents, and the rows made of them.

    Args:
        profile: Where they are kept.
        random: Gives that many random bytes.
        now_ms: Unix time in milliseconds.
        versions: Numbers that grow, also over hosts that the same clients outlive.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        random: Callable[[int], bytes],
        now_ms: Callable[[], int] = unix_ms,
        versions: Iterator[int] | None = None,
    ) -> None:
        self._database = profile.database
        self._documents = DocumentStore(profile.database)
        self._objects = ObjectStore(profile.database)
        self._random, self.now_ms = random, now_ms
        self.moments = MomentStore(profile.database)
        self._last_moment_ms = self.moments.last_ms()
        self._cache: OrderedDict[str, _Cached] = OrderedDict()
        self._spaces: dict[str, _SpaceDocuments] = {}
        self._listeners: dict[str, Listeners[tuple[StoredObject, ...]]] = {}  # By space; they outlive its closing.
        self._versions = versions or itertools.count(1)
        self._receipts = ReceiptStore(profile.database)
        self._forget_old_receipts()
        self.changed: Listeners[tuple[str, ...]] = Listeners()  # Ids of documents that have new changes.
        self.created: Listeners[tuple[str, ...]] = Listeners()  # Ids of documents made here, which no peer can have.
        self.given_up: Listeners[tuple[str, ...]] = Listeners()  # Ids of documents that are here no more.

    # --- Spaces ---------------------------------------------------------------------------------------------------

    def open_space(self, key: PublicKey) -> None:
        """Take care of this space's documents from now on."""
        self._spaces.setdefault(space_id(key), _SpaceDocuments(key))

    def close_space(self, space: str) -> None:
        """Drop what is in memory of a space."""
        self._spaces.pop(space, None)
        for document in [one for one, cached in self._cache.items() if cached.entry.space_id == space]:
            del self._cache[document]

    def set_root(self, space: str, root_id: str) -> None:
        """Say which document is the space's root, as its current epoch does."""
        known = self._space(space)
        if known.root_id != root_id:
            known.root_id, known.properties_id = root_id, None
            if known.contested and self._documents.heads(root_id) is not None:
                with self._database.transaction():
                    settled = self._settle_contested(space, known)
                self._tell(space, settled)

    def create_root(self, space: str, properties: ObjectStructure, properties_id: str) -> str:
        """Make the root of a new space, with the object that names the space inside; its document id."""
        known = self._space(space)
        document = Document.create()
        layout.make_root(known.key, document)
        layout.add_inline_object(document, properties_id, properties)
        root_id = self.new_id()
        with self._database.transaction():
            self._persist(root_id, space, document, ())
        known.root_id = root_id
        self._remember(root_id, document, space)
        return root_id

    def has_root(self, space: str) -> bool:
        """Whether the root is here, so that the space can be used."""
        known = self._space(space)
        return known.root_id is not None and self._documents.heads(known.root_id) is not None

    def stored_name(self, space: str) -> str | None:
        """The name of a space as its rows have it, also while it is closed."""
        found = self._objects.select(space, to_condition(Query(filter=_IS_PROPERTIES)), limit=1)
        name = found[0].data.get("name") if found else None
        return name if isinstance(name, str) else None

    def properties_id(self, space: str) -> str | None:
        """The id of the object that names the space."""
        known = self._space(space)
        if known.properties_id is None:
            condition = to_condition(Query(filter=_IS_PROPERTIES))
            found = self._mended(space, lambda: self._objects.select(space, condition))
            # Any member may make objects of that type; the space's name is in the root.
            inline = (record.object_id for record in found if record.document_id == known.root_id)
            known.properties_id = next(inline, None)
        return known.properties_id

    def subscribe(self, space: str, next: Callable[[tuple[StoredObject, ...]], None]) -> Callable[[], None]:
        """Be told of every object that changes from now on, whether the space is open or not; returns what ends it."""
        listeners = self._listeners.setdefault(space, Listeners())
        inner = listeners.subscribe(next)

        def end() -> None:
            inner.unsubscribe()
            if not len(listeners) and self._listeners.get(space) is listeners:
                del self._listeners[space]

        return Subscription(end)

    def _tell(self, space: str, object_ids: Sequence[str]) -> None:
        if space in self._listeners and object_ids:
            self._emit(space, tuple(self.get(space, object_ids)))

    def _emit(self, space: str, states: tuple[StoredObject, ...]) -> None:
        listeners = self._listeners.get(space)
        if listeners is not None:
            listeners.emit(states)

    # --- Reading --------------------------------------------------------------------------------------------------

    def select(self, space: str, query: Query) -> list[StoredObject]:
        """The objects that a query wants, in its order."""
        if query.search and not query.order:
            return [stored for stored, _ in self.search(space, query)]
        return self._mended(space, lambda: list(self._scan(space, query)))

    async def read(self, space: str, query: Query) -> list[StoredObject]:
        """As `select`, in pieces where they are many: the objects as they were when the reading began."""
        if query.search and not query.order:
            return self.select(space, query)
        tried: set[str] = set()
        pace = Pace()
        while True:
            found = []
            try:
                for stored in self._scan(space, query):
                    found.append(stored)
                    if pace.is_due:
                        await pace.rest()
            except CorruptionError as error:
                self._mend_for(space, error, tried)
            else:
                return found

    def _scan(self, space: str, query: Query) -> Iterator[StoredObject]:
        version = next(self._versions)  # Before the rows are taken apart: what changes meanwhile is newer.
        condition, order = to_condition(query), to_order(query)
        records = self._objects.scan(space, condition, order=order, limit=query.limit, offset=query.offset)
        return (self._stored(record, version) for record in records)

    def search(self, space: str, query: Query) -> list[tuple[StoredObject, float]]:
        """What a query's search finds, the best first, each with how good it is."""
        condition = to_condition(replace(query, search=""))
        found = self._mended(
            space,
            lambda: self._objects.search(space, query.search, condition, limit=query.limit, offset=query.offset),
        )
        return [(self._stored(record), score) for record, score in found]

    def index_words(self) -> bool:
        """Index the words of some objects that have changed, before a search; whether there may be more."""
        return self._objects.words.catch_up()

    def make_index(self, path: Path, *, by_type: bool) -> None:
        """Make an index on a property, of the objects of all spaces."""
        self._objects.fields.make(path, by_type=by_type, declared=True)

    def explain(self, space: str, query: Query) -> Plan:
        """How a query is answered."""
        condition, order = to_condition(query), to_order(query)
        return self._mended(
            space,
            lambda: self._objects.explain(space, condition, order=order, limit=query.limit, offset=query.offset),
        )

    def count(self, space: str, query: Query) -> int:
        """How many objects match a query, whatever its limit."""
        condition = to_condition(query)
        return self._mended(space, lambda: self._objects.count(space, condition))

    def get(self, space: str, object_ids: Sequence[str]) -> list[StoredObject]:
        """Those objects that exist, deleted ones too."""
        found = (self._record(space, object_id) for object_id in object_ids)
        return [self._stored(record) for record in found if record is not None]

    def _record(self, space: str, object_id: str) -> ObjectRecord | None:
        return self._mended(space, lambda: self._objects.get(space, object_id))

    def _mended(self, space: str, read: Callable[[], T]) -> T:
        """What `read` finds in the rows of a space, once those that are damaged have been made anew."""
        tried: set[str] = set()
        while True:
            try:
                return read()
            except CorruptionError as error:
                self._mend_for(space, error, tried)

    def _mend_for(self, space: str, error: CorruptionError, tried: set[str]) -> None:
        """Make anew what a reading stumbled over; raises the error where that was tried before."""
        object_id, document = error.detail.get("object_id"), error.detail.get("document_id")
        if isinstance(object_id, str) and isinstance(document, str) and object_id not in tried:
            tried.add(object_id)
            self._mend(space, object_id, document)
        elif object_id is None and _WHOLE_SPACE not in tried:
            tried.add(_WHOLE_SPACE)
            self._mend_all(space)
        else:
            raise error

    def _mend_all(self, space: str) -> None:
        """Look at each row by itself, because SQLite stumbled over one without saying which."""
        for object_id, document in self._objects.all_places(space).items():
            try:
                self._objects.get(space, object_id)
            except CorruptionError:
                self._mend(space, object_id, document)

    def _mend(self, space: str, object_id: str, document_id: str) -> None:
        """Make a damaged row anew."""
        try:
            rows = [row for row in layout.materialize(self._load(document_id)) if row.object_id == object_id]
        except (CorruptionError, DecodeError) as error:
            self.quarantine(document_id, str(error))
            rows = []
        if rows:
            _log.warning("the row of object %s was damaged and was made anew", object_id)
        else:
            _log.error("object %s is lost here: its row and its document are damaged", object_id)
        with self._database.transaction():
            # An index may have the row as it was, and SQLite would refuse to remove what differs.
            self._objects.fields.rebuild()
            self._objects.remove(space, [object_id])
            self._objects.put(space, [_record(row, document_id) for row in rows])

    def _stored(self, record: ObjectRecord, version: int | None = None) -> StoredObject:
        row = ObjectRow(
            record.object_id,
            "relation" if record.kind == "relation" else "object",
            record.type,
            record.deleted,
            record.source,
            record.target,
            record.meta,
            record.data,
        )
        return StoredObject(row, next(self._versions) if version is None else version, record.heads)

    def place(self, space: str, object_id: str) -> str | None:
        """The document that holds an object; None for an unknown object."""
        return self._objects.places(space, [object_id]).get(object_id)

    def places(self, space: str) -> dict[str, str]:
        """The documents that hold the objects of a space, by their ids."""
        return self._objects.all_places(space)

    def rows_are_lost(self, space: str) -> bool:
        """Whether queries miss objects whose documents are here; cheap where all is well, and no proof that it is."""
        for document in self._documents.without_objects(space, DOCUMENTS_CHECKED_MAX):
            try:
                held = [row.object_id for row in layout.materialize(self._load(document))]
            except (CorruptionError, DecodeError):
                continue  # It is found when it is needed, and says so then.
            # One that lost its object to another document has no row of its own.
            if len(self._objects.places(space, held)) < len(held):
                return True
        return False

    def root_id(self, space: str) -> str | None:
        """The root document of a space's current epoch."""
        return self._space(space).root_id

    # --- Editing --------------------------------------------------------------------------------------------------

    def update(
        self,
        space: str,
        edits: Sequence[ObjectEdit],
        *,
        reversal: Reversal | None = None,
        receipt: tuple[str, int] | None = None,
        step: int | None = None,
    ) -> list[StoredObject]:
        """Apply edits in one transaction: all or none.

        Args:
            space: The id of the space.
            edits: What to do, in this order.
            reversal: Which own changes the edits undo or redo; None for edits that can be undone themselves.
            receipt: The client's id and the number of its update; if that was applied before, it is not again.
            step: What `begin_step` gave, to be undone with all updates of the same; None: a step of its own.

        Returns:
            The new state of each edited object, in the order of `edits`.

        Raises:
            ObjectNotFoundError: An edited object does not exist.
            InvalidValueError: A value that cannot be stored.
            StorageError: Nothing was written.
        """
        known = self._space(space)
        last = 0 if receipt is None else self._receipts.last(receipt[0], space)
        if receipt is not None and last >= receipt[1]:
            states = {state.row.object_id: state for state in self.get(space, [one.object_id for one in edits])}
            gone = [one.object_id for one in edits if one.object_id not in states]
            if gone:
                raise ObjectNotFoundError(f"Object {gone[0]} was changed, and then deleted and given up.")
            return [states[one.object_id] for one in edits]
        touched: dict[str, Heads] = {}
        documents: dict[str, Document] = {}
        try:
            with self._database.transaction():
                if receipt is not None:
                    if not last:
                        self._forget_old_receipts()  # Now and then, as a host may live long.
                    self._receipts.put(receipt[0], space, receipt[1], now_ms=self.now_ms())
                links: dict[str, str] = {}
                places = self._objects.places(space, [one.object_id for one in edits])
                for one in edits:
                    if one.create is not None:
                        self._create(known, one.create, places, documents, touched, links)
                    else:
                        self._change(one, places, documents, touched, links)
                if links:
                    self._link(known, links, documents, touched)
                stored = self._persist_new(space, [one for one, before in touched.items() if not before], documents)
                for document, before in touched.items():
                    if before:
                        stored += self._persist(document, space, documents[document], before, places)
                if reversal is not None:
                    self._note_reversal(space, reversal)
                where = places | links
                # The schemas of types are stored with their first objects, and stay when those are undone.
                kept = {where.get(one.row.object_id) for one in stored if one.row.type == SCHEMA_TYPE}
                moment_ms = self.begin_step() if step is None else self._go_on(step)
                self.moments.put(
                    Moment(document, chunk_key(chunk), moment_ms, standing)
                    for document in dict.fromkeys(where[one.object_id] for one in edits)
                    for standing in [Standing.DONE if reversal is None and document not in kept else Standing.SPENT]
                    for chunk in documents[document].changes_since(touched[document])
                )
        except BaseException as error:
            for document in touched:
                self._cache.pop(document, None)
            if isinstance(error, LimitError):  # No peer's fault here.
                raise InvalidValueError(str(error), **error.detail) from error
            raise
        for document in touched:
            self._remember(document, documents[document], space)
        edited = dict.fromkeys(one.object_id for one in edits)
        states = {state.row.object_id: state for state in stored if state.row.object_id in edited}
        # What has not changed, or is not what this document makes it, is as it was.
        rest = [object_id for object_id in edited if object_id not in states]
        states |= {state.row.object_id: state for state in self.get(space, rest)}
        self._emit(space, tuple(states.values()))
        # New documents first: a peer that has them understands the links to them.
        self.created.emit(tuple(one for one, before in touched.items() if not before))
        self.changed.emit(tuple(one for one, before in touched.items() if before))
        return [states[one.object_id] for one in edits]

    def begin_step(self) -> int:
        """The moment of what is undone at once; links in the root are nobody's change, and have none."""
        self._last_moment_ms = max(self.now_ms(), self._last_moment_ms + 1)
        return self._last_moment_ms

    def _forget_old_receipts(self) -> None:
        self._receipts.forget_before(self.now_ms() - int(RECEIPT_AGE_S_MAX * 1_000))

    def forget_receipts(self, client_id: str) -> None:
        """This client makes no more updates."""
        self._receipts.forget(client_id)

    def _go_on(self, step: int) -> int:
        """The moment of a step that was begun, perhaps on an earlier host, whose clock was another one."""
        if not 0 < step <= max(self.now_ms(), self._last_moment_ms):
            return self.begin_step()  # In the future it would be undone before all that is done until then.
        self._last_moment_ms = max(self._last_moment_ms, step)
        return step

    def _note_reversal(self, space: str, reversal: Reversal) -> None:
        self.moments.set_standing(reversal.changes, reversal.standing)
        if reversal.standing is Standing.UNDONE and reversal.changes:
            self.moments.spend_undone(space, reversal.document_id, reversal.changes[0].time_ms)

    def _create(
        self,
        known: _SpaceDocuments,
        row: ObjectRow,
        places: dict[str, str],
        documents: dict[str, Document],
        touched: dict[str, Heads],
        links: dict[str, str],
    ) -> None:
        if row.object_id in links or row.object_id in places:
            raise InvalidValueError("An object with this id exists already.", object_id=row.object_id)
        structure = ObjectStructure(
            row.data, row.type, row.kind, row.source, row.target, tuple(row.meta.get("keys", ()))
        )
        made = layout.make_object_document(known.key, row.object_id, structure)
        if row.deleted:
            edit.apply(made, row.object_id, [SetDeleted(True)])
        new_id = self.new_id()
        documents[new_id], touched[new_id], links[row.object_id] = made, (), new_id

    def _change(
        self,
        one: ObjectEdit,
        places: dict[str, str],
        documents: dict[str, Document],
        touched: dict[str, Heads],
        links: dict[str, str],
    ) -> None:
        where = links.get(one.object_id)  # Where an earlier edit of the same turn made it.
        if where is None:
            where = places.get(one.object_id)
        if where is None:
            raise ObjectNotFoundError("No such object.", object_id=one.object_id)
        document = documents.get(where)
        if document is None:
            document = documents[where] = self._load(where)
            touched[where] = document.heads
            base: Heads | None = one.base_heads or None
        else:
            base = None  # A later edit of the same turn follows the earlier one.
        edit.apply(document, one.object_id, one.mutations, base_heads=base)

    def _link(
        self, known: _SpaceDocuments, links: dict[str, str], documents: dict[str, Document], touched: dict[str, Heads]
    ) -> None:
        assert known.root_id is not None, "objects are created in a space that is ready"
        root = documents.get(known.root_id)
        if root is None:
            root = documents[known.root_id] = self._load(known.root_id)
            touched[known.root_id] = root.heads
        layout.add_links(root, links)

    def _persist_new(self, space: str, new: list[str], documents: dict[str, Document]) -> list[StoredObject]:
        """Write documents that were just made here, each with an object that no other document has."""
        made, records, stored = [], [], []
        for one in new:
            document = documents[one]
            heads = document.heads
            changes = document.changes_since(())
            if sum(map(len, changes)) > DOCUMENT_BYTES_MAX:
                raise LimitError("A document would become too large.", bytes_max=DOCUMENT_BYTES_MAX)
            made.append((one, changes, heads))
            for row in layout.materialize(document):
                records.append(_record(row, one))
                stored.append(StoredObject(row, next(self._versions), heads))
        self._documents.create(space, made)
        self._objects.put(space, records)
        return stored

    def _persist(
        self, document_id: str, space: str, document: Document, before: Heads, places: Mapping[str, str] = _NO_PLACES
    ) -> list[StoredObject]:
        """Write what is new in a document, inside the caller's transaction; its objects, as far as they are its own.

        Args:
            document_id: Of the document.
            space: The id of its space.
            document: What it is now.
            before: Its heads on the disk.
            places: Document ids by object id, as far as the caller knows them.
        """
        heads = document.heads
        if heads == before:
            return []
        size = self._documents.append(document_id, space, document.changes_since(before), heads)
        stored_bytes = size.snapshot_bytes + size.chunk_bytes
        # What has just come as a whole waits for its next change: a large one is work enough for one turn.
        if before and size.chunk_bytes > max(DOCUMENT_COMPACT_BYTES_MIN, 2 * size.snapshot_bytes):
            snapshot = document.save()
            stored_bytes = len(snapshot)
            self._documents.replace_with_snapshot(document_id, snapshot, heads)
            self.moments.thin(document_id)
        if stored_bytes > DOCUMENT_BYTES_MAX:
            # Written, it could never be loaded again.
            raise LimitError("A document would become too large.", bytes_max=DOCUMENT_BYTES_MAX)
        known = self._space(space)
        rows = [
            row
            for row in layout.materialize(document)
            if places.get(row.object_id) == document_id or self._owns(space, known, row.object_id, document_id)
        ]
        self._objects.put(space, [_record(row, document_id) for row in rows])
        return [StoredObject(row, next(self._versions), heads) for row in rows]

    def _owns(self, space: str, known: _SpaceDocuments, object_id: str, document_id: str) -> bool:
        """Whether this document may say what the object is."""
        place = self._objects.places(space, [object_id]).get(object_id)
        if place is None or place == document_id or document_id == known.root_id:
            return True
        if self._linked(known, object_id) == document_id:
            return True
        if len(known.contested) < DOCUMENTS_CONTESTED_MAX:
            known.contested[document_id] = None
        return False

    def _linked(self, known: _SpaceDocuments, object_id: str) -> str | None:
        """The document that the root links an object to; None also while the root is not here, or damaged."""
        root_id = known.root_id
        if root_id is None or self._documents.heads(root_id) is None:
            return None
        try:
            url = self._load(root_id).to_python(("links", object_id))
        except CorruptionError as error:
            self.quarantine(root_id, str(error))
            return None
        except DecodeError:
            return None  # A peer has put something else in the place of the links.
        return layout.valid_links({object_id: url}).get(object_id)

    def _settle_contested(self, space: str, known: _SpaceDocuments) -> list[str]:
        """Give objects to the documents that a new root links to; the ids of those that changed hands."""
        settled: list[str] = []
        contested, known.contested = known.contested, {}
        for one in contested:
            if self._documents.heads(one) is None:
                continue
            try:
                rows = layout.materialize(self._load(one))
            except CorruptionError as error:
                self.quarantine(one, str(error))
                continue
            owned = [row for row in rows if self._owns(space, known, row.object_id, one)]
            self._objects.put(space, [_record(row, one) for row in owned])
            settled += [row.object_id for row in owned]
        return settled

    # --- Epochs: see `dxos.spaces.epochs` ---------------------------------------------------------------------------

    def add_document(self, space: str, document_id: str, document: Document) -> None:
        """Keep a document that was made here, inside the caller's transaction; `announce` it afterwards."""
        assert self._database.in_transaction, "it is kept together with what names it"
        self._persist(document_id, space, document, ())
        self._remember(document_id, document, space)

    def announce(self, document_id: str) -> None:
        """Tell peers of a document that was made here."""
        self.created.emit((document_id,))

    def change(self, space: str, document_id: str, change: Callable[[Document], object]) -> None:
        """Change a document that is here in a way of one's own, and keep and tell what came of it.

        Raises:
            CorruptionError: It is damaged.
            StorageError: Nothing was written.
        """
        document = self._load(document_id)
        before = document.heads
        try:
            change(document)
            with self._database.transaction():
                stored = self._persist(document_id, space, document, before)
        except BaseException:
            self.discard(document_id)
            raise
        if document.heads != before:
            self._remember(document_id, document, space)
            self._emit(space, tuple(stored))
            self.changed.emit((document_id,))

    def reclaim(self, document_ids: Sequence[str]) -> int:
        """Give documents up, with the rows of their objects; how many bytes they took."""
        if not document_ids:
            return 0
        freed_bytes = self._documents.reclaim(document_ids)
        for one in document_ids:
            self.discard(one)
        self.given_up.emit(tuple(document_ids))
        return freed_bytes

    def compact(self, document_ids: Sequence[str]) -> None:
        """Make one snapshot of each of these documents."""
        with self._database.transaction():
            for one in document_ids:
                try:
                    document = self._load(one)
                    self._documents.replace_with_snapshot(one, document.save(), document.heads, pack=True)
                except CorruptionError as error:
                    self.quarantine(one, str(error))

    # --- Peers: what `dxos.echo.repo` asks of its source ------------------------------------------------------------

    def entry(self, document_id: str) -> DocumentEntry | None:
        """Space and heads of a document, without loading it; None if it is not here or its space is closed."""
        cached = self._cache.get(document_id)
        if cached is not None:
            return cached.entry if cached.entry.space_id in self._spaces else None
        found = self._documents.entry(document_id)
        return None if found is None or found[0] not in self._spaces else DocumentEntry(*found)

    def documents(self, space_id: str) -> dict[str, Heads]:
        """The heads of every document of a space, without loading any."""
        return self._documents.all_heads(space_id)

    def each_heads(self, space_id: str) -> Iterator[tuple[str, Heads]]:
        """The same one by one; what changes meanwhile may be among them or not."""
        return self._documents.each_heads(space_id)

    def reclaimed(self, document_id: str) -> Heads | None:
        """The heads that a document had when it was given up; None where it was not."""
        return self._documents.reclaimed(document_id)

    def unknown(self, theirs: Mapping[str, Heads]) -> list[str]:
        """Those documents of a peer that are neither here nor were given up with the heads that it has."""
        known = self._documents.known(list(theirs))
        return [one for one, heads in theirs.items() if one not in known or known[one] not in (None, heads)]

    def is_loaded(self, document_id: str) -> bool:
        """Whether a document is in memory."""
        cached = self._cache.get(document_id)
        return cached is not None and not cached.document.poisoned

    def load(self, document_id: str) -> Document:
        """A document, to sync it.

        Raises:
            CorruptionError: It is damaged.
        """
        return self._load(document_id)

    def received(self, document_id: str, space_id: str, document: Document, before: Heads) -> None:
        """Keep what a peer changed: all that `document` has since `before`, which is empty for a new document."""
        known = self._space(space_id)
        if not before and self._documents.entry(document_id) is not None:
            raise ProtocolError("A document arrived twice as new.", document_id=document_id)
        if not before:
            if known.documents_count is None:
                known.documents_count = len(self._documents.ids(space_id))
            if known.documents_count >= DOCUMENTS_PER_SPACE_MAX:
                raise LimitError("A space has too many documents.", count_max=DOCUMENTS_PER_SPACE_MAX)
            known.documents_count += 1
        settled: list[str] = []
        try:
            with self._database.transaction():
                if not before:
                    self._delete_again(document_id, document)
                if not before and self._documents.exists(document_id):
                    # It was set aside as damaged: a peer's copy takes its place.
                    _log.warning("document %s was damaged; a peer's copy took its place", document_id)
                    self._documents.delete(document_id)
                stored = self._persist(document_id, space_id, document, before)
                if document_id != known.root_id:
                    self._note_received(document_id, document, before)
                if document_id == known.root_id:
                    self._remember(document_id, document, space_id)
                    if known.contested:
                        settled = self._settle_contested(space_id, known)
        except BaseException:
            self.discard(document_id)
            raise
        self._remember(document_id, document, space_id)
        if stored:
            self._emit(space_id, tuple(stored))
        self._tell(space_id, settled)
        self.changed.emit((document_id,))

    def _note_received(self, document_id: str, document: Document, before: Heads) -> None:
        """Note when a peer's changes were made: what they say themselves, else when they came; links have no time."""
        now_ms = self.now_ms()
        moments = []
        # The first change made the object, whose id says when.
        for chunk in document.changes_since(before)[0 if before else 1 :]:
            told_ms = chunk_time_ms(chunk)
            if told_ms is not None or before:
                time_ms = now_ms if told_ms is None else min(told_ms, now_ms)
                moments.append(Moment(document_id, chunk_key(chunk), time_ms, Standing.FOREIGN))
        self.moments.put(moments)

    def _delete_again(self, document_id: str, document: Document) -> None:
        """Mark what was deleted and given up as deleted, in a copy from a peer that did not know of it."""
        given_up = self._documents.reclaimed(document_id)
        if given_up is None or epoch.is_root(document):
            return
        if not {change.hash for change in document.changes()}.issuperset(given_up):
            for row in layout.materialize(document):
                edit.apply(document, row.object_id, [SetDeleted(True)])

    def discard(self, document_id: str) -> None:
        """Drop a document from memory: what it holds was refused, or it is unusable."""
        self._cache.pop(document_id, None)

    def quarantine(self, document_id: str, reason: str) -> None:
        """Set a damaged document aside; the rest of the space goes on."""
        _log.error("document %s is set aside: %s", document_id, reason)
        self.discard(document_id)
        self._documents.quarantine(document_id, reason)

    def quarantined(self, space: str) -> dict[str, str]:
        """The documents of a space that are set aside, and why."""
        return self._documents.quarantined(space)

    # --- Cache ----------------------------------------------------------------------------------------------------

    def _load(self, document_id: str) -> Document:
        cached = self._cache.get(document_id)
        if cached is not None and not cached.document.poisoned:
            self._cache.move_to_end(document_id)
            return cached.document
        content = self._documents.load(document_id)
        space = self._documents.space_of(document_id)
        if content is None or space is None:
            raise CorruptionError("A document is missing.", document_id=document_id)
        document = Document.load(content)
        self._remember(document_id, document, space)
        return document

    def _remember(self, document_id: str, document: Document, space: str) -> None:
        self._cache[document_id] = _Cached(document, DocumentEntry(space, document.heads))
        self._cache.move_to_end(document_id)
        while len(self._cache) > DOCUMENTS_CACHED_MAX:
            self._cache.popitem(last=False)

    def _space(self, space: str) -> _SpaceDocuments:
        known = self._spaces.get(space)
        if known is None:
            raise SpaceNotFoundError("No such space is open.", space_id=space)
        return known

    def new_id(self) -> str:
        """An id for a new document."""
        uuid = bytearray(self._random(_UUID_BYTES))
        uuid[6] = uuid[6] & 0x0F | 0x40  # RFC 4122, version 4: JavaScript peers refuse other ids.
        uuid[8] = uuid[8] & 0x3F | 0x80
        return document_id(bytes(uuid))

    def __repr__(self) -> str:
        return f"<Documents spaces={len(self._spaces)} cached={len(self._cache)}>"


def _record(row: ObjectRow, document_id: str) -> ObjectRecord:
    return ObjectRecord(
        row.object_id, document_id, row.kind, row.type, row.deleted, row.source, row.target, row.meta, row.data
    )
