"""`dx space watch`: what changes in a space, as it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio

from dxos.cli.connection import network_watched
from dxos.cli.listing import document
from dxos.cli.output import as_json, line, plural
from dxos.cli.session import Session

if TYPE_CHECKING:
    from dxos.client.client import Client
    from dxos.client.query import QueryUpdate
    from dxos.client.space import Space
    from dxos.services.contract import SpaceMember

_MARKS: Final = {"present": " ", "added": "+", "changed": "~", "removed": "-"}


async def watch(session: Session, client: Client, space: Space, *, show_present: bool) -> None:
    """Print changes of objects and of who is online, until cancelled."""
    output, begun = session.output, False
    presences: dict[Any, str] = {}

    def print_objects(update: QueryUpdate) -> None:
        nonlocal begun
        if not begun:
            begun = True
            present = [one for one in update.objects if one.id != space.info.properties_id]
            output.say(f"{space.name or space.id}: {plural(len(present), 'object')}; Ctrl-C ends.")
            if show_present:
                print_all("present", present)
            return
        print_all("added", update.added)
        print_all("changed", update.changed)
        for one in update.removed:
            # What it held is no longer shown: whoever removed it may have had a reason.
            output.result({"event": "removed", "id": one.id}, line(lambda it: f"- {it['id']}"))

    def print_all(event: str, objects: Any) -> None:
        for one in objects:
            output.result(
                {"event": event, **document(one)},
                line(lambda it: f"{_MARKS[it['event']]} {it['id']}  {as_json(it['data'])}"),
            )

    def print_members(members: tuple[SpaceMember, ...]) -> None:
        for one in members:
            before = presences.get(one.identity_key, "OFFLINE")
            presences[one.identity_key] = one.presence.name
            if not one.is_self and before != one.presence.name:
                output.result(
                    {
                        "event": one.presence.name.lower(),
                        "name": one.profile.display_name,
                        "did": one.did,
                        "key": one.identity_key.hex,
                    },
                    line(lambda it: f"* {it['name'] or it['did']} is {it['event']}"),
                )

    subscriptions = [space.db.query().subscribe(print_objects), space.members.subscribe(print_members)]
    try:
        async with network_watched(session, client):
            await anyio.sleep_forever()
    finally:
        for one in subscriptions:
            one.unsubscribe()
