"""Long work lets everything else have its turn; counted in turns, because time says nothing on a busy machine."""

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import pytest
from trio.testing import MockClock

from dxos.aio import SLICE, Pace
from dxos.client import Client, EchoObject, Space
from dxos.client.state import object_ids
from dxos.echo.mutation import Mutation, Put, SetDeleted
from dxos.echo.rows import ObjectRow
from dxos.services.contract import Edit

pytestmark = pytest.mark.anyio
T = TypeVar("T")
COUNT = 120  # More than one update takes.


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param, {"clock": MockClock(autojump_threshold=0)} if request.param == "trio" else {}


@contextmanager
def slices_of(seconds: float) -> Iterator[None]:
    """Everything that is begun in the block goes in slices of that length."""
    token = SLICE.set(seconds)
    try:
        yield
    finally:
        SLICE.reset(token)


class Turns:
    """Counts the turns of the event loop, and does something in one of them."""

    def __init__(self) -> None:
        self.count = 0
        self.at: dict[int, Any] = {}

    async def run(self) -> None:
        while True:
            await anyio.lowlevel.checkpoint()
            self.count += 1
            if self.count in self.at:
                await self.at[self.count]()


@asynccontextmanager
async def counting() -> AsyncIterator[Turns]:
    turns = Turns()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(turns.run)
        yield turns
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def full_space(slice_s: float = 60.0) -> AsyncIterator[tuple[Client, Space, list[str]]]:
    """A space with objects that this client does not hold."""
    with slices_of(slice_s):
        async with Client(services="local") as client:
            await client.halo.create_identity("Alice")
            space = await client.create_space(name="Groceries")
            ids = [object_ids.next() for _ in range(COUNT)]
            rows = [ObjectRow(object_id, data={"n": n}) for n, object_id in enumerate(ids)]
            for row in rows:
                await change(space, row.object_id, create=row)
            yield client, space, ids


async def change(space: Space, object_id: str, *mutations: Mutation, create: ObjectRow | None = None) -> None:
    """Change an object as somebody else would."""
    await space.db._data.update(space.id, [Edit(object_id, create=create, mutations=mutations)])


def numbers(found: list[EchoObject]) -> list[int]:
    return [one.n for one in found if "n" in one]


async def test_a_pace_rests_only_when_its_time_is_over() -> None:
    with slices_of(0.0):
        assert Pace().is_due
    with slices_of(60.0):
        assert not Pace().is_due
    async with counting() as turns:
        for _ in range(3):
            await Pace().rest()
        assert turns.count


async def test_a_long_answer_is_read_in_slices() -> None:
    async with full_space(slice_s=0.0) as (_, space, _), counting() as turns:
        assert numbers(await space.db.query().run()) == [*range(COUNT)]
        assert turns.count > COUNT


async def test_a_short_answer_is_not() -> None:
    async with full_space() as (_, space, _), counting() as turns:
        assert len(await space.db.query(n=7).run()) == 1
        assert turns.count < COUNT / 10


async def test_what_changes_while_an_answer_is_read_is_not_old_in_it() -> None:
    async with full_space(slice_s=0.0) as (_, space, ids), counting() as turns:
        for turn, n in ((5, COUNT - 1), (COUNT // 2, 3), (COUNT + 5, 5)):
            turns.at[turn] = lambda n=n: change(space, ids[n], Put(("n",), 1000 + n))
        turns.at[7] = lambda: change(space, ids[COUNT - 2], SetDeleted(True))
        found = await space.db.query().run()
        assert turns.count > COUNT + 5
        assert sorted(numbers(found)) == sorted({*range(COUNT - 2)} - {3, 5} | {1003, 1005, 1000 + COUNT - 1})
        again = await space.db.query().run()
        assert numbers(again) == numbers(found)


async def test_a_subscriber_misses_nothing_of_what_changes_while_it_begins() -> None:
    async with full_space(slice_s=0.0) as (_, space, ids), counting() as turns:
        told: list[list[int]] = []
        subscription = space.db.query().subscribe(lambda update: told.append(numbers(list(update.objects))))
        begun = turns.count
        for turn, n in ((5, COUNT - 1), (COUNT // 2, 3), (2 * COUNT, 5)):
            turns.at[begun + turn] = lambda n=n: change(space, ids[n], Put(("n",), 1000 + n))
        while turns.count < begun + 5 * COUNT:
            await anyio.lowlevel.checkpoint()
        assert sorted(told[-1]) == sorted({*range(COUNT - 1)} - {3, 5} | {1003, 1005, 1000 + COUNT - 1})
        subscription.unsubscribe()


async def test_what_is_written_and_read_goes_in_slices() -> None:
    async with full_space(slice_s=0.0) as (client, space, _), counting() as turns:
        serializer = client.create_serializer()

        async def turns_of(work: Awaitable[T]) -> T:
            before = turns.count
            done = await work
            assert turns.count - before > COUNT, work
            return done

        json = await turns_of(serializer.serialize_space(space))
        table = await turns_of(serializer.serialize_table(space, None))
        archive = await turns_of(space.export_archive())
        await turns_of(serializer.deserialize_space(json))
        await turns_of(serializer.deserialize_table(table, "dxn:type:example.com/type/Item:0.1.0"))
        await turns_of(client.spaces.import_archive(archive))
