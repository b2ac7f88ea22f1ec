"""The agent: a process that only takes part in a profile, so that whoever comes next finds a worker that is ready.

    client, dx ── spawn_agent ──▶ python -m dxos.worker agent PROFILE IDLE  ◀── settings, on its standard input
                                    └─ fork ─▶ the agent: the mark of its life, a session, a look once a second

There is one for a profile, or none. It ends when nobody else has used the profile for a while, when it is asked to, and
when the profile is deleted or led by a version that it does not understand.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

import anyio
import anyio.to_thread

from dxos.aio import unwrap_group
from dxos.errors import UsageError
from dxos.limits import AGENT_LOOK_S
from dxos.store.files import create_private_file
from dxos.worker.lockfile import alive_pid
from dxos.worker.logs import logging_to
from dxos.worker.messages import PROTOCOL
from dxos.worker.places import open_places
from dxos.worker.provider import WorkerServices
from dxos.worker.settings import Settings
from dxos.worker.status import Sharing, read_status

_log = logging.getLogger("dxos.worker")
_CLAIMS_MAX: Final = 10
_CLAIM_S: Final = 0.005


async def run_agent(
    profile: Path, settings: Settings, *, idle_s: float, started: Callable[[], None] = lambda: None
) -> None:
    """Be the agent of a profile, until it is idle, or a signal asks it to end.

    Args:
        profile: Its folder.
        settings: With which a worker is started, if it is up to this process.
        idle_s: How long it stays when nobody else uses the profile.
        started: Called when it takes part.

    Raises:
        UsageError: There is one already.
        DxosError: What keeps the host from working.
    """
    places = open_places(profile)
    mark = _Mark(places.agent)
    try:
        services = WorkerServices(profile, settings.signal_servers, backup_passphrase=settings.backup_passphrase)
        with unwrap_group(), anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with services, anyio.create_task_group() as tasks:

                async def wait_idle() -> None:
                    _log.info("The agent ends: %s", await _idle(profile, mark, idle_s))
                    tasks.cancel_scope.cancel()

                _log.info("The agent takes part.")
                started()
                tasks.start_soon(wait_idle)
                async for _ in signals:
                    _log.info("The agent ends: it was asked to.")
                    tasks.cancel_scope.cancel()
    finally:
        mark.close()


async def _idle(profile: Path, mark: _Mark, idle_s: float) -> str:
    """Wait until the agent is of no use any more; why."""
    since = time.monotonic()
    while True:
        await anyio.sleep(min(AGENT_LOOK_S, idle_s / 4))
        if not mark.is_there():
            return "the profile was deleted."
        status = await anyio.to_thread.run_sync(read_status, profile)
        if status.leader is not None and status.leader.protocol not in (None, PROTOCOL):
            return f"version {status.leader.version} of dxos leads this profile."
        if status.sharing is not Sharing.SERVED or status.others:
            since = time.monotonic()
        elif time.monotonic() - since >= idle_s:
            return f"nobody else has used the profile for {idle_s:g} s."


@final
class _Mark:
    """The file that the agent of a profile keeps locked; it holds its pid and stays when the agent has ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        create_private_file(path)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        for left in reversed(range(_CLAIMS_MAX)):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    self.close()
                    raise UsageError(
                        f"This profile has an agent already, process {alive_pid(path)}; end it: dx agent stop"
                    ) from None
                time.sleep(_CLAIM_S)  # Whoever looks at a lock takes it for a moment.
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def is_there(self) -> bool:
        """Whether the profile still is the one that this agent was started for."""
        try:
            return os.path.samestat(self._path.lstat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def close(self) -> None:
        """The end of the agent's life."""
        os.close(self._descriptor)


def main(profile: str, idle_s: str) -> None:
    """In a process of its own: be the agent, and log to the profile."""
    settings = Settings.from_json(sys.stdin.read())
    with logging_to(open_places(Path(profile)).agent_log):
        try:
            anyio.run(lambda: run_agent(Path(profile), settings, idle_s=float(idle_s)))
        except UsageError:
            pass  # Another one was quicker.
        except Exception:  # noqa: BLE001 - The top of a process.
            _log.exception("The agent failed")
