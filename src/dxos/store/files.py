"""Files that only their owner may read, changed at once or not at all; the operating system's errors as ours."""

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path
from typing import Final

from dxos.errors import CorruptionError, StorageAccessError, StorageError, StorageFullError

DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600
LOCK_NAME: Final = "lock"  # Of the file in a profile's folder that its holder keeps locked.
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0)
_BINARY: Final = getattr(os, "O_BINARY", 0)
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def map_os_error(error: OSError, action: str) -> StorageError:
    """The error of ours that an error of the operating system means while we tried to `action`."""
    reason = errno.errorcode.get(error.errno or 0, "unknown")
    match error.errno:
        case number if number in _FULL:
            return StorageFullError(f"Cannot {action}: the disk is full; free some space.", reason=reason)
        case errno.EIO:
            return StorageFullError(f"Cannot {action}: the disk reports an error; check it.", reason=reason)
        case errno.ELOOP:
            return StorageAccessError(f"Cannot {action}: a link stands in the file's place; remove it.", reason=reason)
        case errno.EROFS:
            return StorageAccessError(f"Cannot {action}: the disk is read-only; choose another folder.", reason=reason)
        case errno.EMFILE | errno.ENFILE:
            advice = "too many files are open; close some, or raise the limit (ulimit -n)"
            return StorageAccessError(f"Cannot {action}: {advice}.", reason=reason)
        case errno.ENOTDIR | errno.EEXIST:
            return StorageAccessError(f"Cannot {action}: the path is no folder; choose another.", reason=reason)
        case _:
            return StorageAccessError(f"Cannot {action}: check the permissions of the folder.", reason=reason)


def check_descriptors(count: int, action: str) -> None:
    """Make sure that so many files can be opened in addition, rather than find out when half of them are.

    Raises:
        StorageAccessError: They cannot.
    """
    opened: list[int] = []
    try:
        while len(opened) < count:
            opened.append(os.open(os.devnull, os.O_RDONLY | _CLOEXEC))
    except OSError as error:
        raise map_os_error(error, action) from error
    finally:
        for one in opened:
            os.close(one)


def make_private_directory(path: Path, *, inside: bool = False) -> None:
    """Make sure that `path` is a directory of ours with mode 0700; its parents are made with default modes.

    Args:
        path: Of a profile, which its user chose.
        inside: It was not chosen, but belongs to a profile.

    Raises:
        StorageAccessError: It is a link, no directory, another user's, or cannot be made or written.
    """
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir(mode=DIRECTORY_MODE)
            sync_directory(path.parent)
        except FileExistsError:
            pass
        found = path.lstat()
    except OSError as error:
        raise map_os_error(error, "make the profile's folder") from error
    name = f"The folder {path.name} of the profile" if inside else "The profile's folder"
    if stat.S_ISLNK(found.st_mode):
        raise StorageAccessError(f"{name} is a link; {'remove it' if inside else 'name the folder itself'}.")
    if not stat.S_ISDIR(found.st_mode):
        raise StorageAccessError(f"{name} is no folder; {'remove it' if inside else 'choose another'}.")
    if sys.platform != "win32":
        if found.st_uid != os.geteuid():
            advice = "have it removed" if inside else "choose another"
            raise StorageAccessError(f"{name} is another user's; {advice}.", owner=found.st_uid)
        if stat.S_IMODE(found.st_mode) & 0o077:
            try:
                path.chmod(DIRECTORY_MODE)
            except OSError as error:
                raise map_os_error(error, "close the profile's folder to other users") from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise StorageAccessError(f"{name} cannot be written; check its permissions.")


def create_private_file(path: Path) -> None:
    """Make sure that `path` is a file of ours that nobody else may open; a link in its place is refused."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _NOFOLLOW | _CLOEXEC, FILE_MODE)
    except OSError as error:
        raise map_os_error(error, f"open {path.name}") from error
    try:
        found = os.fstat(descriptor)
        if sys.platform != "win32":
            if found.st_uid != os.geteuid():
                raise StorageAccessError(f"{path.name} belongs to another user; choose another folder.")
            if stat.S_IMODE(found.st_mode) & 0o077:
                os.fchmod(descriptor, FILE_MODE)
    except OSError as error:
        raise map_os_error(error, f"open {path.name}") from error
    finally:
        os.close(descriptor)


def read_private_file(path: Path, *, bytes_max: int) -> bytes | None:
    """The content of a file of ours; None if there is none.

    Raises:
        CorruptionError: It is longer than `bytes_max`.
        StorageAccessError: It is a link or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _NOFOLLOW | _CLOEXEC | _BINARY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise map_os_error(error, f"read {path.name[:16]}") from error
    with os.fdopen(descriptor, "rb") as file:
        try:
            content = file.read(bytes_max + 1)
        except OSError as error:
            raise map_os_error(error, f"read {path.name[:16]}") from error
    if len(content) > bytes_max:
        raise CorruptionError(f"{path.name[:16]} is longer than it can be; restore it from a backup.")
    return content


def write_private_file(path: Path, content: bytes) -> None:
    """Replace the file by `content`, durably: after a crash the old or the new content is there, never a mixture.

    Raises:
        StorageFullError: No room; the old content is still there.
        StorageAccessError: The directory cannot be written.
    """
    # One name for all drafts would let two writers mix; a profile has one, held by its lock.
    draft = path.with_name(path.name + ".draft")
    try:
        draft.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _CLOEXEC | _BINARY
        descriptor = os.open(draft, flags, FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            sync_file(file.fileno())
        draft.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise map_os_error(error, f"write {path.name[:16]}") from error


def sync_file(descriptor: int) -> None:
    """Wait until the file's content is on the disk itself."""
    if sys.platform == "darwin":
        # fsync on macOS stops at the drive's own cache.
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_directory(path: Path) -> None:
    """Wait until the names in the directory are on the disk; Windows has no such call and needs none."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY | _CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
