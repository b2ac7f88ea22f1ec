"""Batches: several edits as one change, all or none, beside what other tasks do; and many objects in pieces."""

# ruff: noqa: PT012 - blocks that end by an error are what is tested.

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from dxos.client import Client, EchoObject, Space
from dxos.errors import ClosedError, InvalidValueError, StorageFullError, UsageError
from dxos.limits import BATCH_OBJECTS_MAX, UPDATE_OBJECTS_MAX
from dxos.services.contract import Progress
from dxos.testing.services import FakeServices

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def open_space() -> AsyncIterator[tuple[FakeServices, Space]]:
    fake = FakeServices()
    async with Client(services=fake) as client:
        await client.halo.create_identity("Alice")
        yield fake, await client.create_space(name="Groceries")


def updates(fake: FakeServices) -> int:
    return fake.calls.count("data.update")


def stored(fake: FakeServices, space: Space, target: EchoObject) -> Any:
    return fake.network.spaces[space.id].objects[target.id].row.data


async def test_the_edits_of_a_block_are_one_update_also_over_several_turns() -> None:
    async with open_space() as (fake, space):
        milk, eggs = space.db.add({"count": 1}), space.db.add({"count": 1})
        await space.db.flush()
        fake.calls.clear()
        told: list[int] = []
        milk.subscribe(lambda one: told.append(one.count))
        async with space.db.batch():
            milk.count = 2
            await anyio.sleep(1)
            eggs.count = 2
            bread = space.db.add({"count": 2})
            await anyio.sleep(1)
            milk.count = 3
            assert (updates(fake), told) == (0, [])
        assert (updates(fake), told) == (1, [3])
        assert [stored(fake, space, one)["count"] for one in (milk, eggs, bread)] == [3, 2, 2]


async def test_a_block_that_raises_leaves_everything_as_it_was() -> None:
    async with open_space() as (fake, space):
        milk = space.db.add({"count": 1, "tags": ["a"]})
        await space.db.flush()
        fake.calls.clear()
        with pytest.raises(ZeroDivisionError):
            async with space.db.batch():
                milk.count = 2
                milk.tags.append("b")
                bread = space.db.add({"title": "Bread"})
                await anyio.sleep(1)
                raise ZeroDivisionError
        assert milk.to_dict() == {"count": 1, "tags": ["a"]}
        assert space.db.get_object_by_id(bread.id) is None
        await space.db.flush()
        assert updates(fake) == 0
        assert space.db.add(bread) is bread


async def test_what_was_changed_before_the_block_stays_when_it_raises() -> None:
    async with open_space() as (fake, space):
        milk = space.db.add({"count": 1})
        milk.count = 2
        with pytest.raises(ZeroDivisionError):
            async with space.db.batch():
                milk.count = 3
                raise ZeroDivisionError
        await space.db.flush()
        assert stored(fake, space, milk) == milk.to_dict() == {"count": 2}


async def test_a_refused_batch_raises_where_it_ends_and_is_undone() -> None:
    async with open_space() as (fake, space):
        milk, eggs = space.db.add({"count": 1}), space.db.add({"count": 1})
        await space.db.flush()
        fake.refuse = StorageFullError("the disk is full")
        with pytest.raises(StorageFullError):
            async with space.db.batch():
                milk.count = eggs.count = 2
        assert (milk.count, eggs.count) == (1, 1)
        await space.db.flush()  # It was raised once.


async def test_what_other_tasks_change_meanwhile_is_no_part_of_it() -> None:
    async with open_space() as (fake, space):
        milk, eggs = space.db.add({"count": 1}), space.db.add({"count": 1})
        await space.db.flush()

        async def other() -> None:
            await anyio.sleep(1)
            eggs.count = 5
            await space.db.flush()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            with pytest.raises(ZeroDivisionError):
                async with space.db.batch():
                    milk.count = 2
                    await anyio.sleep(2)
                    assert stored(fake, space, eggs) == {"count": 5}
                    raise ZeroDivisionError
        assert (milk.count, eggs.count) == (1, 5)
        assert stored(fake, space, eggs) == {"count": 5}


async def test_a_block_inside_a_block_is_part_of_it() -> None:
    async with open_space() as (fake, space):
        milk = space.db.add({"count": 1})
        await space.db.flush()
        fake.calls.clear()
        async with space.db.batch():
            milk.count = 2
            async with space.db.batch():
                milk.title = "Milk"
            assert updates(fake) == 0
        assert updates(fake) == 1


async def test_an_empty_block_sends_nothing() -> None:
    async with open_space() as (fake, space):
        await space.db.flush()
        fake.calls.clear()
        async with space.db.batch():
            pass
        assert updates(fake) == 0


async def test_rows_that_come_while_the_block_runs_wait_for_its_end() -> None:
    async with open_space() as (fake, space):
        milk = space.db.add({"count": 1})
        await space.db.flush()
        with pytest.raises(ZeroDivisionError):
            async with space.db.batch():
                milk.count = 2
                fake.change(space.id, milk.id, {"count": 7})
                assert milk.count == 2
                raise ZeroDivisionError
        assert milk.count == 7


async def test_a_cancelled_block_is_undone() -> None:
    async with open_space() as (fake, space):
        milk = space.db.add({"count": 1})
        await space.db.flush()
        fake.calls.clear()
        with anyio.move_on_after(1):
            async with space.db.batch():
                milk.count = 2
                await anyio.sleep_forever()
        assert milk.count == 1
        assert updates(fake) == 0


async def test_a_client_that_is_closed_in_the_block_says_so() -> None:
    fake = FakeServices()
    async with Client(services=fake) as client:
        await client.halo.create_identity("Alice")
        space = await client.create_space(name="Groceries")
        milk = space.db.add({"count": 1})
        with pytest.raises(ClosedError):
            async with space.db.batch():
                milk.count = 2
                await client.destroy()


async def test_a_batch_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dxos.client.database.BATCH_OBJECTS_MAX", 2)
    async with open_space() as (_, space):
        with pytest.raises(UsageError):
            async with space.db.batch():
                for _ in range(3):
                    space.db.add({})
    assert BATCH_OBJECTS_MAX > UPDATE_OBJECTS_MAX


# --- Many objects ---------------------------------------------------------------------------------------------------


async def test_many_objects_are_added_in_pieces_with_progress() -> None:
    async with open_space() as (fake, space):
        fake.calls.clear()
        seen: list[Progress] = []
        count = 2 * UPDATE_OBJECTS_MAX + 1
        ids = await space.db.add_all([{"n": n} for n in range(count)], progress=seen.append)
        assert updates(fake) == 3
        assert seen == [Progress(one, count) for one in (UPDATE_OBJECTS_MAX, 2 * UPDATE_OBJECTS_MAX, count)]
        objects = fake.network.spaces[space.id].objects
        assert [objects[one].row.data["n"] for one in ids] == list(range(count))


async def test_objects_are_taken_from_a_generator_when_there_is_room() -> None:
    async with open_space() as (fake, space):
        taken: list[int] = []

        async def source() -> AsyncIterator[dict[str, int]]:
            for n in range(UPDATE_OBJECTS_MAX + 5):
                taken.append(updates(fake))
                yield {"n": n}

        fake.calls.clear()
        assert len(await space.db.add_all(source())) == UPDATE_OBJECTS_MAX + 5
        assert taken == [0] * UPDATE_OBJECTS_MAX + [1] * 5


async def test_what_is_added_before_a_bad_value_is_counted() -> None:
    async with open_space() as (_, space):
        values: list[dict[str, Any]] = [{"n": n} for n in range(UPDATE_OBJECTS_MAX + 5)]
        values.append({"n": float("nan")})
        with pytest.raises(InvalidValueError) as raised:
            await space.db.add_all(values)
        assert raised.value.detail["added_count"] == UPDATE_OBJECTS_MAX
        assert await space.db.query().count() == UPDATE_OBJECTS_MAX + 1


async def test_objects_added_inside_a_batch_are_part_of_it() -> None:
    async with open_space() as (fake, space):
        fake.calls.clear()
        async with space.db.batch():
            await space.db.add_all({"n": n} for n in range(UPDATE_OBJECTS_MAX + 5))
        assert updates(fake) == 1
