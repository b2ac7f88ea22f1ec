"""One SQLite file: transactions, the schema's version and its migrations, durability, and SQLite's errors as ours.

Calls are synchronous and made by one thread at a time, the host's event loop: a commit in write-ahead mode with
`synchronous=NORMAL` is a write to the page cache (about 10 us) and never waits for the disk.  What waits for the disk
is `sync_wal` and `checkpoint`, and these two alone may run in a worker thread while the loop's thread goes on.

Why commit + `sync_wal` is as durable as `synchronous=FULL`:

1. FULL differs from NORMAL in one thing: after each commit's frames it calls fsync on the `-wal` file.
2. fsync belongs to the file, not to the descriptor: one through our own descriptor carries every frame written before.
3. A frame leaves the log only by a checkpoint, which under NORMAL too syncs the log before it copies and the database
   after, and the header of a restarted log is synced before new frames follow it.
4. A log that was just created also needs its directory entry; SQLite syncs the directory at a log's first fsync, so
   `sync_wal` does so whenever it meets a new file.
5. After a failed fsync the kernel may have dropped the pages and called them clean, so a second one would lie: the
   first failure is final, until the profile is opened again and SQLite has checked every frame's checksum.

A closing descriptor drops the POSIX locks its process holds on that file; SQLite keeps no locks on the `-wal` file, so
ours does no harm there.  The database file itself is never opened here while SQLite has it open.
"""

import contextlib
import os
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, final

from dxos.errors import (
    ClosedError,
    CorruptionError,
    FencedError,
    ProfileLockedError,
    ProfileVersionError,
    StorageAccessError,
    StorageError,
    StorageFullError,
)
from dxos.limits import BACKUPS_MAX, STORE_BUSY_TIMEOUT_S, WAL_BYTES_MAX, WAL_CHECKPOINT_BYTES
from dxos.store.files import check_descriptors, create_private_file, map_os_error, sync_directory, sync_file
from dxos.store.schema import MIGRATIONS, Migration

APPLICATION_ID: Final = 0x44584F53  # "DXOS" in the file's header: how we know a database is a profile.
PAGE_BYTES: Final = 4_096

Parameter = str | bytes | int | float | None
Row = tuple[Any, ...]

_SEALED_SUFFIX: Final = ".sealed"
_INCREMENTAL: Final = 2  # What SQLite says of a file that gives back pages when it is asked to.
_FULL = {sqlite3.SQLITE_FULL}
_ACCESS = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH}
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_UNREADABLE = {
    sqlite3.SQLITE_IOERR_READ,
    sqlite3.SQLITE_IOERR_SHORT_READ,
    getattr(sqlite3, "SQLITE_IOERR_DATA", -1),
    getattr(sqlite3, "SQLITE_IOERR_CORRUPTFS", -1),
}
# What SQLite and its Python module say, without a code of its own, of text or JSON that is not what was written.
_DAMAGED_VALUES = ("malformed JSON", "Could not decode to UTF-8", "user-defined function raised exception")
# What our statements name is in our schema, so it is the schema that is damaged.
_DAMAGED_SCHEMA = ("no such column", "no such table", "no such index")
# Python's module cannot even read a message of SQLite's that quotes a damaged schema.
_ERRORS = (sqlite3.Error, UnicodeDecodeError)
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def map_sqlite_error(error: sqlite3.Error | UnicodeDecodeError) -> StorageError | ClosedError:
    """The error of ours that an error of SQLite means; every other one is a bug of ours and is raised as such."""
    if isinstance(error, UnicodeDecodeError):
        return CorruptionError("The database file is damaged; restore a backup or join the spaces again.")
    extended = getattr(error, "sqlite_errorcode", None)
    if str(error).startswith(_DAMAGED_VALUES):
        return CorruptionError("A row is damaged on disk; restore a backup or join the space again.")
    if str(error).startswith(_DAMAGED_SCHEMA):
        return CorruptionError("The database file is damaged; restore a backup or join the spaces again.")
    if extended is None:
        if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
            return ClosedError("The profile was closed.")
        raise AssertionError(f"a wrong use of SQLite: {error}") from error
    primary, name = extended & 0xFF, getattr(error, "sqlite_errorname", "")
    if primary in _CORRUPT or extended in _UNREADABLE:
        return CorruptionError("The database file is damaged; restore a backup or join the spaces again.", reason=name)
    if primary in _FULL:
        return StorageFullError("The disk is full; nothing of this change was written: free some space.", reason=name)
    if primary == sqlite3.SQLITE_IOERR:
        # A quota or a limit of file size arrives as a failed write, not as SQLITE_FULL.
        return StorageFullError(
            "The disk refused a write; nothing of this change was written: free some space.", reason=name
        )
    if primary == sqlite3.SQLITE_CANTOPEN:
        check_descriptors(1, "open the database")  # SQLite does not say whether this is why.
    if primary in _ACCESS:
        return StorageAccessError("The database cannot be written; check the permissions of its folder.", reason=name)
    if primary in _LOCKED:
        return ProfileLockedError("Another process is writing to this profile; try again.", reason=name)
    if primary == sqlite3.SQLITE_NOMEM:
        raise MemoryError from error
    raise AssertionError(f"a wrong use of SQLite: {error}") from error


@final
class Database:
    """One profile's database.

    Args:
        path: The file, made with mode 0600 if it is missing; its directory exists.  None keeps all in memory.
        migrations: What turns schema version n into n + 1, oldest first.
        write_sealed: Writes what is kept before a migration to a path, sealed; None: a copy as open as the file.

    Raises:
        ProfileVersionError: The file was written by a newer version of this package.
        CorruptionError: The file is no database, not ours, or damaged.
        StorageAccessError: The file cannot be opened for writing.
        StorageFullError: No room for the migration or for its backup; the file is as it was.
        ProfileLockedError: Another process has been writing for longer than STORE_BUSY_TIMEOUT_S.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        migrations: Sequence[Migration] = MIGRATIONS,
        write_sealed: Callable[[Path], object] | None = None,
    ) -> None:
        self.path: Final = path
        self._write_sealed = write_sealed
        self._connection: sqlite3.Connection | None = None
        self._depth = 0  # Open transaction blocks.
        self._failure: BaseException | None = None  # What ended an inner block of the open transaction.
        self._wal_descriptor = -1
        self._wal_failed = False
        self._leadership_id = 0  # 0: the profile's lock alone says who may write.
        unclean = path is not None and _size(_wal_path(path)) > 0
        if path is not None:
            create_private_file(path)
        try:
            self._connection = self._connect()
            self._check_version(len(migrations))
            self._prepare(unclean=unclean)
            self._migrate(migrations)
        except _ERRORS as error:
            self.close()
            # Its frames hold cursors, and while these live SQLite keeps the file open and locked.
            raise map_sqlite_error(error) from error.with_traceback(None)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        where = "memory" if self.path is None else self.path.name
        return f"<Database {where} {'closed' if self._connection is None else 'open'}>"

    # --- Opening and closing ---------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            ":memory:" if self.path is None else os.fspath(self.path),
            timeout=STORE_BUSY_TIMEOUT_S,
            isolation_level=None,  # Transactions are ours alone.
            check_same_thread=False,  # A profile may be opened by a worker thread and used by the loop's.
            cached_statements=256,
        )
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_version(self, newest: int) -> None:
        """Refuse a file of a newer version, before anything that might change it."""
        version = _number(self._open_connection().execute("PRAGMA user_version"))
        if version > newest:
            raise ProfileVersionError(
                "This profile was written by a newer version of dxos; upgrade this one.",
                profile_version=version,
                own_version=newest,
            )

    def _prepare(self, *, unclean: bool) -> None:
        execute = self._open_connection().execute
        execute(f"PRAGMA page_size = {PAGE_BYTES}")
        tables, application = (
            _number(execute("SELECT count(*) FROM sqlite_master")),
            _number(execute("PRAGMA application_id")),
        )
        if tables and application != APPLICATION_ID:
            raise CorruptionError("The database file belongs to another program; choose another folder.")
        if not tables:
            execute("PRAGMA auto_vacuum = INCREMENTAL")  # Counts for a file without tables only.
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA foreign_keys = ON")
        execute(f"PRAGMA wal_autocheckpoint = {WAL_BYTES_MAX // PAGE_BYTES}")
        execute(f"PRAGMA journal_size_limit = {WAL_CHECKPOINT_BYTES}")
        execute("PRAGMA temp_store = MEMORY")
        # Indexes on properties use SQLite's JSON functions, which version 3.40 counts as unsafe in a schema.  The
        # schema is ours: the file lies in a private folder, and the functions that we define have no effects.
        execute("PRAGMA trusted_schema = ON")
        if unclean:
            # Whoever wrote last did not close: the one moment at which torn pages are likely.
            self.check()

    def _migrate(self, migrations: Sequence[Migration]) -> None:
        execute = self._open_connection().execute
        newest = len(migrations)
        version = _number(execute("PRAGMA user_version"))
        is_new = version == 0
        while version < newest:
            if not is_new:
                self._back_up(version)
            with self.transaction():
                # Another process may have migrated while we waited for the write lock.
                if _number(execute("PRAGMA user_version")) == version:
                    for statement in migrations[version]:
                        execute(statement)
                    execute(f"PRAGMA user_version = {version + 1}")
                    execute(f"PRAGMA application_id = {APPLICATION_ID}")
            version += 1

    def _back_up(self, version: int) -> None:
        """Keep the whole file beside itself before it is migrated from `version`."""
        if self.path is None:
            return
        target = self.path.with_name(f"{self.path.name}.v{version:04}.backup")
        if self._write_sealed is None:
            self._write_copy(target)
        else:
            self._write_sealed(target.with_suffix(_SEALED_SUFFIX))
        for old in self.backups()[:-BACKUPS_MAX]:
            old.unlink(missing_ok=True)

    def _write_copy(self, target: Path) -> None:
        draft = target.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        create_private_file(draft)
        try:
            with contextlib.closing(sqlite3.connect(os.fspath(draft))) as copy:
                self._open_connection().backup(copy)
            with draft.open("rb+") as file:
                sync_file(file.fileno())
            draft.replace(target)
            sync_directory(target.parent)
        except OSError as error:
            raise map_os_error(error, "back up the profile") from error
        finally:
            draft.unlink(missing_ok=True)

    def backups(self) -> list[Path]:
        """The copies made before migrations, oldest first; at most BACKUPS_MAX."""
        if self.path is None:
            return []
        folder, name = self.path.parent, self.path.name
        return sorted([*folder.glob(f"{name}.v*.backup"), *folder.glob(f"{name}.v*{_SEALED_SUFFIX}")])

    def close(self) -> None:
        """Close the file; closing twice is no error.  Not while `sync_wal` or `checkpoint` runs in a thread."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):  # The log stays and is replayed by the next open.
                connection.close()
        if self._wal_descriptor >= 0:
            os.close(self._wal_descriptor)
            self._wal_descriptor = -1

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ClosedError("The profile was closed.")
        return self._connection

    def check(self) -> None:
        """Have SQLite check every page and index; reads the whole file (about 1 ms per megabyte).

        Raises:
            CorruptionError: The file is damaged; `detail["reason"]` holds SQLite's first finding.
        """
        found = self.rows("PRAGMA quick_check(1)")
        if found != [("ok",)]:
            raise CorruptionError(
                "The database file is damaged; restore a backup or join the spaces again.", reason=str(found[0][0])
            )

    # --- Statements ------------------------------------------------------------------------------------------------

    def rows(self, statement: str, parameters: Sequence[Parameter] = ()) -> list[Row]:
        """All rows of a query."""
        try:
            return self._open_connection().execute(statement, parameters).fetchall()
        except _ERRORS as error:
            self._fail(error)

    def row(self, statement: str, parameters: Sequence[Parameter] = ()) -> Row | None:
        """The first row of a query, or of what a change returns; None if there is none."""
        try:
            # To the end, because a change is committed only when its statement is done.
            found = self._open_connection().execute(statement, parameters).fetchall()
        except _ERRORS as error:
            self._fail(error)
        return found[0] if found else None

    def run(self, statement: str, parameters: Sequence[Parameter] = ()) -> int:
        """Run one change; the number of rows it touched."""
        with self._fenced():
            return self._execute(statement, parameters).rowcount

    def run_many(self, statement: str, parameters: Iterable[Sequence[Parameter]]) -> int:
        """Run one change for each set of parameters, all or none; the number of rows touched."""
        with self.transaction():
            try:
                return self._open_connection().executemany(statement, parameters).rowcount
            except _ERRORS as error:
                self._fail(error)

    def insert(self, statement: str, parameters: Sequence[Parameter] = ()) -> int:
        """Run one insertion; the number of the new row."""
        with self._fenced():
            number = self._execute(statement, parameters).lastrowid
        assert number is not None
        return number

    def _execute(self, statement: str, parameters: Sequence[Parameter] = ()) -> sqlite3.Cursor:
        try:
            return self._open_connection().execute(statement, parameters)
        except _ERRORS as error:
            self._fail(error)

    def define_function(self, name: str, arity: int, function: Callable[..., Parameter]) -> None:
        """Let statements call `function`, which depends on its arguments alone."""
        self._open_connection().create_function(name, arity, function, deterministic=True)

    def _fail(self, error: sqlite3.Error | UnicodeDecodeError) -> NoReturn:
        raise map_sqlite_error(error) from error

    def lead(self, leadership_id: int, *, again: bool = False) -> None:
        """Write under this leadership from now on; transactions of lower ones fail, in whatever process they are.

        Args:
            leadership_id: At least 1.
            again: The same host had it before, and let go of the profile for a while.

        Raises:
            FencedError: A higher one was here already, or another host with this one.
        """
        found = self.row("SELECT id FROM leadership")
        if not self._leadership_id and not again and found is not None and int(found[0]) == leadership_id:
            # The files of the lock were lost, and numbers began again. The versions of objects that two hosts with one
            # number gave would begin again too, and clients take the later ones for old news.
            raise FencedError(
                "Another process has had this profile.", leadership_id=leadership_id, newest_id=leadership_id
            )
        self._leadership_id = max(self._leadership_id, leadership_id)
        with self.transaction():
            pass  # It notes whose it is.

    def _fenced(self) -> contextlib.AbstractContextManager[None]:
        """For one change: also one that is alone is made under our leadership or not at all."""
        return self.transaction() if self._leadership_id and not self._depth else contextlib.nullcontext()

    def _check_leadership(self) -> None:
        found = self.row("SELECT id FROM leadership")
        newest_id = self._leadership_id if found is None else int(found[0])
        if newest_id > self._leadership_id:
            raise FencedError(
                "Another process has taken this profile over.", leadership_id=self._leadership_id, newest_id=newest_id
            )
        if newest_id < self._leadership_id:
            self.run("UPDATE leadership SET id = ?", (self._leadership_id,))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes of the block become visible together, or none does; blocks nest, the outermost commits.

        An exception undoes the outermost block, also if it left an inner one and was caught on its way: half of an
        inner block never stays.  A commit survives the death of this process; `sync_wal` makes it survive the power's.

        Raises:
            StorageFullError: No room; nothing of the block was written.
            ProfileLockedError: Another process has been writing for longer than STORE_BUSY_TIMEOUT_S.
            FencedError: A higher leadership than ours has begun.
        """
        self._depth += 1
        try:
            if self._depth == 1:
                self._failure = None
                self.run("BEGIN IMMEDIATE")
                if self._leadership_id:
                    self._check_leadership()
            yield
            if self._depth == 1:
                if self._failure is not None:
                    raise self._failure
                self.run("COMMIT")
        except BaseException as error:
            if self._depth > 1:
                self._failure = error
            else:
                self._roll_back()
            raise
        finally:
            self._depth -= 1

    def _roll_back(self) -> None:
        # A full disk makes SQLite roll back by itself; a connection closed inside the block has done so too.
        if self._connection is not None and self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction block is open."""
        return self._depth > 0

    # --- Durability ------------------------------------------------------------------------------------------------

    def sync_wal(self) -> None:
        """Make everything committed before this call survive a loss of power; blocks for the disk (0.1 to 10 ms).

        May run in a worker thread while the loop's thread reads and commits; one such call at a time.  Also keeps the
        log short: beyond WAL_CHECKPOINT_BYTES it is copied into the database.

        Raises:
            StorageFullError: The disk refused; what was committed since the last success may not survive, and every
                later call raises too, until the profile is opened again.
            ClosedError: The profile was closed.
        """
        if self.path is None:
            return
        self._open_connection()
        if self._wal_failed:
            raise StorageFullError("An earlier write did not reach the disk; close the profile and open it again.")
        wal = _wal_path(self.path)
        try:
            self._follow_wal(wal)
            if self._wal_descriptor >= 0:
                sync_file(self._wal_descriptor)
        except OSError as error:
            self._wal_failed = True
            raise map_os_error(error, "write to the disk") from error
        if _size(wal) > WAL_CHECKPOINT_BYTES:
            # All is durable in the log already, so that there is no room for a second copy of it refuses nothing.
            with contextlib.suppress(StorageFullError, StorageAccessError):
                self.checkpoint()

    def _follow_wal(self, wal: Path) -> None:
        """Hold a descriptor of the present log, so that no failed write to it goes unreported."""
        try:
            present = wal.stat()
        except FileNotFoundError:
            return  # No commit since the log was last removed, which is done only when all is in the database.
        if self._wal_descriptor >= 0:
            held = os.fstat(self._wal_descriptor)
            if (held.st_dev, held.st_ino) == (present.st_dev, present.st_ino):
                return
            os.close(self._wal_descriptor)
            self._wal_descriptor = -1
        self._wal_descriptor = os.open(wal, os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        sync_directory(wal.parent)

    def checkpoint(self) -> bool:
        """Copy the log into the database so that it starts over; True if all of it was copied.

        Waits for the disk, takes no lock that a reader or writer waits for, and may run in a worker thread.
        """
        if self.path is None:
            return True
        try:
            with contextlib.closing(self._connect()) as connection:
                busy, log_pages, copied_pages = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except _ERRORS as error:
            raise map_sqlite_error(error) from error
        return not busy and log_pages == copied_pages

    @property
    def free_bytes(self) -> int:
        """How much of the file is not used."""
        found = self.row("PRAGMA freelist_count")
        assert found is not None
        return int(found[0]) * PAGE_BYTES

    @property
    def file_bytes(self) -> int:
        """The length of the database, without its log."""
        found = self.row("PRAGMA page_count")
        assert found is not None
        return int(found[0]) * PAGE_BYTES

    def shrink(self, pages_max: int) -> bool:
        """Give that many unused pages back to the disk; whether there are more. Not inside a transaction.

        A file from before version 2 cannot give back single pages: the first call writes all of it anew.
        """
        assert not self.in_transaction, "SQLite frees nothing inside a transaction"
        with self.transaction():
            pass  # Who leads no longer frees nothing either.
        if self.row("PRAGMA auto_vacuum") != (_INCREMENTAL,):
            self._execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._execute("VACUUM")
            return False
        self.rows(f"PRAGMA incremental_vacuum({pages_max})")
        return self.free_bytes > 0

    @property
    def wal_bytes(self) -> int:
        """The length of the log."""
        return 0 if self.path is None else _size(_wal_path(self.path))


def _wal_path(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _number(cursor: sqlite3.Cursor) -> int:
    return int(cursor.fetchone()[0])


assert sqlite3.sqlite_version_info >= (3, 37, 0), "strict tables need SQLite 3.37"
assert sys.version_info >= (3, 11), "SQLite's error codes need Python 3.11"
