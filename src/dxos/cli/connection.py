"""Waiting for other peers: whether the network can be reached, and whether they have what we have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Final

import anyio
import typer

from dxos.aio import unwrap_group
from dxos.cli.session import Session
from dxos.errors import DeadlineError

if TYPE_CHECKING:
    from dxos.client.client import Client
    from dxos.client.space import Space
    from dxos.keys import PublicKey

SyncOption = Annotated[
    float | None,
    typer.Option(
        "--sync", metavar="SECONDS", min=0.0, help="Stay up to this long, until a connected peer has the same content."
    ),
]
_UNREACHABLE_S: Final = 3.0  # How long a signalling server may take before we say that none answers.


@asynccontextmanager
async def network_watched(session: Session, client: Client) -> AsyncIterator[None]:
    """Within, a person is told if no signalling server answers."""

    async def warn() -> None:
        await anyio.sleep(_UNREACHABLE_S)
        status = client.mesh.network_status.get()
        if not any(server.state.name == "CONNECTED" for server in status.signaling):
            servers = ", ".join(server.server for server in status.signaling) or "none is set"
            session.output.say(
                f"No signalling server answers ({servers}), so no peer can be found yet. Start one: dx signal serve"
            )

    with unwrap_group():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(warn)
            yield
            tasks.cancel_scope.cancel()


async def sync(session: Session, client: Client, space: Space, seconds: float | None) -> None:
    """Do what `--sync` asks for; not asked for is nothing to do."""
    if seconds is None:
        return
    with session.output.progress() as progress:
        progress("Waiting for a peer to have the same content …")
        async with network_watched(session, client):
            done = await wait_until_synced(space, seconds)
    if not done:
        session.output.say("No peer confirmed to have the same content; it is kept here, and travels later.")


async def wait_until_synced(space: Space, seconds: float, *, member: PublicKey | None = None) -> bool:
    """Whether within that many seconds a member, or this one, is online and neither side lacks anything."""
    try:
        await space.wait_until_synced(seconds, member=member)
    except DeadlineError:
        return False
    return True
