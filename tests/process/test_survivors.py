"""What an application holds goes on when leader and worker die: observables, objects, queries, invitations."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from process_people import WAIT_S, join, person, shown, signalling
from worker_people import People, people

from dxos import Client, InvitationState, SystemStatus

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them"),
]


@asynccontextmanager
async def survivor(them: People, server: str) -> AsyncIterator[Client]:
    """A client in this process, whose profile another process leads, with an identity and a space."""
    settings = {
        "runtime": {
            "client": {"storage": {"persistent": True, "dataRoot": str(them.profile)}},
            "services": {"signaling": [{"server": server}]},
        }
    }
    async with Client(settings) as client:
        await client.spaces.wait_for(lambda spaces: len(spaces) == 1, timeout_s=WAIT_S)
        await client.spaces.get()[0].wait_until_ready(WAIT_S)
        yield client


@pytest.mark.parametrize("victim", ["leader", "worker", "leader and worker"])
async def test_all_that_an_application_holds_goes_on_over_a_change_of_host(tmp_path: Path, victim: str) -> None:
    async with signalling() as server:
        with people(tmp_path / "p", servers=(server,)) as them:
            alice = await anyio.to_thread.run_sync(them.first)
            async with survivor(them, server) as bob, person(None, server, name="Carol") as carol:
                held = Held(bob)
                milk = held.space.db.add({"title": "Milk"})
                await held.space.db.flush()
                open_one = held.space.create_invitation()
                code, auth_code = await shown(open_one)
                if victim != "leader":
                    os.kill(them.worker_pid(), signal.SIGKILL)
                if victim != "worker":
                    alice.signal(signal.SIGKILL)

                milk.title = "Oat milk"
                await held.space.db.flush()
                await bob.status.wait_for(lambda status: status is SystemStatus.ACTIVE, timeout_s=WAIT_S)
                theirs = await join(carol, code, auth_code)
                await theirs.wait_until_synced(WAIT_S)
                assert (await open_one).state is InvitationState.SUCCESS
                (same,) = await theirs.db.query(title="Oat milk").run()
                same.title = "Rice milk"
                await theirs.db.flush()
                with anyio.fail_after(WAIT_S):
                    while held.titles[-1] != ["Rice milk"]:
                        await held.changed.wait()
                assert milk.title == "Rice milk", "the object is the one that the application has"
                assert held.titles == [["Milk"], ["Oat milk"], ["Rice milk"]]
                await bob.halo.update_profile(display_name="Bob")
                with anyio.fail_after(WAIT_S):
                    while held.names[-1] != "Bob":
                        await held.changed.wait()
                assert held.names == ["Alice", "Bob"]
                assert bob.spaces.get() == (held.space,)
                members = await held.space.members.wait_for(lambda members: len(members) == 2, timeout_s=WAIT_S)
                assert len(members) == 2


class Held:
    """What an application has subscribed to, and what it was told."""

    def __init__(self, client: Client) -> None:
        (self.space,) = client.spaces.get()
        self.titles: list[list[str]] = []
        self.names: list[str | None] = []
        self.changed = anyio.Event()
        self.space.db.query().subscribe(self._queried)
        client.halo.identity.subscribe(self._identified)

    def _queried(self, update: Any) -> None:
        self.titles.append([one.title for one in update.objects if "title" in one])
        self._notify()

    def _identified(self, identity: Any) -> None:
        self.names.append(identity.profile.display_name if identity is not None else None)
        self._notify()

    def _notify(self) -> None:
        event, self.changed = self.changed, anyio.Event()
        event.set()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
