from typing import Any

import pytest

from dxos.client import Client
from dxos.client.progress import Activity
from dxos.errors import StorageFullError
from dxos.services.contract import Progress
from dxos.testing.peers import Simulation, join, simulated_clients
from dxos.testing.services import FakeServices

pytestmark = pytest.mark.anyio


async def test_what_takes_long_is_told_while_it_runs() -> None:
    async with Client(services=FakeServices()) as client:
        await client.halo.create_identity("Alice")
        space = await client.create_space(name="Groceries")
        seen: list[tuple[Activity, ...]] = []
        also: list[Progress] = []
        client.progress.subscribe(seen.append)
        await space.db.add_all([{"n": n} for n in range(120)], progress=also.append)
        assert also == [Progress(50, 120), Progress(100, 120), Progress(120, 120)]
        assert seen == [(), *((Activity("add", space.id, one),) for one in also), ()]
        seen.clear()
        data = await client.create_serializer().serialize_space(space)
        copy = await client.create_serializer().deserialize_space(data)
        kinds = [(one.kind, one.space_id) for told in seen for one in told]
        assert set(kinds) == {("export", space.id), ("import", copy.id)}
        assert client.progress.get() == ()


async def test_work_that_fails_is_over() -> None:
    fake = FakeServices()
    async with Client(services=fake) as client:
        await client.halo.create_identity("Alice")
        space = await client.create_space(name="Groceries")

        def values() -> Any:
            yield from ({"n": n} for n in range(200))
            fake.refuse = StorageFullError("The disk is full.")
            yield from ({"n": n} for n in range(200))

        with pytest.raises(StorageFullError):
            await space.db.add_all(values())
        assert client.progress.get() == ()


async def test_a_guest_hears_how_much_of_a_space_has_come() -> None:
    async with simulated_clients(2) as (alice, bob):
        space = await alice.create_space(name="Library")
        await space.db.add_all([{"n": n} for n in range(250)])
        told: list[Activity] = []
        bob.progress.subscribe(told.extend)
        theirs = await join(space, bob)
        await theirs.wait_until_synced(60.0)
        assert {(one.kind, one.space_id) for one in told} == {("sync", space.id)}
        done = [one.progress.done for one in told]
        assert done == sorted(done)
        assert len(done) > 10
        assert {one.progress.total for one in told} == {251}  # With the root.
        assert bob.progress.get() == ()
        assert theirs.info.arriving is None
        told.clear()
        space.db.add({"n": 250})
        await theirs.wait_until_synced(60.0)
        assert not told  # What comes by and by is no long work.


async def test_nothing_is_on_its_way_once_whoever_announced_it_has_gone() -> None:
    simulation = Simulation()
    async with Client(services=simulation.services()) as alice, Client(services=simulation.services()) as bob:
        await alice.halo.create_identity("Alice")
        await bob.halo.create_identity("Bob")
        devices = [(await one.halo.devices.wait_for(bool))[0].device_key for one in (alice, bob)]
        space = await alice.create_space(name="Library")
        await space.db.add_all([{"n": n} for n in range(250)])
        told: list[tuple[Activity, ...]] = []

        def look(activities: tuple[Activity, ...]) -> None:
            told.append(activities)
            if len(told) == 50:
                simulation.network.reset(*devices)

        bob.progress.subscribe(look)
        theirs = await join(space, bob)
        await theirs.wait_until_synced(60.0)
        assert told[0] == told[-1] == ()
        gone = told.index((), 50)  # Alice was cut off before.
        after = [one.progress for (one,) in filter(None, told[gone:])]
        assert 0 < after[0].total < 250  # What had come is not announced again.
        assert after == sorted(after, key=lambda one: one.done)
        assert await theirs.db.query().count() == 251
