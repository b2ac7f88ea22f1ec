"""The agent of a profile, from outside: whether there is one, starting and ending it; see `agent_process`."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from dxos.errors import DeadlineError
from dxos.limits import AGENT_START_S, AGENT_STOP_S
from dxos.worker.lockfile import alive_pid, kill_alive
from dxos.worker.places import environment, find_places, map_start_error
from dxos.worker.settings import Settings
from dxos.worker.status import AgentStatus, ProfileStatus, Sharing, read_status

_POLL_S: Final = 0.02


def find_agent(profile: Path) -> int:
    """The agent's process; 0 if there is none."""
    places = find_places(profile)
    return 0 if places is None else alive_pid(places.agent)


def spawn_agent(profile: Path, settings: Settings, *, idle_s: float) -> subprocess.Popen[bytes]:
    """Start an agent, and do not wait for it; if there is one already, the new one ends at once.

    Args:
        profile: Its folder, on a disk of this machine.
        settings: With which a worker is started, if it is up to the agent.
        idle_s: How long it stays when nobody else uses the profile.

    Returns:
        The agent's parent, which ends within milliseconds and is to be waited for.

    Raises:
        DxosError: This Python cannot start another one.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - Our own module, run by the Python that runs this.
            [sys.executable, "-P", "-m", "dxos.worker", "agent", str(profile.absolute()), repr(idle_s)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        assert process.stdin is not None
        with process.stdin:
            process.stdin.write(settings.to_json().encode())
    except OSError as error:
        raise map_start_error(error, "the agent") from error
    return process


async def ensure_agent(profile: Path, settings: Settings, *, idle_s: float) -> None:
    """Start an agent if there is none, as `spawn_agent` does.

    Raises:
        DxosError: This Python cannot start another one.
    """
    if not find_agent(profile):
        process = spawn_agent(profile, settings, idle_s=idle_s)
        await anyio.to_thread.run_sync(process.wait)


async def wait_agent(profile: Path, *, timeout_s: float = AGENT_START_S) -> ProfileStatus:
    """Wait until the agent takes part in the profile.

    Raises:
        DeadlineError: It does not; its log may say why.
    """
    with anyio.move_on_after(timeout_s):
        while True:
            status = await anyio.to_thread.run_sync(read_status, profile)
            agent = status.agent
            if status.sharing is Sharing.SERVED and agent and any(one.pid == agent.pid for one in status.clients):
                return status
            await anyio.sleep(_POLL_S)
    pid = find_agent(profile)
    if pid:
        raise DeadlineError(
            f"The agent, process {pid}, is there and takes no part: it is stopped, or very busy. End it: dx agent stop",
            pid=pid,
            timeout_s=timeout_s,
        )
    raise DeadlineError("The agent does not start; its log may say why: dx agent logs", timeout_s=timeout_s)


async def stop_agent(profile: Path, *, timeout_s: float = AGENT_STOP_S) -> AgentStatus | None:
    """End the agent, and wait until it has let go of the profile, and if nobody else uses that, the worker too.

    Returns:
        The one that was there.

    Raises:
        DeadlineError: It does not end.
    """
    status = await anyio.to_thread.run_sync(read_status, profile)
    agent, places = status.agent, status.places
    if agent is None or places is None:
        return None
    kill_alive(places.agent, signal.SIGTERM)
    kill_alive(places.agent, signal.SIGCONT)  # One that is stopped would hear of it only when it goes on.
    with anyio.move_on_after(timeout_s):
        while alive_pid(places.agent) == agent.pid:  # noqa: ASYNC110 - Another process changes it.
            await anyio.sleep(_POLL_S)
        while (await anyio.to_thread.run_sync(read_status, profile)).sharing is Sharing.LEADERLESS:  # noqa: ASYNC110 - Likewise.
            await anyio.sleep(_POLL_S)
        return agent
    raise DeadlineError(f"The agent, process {agent.pid}, does not end.", pid=agent.pid, timeout_s=timeout_s)
