"""The leader lock and the marks of living workers: files that the kernel locks for as long as their process lives.

    <host>/leader.<N>      N is the leadership id, and only grows; the newest file is the lock, whoever locks it leads
    <host>/alive.<worker>  locked from before the worker exists until the last moment of its life; holds its pid

Invariants:
1. Nobody guesses from pids: a lock falls with its process, however that ends.
2. Whoever leads does so with an id that nobody led with before: a file with content belonged to a leader.
3. A newer file ends an older leadership, also one whose process is frozen and keeps its lock.
4. The time at which the newest file was changed is the leader's heartbeat; only its leader can move it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Final, final

from msgspec import Struct

from dxos.errors import StorageAccessError
from dxos.store.files import DIRECTORY_MODE, FILE_MODE, map_os_error, sync_directory

_LEADER: Final = re.compile(r"leader\.([1-9][0-9]{0,17})")
_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_CONTENT_BYTES_MAX: Final = 4_096
_PID_CHARS: Final = 20


@final
class Generation(Struct, frozen=True):
    """The newest leader file, as anybody can see it."""

    id: int  # 1 or more.
    beat_ns: int  # When its leader last moved it, on the clock of the file system; only whether it moves counts.


@final
class LeaderLock:
    """One candidate's hand on the leader lock of a profile.

    Args:
        folder: `<profile>/host`, which exists.
        version: Of this package; stands in the file for people to read.
    """

    def __init__(self, folder: Path, version: str) -> None:
        self._folder, self._version = folder, version
        self._descriptor, self._id = -1, 0

    @property
    def held(self) -> int:
        """The leadership id with which this one leads; 0 if it does not."""
        return self._id

    def newest(self) -> Generation | None:
        """The newest leadership, whoever has it; None if there was none yet.

        Raises:
            StorageAccessError: This process cannot look, as when it has too many files open.
        """
        try:
            while True:
                number = max(self._numbers(), default=0)
                if not number:
                    return None
                with contextlib.suppress(FileNotFoundError):
                    return Generation(number, self._path(number).lstat().st_mtime_ns)
        except OSError as error:
            raise map_os_error(error, "look who leads this profile") from error

    def is_superseded(self) -> bool:
        """Whether there is a newer leadership than the one held here; needs no descriptor, of which none may be left.

        Each newer one begins with the file of the next number, and removes this one when it has been won.
        """
        assert self._id, "only a leader can be superseded"
        try:
            ours, found = os.fstat(self._descriptor), self._path(self._id).lstat()
        except OSError:
            return True
        return not os.path.samestat(ours, found) or os.path.lexists(self._path(self._id + 1))

    def try_lock(self) -> int | None:
        """Lead, if nobody does.

        Returns:
            The leadership id, never used before; None if another process leads.

        Raises:
            StorageError: The folder cannot be written.
        """
        assert not self._id, "whoever leads does not try to"
        try:
            while True:
                newest = self.newest()
                if newest is None:
                    with contextlib.suppress(FileExistsError):
                        self._folder.mkdir(DIRECTORY_MODE)  # Somebody has removed it; not if the profile is gone too.
                    self._make(1)
                    continue
                won = self._win(newest.id)
                if won is not None:
                    return won or None
        except OSError as error:
            self.release()
            raise map_os_error(error, "lock the profile's leadership") from error

    def steal(self, frozen: int) -> int | None:
        """Lead although the process with the newest file keeps it locked, because it is frozen.

        Args:
            frozen: The leadership id that was seen not to move; if there is a newer one, this is a plain try.
        """
        try:
            newest = self.newest()
            if newest is None or newest.id <= frozen:
                self._make(frozen + 1)
        except OSError as error:
            raise map_os_error(error, "lock the profile's leadership") from error
        return self.try_lock()

    def renew(self, above: int) -> int | None:
        """Go on leading with a newer id, because the storage has seen one that is not on this disk any more.

        Args:
            above: The new id is higher.

        Returns:
            It; None if another process was quicker, and leads or will. Then this one leads no longer.
        """
        assert self._id, "only a leader leads on"
        try:
            newest = self.newest()
            if newest is None or newest.id == self._id:
                # Made while the lock of the old one is held, so that nobody leads in between.
                self._make(max(self._id, above) + 1)
        except OSError as error:
            raise map_os_error(error, "lock the profile's leadership") from error
        self.release()
        return self.try_lock()

    def beat(self) -> bool:
        """Show that this leader lives; false if it leads no longer, because there is a newer one.

        Raises:
            StorageError: It cannot be shown.
        """
        if self.is_superseded():
            return False
        try:
            os.utime(self._descriptor)
        except OSError as error:
            raise map_os_error(error, "show that this process lives") from error
        return True

    def release(self) -> None:
        """Let go, so that the next one may lead; without effect for who does not lead."""
        self._id = 0
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __repr__(self) -> str:
        return f"<LeaderLock {f'leads {self._id}' if self._id else 'not held'}>"

    def _win(self, number: int) -> int | None:
        """Our id; 0 if another process has the lock; None if the files changed meanwhile."""
        descriptor = _open(self._path(number))
        if descriptor is None:
            return None
        kept = False
        try:
            if not _flock(descriptor):
                return 0
            if not self._is_newest(number, descriptor):
                return None
            if os.fstat(descriptor).st_size == 0:
                kept = True
                self._lead(number, descriptor)
                return number
            # Its leader is gone. While we hold its lock, one newer file is made, which others may lock before us.
            self._make(number + 1)
            return None
        finally:
            if not kept:
                os.close(descriptor)

    def _lead(self, number: int, descriptor: int) -> None:
        self._descriptor, self._id = descriptor, number
        content = {"pid": os.getpid(), "version": self._version, "since": round(time.time(), 3)}
        # That it has a length says that somebody led; this takes no room, so a full disk does not keep anybody from it.
        os.ftruncate(descriptor, 1)
        try:
            os.pwrite(descriptor, json.dumps(content).encode(), 0)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        # An id that a loss of power takes back would be given again, and the storage refuses what it has seen.
        sync_directory(self._folder)
        for one in self._numbers():
            if one < number:
                self._path(one).unlink(missing_ok=True)

    def _numbers(self) -> list[int]:
        """Of all files; none, if somebody has removed the folder."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return [int(one[1]) for name in names if (one := _LEADER.fullmatch(name))]

    def _is_newest(self, number: int, descriptor: int) -> bool:
        newest, ours = self.newest(), os.fstat(descriptor)
        return newest is not None and newest.id == number and ours.st_nlink > 0

    def _make(self, number: int) -> None:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path(number), _FLAGS | os.O_CREAT | os.O_EXCL, FILE_MODE))

    def _path(self, number: int) -> Path:
        return self._folder / f"leader.{number}"


def read_leader(folder: Path) -> dict[str, object]:
    """What the newest leader file says, for people to read: `id`, and `pid`, `version`, `since` where it has them."""
    newest = LeaderLock(folder, "").newest() if folder.is_dir() else None
    if newest is None:
        return {}
    return {
        **read_generation(folder, newest.id),
        "id": newest.id,
        "held": is_locked(folder / f"leader.{newest.id}"),
    }


def read_generation(folder: Path, number: int) -> dict[str, object]:
    """What one leader file says: `pid`, `version`, `since`, as far as it has them; it is not locked for that."""
    return _read_json(folder / f"leader.{number}")


# --- Marks of workers -------------------------------------------------------------------------------------------------


@final
class AliveMark:
    """The file of one worker's life, locked through one open file that its parent makes and it inherits."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.descriptor = -1
        try:
            while True:
                self.descriptor = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, FILE_MODE)
                fcntl.flock(self.descriptor, fcntl.LOCK_EX)  # Nobody holds it for longer than a look takes.
                if os.fstat(self.descriptor).st_nlink:
                    break
                self.close()  # A sweep took it for one that had ended, before it was locked.
            os.pwrite(self.descriptor, b" " * _PID_CHARS, 0)  # A full disk shows before there is a process to name.
        except OSError as error:
            if self.descriptor >= 0:
                self.remove()
            raise map_os_error(error, "mark a worker") from error

    def write(self, pid: int) -> None:
        """Say whose life it is."""
        os.pwrite(self.descriptor, str(pid).encode().ljust(_PID_CHARS), 0)

    def close(self) -> None:
        """Let go of this process's share; the lock stays as long as another process has one."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def remove(self) -> None:
        """The end of that life."""
        self.path.unlink(missing_ok=True)
        self.close()


def is_locked(path: Path) -> bool:
    """Whether a process that lives holds the lock of that file."""
    descriptor = _open(path)
    if descriptor is None:
        return False
    try:
        return not _flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def alive_pid(path: Path) -> int:
    """The process whose life that mark is; 0 if it has ended, or has not said yet."""
    if not is_locked(path):
        return 0
    try:
        return int(path.read_bytes()[:_PID_CHARS] or b"0")
    except (OSError, ValueError):
        return 0


def kill_alive(path: Path, number: int) -> bool:
    """Send a signal to the worker whose mark that is, and never to another process that has its pid now.

    Returns:
        Whether there was such a process.
    """
    pid = alive_pid(path)
    if pid <= 0:
        return False
    if sys.platform != "linux":
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        return True
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except OSError as error:
        raise map_os_error(error, "end a worker") from error
    try:
        # The descriptor is of one process for ever; that the mark is still held says that it is the right one.
        if alive_pid(path) != pid:
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, number)
        return True
    finally:
        os.close(process)


def marks_in(folder: Path) -> list[Path]:
    """The marks of all workers.

    Raises:
        StorageAccessError: This process cannot look.
    """
    try:
        return sorted(folder.glob("alive.*"))
    except OSError as error:
        raise map_os_error(error, "look for workers") from error


def sweep(folder: Path) -> None:
    """Remove the marks of workers that have ended without removing them.

    Raises:
        StorageAccessError: This process cannot look.
    """
    for path in marks_in(folder):
        if not is_locked(path):
            path.unlink(missing_ok=True)


def _open(path: Path) -> int | None:
    try:
        return os.open(path, _FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise map_os_error(error, f"open {path.name[:16]}") from error


def _flock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StorageAccessError("The profile's disk has no locks; choose another folder.") from error
    return True


def _read_json(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_bytes()[:_CONTENT_BYTES_MAX])
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
