"""Indexes on the objects' properties and words, made when they are first needed; SQLite keeps the former up to date.

Words are kept a step behind: triggers note which rows have changed, and a search reads those first.  So a profile in
which nobody searches pays nothing, and typing into a long text does not index it at every key.
"""

import json
from typing import Final, final

from msgspec import Struct

from dxos.errors import InvalidValueError, UsageError
from dxos.limits import QUERY_INDEXES_DECLARED_MAX, QUERY_INDEXES_MAX, TEXT_INDEX_BATCH
from dxos.store.conditions import Path, canonical_json, key_sql, sqlite_path, words_of
from dxos.store.database import Database

_ANALYSIS_ROWS: Final = 1_000
# In triggers ON CONFLICT and not OR IGNORE, which the statement that sets them off would override.
WORDS_SCHEMA: Final = (
    # The words come separated already; whatever is not ASCII is a part of one.
    "CREATE VIRTUAL TABLE object_words USING fts5(words, tokenize = 'ascii')",
    "CREATE TABLE stale_words (number INTEGER PRIMARY KEY) STRICT",
    "CREATE TRIGGER words_of_new AFTER INSERT ON objects"
    " BEGIN INSERT INTO stale_words VALUES (new.number) ON CONFLICT DO NOTHING; END",
    "CREATE TRIGGER words_of_changed AFTER UPDATE OF data ON objects WHEN old.data IS NOT new.data"
    " BEGIN INSERT INTO stale_words VALUES (new.number) ON CONFLICT DO NOTHING; END",
    "CREATE TRIGGER words_of_removed AFTER DELETE ON objects"
    " BEGIN INSERT INTO stale_words VALUES (old.number) ON CONFLICT DO NOTHING; END",
    "INSERT INTO stale_words SELECT number FROM objects",
)


@final
class FieldIndex(Struct, frozen=True):
    """An index on one property."""

    number: int
    path: Path
    by_type: bool  # Whether it has the type before the property.
    declared: bool  # Whether an application asked for it; else a query did.

    @property
    def name(self) -> str:
        """Of the index in SQL."""
        return f"field_{self.number}"


@final
class FieldIndexes:
    """The indexes on properties of one profile, over all its spaces."""

    def __init__(self, database: Database) -> None:
        self._database = database
        rows = database.rows("SELECT number, path, by_type, declared FROM field_indexes ORDER BY number")
        self._known = [
            FieldIndex(number, tuple(json.loads(path)), bool(by_type), bool(declared))
            for number, path, by_type, declared in rows
        ]

    def all(self) -> list[FieldIndex]:
        """Every index, the oldest first."""
        return list(self._known)

    def find(self, path: Path, *, by_type: bool) -> FieldIndex | None:
        """The index on a property."""
        return next((one for one in self._known if (one.path, one.by_type) == (path, by_type)), None)

    def make(self, path: Path, *, by_type: bool, declared: bool) -> None:
        """Make an index if there is none; reads all objects, about 2 us for each.

        Raises:
            InvalidValueError: There can be no index on such a path, or there are too many.
            StorageFullError: No room.
        """
        found = self.find(path, by_type=by_type)
        if found is not None and (found.declared or not declared):
            return
        if sqlite_path(path) is None or not path:
            raise InvalidValueError(f"There can be no index on {canonical_json(list(path)):.80}.")
        gone = found or self._least_of_too_many(declared=declared)
        with self._database.transaction():
            if gone is not None:
                self._database.run(f"DROP INDEX {gone.name}")
                self._database.run("DELETE FROM field_indexes WHERE number = ?", (gone.number,))
            number = self._database.insert(
                "INSERT INTO field_indexes (path, by_type, declared) VALUES (?, ?, ?)",
                (canonical_json(list(path)), int(by_type), int(declared)),
            )
            made = FieldIndex(number, path, by_type, declared)
            self._create(made)
        self._known = [one for one in self._known if one != gone] + [made]

    def _least_of_too_many(self, *, declared: bool) -> FieldIndex | None:
        """What has to go for one more."""
        alike = [one for one in self._known if one.declared == declared]
        if declared and len(alike) >= QUERY_INDEXES_DECLARED_MAX:
            raise InvalidValueError("This profile has too many indexes.", count_max=QUERY_INDEXES_DECLARED_MAX)
        return alike[0] if not declared and len(alike) >= QUERY_INDEXES_MAX else None

    def _create(self, index: FieldIndex) -> None:
        place = sqlite_path(index.path)
        assert place is not None, "checked when it was made"
        columns = "space, type" if index.by_type else "space"
        self._database.run(f"CREATE INDEX {index.name} ON objects ({columns}, {key_sql(place, 'data')}, id)")
        # So that SQLite knows which index finds few rows; a sample is enough.
        self._database.row(f"PRAGMA analysis_limit = {_ANALYSIS_ROWS}")
        self._database.run("ANALYZE objects")

    def rebuild(self) -> None:
        """Make all indexes anew from the rows.

        SQLite refuses to replace a damaged row while an index has what the row was before.
        """
        with self._database.transaction():
            for index in self._known:
                self._database.run(f"DROP INDEX IF EXISTS {index.name}")
                self._create(index)


@final
class WordIndex:
    """The index of all words of all objects of one profile."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._exists = database.row("SELECT 1 FROM sqlite_master WHERE name = 'object_words'") is not None

    def catch_up(self) -> bool:
        """Index the words of some objects that have changed; whether there may be more.

        Raises:
            UsageError: SQLite was built without full text search.
        """
        database = self._database
        if not self._exists:
            if database.row("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'") is None:
                raise UsageError("This Python's SQLite was built without full text search (FTS5).")
            with database.transaction():
                for statement in WORDS_SCHEMA:
                    database.run(statement)
            self._exists = True
        rows = database.rows(
            "SELECT stale_words.number, objects.data FROM stale_words"
            " LEFT JOIN objects ON objects.number = stale_words.number LIMIT ?",
            (TEXT_INDEX_BATCH,),
        )
        if rows:
            with database.transaction():
                numbers = [(number,) for number, _ in rows]
                database.run_many("DELETE FROM object_words WHERE rowid = ?", numbers)
                database.run_many(
                    "INSERT INTO object_words (rowid, words) VALUES (?, ?)",
                    [(number, words_in(data)) for number, data in rows if data is not None],
                )
                database.run_many("DELETE FROM stale_words WHERE number = ?", numbers)
        return len(rows) == TEXT_INDEX_BATCH

    def rebuild(self) -> None:
        """Forget all words; they are read from the rows again before the next search."""
        if self._exists:
            with self._database.transaction():
                self._database.run("DROP TABLE object_words")
                self._database.run(WORDS_SCHEMA[0])
                self._database.run("INSERT OR IGNORE INTO stale_words SELECT number FROM objects")


def words_in(data: str) -> str:
    """What the index has for a row's data."""
    try:
        return words_of(data)
    except ValueError:
        return ""  # A damaged row is found, and made anew, by whoever reads it.
