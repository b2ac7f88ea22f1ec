"""What an application observes while hosts change: nothing is told twice, nothing goes and comes back."""

import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dxos.client import Client
from dxos.client.observable import MulticastObservable
from dxos.services.contract import LogEntry, LogLevel, Presence, SpaceMember, SpaceMessage, SystemStatus
from dxos.services.remote import RemoteServices
from dxos.testing.peers import Simulation, join, until
from dxos.testing.remote import Hosts

pytestmark = pytest.mark.anyio
CHANGES = 3  # Of the host.


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # A virtual clock would jump over the time-outs of peers while a host waits for the disk.


async def test_observables_tell_what_changed_and_nothing_else(tmp_path: Path) -> None:
    simulation = Simulation()
    async with (
        Hosts(simulation, tmp_path) as hosts,
        RemoteServices(hosts.connect) as services,
        Client(services=RemoteServices(hosts.connect)) as alice,
        Client(services=simulation.services()) as bob,
    ):
        await alice.halo.create_identity("alice")
        await bob.halo.create_identity("bob")
        space = await alice.create_space(name="Groceries")
        theirs = await join(space, bob)
        await until(lambda: len(alice.halo.contacts.get()) == 1)
        await space.wait_until_synced()
        seen: dict[str, list[Any]] = {}
        observables: dict[str, MulticastObservable[Any]] = {
            "identity": alice.halo.identity,
            "devices": alice.halo.devices,
            "contacts": alice.halo.contacts,
            "credentials": alice.halo.credentials,
            "state": space.state,
            "pipeline": space.pipeline,
            "invitations": space.invitations,
        }
        for name, one in observables.items():
            one.subscribe(seen.setdefault(name, []).append)
        members: list[tuple[SpaceMember, ...]] = []
        statuses: list[SystemStatus | None] = []
        messages: list[SpaceMessage] = []
        entries: list[LogEntry] = []
        space.members.subscribe(members.append)
        alice.status.subscribe(statuses.append)
        space.listen("chat", messages.append)
        services.logging.query_logs(LogLevel.WARNING, entries.append)

        async def change(number: int) -> None:
            await hosts.kill()
            await until(lambda: alice.status.get() is None)
            await hosts.start()
            await until(lambda: alice.status.get() is SystemStatus.ACTIVE)
            await space.wait_until_synced()
            await theirs.wait_until_synced()
            await theirs.post_message("chat", {"number": number})
            await until(lambda: len(messages) > number)
            await services.system.get_platform()
            logging.getLogger("dxos.mesh").warning("number %d", number)
            await until(lambda: f"number {number}" in [one.message for one in entries])

        for number in range(CHANGES):
            await change(number)
        assert {name: len(values) for name, values in seen.items()} == dict.fromkeys(observables, 1)
        assert statuses == [*[SystemStatus.ACTIVE, None] * CHANGES, SystemStatus.ACTIVE]
        assert [one.payload["number"] for one in messages] == list(range(CHANGES))
        told = [one.message for one in entries if one.message.startswith("number")]
        assert told == [f"number {number}" for number in range(CHANGES)]
        assert all(one != other for one, other in pairwise(members))
        assert {len(one) for one in members} == {2}
        assert [one[1].presence for one in members][::2] == [Presence.ONLINE] * (CHANGES + 1)
        assert [one[1].presence for one in members][1::2] == [Presence.OFFLINE] * CHANGES
