"""Edits while the host is inactive, unknown or gone: none is lost without a word, and none is seen that is not kept."""

# ruff: noqa: PT012 - blocks that end by an error are what is tested.

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from dxos.client import Client, EchoObject, Space
from dxos.errors import ClosedError, HostInactiveError
from dxos.limits import UPDATE_OBJECTS_MAX
from dxos.services.contract import SystemStatus
from dxos.services.local import LocalServices
from dxos.services.remote import RemoteServices
from dxos.testing.peers import Simulation, until
from dxos.testing.remote import Hosts
from dxos.testing.services import FakeServices

pytestmark = pytest.mark.anyio
MANY = 4 * UPDATE_OBJECTS_MAX


class Shop:
    """A client, its host, and a space with milk in it."""

    def __init__(self, provider: LocalServices, client: Client, space: Space, milk: EchoObject) -> None:
        self.provider, self.client, self.space, self.milk = provider, client, space, milk

    async def yield_host(self) -> None:
        await self.provider.switch.system.update_status(SystemStatus.INACTIVE)

    async def until_known(self) -> None:
        await until(lambda: self.client.status.get() is SystemStatus.INACTIVE)

    async def resume(self) -> None:
        await self.client.resume_host_services()
        await until(lambda: self.client.status.get() is SystemStatus.ACTIVE)

    async def stored(self, **equalities: Any) -> int:
        """How many objects the host has with these values."""
        return await self.space.db.query(equalities).count()


@asynccontextmanager
async def open_shop(path: Path) -> AsyncIterator[Shop]:
    provider = Simulation().services(path)
    async with Client(services=provider) as client:
        await client.halo.create_identity("Alice")
        space = await client.create_space(name="Groceries")
        milk = space.db.add({"title": "Milk"})
        await space.db.flush()
        yield Shop(provider, client, space, milk)


async def test_an_edit_is_refused_where_it_is_made_and_changes_nothing(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        db, bread, shown = shop.space.db, EchoObject({"title": "Bread"}), []
        db.query().subscribe(lambda update: shown.append([one.id for one in update.objects]))
        await until(lambda: bool(shown))
        before = list(shown)
        await shop.yield_host()
        await shop.until_known()

        with pytest.raises(HostInactiveError, match="resume_host_services"):
            db.add(bread)
        with pytest.raises(HostInactiveError):
            shop.milk.title = "Oat milk"
        with pytest.raises(HostInactiveError):
            shop.milk.tags = [bread]
        with pytest.raises(HostInactiveError):
            db.remove(shop.milk)
        for call in (db.flush, db.undo, db.query().run, lambda: db.add_all([bread])):
            with pytest.raises(HostInactiveError):
                await call()
        with pytest.raises(HostInactiveError):
            async with db.batch():
                shop.milk.title = "Oat milk"
        assert shop.milk.to_dict() == {"title": "Milk"}
        assert not shop.milk.deleted
        assert db.get_object_by_id(bread.id) is None
        assert shown == before

        await shop.resume()
        assert await db.query(title="Bread").run() == []
        assert db.add(bread) is bread
        shop.milk.title = "Oat milk"
        await db.flush()
        assert (await shop.stored(title="Bread"), await shop.stored(title="Oat milk")) == (1, 1)


async def test_what_was_edited_before_anybody_knew_waits_and_is_sent_when_the_host_works_again(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        db = shop.space.db
        await db.add_all({"count": 0} for _ in range(MANY))
        many = await db.query(count=0).run()
        for one in many:
            one.count = 1
        bread = db.add({"title": "Bread"})
        await shop.yield_host()
        await shop.until_known()
        with pytest.raises(HostInactiveError):
            await db.flush()
        assert ({one.count for one in many}, bread.title) == ({1}, "Bread")
        await shop.resume()
        await db.flush()
        assert (await shop.stored(count=1), await shop.stored(title="Bread")) == (MANY, 1)
        assert await db.undo()
        assert ({one.count for one in many}, bread.deleted) == ({0}, True)


async def test_whoever_waits_for_edits_is_told_when_the_host_becomes_inactive(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        for number in range(MANY):
            shop.space.db.add({"count": number})
        refused: list[HostInactiveError] = []

        async def flush() -> None:
            try:
                await shop.space.db.flush()
            except HostInactiveError as error:
                refused.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flush)
            tasks.start_soon(shop.yield_host)
        assert len(refused) == 1
        await shop.resume()
        await shop.space.db.flush()
        assert await shop.space.db.query().count() == MANY + 2


async def test_a_batch_that_the_host_does_not_take_any_more_is_taken_back(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        await shop.yield_host()  # A client at the other end of a session may not know it yet.
        bread = EchoObject({"title": "Bread"})
        with pytest.raises(HostInactiveError):
            async with shop.space.db.batch():
                shop.milk.title = "Oat milk"
                shop.space.db.add(bread)
        assert shop.milk.title == "Milk"
        assert shop.space.db.get_object_by_id(bread.id) is None
        await shop.until_known()
        await shop.resume()
        shop.space.db.add(bread)
        await shop.space.db.flush()
        assert (await shop.stored(title="Bread"), await shop.stored(title="Oat milk")) == (1, 0)


async def test_a_batch_that_ends_while_edits_of_other_tasks_wait_is_taken_back_and_they_are_not(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        begun, ending = anyio.Event(), anyio.Event()

        async def rename() -> None:
            with pytest.raises(HostInactiveError):
                async with shop.space.db.batch():
                    shop.milk.title = "Oat milk"
                    begun.set()
                    await ending.wait()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rename)
            await begun.wait()
            for number in range(MANY):
                shop.space.db.add({"count": number})
            await shop.yield_host()
            await shop.until_known()
            ending.set()
        assert shop.milk.title == "Milk"
        await shop.resume()
        await shop.space.db.flush()
        assert await shop.space.db.query().count() == MANY + 2
        assert await shop.stored(title="Oat milk") == 0


async def test_a_batch_behind_an_update_that_waits_is_taken_back_but_for_what_that_update_holds() -> None:
    fake = FakeServices()
    async with Client(services=fake) as client:
        await client.halo.create_identity("Alice")
        space = await client.create_space(name="Groceries")
        milk, eggs, bread = (EchoObject({"title": title}) for title in ("Milk", "Eggs", "Bread"))
        begun, ending = anyio.Event(), anyio.Event()

        async def batch() -> None:
            with pytest.raises(HostInactiveError):
                async with space.db.batch():
                    begun.set()
                    await ending.wait()
                    space.db.add(eggs)
                    milk.title = "Oat milk"

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(batch)
            await begun.wait()
            fake.held = anyio.Event()
            space.db.add(milk)
            space.db.add(bread)
            await anyio.sleep(1)
            ending.set()
            await anyio.sleep(1)
            fake.refuse = HostInactiveError()
            fake.held.set()
        await space.db.flush()
        assert space.db.get_object_by_id(eggs.id) is None
        stored = fake.network.spaces[space.id].objects
        assert eggs.id not in stored
        assert [stored[one.id].row.data["title"] for one in (milk, bread)] == [milk.title, bread.title]


async def test_what_can_not_be_sent_before_the_client_closes_is_said_and_may_be_added_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_shop(tmp_path) as shop:
        added = [shop.space.db.add({"count": number}) for number in range(MANY)]
        shop.milk.title = "Oat milk"
        await shop.yield_host()
        await shop.until_known()
        with caplog.at_level(logging.WARNING, "dxos.client"):
            await shop.client.destroy()
        assert "nobody flushed: The host is inactive" in caplog.text
        await shop.client.initialize()
        space = await shop.client.spaces.get()[0].wait_until_ready()
        kept = {one.id for one in await space.db.query().run()}
        lost = [one for one in added if one.id not in kept]
        assert lost
        for one in lost:
            space.db.add(one)
        await space.db.flush()
        assert await space.db.query().count() == MANY + 2


async def test_a_closed_client_refuses_an_edit_and_nothing_changes(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        await shop.client.destroy()
        bread = EchoObject({"title": "Bread"})
        with pytest.raises(ClosedError, match="initialize"):
            shop.milk.title = "Oat milk"
        with pytest.raises(ClosedError, match="initialize"):
            shop.space.db.add(bread)
        assert shop.milk.title == "Milk"
        await shop.client.initialize()
        space = await shop.client.spaces.get()[0].wait_until_ready()
        space.db.add(bread)
        await space.db.flush()
        assert sorted(one.title for one in await space.db.query().run() if "title" in one) == ["Bread", "Milk"]


async def test_while_nothing_is_heard_of_the_host_an_edit_is_made_and_what_needs_its_answer_waits(
    tmp_path: Path,
) -> None:
    async with Hosts(Simulation(), tmp_path) as hosts, Client(services=RemoteServices(hosts.connect)) as client:
        await client.halo.create_identity("Alice")
        space = await client.create_space(name="Groceries")
        milk = space.db.add({"title": "Milk"})
        await space.db.flush()
        await hosts.kill()
        await until(lambda: client.status.get() is None)
        milk.title = "Oat milk"
        bread = space.db.add({"title": "Bread"})
        counts: list[int] = []

        async def count() -> None:
            counts.append(await space.db.query(title=bread.title).count())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            await anyio.sleep(60)
            assert counts == []
            await hosts.start()
        assert counts == [1]
        await space.db.flush()
        states = await hosts.services.data.get(space.id, [milk.id, bread.id])
        assert [one.row.data["title"] for one in states] == ["Oat milk", "Bread"]
