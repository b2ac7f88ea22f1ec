"""What every command is given: where to print, which profile, and a client of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TextIO, final

from dxos.cli.output import Output
from dxos.errors import IdentityMissingError

if TYPE_CHECKING:
    from dxos.client.client import Client
    from dxos.client.config import Config
    from dxos.services.contract import Identity, ServicesProvider

SIGNAL_HOST: Final = "127.0.0.1"
SIGNAL_PORT: Final = 5001
SIGNAL_PATH: Final = "/.well-known/dx/signal"


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


def _signaling(server: str) -> dict[str, Any]:
    return {"runtime": {"services": {"signaling": [{"server": server}]}}}
