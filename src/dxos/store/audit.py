"""What only a check of the whole profile asks of its tables, and what only a repair writes to them."""

# ruff: noqa: S608 - the statements are put together from constants of this module; values are parameters.

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final, final

from msgspec import Struct

from dxos.errors import CorruptionError, StorageError
from dxos.feed.merkle import Node
from dxos.keys import PublicKey
from dxos.keys.signing import POINT_BYTES
from dxos.store.checksum import check_sum
from dxos.store.database import Database
from dxos.store.documents import Heads, unpack_heads
from dxos.store.feeds import FeedStorage, FeedStore
from dxos.store.indexes import WORDS_SCHEMA, words_in
from dxos.store.packing import Packing
from dxos.store.schema import BLOCK_BITS, CHUNK_BITS

_STRAY: Final = (
    "NOT EXISTS (SELECT 1 FROM documents JOIN spaces ON spaces.number = documents.space"
    " WHERE documents.number = objects.document AND documents.space = objects.space)"
)
_REFERENCES: Final = (  # As the triggers on rows do.
    "SELECT DISTINCT objects.number, atom FROM objects,"
    " json_tree(CASE WHEN json_valid(objects.data) THEN objects.data ELSE '{}' END) AS tree"
    """ WHERE instr(objects.data, '{"/":"') > 0 AND tree.key = '/' AND tree.type = 'text'"""
)
_FINDINGS_MAX: Final = 100
_OF_INDEX: Final = re.compile(r"(?:missing from|entries in|entry in|in) index (\w+)")
# Tables whose rows carry a sum of their own, and the column that names a row to a person.
_CHECKED: Final = {"settings": "name", "space_records": "space", "invitations": "id"}


@final
class DocumentEntry(Struct, frozen=True):
    """One document as its record describes it; what the record says may be wrong."""

    document_id: str
    content: bytes | None  # None if it cannot be read.
    is_complete: bool  # Whether the content has the size and the number of chunks of the record.
    heads: Heads | None  # None if they are no heads.
    quarantine: str | None  # Why it was set aside.


@final
class Audit:
    """Reads and mends the tables of a profile that nobody else uses meanwhile."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._packing = Packing(database)

    # --- The file ---------------------------------------------------------------------------------------------------

    def damage(self) -> tuple[list[str], list[str]]:
        """Compare every page, table and index of the file.

        Returns:
            The names of indexes that do not agree with their table, and what else SQLite says, in its words.
        """
        if self._has_foreign_schema():
            return [], ["the schema is damaged"]
        try:
            found = [str(row[0]) for row in self._database.rows(f"PRAGMA integrity_check({_FINDINGS_MAX})")]
        except CorruptionError as error:
            return [], [str(error.detail.get("reason", error))]
        indexes: dict[str, None] = {}
        rest = []
        for line in found:
            named = _OF_INDEX.search(line)
            if named is not None:
                indexes[named[1]] = None
            # A value of the wrong type is found with its row, and the index of words is asked by itself.
            elif line != "ok" and not line.startswith("non-") and "FTS5" not in line:
                rest.append(line)
        return list(indexes), rest

    def _has_foreign_schema(self) -> bool:
        """Whether a table, index or trigger is not what our schema says, or missing."""
        schema = (
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT GLOB 'sqlite_*'"
            " AND name NOT GLOB 'field_[0-9]*' AND name NOT GLOB 'object_words_*'"
        )
        fresh = Database(None)
        try:
            wanted: dict[str, str] = dict(fresh.rows(schema))
        finally:
            fresh.close()
        try:
            found: dict[str, str] = dict(self._database.rows(schema))
        except CorruptionError:
            return True
        made_later = {name: sql for name, sql in found.items() if sql in WORDS_SCHEMA}
        return found != wanted | made_later

    def rebuild_index(self, name: str) -> None:
        """Make an index anew from its table."""
        assert re.fullmatch(r"\w+", name), "a name that SQLite gave"
        self._database.run(f'REINDEX "{name}"')

    def damaged_records(self) -> list[tuple[str, str]]:
        """Table and name of each record that is not what its sum says."""
        damaged = []
        for table, name in _CHECKED.items():
            for (number,) in self._database.rows(f"SELECT rowid FROM {table}"):
                try:
                    row = self._database.row(
                        f"SELECT CAST({name} AS TEXT), bytes, check_sum FROM {table} WHERE rowid = ?", (number,)
                    )
                except StorageError:
                    damaged.append((table, str(number)))
                else:
                    assert row is not None
                    if check_sum(row[1]) != row[2]:
                        damaged.append((table, str(row[0])))
        return damaged

    # --- Documents and rows -----------------------------------------------------------------------------------------

    def space_ids(self) -> list[str]:
        """The spaces that have a document here, whether the profile is in them or not."""
        rows = self._database.rows(
            "SELECT id FROM spaces WHERE number IN (SELECT space FROM documents) ORDER BY number"
        )
        return [row[0] for row in rows]

    def documents(self, space_id: str) -> Iterator[DocumentEntry]:
        """Every document of a space with its content, one at a time."""
        numbers = self._database.rows(
            "SELECT number FROM documents WHERE space = (SELECT number FROM spaces WHERE id = ?) ORDER BY number",
            (space_id,),
        )
        for (number,) in numbers:
            found = self._database.row(
                "SELECT id, chunks, snapshot_bytes, chunk_bytes, heads, quarantine FROM documents WHERE number = ?",
                (number,),
            )
            if found is None:
                continue  # A repair of another one took it away.
            document_id, count, snapshot_bytes, chunk_bytes, packed, quarantine = found
            content, is_complete = None, False
            start = number << CHUNK_BITS
            try:
                pieces = self._database.rows(
                    "SELECT position, bytes FROM chunks WHERE position BETWEEN ? AND ? ORDER BY position",
                    (start, start | (1 << CHUNK_BITS) - 1),
                )
            except StorageError:
                pieces = []
            else:
                with suppress(CorruptionError):
                    content = b"".join([self._packing.unpack(piece) for _, piece in pieces])
                later = [piece for position, piece in pieces if position != start]
                is_complete = (len(later), sum(map(len, later))) == (count, chunk_bytes) and (
                    content is not None and len(content) == snapshot_bytes + chunk_bytes
                )
            try:
                heads: Heads | None = unpack_heads(packed)
            except CorruptionError:
                heads = None
            yield DocumentEntry(document_id, content, is_complete, heads, quarantine)

    def lift_quarantine(self, document_id: str) -> None:
        """Use a document again that turned out to be whole."""
        self._database.run("UPDATE documents SET quarantine = NULL WHERE id = ?", (document_id,))

    def stray_chunks(self) -> int:
        """How many chunks belong to no document."""
        return self._count(f"FROM chunks WHERE position >> {CHUNK_BITS} NOT IN (SELECT number FROM documents)")

    def drop_stray_chunks(self) -> None:
        """Delete the chunks that belong to no document."""
        self._database.run(f"DELETE FROM chunks WHERE position >> {CHUNK_BITS} NOT IN (SELECT number FROM documents)")

    def stray_rows(self) -> int:
        """How many objects' rows name a document or space that is not there, or one that is in another space."""
        return self._count(f"FROM objects WHERE {_STRAY}")

    def drop_stray_rows(self) -> None:
        """Delete the rows that `stray_rows` counts."""
        self._database.run(f"DELETE FROM objects WHERE {_STRAY}")

    def drop_rows(self, space_id: str) -> None:
        """Delete all rows of a space, so that they can be made anew; those of documents in quarantine stay."""
        self._database.run(
            "DELETE FROM objects WHERE space = (SELECT number FROM spaces WHERE id = ?)"
            " AND document NOT IN (SELECT number FROM documents WHERE quarantine IS NOT NULL)",
            (space_id,),
        )

    def drop_invitation(self, invitation_id: str) -> None:
        """Forget an invitation."""
        self._database.run("DELETE FROM invitations WHERE id = ?", (invitation_id,))

    # --- What follows from rows -------------------------------------------------------------------------------------

    def has_field_indexes(self) -> bool:
        """Whether all indexes on properties that are noted are there, and no others."""
        noted = {f"field_{number}" for (number,) in self._database.rows("SELECT number FROM field_indexes")}
        return noted == set(self._field_indexes())

    def drop_field_indexes(self) -> None:
        """Drop all indexes on properties; those that are noted can be made again."""
        for name in self._field_indexes():
            self._database.run(f'DROP INDEX "{name}"')

    def _field_indexes(self) -> list[str]:
        rows = self._database.rows("SELECT name FROM sqlite_master WHERE type = 'index' AND name GLOB 'field_[0-9]*'")
        return [name for (name,) in rows]

    def wrong_references(self) -> int:
        """How many notes of what an object refers to are missing or too many."""
        kept = "SELECT object, target FROM object_references"
        return self._count(f"FROM (SELECT * FROM ({_REFERENCES}) EXCEPT {kept})") + self._count(
            f"FROM ({kept} EXCEPT SELECT * FROM ({_REFERENCES}))"
        )

    def rebuild_references(self) -> None:
        """Note anew what each object refers to."""
        with self._database.transaction():
            self._database.run("DELETE FROM object_references")
            self._database.run(f"INSERT INTO object_references {_REFERENCES}")

    def has_words(self) -> bool:
        """Whether the index of words, if there is one, has the words of every row that it does not know as changed."""
        if self._database.row("SELECT 1 FROM sqlite_master WHERE name = 'object_words'") is None:
            return True
        try:
            self._database.run("INSERT INTO object_words (object_words) VALUES ('integrity-check')")
            rows = self._database.rows(
                "SELECT objects.number, objects.data, object_words.words FROM objects"
                " LEFT JOIN object_words ON object_words.rowid = objects.number"
                " WHERE objects.number NOT IN (SELECT number FROM stale_words)"
            )
            strays = self._count(
                "FROM object_words WHERE rowid NOT IN (SELECT number FROM objects UNION SELECT number FROM stale_words)"
            )
        except CorruptionError:
            return False
        return not strays and all(words == words_in(data) for _, data, words in rows)

    # --- Feeds ------------------------------------------------------------------------------------------------------

    def feeds(self) -> list[tuple[PublicKey | None, PublicKey, FeedStorage]]:
        """Every feed: the space in which it is kept apart, its key, and where it is."""
        store = FeedStore(self._database)
        found: list[tuple[PublicKey | None, PublicKey, FeedStorage]] = []
        for (packed,) in self._database.rows("SELECT key FROM feeds ORDER BY number"):
            key = PublicKey(packed[-POINT_BYTES:])
            if len(packed) == POINT_BYTES:
                found.append((None, key, store.open(key)))
            else:
                space_key = PublicKey(packed[:POINT_BYTES])
                found.append((space_key, key, store.open_in(space_key, key)))
        return found

    def put_nodes(self, space_key: PublicKey | None, feed_key: PublicKey, nodes: Iterable[Node]) -> None:
        """Write nodes of a feed's tree in the place of what is there."""
        number = self._feed_number(space_key, feed_key)
        self._database.run_many(
            "INSERT OR REPLACE INTO nodes (position, size, hash) VALUES (?, ?, ?)",
            [(number << BLOCK_BITS | node.index, node.size, node.hash) for node in nodes],
        )

    def put_signature(self, space_key: PublicKey | None, feed_key: PublicKey, length: int, signature: bytes) -> None:
        """Write the signature over the first blocks of a feed."""
        position = self._feed_number(space_key, feed_key) << BLOCK_BITS | length - 1
        self._database.run("INSERT OR REPLACE INTO signatures (position, bytes) VALUES (?, ?)", (position, signature))

    def drop_signatures(self, space_key: PublicKey | None, feed_key: PublicKey, lengths: Iterable[int]) -> None:
        """Forget the signatures over the first so many blocks of a feed."""
        start = self._feed_number(space_key, feed_key) << BLOCK_BITS
        self._database.run_many(
            "DELETE FROM signatures WHERE position = ?", [(start | length - 1,) for length in lengths]
        )

    def cut_feed(self, space_key: PublicKey | None, feed_key: PublicKey, proven: int) -> None:
        """Forget all of a feed but its first blocks, so that peers are asked for the rest.

        How long it was stays known: nothing may be appended in the place of what is fetched again.
        """
        number = self._feed_number(space_key, feed_key)
        start, end = number << BLOCK_BITS, (number << BLOCK_BITS) | (1 << BLOCK_BITS) - 1
        with self._database.transaction():
            for table, first in (("blocks", proven), ("signatures", proven), ("nodes", 0)):
                self._database.run(f"DELETE FROM {table} WHERE position BETWEEN ? AND ?", (start | first, end))
            self._database.run("UPDATE feeds SET contiguous = ? WHERE number = ?", (proven, number))

    def _feed_number(self, space_key: PublicKey | None, feed_key: PublicKey) -> int:
        packed = bytes(feed_key) if space_key is None else bytes(space_key) + bytes(feed_key)
        found = self._database.row("SELECT number FROM feeds WHERE key = ?", (packed,))
        assert found is not None, "only a stored feed is mended"
        return int(found[0])

    def _count(self, source: str) -> int:
        found = self._database.row(f"SELECT count(*) {source}")
        assert found is not None
        return int(found[0])

    def __repr__(self) -> str:
        return f"<Audit of {self._database!r}>"
