"""A query over all spaces is as one over one space."""

from typing import Any

import anyio
import pytest

from dxos.client.client import Client
from dxos.client.fields import F
from dxos.client.query import QueryUpdate
from dxos.testing.services import FakeNetwork, FakeServices

pytestmark = pytest.mark.anyio


async def test_all_ready_spaces_are_asked_and_followed() -> None:
    async with Client(services=FakeServices(FakeNetwork())) as client:
        await client.halo.create_identity(display_name="Alice")
        one = await client.create_space(name="One")
        for n in (3, 1):
            one.db.add({"title": f"milk {n}", "n": n})
        query = client.query(F.n > 0).order_by(F.n)
        seen: list[QueryUpdate[Any]] = []
        subscription = query.subscribe(seen.append)
        two = await client.create_space(name="Two")
        two.db.add({"title": "milk 2", "n": 2})
        await two.db.flush()
        await anyio.wait_all_tasks_blocked()
        assert [it.n for it in await query.run()] == [1, 2, 3]
        assert [it.n for it in await query.offset(1).limit(1).run()] == [2]
        assert await query.count() == 3
        assert len(await client.query().search("milk").hits()) == 3
        assert [it.n for it in seen[-1].objects] == [1, 2, 3]
        assert [it.n for it in seen[-1].added] == [2]
        await one.close()
        await anyio.wait_all_tasks_blocked()
        assert [it.n for it in seen[-1].objects] == [2]
        assert [it.n for it in seen[-1].removed] == [1, 3]
        subscription.unsubscribe()
        two.db.add({"n": 4})
        await two.db.flush()
        assert [it.n for it in seen[-1].objects] == [2]
