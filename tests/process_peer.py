"""A client in a process of its own that does what it is told, line by line; `process_people.Remote` runs it.

Arguments: its folder, its person's name, signalling servers. Each line of input is a command in JSON, each line of
output its result or its error. The end of the input closes the client in order.
"""

import json
import sys
from pathlib import Path
from typing import Any

import anyio
from process_people import WAIT_S, join, person, shown, wrong

from dxos import CancellableInvitation, Client, ConnectionState, DxosError, EchoObject, Space


class Peer:
    """What can be asked; the space is the first one unless `space` numbers another."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._invitation: CancellableInvitation | None = None

    async def space(self) -> Space:
        """The space, ready."""
        return await self._client.spaces.get()[0].wait_until_ready(WAIT_S)

    async def create(self, name: str) -> str:
        """Create a space."""
        return (await self._client.create_space(name=name)).id

    async def invite(self, multi_use: bool = False) -> list[str]:
        """Invite somebody; the code and the authentication code."""
        self._invitation = (await self.space()).create_invitation(multi_use=multi_use)
        return list(await shown(self._invitation))

    async def invited(self) -> str:
        """Wait for the end of the invitation; the class of its error, or SUCCESS."""
        assert self._invitation is not None
        try:
            with anyio.fail_after(WAIT_S):
                return (await self._invitation).state.name
        except DxosError as error:
            return type(error).__name__

    async def invitation_state(self, name: str) -> str:
        """Wait until the first open invitation of the space is in a state."""
        (invitation,) = (await self.space()).invitations.get()
        self._invitation = invitation
        return (await invitation.wait_for(lambda one: one.state.name == name, timeout_s=WAIT_S)).state.name

    async def join(self, code: str, auth_code: str) -> str:
        """Join a space."""
        return (await join(self._client, code, auth_code)).id

    async def begin_to_join(self, code: str, auth_code: str) -> str:
        """Go as far as one wrong authentication code."""
        guest = self._client.accept_invitation(code)
        return (await guest.authenticate(wrong(auth_code))).state.name

    async def add(self, count: int, start: int = 0) -> int:
        """Add objects and flush."""
        space = await self.space()
        for number in range(start, start + count):
            space.db.add({"number": number, "by": "", "tags": ["a"]})
        await space.db.flush()
        return count

    async def edit(self, number: int, by: str) -> dict[str, Any]:
        """Change an object in two places and flush."""
        space = await self.space()
        item = await self._item(space, number)
        item.by = by
        item.tags.append(by)
        await space.db.flush()
        return item.to_dict()

    async def wait_count(self, count: int, **where: Any) -> int:
        """Wait until at least so many objects have these values."""
        space = await self.space()
        enough = anyio.Event()
        subscription = space.db.query(where).subscribe(
            lambda update: enough.set() if len(update.objects) >= count else None
        )
        try:
            with anyio.fail_after(WAIT_S):
                await enough.wait()
        finally:
            subscription.unsubscribe()
        return await space.db.query(where).count()

    async def content(self) -> dict[str, Any]:
        """Everything, by id."""
        return {one.id: one.to_dict() for one in await (await self.space()).db.query().run()}

    async def members(self, online: int) -> list[str]:
        """Wait until so many members are online; the names of all."""
        space = await self.space()
        found = await space.members.wait_for(
            lambda them: sum(one.presence.name == "ONLINE" for one in them) == online, timeout_s=2 * WAIT_S
        )
        return sorted(str(one.profile.display_name) for one in found)

    async def network(self, online: bool) -> str:
        """Go online or offline."""
        await self._client.mesh.update_config(ConnectionState.ONLINE if online else ConnectionState.OFFLINE)
        return self._client.mesh.network_status.get().swarm.name

    async def signal(self, state: str) -> str:
        """Wait until the signalling server's connection is in a state."""
        found = await self._client.mesh.network_status.wait_for(
            lambda one: one.signaling[0].state.name in state.split("|"), timeout_s=WAIT_S
        )
        return found.signaling[0].state.name

    async def _item(self, space: Space, number: int) -> EchoObject:
        item = await space.db.query(number=number).first()
        assert item is not None
        return item


async def main(*arguments: str) -> None:
    """Answer until the input ends."""
    path, name, *servers = arguments
    async with person(Path(path), *servers, name=name) as client:
        peer = Peer(client)
        say("ready")
        async for line in anyio.wrap_file(sys.stdin):
            command = json.loads(line)
            try:
                say(await getattr(peer, command.pop("do"))(**command))
            except (DxosError, AssertionError, TimeoutError) as error:
                print(json.dumps({"error": type(error).__name__, "message": str(error)}), flush=True)


def say(result: Any) -> None:
    """Answer."""
    print(json.dumps({"result": result}), flush=True)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
