"""`dx space`: spaces and who is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from msgspec.structs import asdict

from dxos.cli import joining, sharing, watching
from dxos.cli.command import command
from dxos.cli.connection import SyncOption, sync
from dxos.cli.listing import content
from dxos.cli.output import fields, rows
from dxos.cli.session import Session, choose_space, ready_space, require_identity, wait_until_opened
from dxos.limits import INVITATION_LIFETIME_S, INVITATION_LIFETIME_S_MAX, INVITATION_TIMEOUT_S

if TYPE_CHECKING:
    from dxos.client.space import Space
    from dxos.services.contract import SpaceMember

app: Final = typer.Typer(help="Spaces, who is in them, and what happens in them.", no_args_is_help=True)
SpaceArgument = Annotated[str, typer.Argument(metavar="SPACE", help="Id, key, beginning of either, or name.")]
_LABELS: Final = {
    "name": "Name",
    "id": "Id",
    "key": "Key",
    "state": "State",
    "role": "Your role",
    "members": "Members",
    "online": "Online",
    "objects": "Objects",
    "synced": "Synced",
    "refused_changes": "Refused changes",
    "error": "Error",
}
_STATS_LABELS: Final = {
    "epoch": "Epoch",
    "objects": "Objects",
    "documents": "Documents",
    "snapshot_bytes": "Bytes in snapshots",
    "change_bytes": "Bytes in changes since",
    "changes": "Changes since",
    "deleted_documents": "Deleted, freed by an epoch",
    "deleted_bytes": "Bytes of these",
    "reclaimed_documents": "Freed so far",
    "reclaimed_bytes": "Bytes of these, freed",
    "file_bytes": "Bytes of the profile's file",
    "free_bytes": "Unused, freed by compact",
}
_COLUMNS: Final = {name: _LABELS[name] for name in ("name", "id", "state", "role", "members", "objects")}
_MEMBER_COLUMNS: Final = {"name": "Name", "role": "Role", "presence": "Presence", "self": "You", "did": "DID"}


@command(app, "create")
async def create(
    session: Session, name: Annotated[str, typer.Argument(metavar="NAME", help="Every member sees it.")]
) -> None:
    """Create a space."""
    async with session.client() as client:
        require_identity(client)
        space = await client.create_space(name=name)
        session.output.result(await _document(space), fields(_LABELS))


@command(app, "list")
async def list_spaces(session: Session) -> None:
    """List the spaces of this profile."""
    async with session.client() as client:
        await wait_until_opened(client.spaces.get())
        documents = [await _document(space) for space in client.spaces.get()]
        session.output.result(documents, rows(_COLUMNS, empty="No spaces: dx space create NAME, or dx space join CODE"))


@command(app, "info")
async def info(session: Session, space: SpaceArgument, sync_s: SyncOption = None) -> None:
    """Show what is known of a space."""
    async with session.client() as client:
        found = await choose_space(client, space)
        await sync(session, client, found, sync_s)
        session.output.result(await _document(found), fields(_LABELS))


@command(app, "members")
async def members(session: Session, space: SpaceArgument, sync_s: SyncOption = None) -> None:
    """List the members of a space; others are online only while they are connected to this command."""
    async with session.client() as client:
        found = await choose_space(client, space)
        await sync(session, client, found, sync_s)
        session.output.result(
            [member_document(one) for one in found.members.get()], rows(_MEMBER_COLUMNS, empty="No members.")
        )


@command(app, "share")
async def share(
    session: Session,
    space: SpaceArgument,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Whoever has the code may join.")] = False,
    multi_use: Annotated[bool, typer.Option("--multi-use", help="Admit guests until Ctrl-C.")] = False,
    lifetime: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=1, max=INVITATION_LIFETIME_S_MAX, help="After this the code admits nobody."
        ),
    ] = INVITATION_LIFETIME_S,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="What one guest's attempt may take.")
    ] = INVITATION_TIMEOUT_S,
    role: Annotated[
        sharing.Role, typer.Option(help="What the guest may do.", case_sensitive=False)
    ] = sharing.Role.EDITOR,
    qr: Annotated[bool | None, typer.Option("--qr/--no-qr", help="QR code; else only on a terminal.")] = None,
) -> None:
    """Invite somebody to a space, and wait until they are in it. Ctrl-C cancels the invitation."""
    terms = sharing.Terms(not no_auth, multi_use, round(lifetime), timeout, role)
    async with session.client() as client:
        require_identity(client)
        found = await ready_space(client, space)
        await sharing.share(session, client, found, terms, qr=qr)


@command(app, "join")
async def join(
    session: Session,
    code: Annotated[str, typer.Argument(metavar="CODE", help="The invitation, or an address that carries it.")],
    auth_code: Annotated[
        str | None, typer.Option("--auth-code", metavar="DIGITS", help="Asked for when it is needed and not given.")
    ] = None,
) -> None:
    """Join a space by an invitation, and fetch what is in it."""
    async with session.client() as client:
        require_identity(client)
        space = await joining.join(session, client, code, auth_code)
        session.output.result(await _document(space), fields(_LABELS))


@command(app, "stats")
async def stats(session: Session, space: SpaceArgument) -> None:
    """Show what a space takes on the disk, what of it could be freed, and what was."""
    async with session.client() as client:
        found = await ready_space(client, space)
        session.output.result(asdict(await found.stats()), fields(_STATS_LABELS))


@command(app, "epoch")
async def epoch(session: Session, space: SpaceArgument) -> None:
    """Begin a new epoch: deleted objects and the old history of the space's list of objects are given up."""
    async with session.client() as client:
        found = await ready_space(client, space)
        await found.create_epoch()
        session.output.result(asdict(await found.stats()), fields(_STATS_LABELS))


@command(app, "compact")
async def compact(session: Session, space: SpaceArgument) -> None:
    """Store each object as one piece, and give unused room back to the disk; nothing is given up."""
    async with session.client() as client:
        found = await ready_space(client, space)
        with session.output.progress() as say:
            say("Compacting")
            await found.compact(progress=lambda one: say(f"Compacting: {one.done} of {one.total} …", one.fraction))
        session.output.result(asdict(await found.stats()), fields(_STATS_LABELS))


@command(app, "watch")
async def watch(
    session: Session,
    space: SpaceArgument,
    all_: Annotated[bool, typer.Option("--all", help="Print what is there already, too.")] = False,
) -> None:
    """Stay online and print what changes in a space, until Ctrl-C."""
    async with session.client() as client:
        found = await ready_space(client, space)
        await watching.watch(session, client, found, show_present=all_)


def member_document(member: SpaceMember) -> dict[str, Any]:
    """A member as commands print it."""
    return {
        "name": member.profile.display_name,
        "role": member.role.name,
        "presence": member.presence.name,
        "self": member.is_self,
        "did": member.did,
        "key": member.identity_key.hex,
    }


async def _document(space: Space) -> dict[str, Any]:
    await wait_until_opened([space])
    present = space.members.get()
    info = space.info
    return {
        "name": space.name,
        "id": space.id,
        "key": space.key.hex,
        "state": info.state.name,
        "role": info.role.name,
        "members": sum(one.role.is_member for one in present),
        "online": sum(one.presence.name == "ONLINE" for one in present),
        "objects": await content(space).count() if space.is_open else None,
        "synced": info.synced,
        "refused_changes": info.refused_changes or None,
        "error": None if info.error is None else str(info.error),
    }
