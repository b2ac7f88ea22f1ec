"""Documents as bytes: a snapshot and the change chunks since, from time to time replaced by a new snapshot.

The bytes' meaning is the CRDT's business, two facts apart: a snapshot followed by chunks loads as one document, and
so do chunks alone; and each carries its own hash, which the loader checks.  Heads are kept beside them, so that what a
peer lacks is found without loading a document.

A document's chunks lie side by side under the keys number << 20 | sequence; the snapshot, if any, has sequence 0.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, final

from msgspec import Struct

from dxos.errors import CorruptionError
from dxos.limits import CHUNKS_PER_DOCUMENT_MAX
from dxos.store.conditions import canonical_json
from dxos.store.database import Database, Parameter
from dxos.store.numbering import space_number
from dxos.store.packing import Packing
from dxos.store.schema import CHUNK_BITS

HEAD_BYTES: Final = 32
_READ_AT_ONCE: Final = 256  # Rows of one reading that is done in pieces.
_SEQUENCE_MASK: Final = (1 << CHUNK_BITS) - 1
assert CHUNKS_PER_DOCUMENT_MAX <= _SEQUENCE_MASK, "a sequence fits its bits"

Heads = tuple[bytes, ...]
NewDocument = tuple[str, Sequence[bytes], Sequence[bytes]]  # Its id, its change chunks, its heads after them.


class DocumentSize(Struct, frozen=True):
    """How much of a document is snapshot and how much came after it: when to compact."""

    snapshot_bytes: int  # 0 if it has none.
    chunk_bytes: int  # All chunks after the snapshot together.
    chunks_count: int  # How many they are.


@final
class DocumentsSize(Struct, frozen=True):
    """How much is kept of all documents of a space, and how much was given up."""

    documents_count: int
    snapshot_bytes: int
    chunk_bytes: int  # Of changes since the snapshots, or of documents that have none.
    chunks_count: int
    reclaimed_count: int  # Documents given up so far.
    reclaimed_bytes: int  # What they took.


@final
class DocumentStore:
    """The documents of all spaces of one profile."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._packing = Packing(database)

    def __repr__(self) -> str:
        return f"<DocumentStore in {self._database!r}>"

    def create(self, space_id: str, documents: Iterable[NewDocument]) -> None:
        """Store many documents that are not stored yet, far faster than one by one."""
        database = self._database
        with database.transaction():
            space = space_number(database, space_id)
            found = database.row("SELECT max(number) FROM documents")
            assert found is not None
            records: list[tuple[Parameter, ...]] = []
            pieces: list[tuple[Parameter, ...]] = []
            for number, (document_id, chunks, heads) in enumerate(documents, start=(found[0] or 0) + 1):
                assert len(chunks) < CHUNKS_PER_DOCUMENT_MAX, "a new document has few changes"
                size = sum(map(len, chunks))
                records.append((number, document_id, space, len(chunks), size, _pack(heads)))
                pieces += [(number << CHUNK_BITS | sequence, one) for sequence, one in enumerate(chunks, start=1)]
            database.run_many(
                "INSERT INTO documents (number, id, space, chunks, snapshot_bytes, chunk_bytes, heads)"
                " VALUES (?, ?, ?, ?, 0, ?, ?)",
                records,
            )
            database.run_many("INSERT INTO chunks (position, bytes) VALUES (?, ?)", pieces)

    def append(self, document_id: str, space_id: str, chunks: Sequence[bytes], heads: Sequence[bytes]) -> DocumentSize:
        """Add change chunks, creating the document with the first; `heads` are those after them, 32 bytes each."""
        database, packed = self._database, _pack(heads)
        added_bytes = sum(map(len, chunks))
        with database.transaction():
            found = database.row("SELECT number, chunks FROM documents WHERE id = ?", (document_id,))
            if found is None:
                first, size = 1, DocumentSize(0, added_bytes, len(chunks))
                number = database.insert(
                    "INSERT INTO documents (id, space, chunks, snapshot_bytes, chunk_bytes, heads)"
                    " VALUES (?, ?, ?, 0, ?, ?)",
                    (document_id, space_number(database, space_id), len(chunks), added_bytes, packed),
                )
            else:
                number, count = found
                if count + len(chunks) > CHUNKS_PER_DOCUMENT_MAX:
                    count = self._join(number)
                first = count + 1
                updated = database.row(
                    "UPDATE documents SET chunks = ?, chunk_bytes = chunk_bytes + ?, heads = ? WHERE number = ?"
                    " RETURNING snapshot_bytes, chunk_bytes, chunks",
                    (count + len(chunks), added_bytes, packed, number),
                )
                assert updated is not None
                size = DocumentSize(*updated)
            assert first + len(chunks) <= _SEQUENCE_MASK, "more chunks in one call than a document may have"
            start = number << CHUNK_BITS | first
            for offset, chunk in enumerate(chunks):
                database.run("INSERT INTO chunks (position, bytes) VALUES (?, ?)", (start + offset, chunk))
        return size

    def replace_with_snapshot(
        self, document_id: str, snapshot: bytes, heads: Sequence[bytes], *, pack: bool = False
    ) -> None:
        """Put `snapshot` in the place of everything kept so far; the document exists.

        Args:
            document_id: Of the document.
            snapshot: All of it.
            heads: Its heads.
            pack: Whether to spend a tenth of a millisecond on making it smaller.
        """
        database = self._database
        with database.transaction():
            found = database.row("SELECT number, space FROM documents WHERE id = ?", (document_id,))
            assert found is not None, "only a stored document is compacted"
            number, space = found
            self._drop_chunks(number)
            stored = self._packing.pack(space, snapshot) if pack else snapshot
            database.run("INSERT INTO chunks (position, bytes) VALUES (?, ?)", (number << CHUNK_BITS, stored))
            database.run(
                "UPDATE documents SET chunks = 0, snapshot_bytes = ?, chunk_bytes = 0, heads = ? WHERE number = ?",
                (len(snapshot), _pack(heads), number),
            )

    def load(self, document_id: str) -> bytes | None:
        """Snapshot and chunks in one piece; None for an unknown document.

        Raises:
            CorruptionError: Some of it is missing, or the document is in quarantine.
        """
        found = self._database.row(
            "SELECT number, snapshot_bytes + chunk_bytes, quarantine FROM documents WHERE id = ?", (document_id,)
        )
        if found is None:
            return None
        number, expected_bytes, quarantine = found
        if quarantine is not None:
            raise CorruptionError("The document is set aside as damaged.", document_id=document_id, reason=quarantine)
        content = self._content(number)
        if len(content) != expected_bytes:
            raise CorruptionError("A part of the document is missing on disk.", document_id=document_id)
        return content

    def heads(self, document_id: str) -> Heads | None:
        """The document's heads in the order they were given; None for an unknown one or one in quarantine."""
        found = self._database.row("SELECT heads FROM documents WHERE id = ? AND quarantine IS NULL", (document_id,))
        return None if found is None else unpack_heads(found[0])

    def all_heads(self, space_id: str) -> dict[str, Heads]:
        """The heads of every document of the space that is not in quarantine."""
        return dict(self.each_heads(space_id))

    def each_heads(self, space_id: str) -> Iterator[tuple[str, Heads]]:
        """The same one by one, in the order they were stored; what changes meanwhile may be among them or not."""
        last = 0
        while rows := self._database.rows(
            "SELECT number, id, heads FROM documents WHERE space = (SELECT number FROM spaces WHERE id = ?)"
            " AND number > ? AND quarantine IS NULL ORDER BY number LIMIT ?",
            (space_id, last, _READ_AT_ONCE),
        ):
            last = rows[-1][0]
            for _, document_id, packed in rows:
                yield document_id, unpack_heads(packed)

    def ids(self, space_id: str) -> list[str]:
        """Every document of the space, those in quarantine too, in the order they were stored."""
        rows = self._database.rows(
            "SELECT id FROM documents WHERE space = (SELECT number FROM spaces WHERE id = ?) ORDER BY number",
            (space_id,),
        )
        return [row[0] for row in rows]

    def without_objects(self, space_id: str, limit: int) -> list[str]:
        """Documents of the space that have no object's row; none, without looking at each, if there are rows enough."""
        number = self._database.row("SELECT number FROM spaces WHERE id = ?", (space_id,))
        if number is None:
            return []
        enough = self._database.row(
            "SELECT (SELECT count(*) FROM objects WHERE space = ?) >= (SELECT count(*) FROM documents WHERE space = ?)",
            number * 2,
        )
        if enough == (1,):
            return []
        rows = self._database.rows(
            "SELECT id FROM documents WHERE space = ? AND quarantine IS NULL"
            " AND number NOT IN (SELECT document FROM objects WHERE space = ?) ORDER BY number LIMIT ?",
            (*number, *number, limit),
        )
        return [row[0] for row in rows]

    def space_of(self, document_id: str) -> str | None:
        """The id of the space that the document belongs to."""
        found = self._database.row(
            "SELECT spaces.id FROM documents JOIN spaces ON spaces.number = documents.space WHERE documents.id = ?",
            (document_id,),
        )
        return None if found is None else str(found[0])

    def entry(self, document_id: str) -> tuple[str, Heads] | None:
        """Space and heads of a document; None for an unknown one or one in quarantine."""
        found = self._database.row(
            "SELECT spaces.id, heads FROM documents JOIN spaces ON spaces.number = documents.space"
            " WHERE documents.id = ? AND quarantine IS NULL",
            (document_id,),
        )
        return None if found is None else (str(found[0]), unpack_heads(found[1]))

    def known(self, document_ids: Sequence[str]) -> dict[str, Heads | None]:
        """Those documents that are here and not in quarantine, each with None, or were given up, with their heads."""
        wanted = (canonical_json(list(document_ids)),)
        gone = self._database.rows(
            "SELECT id, heads FROM reclaimed WHERE id IN (SELECT value FROM json_each(?))", wanted
        )
        here = self._database.rows(
            "SELECT id FROM documents WHERE quarantine IS NULL AND id IN (SELECT value FROM json_each(?))", wanted
        )
        return {document_id: unpack_heads(packed) for document_id, packed in gone} | dict.fromkeys(
            row[0] for row in here
        )

    def exists(self, document_id: str) -> bool:
        """Whether the document is stored, in quarantine or not."""
        return self._number(document_id) is not None

    def size(self, document_id: str) -> DocumentSize | None:
        """How large the document's parts are; reads no content."""
        found = self._database.row(
            "SELECT snapshot_bytes, chunk_bytes, chunks FROM documents WHERE id = ?", (document_id,)
        )
        return None if found is None else DocumentSize(*found)

    def quarantine(self, document_id: str, reason: str) -> None:
        """Set a damaged document aside: it is kept, but neither loaded nor offered to peers."""
        self._database.run("UPDATE documents SET quarantine = ? WHERE id = ?", (reason, document_id))

    def quarantined(self, space_id: str) -> dict[str, str]:
        """The documents of the space that are set aside, with the reason."""
        rows = self._database.rows(
            "SELECT id, quarantine FROM documents WHERE quarantine IS NOT NULL"
            " AND space = (SELECT number FROM spaces WHERE id = ?)",
            (space_id,),
        )
        return dict(rows)

    def delete(self, document_id: str) -> bool:
        """Forget the document and the rows of its objects; False if there was none."""
        database = self._database
        with database.transaction():
            number = self._number(document_id)
            if number is None:
                return False
            self._drop_chunks(number)
            database.run("DELETE FROM objects WHERE document = ?", (number,))
            database.run("DELETE FROM documents WHERE number = ?", (number,))
        return True

    def delete_all(self, space_id: str) -> int:
        """Forget every document of a space and the rows of its objects; how many there were."""
        found = self.ids(space_id)
        with self._database.transaction():
            for document_id in found:
                self.delete(document_id)
        return len(found)

    def reclaim(self, document_ids: Sequence[str]) -> int:
        """Give documents up, with the rows of their objects, and remember their heads; how many bytes they took."""
        database, ids = self._database, canonical_json(list(document_ids))
        with database.transaction():
            gone = database.rows(
                "SELECT number, id, space, heads, snapshot_bytes + chunk_bytes FROM documents"
                " WHERE id IN (SELECT value FROM json_each(?))",
                (ids,),
            )
            database.run_many(
                "INSERT INTO reclaimed (id, space, heads, bytes) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET heads = excluded.heads, bytes = excluded.bytes",
                [row[1:] for row in gone],
            )
            numbers = canonical_json([row[0] for row in gone])
            for row in gone:
                self._drop_chunks(row[0])
            # At once, because this reads all rows.
            database.run("DELETE FROM objects WHERE document IN (SELECT value FROM json_each(?))", (numbers,))
            database.run("DELETE FROM documents WHERE number IN (SELECT value FROM json_each(?))", (numbers,))
        return sum(row[4] for row in gone)

    def reclaimed(self, document_id: str) -> Heads | None:
        """The heads that a document had when it was given up; None if it was not."""
        found = self._database.row("SELECT heads FROM reclaimed WHERE id = ?", (document_id,))
        return None if found is None else unpack_heads(found[0])

    def deleted(self, space_id: str) -> dict[str, list[str]]:
        """Documents that hold deleted objects and no others, with the ids of these objects; reads no content."""
        rows = self._database.rows(
            "SELECT documents.id, objects.id FROM objects JOIN documents ON documents.number = objects.document"
            " WHERE objects.space = (SELECT number FROM spaces WHERE id = ?) AND objects.deleted = 1"
            " AND objects.document NOT IN (SELECT document FROM objects"
            " WHERE space = (SELECT number FROM spaces WHERE id = ?) AND deleted = 0)",
            (space_id, space_id),
        )
        found: dict[str, list[str]] = {}
        for document_id, object_id in rows:
            found.setdefault(document_id, []).append(object_id)
        return found

    def uncompacted(self, space_id: str) -> list[str]:
        """The documents of the space that are more than one snapshot, except those in quarantine."""
        rows = self._database.rows(
            "SELECT id FROM documents WHERE space = (SELECT number FROM spaces WHERE id = ?)"
            " AND quarantine IS NULL AND chunks > 0 ORDER BY number",
            (space_id,),
        )
        return [row[0] for row in rows]

    def sizes(self, space_id: str) -> DocumentsSize:
        """How much all documents of a space take; reads no content."""
        kept = self._database.row(
            "SELECT count(*), total(snapshot_bytes), total(chunk_bytes), total(chunks) FROM documents"
            " WHERE space = (SELECT number FROM spaces WHERE id = ?)",
            (space_id,),
        )
        gone = self._database.row(
            "SELECT count(*), total(bytes) FROM reclaimed WHERE space = (SELECT number FROM spaces WHERE id = ?)",
            (space_id,),
        )
        assert kept is not None
        assert gone is not None
        return DocumentsSize(*map(int, (*kept, *gone)))

    def _number(self, document_id: str) -> int | None:
        found = self._database.row("SELECT number FROM documents WHERE id = ?", (document_id,))
        return None if found is None else int(found[0])

    def _content(self, number: int) -> bytes:
        start = number << CHUNK_BITS
        rows = self._database.rows(
            "SELECT bytes FROM chunks WHERE position BETWEEN ? AND ? ORDER BY position",
            (start, start | _SEQUENCE_MASK),
        )
        return b"".join([self._packing.unpack(row[0]) for row in rows])

    def _drop_chunks(self, number: int) -> None:
        start = number << CHUNK_BITS
        self._database.run("DELETE FROM chunks WHERE position BETWEEN ? AND ?", (start, start | _SEQUENCE_MASK))

    def _join(self, number: int) -> int:
        """Make one chunk of all, snapshot included, which loads as the same document; the count is then 1."""
        content = self._content(number)
        self._drop_chunks(number)
        self._database.run("INSERT INTO chunks (position, bytes) VALUES (?, ?)", (number << CHUNK_BITS | 1, content))
        self._database.run(
            "UPDATE documents SET snapshot_bytes = 0, chunk_bytes = ? WHERE number = ?", (len(content), number)
        )
        return 1


def _pack(heads: Sequence[bytes]) -> bytes:
    assert all(len(head) == HEAD_BYTES for head in heads), "a head is a SHA-256 hash"
    return b"".join(heads)


def unpack_heads(packed: bytes) -> Heads:
    """The heads of a document as a column holds them; CorruptionError if that is no whole number of heads."""
    if len(packed) % HEAD_BYTES:
        raise CorruptionError("A document's heads are damaged on disk.")
    return tuple(packed[i : i + HEAD_BYTES] for i in range(0, len(packed), HEAD_BYTES))
