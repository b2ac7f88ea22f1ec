from typing import Any

import pytest

from dxos.client import Client
from dxos.client.progress import Activity
from dxos.errors import StorageFullError
from dxos.services.contract import Progress
from dxos.testing.services import FakeServices

pytestmark = pytest.mark.anyio


async def test_what_takes_long_is_told_while_it_runs() -> None:
    async with Client(services=FakeServices()) as client:
        await client.halo.create_identity("Alice")
        space = await client.create_space(name="Groceries")
        seen: list[tuple[Activity, ...]] = []
        also: list[Progress] = []
        client.progress.subscribe(seen.append)
        await space.db.add_all([{"n": n} for n in range(450)], progress=also.append)
        assert also == [Progress(200, 450), Progress(400, 450), Progress(450, 450)]
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
