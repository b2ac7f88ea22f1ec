"""One peer of the demonstration: a client of its own, in a process of its own, that does what it is told.

Each line on standard input is a command, `{"do": "invite", …}`; each line on standard output is its answer. What a
program of yours would write is in the methods of `Peer`.

    python peer.py FOLDER ws://127.0.0.1:5001/.well-known/dx/signal
"""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio

from dxos import Client, Config, InvitationEncoder
from dxos.client.invitations import CancellableInvitation
from dxos.client.object import EchoObject
from dxos.client.space import Space

WAIT_S = 20.0


class Peer:
    """What the demonstration asks of a peer."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._invitation: CancellableInvitation | None = None

    async def identify(self, name: str) -> dict[str, Any]:
        """Make an identity, unless this profile has one from before."""
        identity = self._client.halo.identity.get()
        if identity is None:
            identity = await self._client.halo.create_identity(display_name=name)
        return {"name": identity.profile.display_name, "did": identity.did}

    async def create_space(self, name: str, objects: list[dict[str, Any]]) -> dict[str, Any]:
        """Create a space and fill it."""
        space = await self._client.create_space(name=name)
        for one in objects:
            space.db.add(one)
        await space.db.flush()  # Durable on disk when this returns.
        return {"id": space.id}

    async def invite(self) -> dict[str, Any]:
        """Offer a place in the space."""
        self._invitation = self._space.create_invitation()
        shown = await self._invitation.wait_for(lambda it: it.auth_code is not None, timeout_s=WAIT_S)
        return {"code": InvitationEncoder.encode(shown), "auth_code": shown.auth_code}

    async def wait_for_guest(self) -> dict[str, Any]:
        """Wait until somebody took the place."""
        assert self._invitation is not None
        await self._invitation
        members = await self._space.members.wait_for(lambda them: len(them) > 1, timeout_s=WAIT_S)
        return {"members": [f"{one.profile.display_name} ({one.role.name})" for one in members]}

    async def join(self, code: str, auth_code: str) -> dict[str, Any]:
        """Take the place."""
        guest = self._client.accept_invitation(InvitationEncoder.decode(code))
        await guest.authenticate(auth_code)
        joined = await guest
        space = self._client.get_space(joined.space_key)
        assert space is not None
        await space.wait_until_ready()
        return {"id": space.id, "name": space.name}

    async def wait_for(self, count: int, where: dict[str, Any]) -> dict[str, Any]:
        """Wait until so many objects have these values; changes arrive by themselves."""
        enough = anyio.Event()
        query = self._space.db.query(where)
        subscription = query.subscribe(lambda update: enough.set() if len(update.objects) >= count else None)
        with anyio.fail_after(WAIT_S):
            await enough.wait()
        subscription.unsubscribe()
        return {"found": await query.count()}

    async def edit(self, title: str, done: bool, tag: str) -> dict[str, Any]:
        """Change an object in two places: a property, and a list inside it."""
        item = await self._find(title)
        item.done = done
        item.tags.append(tag)
        await self._space.db.flush()
        return item.to_dict()

    async def add(self, value: dict[str, Any]) -> dict[str, Any]:
        """Add an object."""
        item = self._space.db.add(value)
        await self._space.db.flush()
        return {"id": item.id}

    async def content(self) -> dict[str, Any]:
        """Everything in the space, by the ids of the objects; the one that holds the space's name is left out."""
        objects = await self._space.db.query().run()
        return {one.id: one.to_dict() for one in objects if one != self._space.properties}

    @property
    def _space(self) -> Space:
        return self._client.spaces.get()[0]

    async def _find(self, title: str) -> EchoObject:
        item = await self._space.db.query(title=title).first()
        assert item is not None, f"nothing is called {title}"
        return item


async def main(folder: str, signal: str) -> None:
    """Answer commands until the input ends."""
    config = Config(
        {
            "runtime": {
                "client": {"storage": {"persistent": True, "dataRoot": folder}},
                "services": {"signaling": [{"server": signal}]},
            }
        }
    )
    async with Client(config) as client:  # Online from here on, and closed in order at the end.
        for space in client.spaces.get():
            await space.wait_until_ready()
        peer = Peer(client)
        async for line in anyio.wrap_file(sys.stdin):
            command = json.loads(line)
            answer = await getattr(peer, command.pop("do"))(**command)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
