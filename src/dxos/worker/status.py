"""Who shares a profile, as anybody of its user can see it: from its files, and from its coordinator where one answers.

Looking starts nothing, makes no file, and takes no longer than STATUS_ANSWER_S.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import TypeVar, final

from msgspec import Struct

from dxos.errors import DxosError
from dxos.limits import COORDINATOR_LINKS_MAX, STATUS_ANSWER_S
from dxos.store.files import LOCK_NAME
from dxos.worker import messages
from dxos.worker.links import Deframer, frame, receive_some
from dxos.worker.lockfile import LeaderLock, alive_pid, read_generation
from dxos.worker.messages import Attending, Leading, Look
from dxos.worker.places import Places, connect, find_places

_Number = TypeVar("_Number", int, float)


class Sharing(Enum):
    """How a profile is used at the moment."""

    CLOSED = "closed"  # By nobody.
    LOCAL = "local"  # By one process, which has it for itself.
    STARTING = "starting"  # There is a leader, and not yet a worker.
    SERVED = "served"  # There is a leader, and a worker that serves.
    SILENT = "silent"  # The leader does not answer: it is frozen, or the machine is very busy.
    LEADERLESS = "leaderless"  # The leader is gone; the worker waits for the next one.


@final
class LeaderStatus(Struct, frozen=True):
    """The leader."""

    pid: int
    leadership_id: int
    version: str
    since_s: float  # Seconds since 1970.
    beat_s: float  # When its heart last beat, likewise.
    protocol: int | None  # None: it did not say.


@final
class WorkerStatus(Struct, frozen=True):
    """The worker."""

    pid: int
    worker_id: str
    version: str | None  # None: there is nobody to say it.
    since_s: float


@final
class ClientStatus(Struct, frozen=True):
    """One client that is connected to the leader."""

    client_id: str
    pid: int
    program: str  # Without its arguments.
    version: str
    since_s: float


@final
class AgentStatus(Struct, frozen=True):
    """The agent."""

    pid: int
    since_s: float


@final
class ProfileStatus(Struct, frozen=True):
    """What was seen."""

    sharing: Sharing
    places: Places | None = None  # None: the profile was never shared.
    holder_pid: int = 0  # Of the process that has the profile for itself.
    leader: LeaderStatus | None = None
    worker: WorkerStatus | None = None
    clients: tuple[ClientStatus, ...] = ()
    agent: AgentStatus | None = None

    @property
    def others(self) -> tuple[ClientStatus, ...]:
        """The clients but the agent."""
        return tuple(one for one in self.clients if self.agent is None or one.pid != self.agent.pid)


def read_status(profile: Path, *, wait_s: float = STATUS_ANSWER_S) -> ProfileStatus:
    """Look who shares a profile.

    Args:
        profile: Its folder, which need not exist.
        wait_s: How long the coordinator has to answer.

    Raises:
        StorageError: The folder cannot be read.
    """
    places = find_places(profile)
    if places is None:
        return _unshared(profile, None)
    is_reached, leading, clients = _ask(places, time.monotonic() + wait_s)
    worker = _worker(places, leading)
    if leading is not None:
        sharing = Sharing.SERVED if leading.ready else Sharing.STARTING
    elif is_reached:
        sharing = Sharing.SILENT
    elif worker is not None:
        sharing = Sharing.LEADERLESS
    else:
        return _unshared(profile, places)
    return ProfileStatus(
        sharing,
        places,
        leader=_leader(places, leading) if is_reached else None,
        worker=worker,
        clients=tuple(
            ClientStatus(one.client_id, one.pid, one.program, one.version, one.since_ms / 1_000) for one in clients
        ),
        agent=_agent(places),
    )


def _unshared(profile: Path, places: Places | None) -> ProfileStatus:
    # Not if somebody shares it: a look takes the lock for a moment, in which a worker could not.
    holder = alive_pid(profile / LOCK_NAME)
    agent = None if places is None else _agent(places)
    return ProfileStatus(Sharing.LOCAL if holder else Sharing.CLOSED, places, holder, agent=agent)


def _ask(places: Places, until: float) -> tuple[bool, Leading | None, list[Attending]]:
    """Whether a process has the coordinator's socket, and what it says, if it does so in time."""
    try:
        connection = connect(places.coordinator)
    except DxosError:
        connection = None
    if connection is None:
        return False, None, []
    leading: Leading | None = None
    clients: list[Attending] = []
    with contextlib.closing(connection), contextlib.suppress(OSError, DxosError):
        connection.settimeout(_left(until))
        connection.sendall(frame(messages.encode(Look())))
        for message in _received(connection, until):
            match message:
                case Leading() if leading is None:
                    leading = message
                case Attending() if leading is not None and len(clients) < COORDINATOR_LINKS_MAX:
                    clients.append(message)
                case _:
                    break
            if leading is not None and len(clients) == leading.clients_count:
                break
    return True, leading, clients


def _received(connection: socket.socket, until: float) -> Iterator[messages.Message]:
    deframer = Deframer()
    with contextlib.closing(deframer):
        while True:
            connection.settimeout(_left(until))
            data, descriptors = receive_some(connection)
            if not data:
                return
            for content, _ in deframer.receive(data, descriptors):
                yield messages.decode(content)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _leader(places: Places, leading: Leading | None) -> LeaderStatus | None:
    newest = LeaderLock(places.host, "").newest()
    if newest is None:
        return None
    said = read_generation(places.host, newest.id)
    return LeaderStatus(
        leading.pid if leading else _number(said.get("pid"), int),
        leading.leadership_id if leading else newest.id,
        leading.version if leading else str(said.get("version", "")),
        _number(said.get("since"), float),
        newest.beat_ns / 1e9,
        leading.protocol if leading else None,
    )


def _worker(places: Places, leading: Leading | None) -> WorkerStatus | None:
    for path in sorted(places.host.glob("alive.*")):
        worker_id, pid = path.name.removeprefix("alive."), alive_pid(path)
        if not pid or (leading is not None and leading.worker_id not in ("", worker_id)):
            continue
        version = leading.worker_version if leading is not None and leading.worker_id else None
        with contextlib.suppress(FileNotFoundError):
            return WorkerStatus(pid, worker_id, version, path.stat().st_mtime)
    return None


def _agent(places: Places) -> AgentStatus | None:
    pid = alive_pid(places.agent)
    return AgentStatus(pid, places.agent.stat().st_mtime) if pid else None


def _number(found: object, kind: Callable[[int | float], _Number]) -> _Number:
    return kind(found if isinstance(found, int | float) else 0)
