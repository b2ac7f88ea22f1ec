"""What every command is given: where to print, which profile, and a client of it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TextIO, final

import anyio

from dxos.cli.output import Output
from dxos.cli.resolve import find_space
from dxos.errors import DxosError, IdentityMissingError, ProfileLockedError, SpaceNotReadyError, StorageAccessError

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from dxos.client.client import Client
    from dxos.client.config import Config
    from dxos.client.space import Space
    from dxos.services.contract import Identity, ServicesProvider
    from dxos.worker.settings import Settings

SIGNAL_HOST: Final = "127.0.0.1"
SIGNAL_PORT: Final = 5001
SIGNAL_PATH: Final = "/.well-known/dx/signal"
_SETTLED: Final = frozenset({"READY", "ERROR", "INACTIVE"})
_OPEN_S_MAX: Final = 2.0  # Opening what is on disk takes milliseconds; only what is not there takes longer.
_READY_S_MAX: Final = 10.0
_log = logging.getLogger(__name__)


def signal_url(host: str, port: int) -> str:
    """The address of a signalling server."""
    return f"ws://{f'[{host}]' if ':' in host else host}:{port}{SIGNAL_PATH}"


@final
@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a command takes from outside its arguments; a test brings its own."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    services: ServicesProvider | None = None  # None: a host in this process, on the profile's folder.
    stdin: TextIO | None = None  # None: the process's.


@final
@dataclass(frozen=True, slots=True)
class Session:
    """One run of one command."""

    output: Output
    profile: str | None = None  # None: DX_PROFILE, or "default".
    signal: str | None = None  # None: DX_SIGNAL, the profile's settings, or the default.
    no_agent: bool = False  # False: DX_NO_AGENT decides.
    surroundings: Surroundings = field(default_factory=Surroundings)

    def config(self) -> Config:
        """The settings of the profile, the signalling server among them.

        Raises:
            ConfigError: A setting, the profile's name or the server's address cannot be used.
        """
        from dxos.client.config import Config

        environ = self.surroundings.environ
        chosen = self.signal or environ.get("DX_SIGNAL")
        profile = Config.from_env(environ, profile=self.profile).values
        default = _signaling(signal_url(SIGNAL_HOST, SIGNAL_PORT))
        return Config(*([_signaling(chosen)] if chosen else []), profile, default)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """The profile, opened; it is online, and closed in order at the end."""
        config = self.config()
        # At once, because an agent needs as long to start as we do to import the client.
        agent = self._start_agent(config)
        try:
            from dxos.client.client import Client

            async with Client(config, services=self.surroundings.services) as client:
                self._compare_servers(config, client)
                yield client
        finally:
            if agent is not None:
                agent.wait()  # It has ended long ago: what goes on is its child.

    def folder(self) -> Path:
        """The profile's folder.

        Raises:
            StorageAccessError: Its settings say that it is in memory.
        """
        root = self.config().data_root
        if root is None:
            raise StorageAccessError("The settings say that this profile is in memory, so no other process can see it.")
        return root

    @asynccontextmanager
    async def alone(self, folder: Path) -> AsyncIterator[None]:
        """Within, no process that shares the profile has it open: its agent is ended, if nobody else uses it.

        Raises:
            ProfileLockedError: Others do.
        """
        from dxos.worker.agent import stop_agent
        from dxos.worker.status import read_status

        status = read_status(folder)
        if status.others:
            names = ", ".join(f"{one.pid} ({one.program})" for one in status.others)
            raise ProfileLockedError(
                f"This needs the profile for itself, but other processes use it: {names}; end them.",
                pid=status.others[0].pid,
            )
        if status.agent is not None:
            await stop_agent(folder)
        yield

    def _start_agent(self, config: Config) -> subprocess.Popen[bytes] | None:
        """Have an agent, unless nobody wants one; the parent that it leaves."""
        environ, folder = self.surroundings.environ, config.data_root
        if (
            self.no_agent
            or environ.get("DX_NO_AGENT", "") not in ("", "0")
            or self.surroundings.services is not None
            or folder is None
            or config.services == "local"
            or sys.platform == "win32"
        ):
            return None
        from dxos.worker.agent import find_agent, spawn_agent

        try:
            if find_agent(folder):
                return None
            return spawn_agent(folder, worker_settings(config), idle_s=config.agent_idle_s)
        except DxosError as error:
            _log.warning("No agent was started: %s", error)  # The command works without.
            return None

    def _compare_servers(self, config: Config, client: Client) -> None:
        theirs = {one.server for one in client.mesh.network_status.get().signaling}
        if theirs and theirs != set(config.signal_servers):
            self.output.say(
                f"The process that opened this profile first set other signalling servers, which count: "
                f"{', '.join(sorted(theirs))}. If it is the agent, end it first: dx agent stop"
            )


def worker_settings(config: Config) -> Settings:
    """What a worker needs to know of these settings."""
    from dxos.worker.settings import Settings

    return Settings(config.signal_servers, config.backup_passphrase)


def require_identity(client: Client) -> Identity:
    """The identity of the profile.

    Raises:
        IdentityMissingError: It has none.
    """
    identity = client.halo.identity.get()
    if identity is None:
        raise IdentityMissingError("This profile has no identity yet; make one: dx identity create --name NAME")
    return identity


async def choose_space(client: Client, wanted: str) -> Space:
    """The space that a person means, as soon as it can be told; it may be closed.

    Raises:
        SpaceNotFoundError: None, or several.
    """
    spaces = client.spaces.get()
    if not any(wanted.strip() in (one.id, one.key.hex) for one in spaces):
        await wait_until_opened(spaces)  # A space knows its name once it is open.
    return find_space(spaces, wanted)


async def ready_space(client: Client, wanted: str) -> Space:
    """The space that a person means, ready.

    Raises:
        SpaceNotFoundError: None, or several.
        SpaceNotReadyError: It is closed, or its content has never been here.
    """
    space = await choose_space(client, wanted)
    with anyio.move_on_after(_READY_S_MAX):
        return await space.wait_until_ready()
    raise SpaceNotReadyError(
        "The space cannot be used: its content is not on this device yet. "
        "Let a member who has it be online: dx space watch"
        if space.state.get().name != "INACTIVE"
        else "The space is closed on this device."
    )


async def wait_until_opened(spaces: Iterable[Space]) -> None:
    """Give spaces that are opening a moment; those that need longer are left as they are."""
    with anyio.move_on_after(_OPEN_S_MAX):
        for one in spaces:
            await one.state.wait_for(lambda state: state.name in _SETTLED)


def _signaling(server: str) -> dict[str, Any]:
    return {"runtime": {"services": {"signaling": [{"server": server}]}}}
