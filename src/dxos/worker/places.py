"""Where the processes of one profile meet: a private folder in the profile, and one for sockets if that is too deep.

<profile>/host/              0700, ours, no link, on a disk of this machine
  leader.<N>, alive.<id>     see `lockfile`
  coordinator.sock           of the leader's coordinator; bound as c.<pid>.new and then renamed
  worker.sock, zygote.sock   where the next leader finds them
  worker.log                 what the worker logs
  agent, agent.log           see `agent`
  sockets                    names the other folder, if the path of a socket here would be too long
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import socket
import struct
import sys
from pathlib import Path
from typing import Final, final

from msgspec import Struct

import dxos
from dxos.errors import DxosError, LinkError, ProofError, StorageAccessError
from dxos.limits import LINK_BACKLOG_MAX
from dxos.store.files import FILE_MODE, make_private_directory, map_os_error, read_private_file

HOST_NAME: Final = "host"
_POINTER_NAME: Final = "sockets"
_DRAFT_SUFFIX: Final = ".new"  # Of a socket until it listens.
_POINTER_BYTES_MAX: Final = 4_096
_SOCKET_PATH_BYTES_MAX: Final = 103  # The shortest of the systems': 104 on macOS, 108 on Linux, with a zero at the end.
_SOCKET_NAME_BYTES_MAX: Final = 26  # `/coordinator.sock`, and room for longer names.
# Their locks do not fall with a process of another machine, or not in time.
_NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "afs", "afpfs", "webdav", "ceph", "glusterfs", "lustre", "gpfs"}
    | {"beegfs", "ncpfs", "9p", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone", "fuse.davfs2"}
)
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


@final
class Places(Struct, frozen=True):
    """Where everything of one profile's processes is."""

    profile: Path
    host: Path
    sockets: Path  # The same as `host`, unless that is too long for a socket.

    @property
    def coordinator(self) -> Path:
        """The socket that followers reach first."""
        return self.sockets / "coordinator.sock"

    @property
    def worker(self) -> Path:
        """The socket at which the next leader reaches the worker."""
        return self.sockets / "worker.sock"

    @property
    def zygote(self) -> Path:
        """The socket at which the next leader reaches the worker's parent."""
        return self.sockets / "zygote.sock"

    @property
    def log(self) -> Path:
        """The worker's log."""
        return self.host / "worker.log"

    @property
    def agent(self) -> Path:
        """The mark of the agent's life."""
        return self.host / "agent"

    @property
    def agent_log(self) -> Path:
        """The agent's log."""
        return self.host / "agent.log"

    def alive(self, worker_id: str) -> Path:
        """The mark of a worker's life."""
        return self.host / f"alive.{worker_id}"

    def tidy(self) -> None:
        """Remove what nobody may need: sockets that were not given their names yet, and an empty folder elsewhere."""
        with contextlib.suppress(OSError):
            for draft in self.sockets.glob(f"?.*{_DRAFT_SUFFIX}"):
                draft.unlink(missing_ok=True)  # Of one that was killed; one that lives makes another.
        if self.sockets != self.host:
            with contextlib.suppress(OSError):
                self.sockets.rmdir()


def open_places(profile: Path) -> Places:
    """Make the folders where they are missing, and check that nobody else can reach into them.

    Raises:
        StorageAccessError: A folder is a link, another user's, or on a network file system.
    """
    make_private_directory(profile)
    kind = network_file_system(profile)
    if kind is not None:
        raise StorageAccessError(
            f"The profile is on a network file system ({kind}), where processes cannot share it safely; "
            'choose a folder on this machine\'s disk, or `services="local"`.',
            file_system=kind,
        )
    host = profile.resolve() / HOST_NAME
    make_private_directory(host, inside=True)
    return Places(profile, host, _socket_folder(host))


def find_places(profile: Path) -> Places | None:
    """The folders as they are, for who only looks; None if no process has ever shared the profile."""
    host = profile.resolve() / HOST_NAME
    if not host.is_dir():
        return None
    chosen = read_private_file(host / _POINTER_NAME, bytes_max=_POINTER_BYTES_MAX)
    return Places(profile, host, host if chosen is None else Path(os.fsdecode(chosen)))


def network_file_system(path: Path) -> str | None:
    """The kind of network file system a folder is on; None if it is on a disk of this machine, or nobody can tell."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return network_mount(mounts, str(path.resolve()))


def network_mount(mounts: str, path: str) -> str | None:
    """The kind of network file system that `mounts`, as Linux lists them, has for a resolved path."""
    found, length = "", -1
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")[0]
        if len(fields) < 5:
            continue
        point = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= length:  # Of two at one place the later hides the earlier.
            found, length = kind, len(point)
    return found if found in _NETWORK_FILE_SYSTEMS else None


def _socket_folder(host: Path) -> Path:
    if len(os.fsencode(host)) + _SOCKET_NAME_BYTES_MAX <= _SOCKET_PATH_BYTES_MAX:
        return host
    # The first process chooses and writes it down, because the environments of the others may differ.
    pointer = host / _POINTER_NAME
    chosen = read_private_file(pointer, bytes_max=_POINTER_BYTES_MAX)
    if chosen is None:
        draft = host / f"{_POINTER_NAME}.{os.getpid()}"
        try:
            draft.unlink(missing_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
            with os.fdopen(descriptor, "wb") as file:
                file.write(os.fsencode(_short_folder(host)))
            with contextlib.suppress(FileExistsError):
                os.link(draft, pointer)  # Whole or not at all, and the first one stays.
            draft.unlink()
        except OSError as error:
            raise map_os_error(error, "choose a folder for sockets") from error
        chosen = read_private_file(pointer, bytes_max=_POINTER_BYTES_MAX) or b""
    folder = Path(os.fsdecode(chosen))
    if not folder.is_absolute() or len(chosen) + _SOCKET_NAME_BYTES_MAX > _SOCKET_PATH_BYTES_MAX:
        raise StorageAccessError("The profile's file host/sockets names no folder for sockets; remove it.")
    make_private_directory(folder, inside=True)
    return folder


def _short_folder(host: Path) -> Path:
    import tempfile  # Here, for it brings compression and random numbers, and most paths are short enough.

    digest = hashlib.sha256(os.fsencode(host)).hexdigest()[:16]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    for folder in (
        *([Path(runtime) / f"dxos-{digest}"] if runtime and Path(runtime).is_dir() else []),
        Path(tempfile.gettempdir()) / f"dxos-{os.geteuid()}-{digest}",
    ):
        if folder.is_absolute() and len(os.fsencode(folder)) + _SOCKET_NAME_BYTES_MAX <= _SOCKET_PATH_BYTES_MAX:
            return folder
    return Path("/tmp") / f"dxos-{os.geteuid()}-{digest}"  # noqa: S108 - Private, and its owner is checked.


def check_peer(connection: socket.socket) -> int:
    """Make sure that the process at the other end of a socket is ours.

    Returns:
        Its pid when it connected; 0 where the system does not say.

    Raises:
        ProofError: It is another user's.
    """
    pid, user = _peer(connection)
    if user != os.geteuid():
        raise ProofError("A process of another user connected.", user=user)
    return pid


def _peer(connection: socket.socket) -> tuple[int, int]:
    if sys.platform == "linux":
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, user, _ = struct.unpack("3i", found)
        return int(pid), int(user)
    # macOS and the BSDs: `struct xucred` begins with its version and the user.
    _, user = struct.unpack("=II", connection.getsockopt(0, 1, 8))
    return 0, int(user)


def listen(path: Path) -> socket.socket:
    """A listening socket that only this user reaches, in the place of what is there.

    Raises:
        StorageAccessError: The folder cannot be written.
    """
    draft = path.with_name(f"{path.name[0]}.{os.getpid()}{_DRAFT_SUFFIX}")
    while True:
        make_private_directory(path.parent, inside=True)  # Whoever left last may have removed it.
        listener = socket.socket(socket.AF_UNIX)
        try:
            draft.unlink(missing_ok=True)
            listener.bind(str(draft))
            draft.chmod(FILE_MODE)
            listener.listen(LINK_BACKLOG_MAX)
            draft.rename(path)  # At once: whoever connects meets the old one or this one.
            return listener
        except FileNotFoundError:
            listener.close()  # And may do so at any moment, as long as it is empty.
        except OSError as error:
            listener.close()
            raise map_os_error(error, "make a socket for other processes") from error


def accept(listener: socket.socket) -> socket.socket | None:
    """The next connection that waits there; None if there is none.

    Raises:
        StorageAccessError: There is one, and no descriptor is left for it.
    """
    while True:
        try:
            return listener.accept()[0]
        except BlockingIOError:
            return None
        except ConnectionAbortedError:
            pass
        except OSError as error:
            raise map_os_error(error, "let another process in") from error


def connect(path: Path) -> socket.socket | None:
    """A connection to a process of ours that listens there; None if none does.

    Raises:
        ProofError: Another user's process does.
        StorageAccessError: The socket cannot be reached for another reason.
    """
    try:
        connection = socket.socket(socket.AF_UNIX)
    except OSError as error:
        raise map_os_error(error, f"connect to {path.name}") from error
    connection.setblocking(False)
    try:
        connection.connect(str(path))
        check_peer(connection)
    except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
        connection.close()  # Nobody, or nobody any more, or one that is too busy to accept.
        return None
    except OSError as error:
        connection.close()
        raise map_os_error(error, f"connect to {path.name}") from error
    except DxosError:
        connection.close()
        raise
    return connection


def remove_unheard(path: Path, *, wait_s: float) -> None:
    """Remove a socket at which nobody listens any more.

    Of a process that is killed the system closes one file after another, so it may seem to listen for a moment.

    Args:
        path: It need not exist.
        wait_s: How long whoever listens may take to close what it did not accept; shorter than any time-out of a hello.
    """
    with contextlib.suppress(OSError, DxosError):  # Among them that it neither speaks nor ends: it lives.
        inode = path.lstat().st_ino
        reached = connect(path)
        if reached is not None:
            with reached:
                reached.settimeout(wait_s)
                with contextlib.suppress(ConnectionError):
                    reached.recv(1)
        if path.lstat().st_ino == inode:
            path.unlink()


def map_start_error(error: OSError, whom: str) -> DxosError:
    """The error of ours that the operating system means by not starting a process for `whom`."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return map_os_error(error, f"start {whom}")
    return LinkError(f"No process for {whom} can be started ({error.strerror}).")


def environment() -> dict[str, str]:
    """The environment of a process of ours: where this package is, however this process found it."""
    root = str(Path(dxos.__file__).resolve().parent.parent)
    # Relative to another folder they would be lost.
    inherited = [str(Path(one).absolute()) for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, *inherited])}
