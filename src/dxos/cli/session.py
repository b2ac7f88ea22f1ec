"""What every command is given: where to print, which profile, and a client of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TextIO, final

import anyio

from dxos.cli.output import Output
from dxos.cli.resolve import find_space
from dxos.errors import IdentityMissingError, SpaceNotReadyError

if TYPE_CHECKING:
    from dxos.client.client import Client
    from dxos.client.config import Config
    from dxos.client.space import Space
    from dxos.services.contract import Identity, ServicesProvider

SIGNAL_HOST: Final = "127.0.0.1"
SIGNAL_PORT: Final = 5001
SIGNAL_PATH: Final = "/.well-known/dx/signal"
_SETTLED: Final = frozenset({"READY", "ERROR", "INACTIVE"})
_OPEN_S_MAX: Final = 2.0  # Opening what is on disk takes milliseconds; only what is not there takes longer.
_READY_S_MAX: Final = 10.0


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
        from dxos.client.client import Client

        async with Client(self.config(), services=self.surroundings.services) as client:
            yield client


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
