"""`dx identity`: who this profile is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dxos.cli.command import command
from dxos.cli.output import fields
from dxos.cli.session import Session, require_identity

if TYPE_CHECKING:
    from dxos.client.client import Client
    from dxos.services.contract import Identity

app: Final = typer.Typer(help="Who this profile is.", no_args_is_help=True)
_DEVICE_S_MAX: Final = 1.0  # The device is authorised a moment after the identity is made.
_LABELS: Final = {"name": "Name", "did": "DID", "key": "Key", "device": "Device", "profile": "Kept in"}


@command(app, "create")
async def create(
    session: Session,
    name: Annotated[str | None, typer.Option("--name", help="Name that members of your spaces see.")] = None,
) -> None:
    """Make this profile's identity: its keys are made here and stay here."""
    async with session.client() as client:
        identity = await client.halo.create_identity(display_name=name)
        session.output.result(await _document(client, identity), fields(_LABELS))
    if not session.output.json:
        session.output.say("Next: dx space create NAME, or dx space join CODE")


@command(app, "show")
async def show(session: Session) -> None:
    """Show this profile's identity."""
    async with session.client() as client:
        session.output.result(await _document(client, require_identity(client)), fields(_LABELS))


@command(app, "update")
async def update(
    session: Session, name: Annotated[str, typer.Option("--name", help="Name that members of your spaces see.")]
) -> None:
    """Change what others see of this identity."""
    async with session.client() as client:
        require_identity(client)
        await client.halo.update_profile(display_name=name)
        session.output.result(await _document(client, require_identity(client)), fields(_LABELS))


async def _document(client: Client, identity: Identity) -> dict[str, Any]:
    import anyio

    with anyio.move_on_after(_DEVICE_S_MAX):
        await client.halo.devices.wait_for(bool)
    device = client.halo.device
    root = client.config.data_root
    return {
        "name": identity.profile.display_name,
        "did": identity.did,
        "key": identity.identity_key.hex,
        "device": None if device is None else device.device_key.hex,
        "profile": None if root is None else str(root),
    }
