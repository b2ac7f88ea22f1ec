"""One profile on disk, or in memory: a folder that one process at a time holds, with a database and a keyring.

<path>/             0700, ours, no link
  lock              held for life; names the holder's process
  profile.sqlite    and SQLite's own -wal and -shm, and the backups made before migrations
  keyring/<hex>     one private key each
  resetting         only while a reset is under way: the next open finishes it
"""

import contextlib
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self, final

from dxos.errors import ClosedError, CorruptionError, ProfileLockedError, UsageError
from dxos.store import salvage
from dxos.store.database import Database
from dxos.store.documents import DocumentStore
from dxos.store.feeds import FeedStore
from dxos.store.files import LOCK_NAME, create_private_file, make_private_directory, map_os_error, sync_directory
from dxos.store.invitations import InvitationStore
from dxos.store.keyring import Keyring
from dxos.store.metadata import MetadataStore
from dxos.store.objects import ObjectStore

DATABASE_NAME: Final = "profile.sqlite"
KEYRING_NAME: Final = "keyring"
_LOOK_S: Final = 0.01
RESETTING_NAME: Final = "resetting"
_PID_BYTES_MAX: Final = 20


@final
class Profile:
    """All that one client keeps; made by `open`, ended by `close` or by leaving its `with` block."""

    def __init__(self, path: Path | None, database: Database, keyring: Keyring, lock: "_Lock | None") -> None:
        self.path: Final = path
        self.database: Final = database
        self.keyring: Final = keyring
        self.documents: Final = DocumentStore(database)
        self.objects: Final = ObjectStore(database)
        self.feeds: Final = FeedStore(database)
        self.metadata: Final = MetadataStore(database)
        self.invitations: Final = InvitationStore(database)
        self._lock = lock
        self._closed = False

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None, *, write_sealed: Callable[[Path], object] | None = None) -> Self:
        """Open a profile, making it if it is not there.

        Args:
            path: Its folder, whose parents are made too.  None keeps all in memory.
            write_sealed: Writes the copy that is made before a migration; see `dxos.store.backup.sealed_writer`. None:
                it is as open as the database itself.

        Raises:
            ProfileLockedError: Another process holds it; `detail["pid"]` says which.
            ProfileVersionError: It was written by a newer version.
            StorageAccessError: The folder is a link, no folder, another user's, or cannot be written.
            StorageFullError: No room to make or to migrate it.
            CorruptionError: The database is damaged, or missing beside a keyring that has keys.
        """
        if path is None:
            return cls(None, Database(None), Keyring(None), None)
        folder = Path(path)
        make_private_directory(folder)
        lock = _Lock(folder / LOCK_NAME)
        try:
            if (folder / RESETTING_NAME).exists():
                _wipe(folder)
            keyring = Keyring(folder / KEYRING_NAME)
            database_path = folder / DATABASE_NAME
            if keyring.keys() and (not database_path.exists() or database_path.stat().st_size == 0):
                # A new, empty database would look like a new profile and hide the loss.
                raise CorruptionError("The profile has keys but no database; restore it from a backup or reset it.")
            database = Database(database_path, write_sealed=write_sealed)
            try:
                return cls(folder, database, keyring, lock)
            except BaseException:
                database.close()  # Its locks would keep the file from being repaired, or restored, by this process.
                raise
        except OSError as error:
            lock.release()
            raise map_os_error(error, "open the profile") from error
        except BaseException:
            lock.release()
            raise

    def __repr__(self) -> str:
        where = "memory" if self.path is None else self.path.name
        return f"<Profile {where} {'closed' if self._closed else 'open'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files and let go of the folder; closing twice is no error.  Not while `sync` runs in a thread."""
        self._closed = True
        self.database.close()
        self.keyring.close()
        if self._lock is not None:
            self._lock.release()

    def sync(self) -> None:
        """Make everything committed before this call survive a loss of power; see `Database.sync_wal`."""
        self.database.sync_wal()

    def reset(self) -> None:
        """Delete all data and keys, beyond recall, and close; a reset cut short is finished by the next open.

        Files that are not ours stay.

        Raises:
            ClosedError: The profile was closed, so another process may hold it now.
            StorageAccessError: A file could not be deleted.
        """
        if self._closed:
            raise ClosedError("The profile was closed.")
        self.database.close()
        self.keyring.close()
        try:
            if self.path is not None:
                mark_for_reset(self.path)
                _wipe(self.path)
        except OSError as error:
            raise map_os_error(error, "reset the profile") from error
        finally:
            self.close()


def mark_for_reset(path: Path) -> None:
    """Have a profile that this process holds be empty the next time that it is opened, whatever becomes of us.

    Raises:
        StorageError: The folder cannot be written.
    """
    try:
        create_private_file(path / RESETTING_NAME)
        sync_directory(path)
    except OSError as error:
        raise map_os_error(error, "reset the profile") from error


def reset_profile(path: str | os.PathLike[str]) -> None:
    """Delete the data and keys of a profile that no longer opens.

    Raises:
        ProfileLockedError: A process holds it.
        StorageAccessError: A file could not be deleted.
    """
    folder = Path(path)
    make_private_directory(folder)
    lock = _Lock(folder / LOCK_NAME)
    try:
        mark_for_reset(folder)
        _wipe(folder)
    except OSError as error:
        raise map_os_error(error, "reset the profile") from error
    finally:
        lock.release()


def salvage_profile(path: str | os.PathLike[str]) -> dict[str, int]:
    """Make a new database of what can be read in a damaged one, which stays beside it; see `salvage.salvage_database`.

    Returns:
        How many rows each table has now.

    Raises:
        ProfileLockedError: A process holds the profile.
        CorruptionError: Nothing can be read.
        StorageError: The folder cannot be written; the database is as it was.
    """
    folder = Path(path)
    make_private_directory(folder)
    lock = _Lock(folder / LOCK_NAME)
    try:
        return salvage.salvage_database(folder / DATABASE_NAME)
    finally:
        lock.release()


def check_salvageable(path: str | os.PathLike[str]) -> None:
    """See whether `salvage_profile` would find what matters, without changing anything.

    Raises:
        ProfileLockedError: A process holds the profile.
        CorruptionError: It would not.
    """
    folder = Path(path)
    lock = _Lock(folder / LOCK_NAME)
    try:
        salvage.check_salvageable(folder / DATABASE_NAME)
    finally:
        lock.release()


@contextlib.contextmanager
def empty_profile(path: Path) -> Iterator[None]:
    """A folder, locked, for the block to fill with a profile; if it fails or dies on the way, the folder is empty.

    Raises:
        UsageError: There is a profile already.
        ProfileLockedError: A process holds it.
    """
    make_private_directory(path)
    lock = _Lock(path / LOCK_NAME)
    mark = path / RESETTING_NAME
    try:
        if mark.exists():
            _wipe(path)
        if (path / DATABASE_NAME).exists() or Keyring(path / KEYRING_NAME).keys():
            raise UsageError("There is a profile in this folder already; choose another one.")
        create_private_file(mark)
        sync_directory(path)
        try:
            yield
            sync_directory(path)
        except BaseException:
            with contextlib.suppress(OSError):  # The mark stays, and the next open tries again.
                _wipe(path)
            raise
        mark.unlink()
        sync_directory(path)
    except OSError as error:
        raise map_os_error(error, "fill the profile's folder") from error
    finally:
        lock.release()


def _wipe(folder: Path) -> None:
    """Delete our files and nothing else, the mark of the reset last."""
    keyring = folder / KEYRING_NAME
    if keyring.is_dir() and not keyring.is_symlink():
        for path in keyring.iterdir():
            path.unlink()
    for path in folder.glob(f"{DATABASE_NAME}*"):
        path.unlink()
    sync_directory(folder)
    (folder / RESETTING_NAME).unlink(missing_ok=True)
    sync_directory(folder)


class _Lock:
    """A file that one process at a time has locked; the operating system lets go of it when the process dies."""

    def __init__(self, path: Path) -> None:
        create_private_file(path)
        try:
            self._descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise map_os_error(error, "lock the profile") from error
        try:
            try:
                self._acquire()
            except (BlockingIOError, PermissionError):
                # Somebody who looks whether it is held, holds it for a moment.
                time.sleep(_LOOK_S)
                self._acquire()
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, str(os.getpid()).encode())
        except (BlockingIOError, PermissionError):
            holder = _read_pid(self._descriptor)
            os.close(self._descriptor)
            raise ProfileLockedError(
                f"Process {holder or 'unknown'} has this profile open; close it, or choose another profile.", pid=holder
            ) from None
        except OSError as error:
            os.close(self._descriptor)
            raise map_os_error(error, "lock the profile") from error
        _held.add(self)

    def _acquire(self) -> None:
        if sys.platform == "win32":
            import msvcrt

            # Far behind the content, because a locked range cannot be read on Windows.
            os.lseek(self._descriptor, 1 << 20, os.SEEK_SET)
            msvcrt.locking(self._descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Let go; a second time is no error."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


_held: Final[weakref.WeakSet[_Lock]] = weakref.WeakSet()


def _let_go() -> None:
    """In the child of a fork: the lock is the parent's, and is not to outlive it."""
    for lock in list(_held):
        lock.release()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_let_go)


def _read_pid(descriptor: int) -> int:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return int(os.read(descriptor, _PID_BYTES_MAX) or b"0")
    except (OSError, ValueError):
        return 0
