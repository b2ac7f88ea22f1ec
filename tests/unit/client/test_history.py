"""History through the whole host: revisions, past spaces, conflicts and undo, also of a peer's changes."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from dxos.client import Client, EchoObject, F, Space
from dxos.echo.query import Equals
from dxos.errors import ObjectNotFoundError, UsageError
from dxos.limits import UPDATE_OBJECTS_MAX
from dxos.services.contract import Progress
from dxos.services.local import LocalServices
from dxos.services.remote import RemoteServices
from dxos.testing.peers import Simulation, converged, join, seeded_random, simulated_clients
from dxos.testing.remote import Hosts
from dxos.testing.services import FakeServices

pytestmark = pytest.mark.anyio

# Ids of objects are made by the real clock, so the host's begins there too, and goes as the event loop's.
REAL_MS = time.time_ns() // 1_000_000 + 86_400_000  # Ahead of it, however long the tests before took.


def now_ms() -> int:
    return REAL_MS + int(anyio.current_time() * 1_000)


def now() -> datetime:
    return datetime.fromtimestamp(now_ms() / 1_000, UTC)


@asynccontextmanager
async def open_space() -> AsyncIterator[Space]:
    network = Simulation().network
    services = LocalServices(
        None, signal=network.signal, transport=network.transport, random=seeded_random(7), now_ms=now_ms
    )
    async with Client(services=services) as client:
        await client.halo.create_identity("Alice")
        yield await client.create_space(name="Groceries")


async def test_an_object_tells_what_was_done_to_it() -> None:
    async with open_space() as space:
        milk = space.db.add({"title": "Milk", "tags": []})
        await anyio.sleep(5)
        milk.title = "Oat milk"
        milk.tags.append("vegan")
        newest, first = await milk.history()
        assert list(map(str, newest.differences)) == ["tags.0: + 'vegan'", "title: 'Milk' → 'Oat milk'"]
        assert newest.own
        assert newest.time is not None
        assert first.time is not None
        assert newest.time - first.time == timedelta(seconds=5)
        assert str(newest) == f"{newest.time:%Y-%m-%d %H:%M:%S} (here) tags.0: + 'vegan'; title: 'Milk' → 'Oat milk'"
        assert await milk.history(limit=1) == (newest,)


async def test_a_space_is_read_as_it_was() -> None:
    async with open_space() as space:
        milk = space.db.add({"title": "Milk", "count": 1})
        await space.db.flush()
        await anyio.sleep(5)
        before = space.at(now())
        await anyio.sleep(5)
        milk.count = 2
        eggs = space.db.add({"title": "Eggs", "count": 1})
        space.properties.name = "Shopping"
        await space.db.flush()

        assert (await before.get(milk)).count == 1
        assert (await before.get(space.properties.id))["name"] == "Groceries"
        with pytest.raises(ObjectNotFoundError):
            await before.get(eggs)
        assert [one["title"] for one in await before.query(count=1)] == ["Milk"]
        assert [one.title for one in await before.query(space.db.query(Equals(("count",), 1)))] == ["Milk"]
        assert [one.title for one in await before.query(F.title.startswith("M"), F.count < 2)] == ["Milk"]
        assert [one.title for one in await before.query(space.db.query(count=1), F.title == "Eggs")] == []
        assert [one.title for one in await space.at(now()).query(count=1)] == ["Eggs"]
        _, first = await milk.history()
        assert (await space.at(first).get(milk)).to_dict() == {"title": "Milk", "count": 1}
        assert repr(before).startswith(f"<PastSpace {space.id[:8]} 20")


async def test_a_past_object_is_for_reading() -> None:
    async with open_space() as space:
        milk = space.db.add({"title": "Milk", "tags": ["a"]})
        await space.db.flush()
        past = await space.at(now()).get(milk)
        milk.title = "Oat milk"
        assert (past.id, past.type, past.deleted, past.meta) == (milk.id, None, False, {"keys": []})
        assert (dict(past), len(past), bool(past)) == ({"title": "Milk", "tags": ["a"]}, 2, True)
        past.tags.append("b")
        assert past.tags == ["a"]
        assert [str(one) for one in past.diff(milk)] == ["title: 'Milk' → 'Oat milk'"]
        assert past.diff(past) == ()
        with pytest.raises(AttributeError):
            past.title = "Soy milk"
        with pytest.raises(AttributeError):
            past.price  # noqa: B018 - what reading it raises.
        with pytest.raises(UsageError):
            past.diff(space.db.add({}))
        assert repr(past) == f"<PastObject {milk.id} {past.to_dict()!r}>"
        milk.update(past.to_dict())
        assert milk.title == "Milk"


async def test_undo_is_seen_at_once_and_told_as_any_change() -> None:
    async with open_space() as space:
        milk, eggs = space.db.add({"count": 1}), space.db.add({"count": 1})
        await space.db.flush()
        milk.count = eggs.count = 2
        told: list[int] = []
        milk.subscribe(lambda one: told.append(one.count))
        assert await milk.undo()
        assert (milk.count, eggs.count) == (1, 2)
        assert await milk.redo()
        assert not await milk.redo()
        assert await space.db.undo()
        assert (milk.count, eggs.count) == (1, 1)
        assert await space.db.redo()
        assert (milk.count, eggs.count) == (2, 2)
        assert told == [2, 1, 2, 1, 2]


async def test_a_batch_is_undone_as_one() -> None:
    async with open_space() as space:
        milk = space.db.add({"count": 1})
        await space.db.flush()
        async with space.db.batch():
            milk.count = 2
            await anyio.sleep(1)
            bread = space.db.add({"count": 3})
            with pytest.raises(UsageError):
                await space.db.undo()
        (newest, _) = await milk.history()
        assert [str(one) for one in newest.differences] == ["count: 1 → 2"]
        assert await space.db.undo()
        assert (milk.count, bread.deleted) == (1, True)


async def test_one_call_is_undone_as_one_however_many_updates_it_takes() -> None:
    count = 2 * UPDATE_OBJECTS_MAX + 1
    async with open_space() as space:
        await space.db.add_all({"count": 1} for _ in range(count))
        many = await space.db.query(count=1).run()
        for one in many:
            one.count = 2
        await space.db.flush()
        for expected in (1, None):
            assert await space.db.undo()
            assert {None if one.deleted else one.count for one in many} == {expected}
        assert not await space.db.undo()
        for expected in (1, 2):
            assert await space.db.redo()
            assert {None if one.deleted else one.count for one in many} == {expected}
        assert not await space.db.redo()


async def test_two_long_calls_at_once_are_undone_one_after_the_other() -> None:
    async with open_space() as space:
        async with anyio.create_task_group() as tasks:
            for name in ("a", "b"):
                tasks.start_soon(space.db.add_all, [{name: 1}] * (UPDATE_OBJECTS_MAX + 1))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(space.db.undo)
            tasks.start_soon(space.db.undo)
        assert await space.db.query(F.a.exists() | F.b.exists()).count() == 0
        assert not await space.db.undo()


async def test_a_call_over_two_hosts_is_undone_as_one(tmp_path: Path) -> None:
    async with Hosts(Simulation(), tmp_path) as hosts, Client(services=RemoteServices(hosts.connect)) as client:
        await client.halo.create_identity("Alice")
        space = await client.create_space(name="Groceries")
        done: list[int] = []

        async def replace_host(progress: Progress) -> None:
            done.append(progress.done)
            if len(done) == 2:
                await hosts.kill()
                await hosts.start()

        async with anyio.create_task_group() as tasks:
            await space.db.add_all(
                ({"count": 1} for _ in range(4 * UPDATE_OBJECTS_MAX)),
                progress=lambda one: tasks.start_soon(replace_host, one),
            )
        assert hosts.leadership_id == 2
        assert await space.db.query(count=1).count() == 4 * UPDATE_OBJECTS_MAX
        assert await space.db.undo()
        assert await space.db.query(count=1).count() == 0


async def test_an_object_in_no_space_has_no_history() -> None:
    with pytest.raises(UsageError):
        await EchoObject({}).history()
    with pytest.raises(UsageError):
        await EchoObject({}).undo()


async def test_peers_have_their_own_undo_and_see_each_others_conflicts() -> None:
    async with simulated_clients(2) as (alice, bob):
        hers = await alice.create_space(name="Groceries")
        milk = hers.db.add({"count": 1, "note": "x", "title": "Milk"})
        await hers.db.flush()
        his = await join(hers, bob)
        await converged(hers, his)
        same = await his.db.get(milk.id)
        assert not await same.undo()

        milk.count = 5
        same.count = 7
        milk.note = "hers"
        await hers.db.flush()
        await his.db.flush()
        await converged(hers, his)
        (conflict,) = await milk.conflicts()
        (others,) = await same.conflicts()
        assert conflict.path == others.path == ("count",)
        assert [one.value for one in conflict.values] == [one.value for one in others.values]
        assert {one.value for one in conflict.values} == {5, 7}
        assert conflict.values[0].value == milk.count == same.count
        assert [one.own for one in conflict.values] == [not one.own for one in others.values]

        same.title = "Oat milk"
        await his.db.flush()
        await converged(hers, his)
        assert await milk.undo()
        await converged(hers, his)
        assert (same.title, same.note) == ("Oat milk", "x")
        foreign = [one for one in await milk.history() if not one.own]
        assert len(foreign) == 2
        assert all(one.time is not None for one in foreign)


async def test_the_fake_host_has_a_history_too() -> None:
    async with Client(services=FakeServices()) as client:
        await client.halo.create_identity("Alice")
        space = await client.create_space(name="Groceries")
        milk = space.db.add({"count": 1})
        await space.db.flush()
        milk.count = 2
        newest, first = await milk.history()
        assert [str(one) for one in newest.differences] == ["count: 1 → 2"]
        assert (await space.at(first).get(milk)).count == 1
        assert len(await space.at(first).query()) == 2
        assert await milk.conflicts() == ()
        assert await milk.undo()
        assert milk.count == 1
        assert await space.db.redo()
        assert milk.count == 2
        assert not await milk.redo()
        assert await milk.undo()
        assert await milk.undo()
        assert milk.deleted
        assert not await milk.undo()
