"""Feeds on SQLite: blocks, tree nodes and signatures, keyed by feed << 24 | index so that a feed lies in one place.

The hashes of a feed are checked when a block arrives; on disk a check sum guards it, because whoever reads a block
later does not walk the tree again.
"""

# ruff: noqa: S608 - the statements are put together from constants of this module; values are parameters.

from typing import final

from dxos.feed.storage import LogWrite
from dxos.keys import PublicKey
from dxos.limits import FEED_BLOCKS_MAX
from dxos.store.checksum import check_sum, checked
from dxos.store.database import Database, Row
from dxos.store.schema import BLOCK_BITS

_INDEX_MASK = (1 << BLOCK_BITS) - 1
assert 2 * FEED_BLOCKS_MAX <= _INDEX_MASK, "a flat tree has two nodes for each block"

_POSITION = f"(SELECT number << {BLOCK_BITS} FROM feeds WHERE key = ?) + ?"


@final
class FeedStorage:
    """One feed; the `LogStorage` that a `Log` asks for.

    Nothing is kept in memory, so a rolled back transaction leaves this object right; a `Log` over it keeps two numbers
    and must be opened again after one.
    """

    __slots__ = ("_database", "_key", "key")

    def __init__(self, database: Database, key: PublicKey, space_key: PublicKey | None = None) -> None:
        self.key = key
        self._database = database
        self._key = bytes(key) if space_key is None else bytes(space_key) + bytes(key)

    def __repr__(self) -> str:
        return f"<FeedStorage {self.key.truncate()}>"

    def lengths(self) -> tuple[int, int]:
        """Contiguous blocks and the length that a stored signature covers; (0, 0) for a new feed."""
        found = self._database.row("SELECT contiguous, length FROM feeds WHERE key = ?", (self._key,))
        return (0, 0) if found is None else (int(found[0]), int(found[1]))

    def has(self, index: int) -> bool:
        """Whether the block is stored."""
        return self._row("1", "blocks", index) is not None

    def block(self, index: int) -> bytes | None:
        """The block, or None.

        Raises:
            CorruptionError: It is not what was written.
        """
        found = self._row("bytes, check_sum", "blocks", index)
        return None if found is None else checked(found[0], found[1], what="a block of a feed")

    def node(self, index: int) -> tuple[bytes, int] | None:
        """Hash and size of a tree node, or None."""
        found = self._row("hash, size", "nodes", index)
        return None if found is None else (bytes(found[0]), int(found[1]))

    def signature(self, index: int) -> bytes | None:
        """The signature over the tree of `index + 1` blocks, or None."""
        found = self._row("bytes", "signatures", index)
        return None if found is None else bytes(found[0])

    def commit(self, write: LogWrite) -> None:
        """Store all of `write`, or raise and store nothing."""
        database = self._database
        with database.transaction():
            database.run(
                "INSERT INTO feeds (key, contiguous, length) VALUES (?, ?, ?)"
                " ON CONFLICT (key) DO UPDATE SET contiguous = excluded.contiguous, length = excluded.length",
                (self._key, write.contiguous, write.length),
            )
            self._put("blocks", "check_sum, bytes", write.index, check_sum(write.data), write.data)
            for node in write.nodes:
                self._put("nodes", "size, hash", node.index, node.size, node.hash)
            if write.signature is not None:
                self._put("signatures", "bytes", write.signature_length - 1, write.signature)

    def _row(self, columns: str, table: str, index: int) -> Row | None:
        if not 0 <= index <= _INDEX_MASK:
            return None
        return self._database.row(f"SELECT {columns} FROM {table} WHERE position = {_POSITION}", (self._key, index))

    def _put(self, table: str, columns: str, index: int, *values: bytes | int) -> None:
        assert 0 <= index <= _INDEX_MASK, "an index fits its bits"
        places = ", ?" * len(values)
        self._database.run(
            f"INSERT OR REPLACE INTO {table} (position, {columns}) VALUES ({_POSITION}{places})",
            (self._key, index, *values),
        )


@final
class FeedStore:
    """All feeds of one profile."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __repr__(self) -> str:
        return f"<FeedStore in {self._database!r}>"

    def open(self, feed_key: PublicKey) -> FeedStorage:
        """The storage of one feed; nothing is written until its first block is."""
        return FeedStorage(self._database, feed_key)

    def open_in(self, space_key: PublicKey, feed_key: PublicKey) -> FeedStorage:
        """The storage of a feed as one space has it; what other spaces have of the same feed lies elsewhere.

        Anybody who may admit feeds to a space may name one of another space. If both shared what is stored, the members
        of the first would be given the records of the second.
        """
        return FeedStorage(self._database, feed_key, space_key)

    def keys(self) -> list[PublicKey]:
        """The feeds that have a block, in the order of their first."""
        return [PublicKey(row[0]) for row in self._database.rows("SELECT key FROM feeds ORDER BY number")]

    def delete(self, feed_key: PublicKey) -> bool:
        """Forget a feed with all its blocks; False if there was none."""
        database = self._database
        with database.transaction():
            found = database.row("SELECT number FROM feeds WHERE key = ?", (bytes(feed_key),))
            if found is None:
                return False
            start = int(found[0]) << BLOCK_BITS
            for table in ("blocks", "nodes", "signatures"):
                database.run(f"DELETE FROM {table} WHERE position BETWEEN ? AND ?", (start, start | _INDEX_MASK))
            database.run("DELETE FROM feeds WHERE number = ?", (found[0],))
        return True
