"""Makes a new database file of all that can still be read in a damaged one, which is kept beside it.

A damaged page takes the rows on it along, and stops a scan that meets it. So a table is read from its beginning to the
first bad page, from its end to the last, and between them from wherever reading works again. Every record carries a
sum or hash of its own, so that what was misread is found by the check that follows.
"""

import contextlib
import sqlite3
from pathlib import Path
from typing import Final

from dxos.errors import CorruptionError
from dxos.store.database import Database, Row, map_sqlite_error
from dxos.store.files import map_os_error, sync_directory
from dxos.store.indexes import FieldIndexes

DAMAGED_SUFFIX: Final = ".damaged"
_IRREPLACEABLE: Final = frozenset({"spaces", "documents", "chunks", "settings", "space_records", "feeds", "blocks"})
_ROWID_MAX: Final = 2**63 - 1
_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)
# What follows from the rows of objects, and is made anew with them.
_MADE_ANEW: Final = frozenset({"object_references"})


def salvage_database(path: Path) -> dict[str, int]:
    """Put a new file in the place of a damaged one; the profile's lock is held, and nobody has the file open.

    Args:
        path: Of the database file.

    Returns:
        How many rows each table has now.

    Raises:
        CorruptionError: Nothing can be read in the file.
        StorageError: The new file cannot be written; the old one is as it was.
    """
    draft = path.with_name(f"{path.name}.salvage")
    _remove(draft)
    try:
        database = Database(draft)
        try:
            with contextlib.closing(_open_damaged(path)) as damaged:
                counts = _copy_all(damaged, database)
        except _ERRORS as error:
            raise map_sqlite_error(error) from error
        finally:
            database.close()
        if not counts.get("settings") and not counts.get("documents"):
            raise _nothing_readable()
        kept = path.with_name(path.name + DAMAGED_SUFFIX)
        _remove(kept)
        for suffix in ("-wal", ""):  # The log first: a file without its log opens, a log of another file does not.
            old = path.with_name(path.name + suffix)
            if old.exists():
                old.replace(kept.with_name(kept.name + suffix))
        path.with_name(path.name + "-shm").unlink(missing_ok=True)
        draft.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise map_os_error(error, "salvage the profile") from error
    finally:
        _remove(draft)
    return counts


def check_salvageable(path: Path) -> None:
    """See whether `salvage_database` would find what matters, without changing anything.

    Raises:
        CorruptionError: It would not.
    """
    with contextlib.closing(_open_damaged(path)) as damaged:
        for table in _IRREPLACEABLE:
            _check_present(table, _present_columns(damaged, table))
        if not _scan(damaged, "settings", "1", limit=1) and not _scan(damaged, "documents", "1", limit=1):
            raise _nothing_readable()


def _open_damaged(path: Path) -> sqlite3.Connection:
    """Open a file as far as it can be, which is to be read only."""
    damaged = sqlite3.connect(path, isolation_level=None)
    # Tables can be read then although the schema does not parse, of an index or a trigger say, after a first failure.
    for statement in ("PRAGMA writable_schema = ON", "SELECT 1 FROM sqlite_schema"):
        with contextlib.suppress(*_ERRORS):
            damaged.execute(statement).fetchall()
    return damaged


def _nothing_readable() -> CorruptionError:
    return CorruptionError("Nothing can be read in the database file; restore the profile from a backup.")


def _copy_all(damaged: sqlite3.Connection, database: Database) -> dict[str, int]:
    counts = {}
    database.run("PRAGMA foreign_keys = OFF")  # What a row refers to may come later, or be lost.
    for table, without_rowid in _tables(database):
        columns = _columns(damaged, database, table)
        if not columns:
            continue
        names = ", ".join(f'"{name}"' for name in columns)
        right_names = ", ".join(f'"{name}"' for name in columns.values())
        places = ", ".join("?" * len(columns))
        insert = f'INSERT OR IGNORE INTO "{table}" ({right_names}) VALUES ({places})'  # noqa: S608 - Names of our schema.
        rows = _scan(damaged, table, names) if without_rowid else _read(damaged, table, names)
        with database.transaction():
            for row in rows:
                # A value of the wrong type is refused by the new table, and data that is no JSON by a trigger.
                with contextlib.suppress(AssertionError, CorruptionError):
                    database.run(insert, row)
        found = database.row(f'SELECT count(*) FROM "{table}"')  # noqa: S608
        assert found is not None
        counts[table] = int(found[0])
    FieldIndexes(database).rebuild()
    return counts


def _tables(database: Database) -> list[tuple[str, bool]]:
    """The tables of the schema that hold what nothing else does, with those first that others refer to."""
    rows = database.rows("SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'")
    tables = [
        (name, bool(without_rowid))
        for name, kind, without_rowid in rows
        if kind == "table" and name not in _MADE_ANEW and not name.startswith("sqlite_")
    ]
    return sorted(tables, key=lambda one: (one[0] not in ("spaces", "types"), one[0]))


def _columns(damaged: sqlite3.Connection, database: Database, table: str) -> dict[str, str]:
    """The names of a table's columns in the damaged file, each with its right name."""
    wanted = [row[0] for row in database.rows("SELECT name FROM pragma_table_info(?)", (table,))]
    present = _present_columns(damaged, table)
    if table in _IRREPLACEABLE:
        _check_present(table, present)
    if len(present) == len(wanted):
        return dict(zip(present, wanted, strict=True))  # A name may be what is damaged.
    return {name: name for name in wanted if name in present}


def _present_columns(damaged: sqlite3.Connection, table: str) -> list[str]:
    try:
        return [row[0] for row in damaged.execute("SELECT name FROM pragma_table_info(?)", (table,))]
    except _ERRORS:
        return []


def _check_present(table: str, columns: list[str]) -> None:
    if not columns:
        raise CorruptionError(
            f"A table of the database cannot be found ({table}); restore the profile from a backup.", table=table
        )


def _scan(damaged: sqlite3.Connection, table: str, names: str, *, limit: int = -1) -> list[Row]:
    """What a scan finds until it fails."""
    found = []
    with contextlib.suppress(*_ERRORS):
        for row in damaged.execute(f'SELECT {names} FROM "{table}" LIMIT ?', (limit,)):  # noqa: S608
            found.append(row)
    return found


def _read(damaged: sqlite3.Connection, table: str, names: str) -> list[Row]:
    """Every row that can be reached by its number."""
    found: dict[int, Row] = {}

    def take(where: str, *numbers: int) -> bool:
        """Whether the scan came to its end."""
        try:
            for number, *row in damaged.execute(f'SELECT rowid, {names} FROM "{table}" {where}', numbers):  # noqa: S608
                found[number] = tuple(row)
        except _ERRORS:
            return False
        return True

    if not take("ORDER BY rowid"):
        first = max(found, default=-1)
        take("ORDER BY rowid DESC")
        last = min((number for number in found if number > first), default=_ROWID_MAX)
        at = _next_readable(damaged, table, first + 1, last)
        while at is not None:
            between = "WHERE rowid >= ? AND rowid < ? ORDER BY rowid"
            take(f"{between} LIMIT 1", at, last)  # Where a scan fails, Python loses the row before.
            if take(between, at, last):
                break
            at = _next_readable(damaged, table, max(number for number in found if number < last) + 1, last)
    return [found[number] for number in sorted(found)]


def _next_readable(damaged: sqlite3.Connection, table: str, start: int, end: int) -> int | None:
    """The first number from which reading works again: found by longer and longer jumps, then by halving the last."""

    def is_readable(number: int) -> bool:
        query = f'SELECT * FROM "{table}" WHERE rowid >= ? AND rowid < ? ORDER BY rowid LIMIT 1'  # noqa: S608
        try:
            return damaged.execute(query, (number, end)).fetchone() is not None
        except _ERRORS:
            return False

    bad, step = start - 1, 1
    while not is_readable(start):
        bad, start, step = start, start + step, 2 * step
        if start >= end:
            return None
    while start - bad > 1:
        middle = (start + bad) // 2
        if is_readable(middle):
            start = middle
        else:
            bad = middle
    return start


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
