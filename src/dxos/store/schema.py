"""The tables of a profile, as the steps that turn schema version n into n + 1; a released step is never edited.

Rows are compact because every object costs one of each: ids that repeat are written once and then named by a small
number, and the chunks of a document, like the blocks of a feed, are keyed by one integer, owner << BITS | index, so
that they lie side by side without a second index.
"""

from typing import Final

Migration = tuple[str, ...]

CHUNK_BITS: Final = 20  # A chunk's key is document << 20 | sequence.
BLOCK_BITS: Final = 24  # A block's key is feed << 24 | index; a tree node's likewise, with its flat index.

_VERSION_1: Final[Migration] = (
    "CREATE TABLE spaces (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE) STRICT",
    "CREATE TABLE types (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT",
    """CREATE TABLE documents (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        space INTEGER NOT NULL,
        chunks INTEGER NOT NULL,
        snapshot_bytes INTEGER NOT NULL,
        chunk_bytes INTEGER NOT NULL,
        heads BLOB NOT NULL,
        quarantine TEXT
    ) STRICT""",
    "CREATE INDEX documents_by_space ON documents (space)",
    "CREATE TABLE chunks (position INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT",
    """CREATE TABLE objects (
        number INTEGER PRIMARY KEY,
        space INTEGER NOT NULL,
        id TEXT NOT NULL,
        document INTEGER NOT NULL,
        kind TEXT NOT NULL,
        type INTEGER,
        deleted INTEGER NOT NULL,
        source TEXT,
        target TEXT,
        version INTEGER NOT NULL,
        check_sum INTEGER NOT NULL,
        meta TEXT NOT NULL,
        data TEXT NOT NULL,
        UNIQUE (space, id)
    ) STRICT""",
    "CREATE INDEX objects_by_type ON objects (space, type)",
    """CREATE TABLE feeds (
        number INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        contiguous INTEGER NOT NULL,
        length INTEGER NOT NULL
    ) STRICT""",
    "CREATE TABLE blocks (position INTEGER PRIMARY KEY, check_sum INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT",
    "CREATE TABLE signatures (position INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT",
    "CREATE TABLE nodes (position INTEGER PRIMARY KEY, size INTEGER NOT NULL, hash BLOB NOT NULL) STRICT",
    "CREATE TABLE settings (name TEXT PRIMARY KEY, check_sum INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT",
    """CREATE TABLE space_records (
        space INTEGER PRIMARY KEY REFERENCES spaces (number),
        key BLOB NOT NULL UNIQUE,
        genesis_feed_key BLOB NOT NULL,
        control_feed_key BLOB NOT NULL,
        data_feed_key BLOB NOT NULL,
        state TEXT NOT NULL,
        check_sum INTEGER NOT NULL,
        bytes BLOB NOT NULL
    ) STRICT""",
    """CREATE TABLE timeframes (
        space INTEGER NOT NULL REFERENCES space_records (space) ON DELETE CASCADE,
        feed_key BLOB NOT NULL,
        sequence INTEGER NOT NULL,
        PRIMARY KEY (space, feed_key)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE invitations (
        id TEXT PRIMARY KEY,
        created_s REAL NOT NULL,
        lifetime_s REAL NOT NULL,
        attempts INTEGER NOT NULL,
        claimed INTEGER NOT NULL,
        state TEXT NOT NULL,
        check_sum INTEGER NOT NULL,
        bytes BLOB NOT NULL
    ) STRICT""",
)

_VERSION_2: Final[Migration] = (
    # Documents of deleted objects and of earlier epochs that were given up, so that peers' copies are not taken back.
    """CREATE TABLE reclaimed (
        id TEXT PRIMARY KEY,
        space INTEGER NOT NULL,
        heads BLOB NOT NULL,
        bytes INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX reclaimed_by_space ON reclaimed (space)",
    # When changes were made, as far as it is known here, and whose they are; see `dxos.store.moments`.
    """CREATE TABLE change_moments (
        document INTEGER NOT NULL REFERENCES documents (number) ON DELETE CASCADE,
        change INTEGER NOT NULL,
        time_ms INTEGER NOT NULL,
        standing INTEGER NOT NULL,
        PRIMARY KEY (document, change)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX change_moments_by_time ON change_moments (time_ms)",
    # Which indexes on properties there are: `field_<number>`, made and dropped by `indexes.py`.
    """CREATE TABLE field_indexes (
        number INTEGER PRIMARY KEY,
        path TEXT NOT NULL,
        by_type INTEGER NOT NULL,
        declared INTEGER NOT NULL,
        UNIQUE (path, by_type)
    ) STRICT""",
    # What each object refers to; kept by triggers, so that whatever writes rows keeps it too.
    """CREATE TABLE object_references (
        object INTEGER NOT NULL,
        target TEXT NOT NULL,
        PRIMARY KEY (object, target)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX object_references_by_target ON object_references (target)",
    """CREATE TRIGGER references_of_new AFTER INSERT ON objects
        WHEN instr(new.data, '{"/":"') > 0
        BEGIN
            INSERT INTO object_references
                SELECT DISTINCT new.number, atom FROM json_tree(new.data) WHERE key = '/' AND type = 'text';
        END""",
    """CREATE TRIGGER references_of_changed AFTER UPDATE OF data ON objects
        WHEN instr(new.data, '{"/":"') > 0 OR instr(old.data, '{"/":"') > 0
        BEGIN
            DELETE FROM object_references WHERE object = new.number;
            INSERT INTO object_references
                SELECT DISTINCT new.number, atom FROM json_tree(new.data) WHERE key = '/' AND type = 'text';
        END""",
    """CREATE TRIGGER references_of_removed AFTER DELETE ON objects
        BEGIN
            DELETE FROM object_references WHERE object = old.number;
        END""",
    """INSERT OR IGNORE INTO object_references
        SELECT objects.number, atom
        FROM objects, json_tree(CASE WHEN json_valid(objects.data) THEN objects.data ELSE 'null' END)
        WHERE instr(objects.data, '{"/":"') > 0 AND key = '/' AND json_tree.type = 'text'""",
    "CREATE INDEX objects_by_source ON objects (source) WHERE source IS NOT NULL",
    "CREATE INDEX objects_by_target ON objects (target) WHERE target IS NOT NULL",
    # What small snapshots are packed with, twice, because many depend on it; see `dxos.store.packing`.
    """CREATE TABLE dictionaries (
        number INTEGER PRIMARY KEY,
        space INTEGER NOT NULL,
        check_sum INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        copy BLOB NOT NULL
    ) STRICT""",
    # The last update of each client in each space; see `dxos.store.receipts`.
    """CREATE TABLE receipts (
        client TEXT NOT NULL,
        space TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        time_ms INTEGER NOT NULL,
        PRIMARY KEY (client, space)
    ) STRICT, WITHOUT ROWID""",
    # Who may write: the highest leadership that this profile has seen.
    "CREATE TABLE leadership (number INTEGER PRIMARY KEY CHECK (number = 1), id INTEGER NOT NULL) STRICT",
    "INSERT INTO leadership VALUES (1, 0)",
)

MIGRATIONS: Final[tuple[Migration, ...]] = (_VERSION_1, _VERSION_2)
