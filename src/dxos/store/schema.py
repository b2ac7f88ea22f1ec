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
)

MIGRATIONS: Final[tuple[Migration, ...]] = (_VERSION_1, _VERSION_2)
