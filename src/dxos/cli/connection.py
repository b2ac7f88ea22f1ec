"""Waiting for other peers: whether the network can be reached, and whether they have what we have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Final

import anyio
import typer

from dxos.aio import Changes, unwrap_group
from dxos.cli.session import Session

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
# A connection that has just been made has not yet said what it lacks, so it seems to lack nothing.
_QUIET_S: Final = 0.5


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
            done = await wait_until_synced(client, space, seconds)
    if not done:
        session.output.say("No peer confirmed to have the same content; it is kept here, and travels later.")


async def wait_until_synced(client: Client, space: Space, seconds: float, *, member: PublicKey | None = None) -> bool:
    """Return when another member, or this one, is online and neither side lacks anything.

    Returns:
        Whether that was so within that many seconds.
    """
    changes = Changes()
    subscriptions = [one.subscribe(lambda _: changes.notify()) for one in (client.spaces, space.members)]
    try:
        with anyio.move_on_after(seconds):
            while True:
                while not _synced(space, member):
                    await changes.wait()
                with anyio.move_on_after(_QUIET_S):
                    while _synced(space, member):
                        await changes.wait()
                if _synced(space, member):
                    return True
        return False
    finally:
        for one in subscriptions:
            one.unsubscribe()


def _synced(space: Space, member: PublicKey | None) -> bool:
    return space.info.synced and any(
        one.presence.name == "ONLINE" and not one.is_self and member in (None, one.identity_key)
        for one in space.members.get()
    )
